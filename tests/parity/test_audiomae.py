"""Audio-MAE against its published code: pre-training with both decoders and masks, fine-tuning, tables, schedules.

Every pair of files in the set is a case. Sizes come from tensors, settings from `meta.json`; tolerances are the set's.
Upstream emits visible patches in an order of its own; ours is ascending.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from closeness import close
from safetensors.torch import load_file

from otic import masking
from otic.core.batch import Batch
from otic.core.ramps import Cosine
from otic.core.seeds import generator
from otic.engine.groups import layer_decay_groups
from otic.models import ViT
from otic.models.heads import normalised_patches, patches
from otic.models.positions import sincos
from otic.models.window import log_offsets, window_mask
from otic.objectives import MAE, MAEConfig, Supervised, SupervisedConfig
from otic.objectives.supervised import bce
from otic.recipes import RECIPES
from otic.weights.upstream import audiomae
from otic.weights.upstream.table import rename

TENSOR, LOSS, TABLES = 1e-4, 1e-5, 1e-6


class Case:
    """One model of the set with its inputs and answers."""

    def __init__(self, weights: Path, meta):
        self.name = weights.name.removesuffix(".weights.safetensors")
        self.meta, self.tensors = meta[self.name], load_file(weights)
        self.io = load_file(weights.with_name(f"{self.name}.io.safetensors"))
        self.spec = self.io["input"]
        cfg = self.meta["cfg"]
        names = ("num_heads", "decoder_num_heads")
        self.settings = {"mels": self.spec.shape[3], **{k: cfg[k] for k in names if k in cfg}}
        self.found = audiomae.convert(self.tensors, self.settings, self.name)
        self.pretrained = "pred" in self.io
        self.grid = tuple(
            side // part for side, part in zip(self.spec.shape[2:], self.found.encoder.patch, strict=True)
        )

    def encoder(self):
        encoder = ViT(self.found.encoder)
        encoder.load_state_dict(self.found.state)
        return encoder.eval()

    def objective(self, **more):
        result = MAE(self.encoder(), MAEConfig(decoder=self.found.decoder, **more))
        result.decoder.load_state_dict(self.found.decoder_state)
        return result.eval()

    def prefixes(self, key):
        """Further runs in the io file: `<prefix>.<key>`."""
        return sorted(m[1] for name in self.io if (m := re.fullmatch(rf"(.+)\.{key}", name)))


@pytest.fixture(scope="module")
def ref(golden):
    return golden("audiomae")


@pytest.fixture(scope="module")
def cases(ref):
    meta = json.loads((ref / "meta.json").read_text())
    found = [Case(path, meta) for path in sorted(ref.glob("*.weights.safetensors"))]
    assert {case.pretrained for case in found} == {True, False}, f"{ref} lacks a kind of model"
    return found


@pytest.fixture(scope="module")
def pretrained(cases):
    return [case for case in cases if case.pretrained]


@pytest.fixture(scope="module")
def passed(pretrained):
    """(case, objective, visible, guess, output of each decoder block) for the stored mask, gradients of the loss."""
    result = []
    for case in pretrained:
        ours, outputs = case.objective(), []
        for block in ours.decoder.blocks:
            block.register_forward_hook(lambda m, i, o, kept=outputs: kept.append(o[0] if isinstance(o, tuple) else o))
        visible = case.io["mask"] == 0
        guess = ours.guess(case.spec, visible)
        ours.loss(case.spec, visible, guess).total.backward()
        result.append((case, ours, visible, guess, outputs))
    return result


def whole(encoded):
    return torch.cat((encoded.cls[:, None], encoded.patches), 1)


def ascending(latent, ids):
    """Upstream's latent with its patches in ascending order."""
    order = ids.long().argsort(1)[..., None].expand(-1, -1, latent.shape[-1])
    return torch.cat((latent[:, :1], latent[:, 1:].gather(1, order)), 1)


# --- loading


def test_both_decoders_and_the_classifier_are_told_apart(cases):
    for case in cases:
        assert audiomae.matches(case.tensors) and audiomae.matches({"model": case.tensors, "epoch": 3})
        assert (case.found.decoder is not None) == case.pretrained == case.found.encoder.final_norm
        assert (case.found.head is not None) == (not case.pretrained)
    kinds = {case.found.decoder.decoder for case in cases if case.pretrained}
    assert kinds == {"local" if any("meta_mlp" in n for n in c.tensors) else "global" for c in cases if c.pretrained}


def test_the_way_back_gives_the_same_function(cases):
    for case in cases:
        again = audiomae.revert(case.found)
        assert again.keys() == case.tensors.keys()
        for name, tensor in again.items():
            if name not in ("cls_token", "pos_embed"):
                assert torch.equal(tensor, case.tensors[name]), f"{case.name} {name}"
        close(f"{case.name} pos_embed", again["pos_embed"][:, 1:], case.tensors["pos_embed"][:, 1:], 0)
        first = case.tensors["cls_token"] + case.tensors["pos_embed"][:, :1]
        close(f"{case.name} cls_token", again["cls_token"] + again["pos_embed"][:, :1], first, 0)


# --- pre-training


def test_random_masks_and_their_counts(pretrained):
    for case in pretrained:
        n = case.grid[0] * case.grid[1]
        k = int(n * (1 - case.meta["mask_ratio"]))
        assert case.io["ids_keep"].shape[1] == k, case.name
        visible = masking.lowest(case.io["noise"], k)
        assert torch.equal(visible, case.io["mask"] == 0), case.name
        assert torch.equal(visible.nonzero()[:, 1].view(-1, k), case.io["ids_keep"].long().sort(1).values), case.name
        drawn = MAE(case.encoder(), MAEConfig(hide=case.meta["mask_ratio"])).draw(3, case.grid, generator(0))
        assert drawn.shape == (3, n) and (drawn.sum(1) == k).all()


def test_encoder(passed):
    for case, ours, _, guess, _ in passed:
        close(f"{case.name} patch_embed", ours.net.embed(case.spec), case.io["patch_embed"], TENSOR)
        close(f"{case.name} latent", whole(guess.seen), ascending(case.io["latent"], case.io["ids_keep"]), TENSOR)


def test_decoder_block_by_block(passed):
    for case, ours, visible, guess, outputs in passed:
        first = ours.decoder.fill(guess.seen.patches, visible, case.grid, guess.seen.cls)
        close(f"{case.name} decoder_in", first, case.io["decoder_in"], TENSOR)
        stored = [name for name in case.io if re.fullmatch(r"decoder_block\d+", name)]
        assert stored
        for name in stored:
            close(f"{case.name} {name}", outputs[int(name[13:])], case.io[name], TENSOR)
        close(f"{case.name} decoder_last", outputs[-1], case.io["decoder_last"], TENSOR)
        close(f"{case.name} pred", guess.pixels, case.io["pred"], TENSOR)


def test_windows(passed):
    found = 0
    for case, ours, *_ in passed:
        for name, want in case.io.items():
            if not (m := re.fullmatch(r"block(\d+)_(attn_mask|rel_bias|rel_coords_log)", name)):
                continue
            block, label = ours.decoder.blocks[int(m[1])], f"{case.name} {name}"
            window = tuple(map(min, block.window, case.grid))  # upstream's on a narrower grid; ours pads the grid
            real = (
                torch.arange(block.window[0] * block.window[1]).view(block.window)[: window[0], : window[1]].flatten()
            )
            if m[2] == "attn_mask":
                mask = window_mask(case.grid, window, block.shift_on(case.grid))
                close(label, torch.zeros_like(want) if mask is None else mask, want, 0)
            elif m[2] == "rel_bias":
                close(label, block.attn.bias()[None, :, real[:, None], real], want, TENSOR)
            else:
                close(label, log_offsets(window), want, TABLES)
                assert torch.equal(block.attn.bias.coordinates, log_offsets(block.window))
            found += 1
    if not found:
        pytest.skip("the set shows no window's mask, bias or offsets")


def test_losses_of_both_targets(passed):
    for case, ours, visible, guess, _ in passed:
        cut = normalised_patches(case.spec, ours.net.patch), patches(case.spec, ours.net.patch)
        for normalise, key, targets in zip((True, False), ("loss_normpix", "loss_raw"), cut, strict=True):
            ours.cfg = replace(ours.cfg, normalise=normalise)
            close(f"{case.name} {key}", ours.loss(case.spec, visible, guess).total, case.io[key], LOSS)
            assert torch.equal(ours.targets(case.spec), targets)
            if key in case.meta:
                assert case.io[key].item() == pytest.approx(case.meta[key], rel=1e-6)
        ours.cfg = replace(ours.cfg, normalise=True)
        for name, want in case.io.items():
            if name.startswith("target_patches_first"):
                close(f"{case.name} {name}", cut[1][:, : want.shape[1]], want, TABLES)


def test_gradients_and_their_norm(passed):
    for case, ours, *_ in passed:
        params = dict(ours.net.named_parameters())
        params |= {f"decoder.{name}": p for name, p in ours.decoder.named_parameters()}
        stored = {k.removeprefix("grad."): t for k, t in case.io.items() if k.startswith("grad.")}
        assert stored
        for name, want in rename(stored, audiomae.TABLE, case.name).items():
            close(f"{case.name} grad.{name}", params[name].grad, want, 1e-4 * want.abs().max().item())
        norm = torch.stack([p.grad.norm() for p in params.values()]).norm().item()
        assert norm == pytest.approx(case.meta["grad_norm_normpix"], rel=1e-5), case.name


@torch.no_grad()
def test_strips(pretrained):
    """Every run with masked time steps and frequency rows."""
    for case in pretrained:
        for prefix in case.prefixes("noise_t"):
            io = {k.removeprefix(f"{prefix}."): t for k, t in case.io.items() if k.startswith(f"{prefix}.")}
            hidden, label, ours = case.meta[prefix], f"{case.name} {prefix}", case.objective()
            kept = {"keep_time": 1 - hidden["t"], "keep_freq": 1 - hidden["f"]}
            visible = masking.strips_from(io["noise_t"], io["noise_f"], **kept)
            assert torch.equal(visible, io["mask"] == 0), label
            assert int(visible[0].sum()) == hidden.get("kept_tokens", int(visible[0].sum())), label
            order = (~visible).to(torch.uint8).argsort(dim=1, stable=True)
            assert torch.equal(order.argsort(1), io["ids_restore"].long()), label
            guess = ours.guess(case.spec, visible)
            close(f"{label} latent", whole(guess.seen), io["latent"], TENSOR)
            for normalise, key in ((True, "loss_normpix"), (False, "loss_raw")):
                ours.cfg = replace(ours.cfg, normalise=normalise)
                close(f"{label} {key}", ours.loss(case.spec, visible, guess).total, io[key], LOSS)
            cfg = MAEConfig(mask="strips", hide_time=hidden["t"], hide_freq=hidden["f"])
            drawn = MAE(case.encoder(), cfg).draw(3, case.grid, generator(0))
            assert torch.equal(drawn.sum(1), visible.sum(1)[:1].expand(3)), label


@torch.no_grad()
def test_bfloat16_stays_near(passed):
    for case, ours, visible, *_ in passed:
        half = case.objective().bfloat16().guess(case.spec.bfloat16(), visible)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = ours.guess(case.spec, visible)
        latent = ascending(case.io["latent"], case.io["ids_keep"])
        for kind, guess in (("bf16", half), ("autocast", mixed)):
            for name, got, want in (("latent", whole(guess.seen), latent), ("pred", guess.pixels, case.io["pred"])):
                far = ((got.float() - want).norm() / want.norm()).item()
                assert far <= 0.03, f"{case.name} {name} in {kind}: relative distance {far:.4f}"
        close(
            f"{case.name} loss in autocast", ours.loss(case.spec, visible, mixed).total, case.io["loss_normpix"], 1e-3
        )


# --- fine-tuning


@torch.no_grad()
def test_finetuned_logits_with_and_without_masks(cases):
    for case in cases:
        if case.pretrained:
            continue
        io, tuner = case.io, Supervised(case.encoder(), SupervisedConfig(head=case.found.head)).eval()
        tuner.head.load_state_dict(case.found.head_state)
        logits = tuner.logits(case.spec)
        pooled = tuner.head.norm(tuner.net(case.spec).patches.mean(1))
        close(f"{case.name} pooled", pooled, io["pooled"], TENSOR)
        close(f"{case.name} logits", logits, io["logits"], TENSOR)
        close(f"{case.name} bce_loss", bce(logits, io["target_multihot"], "cell"), io["bce_loss"], LOSS)
        hidden = {run["prefix"]: run for run in case.meta["cases"]}
        assert hidden and sorted(hidden) == case.prefixes("noise_t")
        for prefix, run in hidden.items():
            kept = {"keep_time": 1 - run["mask_t_prob"], "keep_freq": 1 - run["mask_f_prob"]}
            visible = masking.strips_from(io[f"{prefix}.noise_t"], io[f"{prefix}.noise_f"], **kept)
            cells = visible.unflatten(1, case.grid)
            for axis, seen in (("t", cells.any(2)), ("f", cells.any(1))):
                want = io[f"{prefix}.keep_{axis}"].long().sort(1).values
                assert torch.equal(seen.nonzero()[:, 1].view_as(want), want), f"{case.name} {prefix}.keep_{axis}"
            close(f"{case.name} {prefix}.logits", tuner.logits(case.spec, visible), io[f"{prefix}.logits"], TENSOR)
            tuner.cfg = replace(tuner.cfg, hide_time=run["mask_t_prob"], hide_freq=run["mask_f_prob"])
            drawn = tuner.train().draw(case.spec, generator(0))
            assert torch.equal(drawn.sum(1), visible.sum(1)), f"{case.name} {prefix}"
            assert tuner.eval().draw(case.spec, generator(0)) is None  # evaluation hears everything


# --- positions


def test_position_tables(ref, pretrained):
    tables = load_file(ref / "pos_embed.safetensors")
    for name, want in tables.items():
        rows, columns, width = map(int, re.fullmatch(r"grid(\d+)x(\d+)_dim(\d+)", name).groups())
        close(name, sincos((rows, columns), width), want[1:], TABLES)
        assert not want[0].any(), name
        if rows < columns:  # upstream's: the transposed grid
            cfg = replace(pretrained[0].found.encoder, width=width, heads=1, positions="legacy", table=(columns, rows))
            close(f"{name} legacy", ViT(cfg).positions((columns, rows)), want[1:], TABLES)


def test_published_tables_follow_the_legacy_rule(pretrained):
    """The codes of a grid of `patch_hw`, in token order: upstream's is the transposed one."""
    for case in pretrained:
        turned = tuple(case.meta["patch_hw"][::-1])
        legacy = replace(case.found.encoder, positions="legacy", table=turned)
        close(f"{case.name} pos_embed", ViT(legacy).position_table, case.found.state["position_table"], TABLES)
        shape = replace(case.found.decoder, positions="legacy", table=turned)
        fresh = MAE(ViT(legacy), MAEConfig(decoder=shape)).decoder
        want = case.found.decoder_state["position_table"]
        close(f"{case.name} decoder_pos_embed", fresh.positions(case.grid), want, TABLES)
        shorter = (case.grid[0] - 1, case.grid[1])
        assert torch.equal(case.encoder().positions(shorter), want_prefix(case, shorter))


def want_prefix(case, grid):
    return case.tensors["pos_embed"][0, 1 : 1 + grid[0] * grid[1]]


# --- schedules

EPOCH = 10**12  # updates, so that stored parts of an epoch are whole ones to far below the tolerance


def test_learning_rates(ref):
    schedules = json.loads((ref / "schedules.json").read_text())
    found = 0
    for name, run in schedules.items():
        for key in run if isinstance(run, dict) else ():
            if not (m := re.fullmatch(r"rows_epoch_lr_lrScaled([\d.]+)pow(\d+)", key)):
                continue
            ours = Cosine(
                peak=run["lr"],
                warmup=round(run["warmup_epochs"] * EPOCH),
                steps=round(run["epochs"] * EPOCH),
                floor=run["min_lr"],
            )
            for epoch, lr, scaled in run[key]:
                got = ours(round(epoch * EPOCH))
                assert got == pytest.approx(lr, rel=1e-6, abs=1e-15), f"{name} at epoch {epoch}"
                assert got * float(m[1]) ** int(m[2]) == pytest.approx(scaled, rel=1e-6, abs=1e-15), f"{name} {epoch}"
                found += 1
    assert found


def test_layer_decay_groups(ref):
    """Scale and weight decay of every fine-tuned tensor; the published lists leave fixed positions out."""
    schedules = json.loads((ref / "schedules.json").read_text())
    lists = [value for key, value in schedules.items() if key.startswith("layer_decay_groups")]
    assert lists
    for groups in lists:
        upstream = {name: group for group in groups for name in group["params"]}
        depth = 1 + max(int(m[1]) for name in upstream if (m := re.match(r"blocks\.(\d+)\.", name)))
        decay = max(group["lr_scale"] for group in groups if group["lr_scale"] < 1)
        shrink = max(group["weight_decay"] for group in groups)
        with torch.device("meta"):
            encoder = ViT(audiomae_encoder(depth))
            tuner = Supervised(encoder, SupervisedConfig())
        ours = layer_decay_groups(tuner, lr=1.0, decay=decay, weight_decay=shrink, exact=False, stem="lowest")
        names = {name: group for group in ours for name in group["names"]}
        renamed = {}
        for name in upstream:
            (new,) = rename({name: torch.zeros(1)}, audiomae.TABLE, name)
            renamed[new if new.startswith("head.") else f"net.{new}"] = name
        assert names.keys() == renamed.keys()
        for new, name in renamed.items():
            assert names[new]["lr_scale"] == pytest.approx(upstream[name]["lr_scale"], rel=1e-9), name
            assert names[new]["weight_decay"] == upstream[name]["weight_decay"], name


def audiomae_encoder(depth, **more):
    return replace(RECIPES["audiomae_base"]().encoder, depth=depth, final_norm=False, **more)


def test_drop_path(ref):
    schedules = json.loads((ref / "schedules.json").read_text())
    lists = [value for key, value in schedules.items() if key.startswith("drop_path_per_block")]
    assert lists
    for rates in lists:
        with torch.device("meta"):
            encoder = ViT(audiomae_encoder(len(rates), drop_path=rates[-1]))
        assert [block.drop_path for block in encoder.blocks] == pytest.approx(rates, rel=1e-6)


def test_preview_paints_what_was_predicted(passed):
    case, ours, *_ = passed[0]
    batch = Batch(torch.zeros(len(case.spec), 1), torch.ones(len(case.spec), dtype=torch.long), spec=case.spec)
    shown = ours.preview(batch, generator(0))
    assert shown["guess"].shape == case.spec[:, 0].shape == shown["spec"].shape
    assert shown["visible"].shape[1:] == case.grid
