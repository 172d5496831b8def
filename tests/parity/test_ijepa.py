"""I-JEPA against its published code: masks exactly, networks, losses, gradients, three steps, schedules.

Everything is read from the set: sizes from tensors, settings from its json files. Tolerances cover the order of float32
additions (the set's README: 2e-6 for features, 3e-7 for predictions, against float64).
"""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from closeness import close
from safetensors.torch import load_file

from otic.core.ramps import Cosine, Ramp
from otic.masking import Views, ijepa_legacy
from otic.masking.ijepa import ijepa_sizes
from otic.models import ViT
from otic.objectives import JEPA
from otic.objectives.jepa import JEPAConfig
from otic.weights import anyfile
from otic.weights.upstream import ijepa
from otic.weights.upstream.table import rename


@pytest.fixture(scope="module")
def folder(golden):
    return golden("ijepa")


@pytest.fixture(scope="module")
def meta(folder):
    return json.loads((folder / "meta.json").read_text())


# --- masks


def settings(case):
    """Our sampler's arguments from the collator's."""
    return {
        "targets": case["npred"],
        "contexts": case.get("nenc", 1),
        "scale": tuple(case["pred_mask_scale"]),
        "context": tuple(case["enc_mask_scale"]),
        "aspect": tuple(case["aspect_ratio"]),
        "min_keep": case["min_keep"],
        "overlap": case.get("allow_overlap", False),
    }


def replay(case, steps):
    gen = torch.Generator().manual_seed(case["global_seed"])
    for step in range(steps):
        yield ijepa_legacy(case["batch"], tuple(case["grid"]), step=step, gen=gen, **settings(case))


def indices(masks):
    """Token numbers [kinds, clips, tokens] of masks [clips, kinds, n]."""
    masks = masks.transpose(0, 1)
    return masks.nonzero()[:, 2].view(*masks.shape[:2], -1)


def test_masks_exactly(folder, meta):
    stored = load_file(next(iter(sorted(folder.glob("masks*.safetensors")))))
    found = {}
    for name in stored:
        case, step, _ = re.fullmatch(r"(.+)\.step(\d+)\.(enc|pred)", name).groups()
        found[case] = max(found.get(case, 0), int(step) + 1)
    assert found
    for case, steps in found.items():
        for step, views in enumerate(replay(meta[case], steps)):
            for kind, masks in (("enc", views.context), ("pred", views.targets)):
                name = f"{case}.step{step}.{kind}"
                if name in stored:
                    assert torch.equal(indices(masks), stored[name].long()), name


def test_block_sizes_exactly(folder, meta):
    found = json.loads((folder / "block_sizes.json").read_text())
    assert found["fields"] == ["pred_h", "pred_w", "enc_h", "enc_w"]
    frames = sorted(
        {(0.85, 1.0)} | {tuple(case["enc_mask_scale"]) for case in meta.values() if "enc_mask_scale" in case}
    )
    cases = 0
    for name, rows in found.items():
        parts = re.fullmatch(r"\D*(\d+)x(\d+)_([\d.]+)-([\d.]+)_ar([\d.]+)-([\d.]+)", name)
        if parts is None:
            continue
        high, wide, a, b, c, d = (float(part) for part in parts.groups())
        ours = [  # the name does not tell the context's scale
            [
                ijepa_sizes((int(high), int(wide)), step=k, scale=(a, b), aspect=(c, d), context=f)
                for k in range(len(rows))
            ]
            for f in frames
        ]
        assert rows in [[[*target, *context] for target, context in sizes] for sizes in ours], name
        cases += 1
    assert cases


def test_mask_statistics(folder):
    cases = json.loads((folder / "mask_stats.json").read_text())
    assert cases
    for case in cases:
        views = list(replay(case, case["steps"]))
        seen = torch.cat([v.context[:, 0] for v in views])
        union = torch.cat([v.targets.any(1) for v in views])
        target = torch.cat([v.targets.flatten(0, 1) for v in views])
        ours = {}
        for name, masks in (("context_keep", seen), ("target_block", target), ("target_union", union)):
            share = masks.double().mean(1)
            ours[f"{name}_ratio"] = {"mean": share.mean(), "min": share.min(), "max": share.max()}
        for name, masks in (("context", seen), ("target", target)):
            image = masks.view(-1, *case["grid"]).double().mean(0)
            for axis, line in (("row", image.mean(1)), ("col", image.mean(0))):
                ours[f"{name}_prob_by_{axis}"], ours[f"{name}_prob_last_{axis}"] = line, line[-1]
        compared = 0
        for name, mine in ours.items():
            want = case.get(name, {})
            pairs = (
                [(f"{name}.{k}", mine[k], v) for k, v in want.items()]
                if isinstance(want, dict)
                else [(name, mine, want)]
            )
            for label, got, value in pairs:
                close(f"{case['grid']} {label}", got, torch.tensor(value, dtype=torch.float64), 6e-5)  # four digits
                compared += 1
        assert compared


# --- networks


class Model:
    """One stored model: its objective, its inputs and outputs."""

    def __init__(self, path, meta):
        self.name = path.name.removesuffix(".weights.safetensors")
        self.path, self.meta = path, meta[self.name]
        self.io = load_file(path.with_name(f"{self.name}.io.safetensors"))
        self.settings = {name: self.meta[name] for name in ("num_heads", "predictor_heads")}
        self.settings["mel_bins"] = self.io["input"].shape[3]
        self.found = ijepa.read(path, self.settings)

    def objective(self, **cfg):
        found = self.found
        objective = JEPA(ViT(found.encoder), JEPAConfig(predictor=found.predictor, **cfg))
        objective.student.load_state_dict(found.context)
        objective.teacher.load_state_dict(found.target)
        objective.predictor.load_state_dict(found.predictor_state)
        return objective

    @property
    def views(self):
        n = self.io["encoder_full"].shape[1]

        def masks(stored):
            assert bool((stored.diff(dim=-1) > 0).all()), "ascending"
            empty = torch.zeros(*stored.shape[:2], n, dtype=torch.bool)
            return empty.scatter(2, stored.long(), True).transpose(0, 1)

        return Views(masks(self.io["masks_enc"]), masks(self.io["masks_pred"]))


@pytest.fixture(scope="module")
def models(folder, meta):
    paths = sorted(folder.glob("*.weights.safetensors"))
    assert paths, f"{folder} lacks *.weights.safetensors"
    return [Model(path, meta) for path in paths]


@torch.no_grad()
def test_encoders(models):
    for model in models:
        objective, spec = model.objective(normalise=False), model.io["input"]
        close(f"{model.name} encoder_full", objective.student(spec).patches, model.io["encoder_full"], 1e-5)
        close(f"{model.name} target_full", objective.teacher(spec).patches, model.io["target_full"], 1e-5)
        views = model.views
        tokens = objective.student.tokens(spec)[0].repeat(views.context.shape[1], 1, 1)
        seen = objective.student.encode(tokens, views.context.transpose(0, 1).flatten(0, 1)).patches
        close(f"{model.name} context", seen, model.io["context"], 1e-5)


def test_predictions_losses_and_gradients(models):
    for model in models:
        for kind in ("smooth_l1", "mse"):
            objective, spec, views = model.objective(loss=kind), model.io["input"], model.views
            passed = objective.passed(spec, views)
            close(f"{model.name} pred", passed.guess, model.io["pred"], 5e-6)
            close(f"{model.name} target", passed.targets, model.io["target"], 1e-5)
            loss = objective.losses(passed).total
            stored = "loss_smooth_l1" if kind == "smooth_l1" else "loss_l2"
            close(f"{model.name} {stored}", loss, model.io[stored], 1e-6)
            if kind == "smooth_l1":
                loss.backward()
                gradients(model, objective)
            assert all(p.grad is None for p in objective.teacher.parameters())


def gradients(model, objective):
    for part, table in (("encoder", ijepa.ENCODER), ("predictor", ijepa.PREDICTOR)):
        prefix = f"grad.{part}."
        stored = {k.removeprefix(prefix): t for k, t in model.io.items() if k.startswith(prefix)}
        assert stored, f"{model.name}: no {prefix}*"
        module = objective.student if part == "encoder" else objective.predictor
        ours = dict(module.named_parameters())
        for name, want in rename(stored, table, prefix).items():
            close(f"{model.name} {prefix}{name}", ours[name].grad, want, 1e-4 * want.abs().max().item())


def test_a_few_steps(models):
    for model in models:
        rows, spec, views = model.meta["trajectory"], model.io["input"], model.views
        momenta = [row["momentum"] for row in rows]
        ramp = Ramp(momenta[0], momenta[-1], steps=max(1, len(rows) - 1))
        objective = model.objective(loss="smooth_l1", ema=ramp)
        params = [p for p in objective.parameters() if p.requires_grad]
        # upstream spares one-dimensional tensors, and only these: its mask token [1, 1, w] decays
        groups = [{"params": [p for p in params if p.ndim > 1]}, {"params": [p for p in params if p.ndim == 1]}]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
        for k, row in enumerate(rows):
            assert ramp(k) == pytest.approx(row["momentum"], rel=1e-9)
            for group, decay in zip(optimizer.param_groups, (row["wd"], 0.0), strict=True):
                group["lr"], group["weight_decay"] = row["lr"], decay
            loss = objective.losses(objective.passed(spec, views)).total
            assert loss.item() == pytest.approx(row["loss"], abs=2e-6), f"{model.name}, step {k}"
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            objective.after_step(k + 1)
        with torch.no_grad():
            close(f"{model.name} after.encoder", objective.student(spec).patches, model.io["after.encoder_full"], 5e-5)
            close(f"{model.name} after.target", objective.teacher(spec).patches, model.io["after.target_full"], 5e-5)
            final = objective.losses(objective.passed(spec, views)).total
        assert final.item() == pytest.approx(model.meta["final_loss"], abs=2e-6)


@torch.no_grad()
def test_bfloat16_stays_near(models):
    for model in models:
        objective, spec = model.objective(), model.io["input"]
        with torch.autocast("cpu", torch.bfloat16):
            passed = objective.passed(spec, model.views)
            loss = objective.losses(passed).total
        for name, got, key in (("pred", passed.guess, "pred"), ("target", passed.targets, "target")):
            limit = 2 * model.meta["bf16_vs_fp64"][key]  # largest difference of one run; another order doubles it
            close(f"{model.name} {name} in bf16", got.float(), model.io[key], limit)
        assert loss.dtype == torch.float32
        assert F.smooth_l1_loss(passed.guess.float(), passed.targets).item() == pytest.approx(
            model.io["loss_smooth_l1"].item(), rel=5e-3
        )


# --- files and schedules


def test_layouts_agree(models, tmp_path):
    """The nested pickle of a training run reads like the flat file; both encoders can be had."""
    for model in models:
        flat = load_file(model.path)
        nested = {
            part: {f"module.{k.removeprefix(part + '.')}": t for k, t in flat.items() if k.startswith(part + ".")}
            for part in ijepa.PARTS
        }
        torch.save({**nested, "opt": {}, "epoch": 3, "loss": 0.1}, tmp_path / "run.pth.tar")
        again = ijepa.read(tmp_path / "run.pth.tar", model.settings)
        assert again.encoder == model.found.encoder and again.predictor == model.found.predictor
        for name in ("target", "context", "predictor_state"):
            ours, theirs = getattr(again, name), getattr(model.found, name)
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        for path in (model.path, tmp_path / "run.pth.tar"):
            assert anyfile.read(path).card["layout"] == "I-JEPA"
        spec = model.io["input"]
        for which, key in (("target", "target_full"), ("context", "encoder_full")):
            loaded = ijepa.loaded(flat, model.settings, model.path, which=which)
            with torch.no_grad():
                close(f"{model.name} {which}", loaded.encoder(spec).patches, model.io[key], 1e-5)


def test_schedules(folder):
    want = json.loads((folder / "schedules.json").read_text())
    steps = want["total_steps"]
    rate = Cosine(
        peak=want["ref_lr"], steps=steps, warmup=want["warmup_steps"], floor=want["final_lr"], first=want["start_lr"]
    )
    decay, ema = Cosine(peak=want["wd"][0], floor=want["wd"][1], steps=steps), Ramp(*want["ema"], steps=steps)
    for step, lr, wd, momentum in want["rows_step_lr_wd_momentumUsedThatStep"]:
        assert rate(step) == pytest.approx(lr, rel=1e-9), f"learning rate at {step}"
        assert decay(step) == pytest.approx(wd, rel=1e-9), f"weight decay at {step}"
        assert ema(step - 1) == pytest.approx(momentum, rel=1e-12), f"momentum at {step}"
