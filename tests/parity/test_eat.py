"""EAT against its published code: loading, features, the pre-training step, fine-tuning (front-end and masks apart).

Everything is read from the set: sizes from tensors, settings from the checkpoints' own configuration.
Tolerances are the set's: they cover the order of float32 additions, no more.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from closeness import close
from safetensors.torch import load_file

from otic.core.ema import ema_update
from otic.core.errors import WeightsError
from otic.core.ramps import Cosine, Ramp
from otic.engine.adam import FairseqAdam
from otic.engine.groups import layer_decay_groups, scaled
from otic.models import ViT
from otic.models.heads import Head
from otic.objectives import EAT, EATConfig, Supervised, SupervisedConfig
from otic.objectives.supervised import bce, cross_entropy
from otic.weights.pickles import load_pickle
from otic.weights.upstream import eat
from otic.weights.upstream.table import rename


class Set:
    """One reference set: its checkpoints by what they hold."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = sorted(folder.glob("*.pt")) + sorted(p.parent for p in folder.glob("*/model.safetensors"))
        self.models = {path: eat.read(path) for path in self.files}
        self.values = json.loads((folder / "values.json").read_text())

    def where(self, test):
        found = [path for path, model in self.models.items() if test(model)]
        assert found, f"{self.folder} lacks such a checkpoint"
        return found

    @property
    def pretrained(self):
        """The pre-trained fairseq file: only this layout keeps the teacher."""
        return self.where(lambda m: m.teacher is not None)[0]

    @property
    def plain(self):
        return self.where(lambda m: m.head is None)

    @property
    def tuned(self):
        return self.where(lambda m: m.head is not None)

    def tensors(self, what):
        found = sorted(self.folder.glob(f"{what}*.safetensors"))
        assert found, f"{self.folder} lacks {what}*.safetensors"
        return load_file(found[0])

    def encoder(self, path):
        encoder = ViT(self.models[path].encoder)
        encoder.load_state_dict(self.models[path].state)
        return encoder.eval()

    def settings(self):
        return load_pickle(self.pretrained)["cfg"]


@pytest.fixture(scope="module")
def ref(golden):
    return Set(golden("eat"))


# --- loading


def test_all_four_layouts_are_told_apart(ref):
    kinds = {(path.suffix == ".pt", model.head is not None) for path, model in ref.models.items()}
    assert kinds == {(True, False), (True, True), (False, False), (False, True)}
    half = [p for p in ref.tuned if p.suffix == ".pt"]
    raw = load_pickle(half[0])
    assert any(t.dtype == torch.float16 for t in raw["model"].values())
    for model in ref.models.values():
        states = (model.state, model.teacher or {}, model.decoder_state, model.head_state)
        assert all(t.dtype == torch.float32 for state in states for t in state.values())
    assert any(isinstance(value, float) for value in raw["extra_state"].values())  # the numpy scalars, as numbers


def test_every_unknown_and_missing_tensor_is_named(ref):
    raw = load_pickle(ref.pretrained)
    for name in raw["model"]:
        lacking = {k: v for k, v in raw["model"].items() if k != name}
        if name == "_ema":
            continue
        with pytest.raises(WeightsError, match=r"missing|none of its tensors"):
            eat.convert(lacking, raw["cfg"])
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors did not map \(first: 'blocks.0.attn.bogus'\)"):
        eat.convert({**raw["model"], "blocks.0.attn.bogus": torch.zeros(1)}, raw["cfg"])
    ema = dict(raw["model"]["_ema"])
    ema.pop("blocks.0.norm1.weight")
    with pytest.raises(WeightsError, match=r"_ema.*missing \(first: 'blocks.0.norm1.weight'\)"):
        eat.convert({**raw["model"], "_ema": ema}, raw["cfg"])
    wrong = {**raw["model"], "blocks.0.attn.proj.bias": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"'blocks.0.attn.proj.bias' has the shape \(3,\)"):
        eat.convert(wrong, raw["cfg"])


# --- encoder


def cases(features):
    names = {re.fullmatch(r"(.+)\.input", name)[1] for name in features if name.endswith(".input")}
    assert names
    return sorted(names)


def whole(encoded):
    return torch.cat((encoded.cls[:, None], encoded.patches), 1)


@torch.no_grad()
def test_encoder_features_at_every_length(ref):
    features = ref.tensors("encoder_features")
    for path in ref.plain:
        encoder = ref.encoder(path)
        for case in cases(features):
            encoded = encoder(features[f"{case}.input"], taps=True)
            close(f"{path.name} {case}.x", whole(encoded), features[f"{case}.x"], 2e-5)
            close(f"{path.name} {case} last layer", encoded.layers[-1], features[f"{case}.x"], 2e-5)
            for i, raw in enumerate(encoded.ffn):
                if f"{case}.ffn.{i}" in features:
                    close(f"{path.name} {case}.ffn.{i}", raw, features[f"{case}.ffn.{i}"], 2e-5)


@torch.no_grad()
def test_bfloat16_stays_near(ref):
    features, path = ref.tensors("encoder_features"), ref.pretrained
    exact, half = ref.encoder(path), ref.encoder(path).bfloat16()
    for case in cases(features):
        spec, want = features[f"{case}.input"], features[f"{case}.x"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = whole(exact(spec))
        for name, got in (("bf16", whole(half(spec.bfloat16()))), ("autocast", mixed)):
            far = ((got.float() - want).norm() / want.norm()).item()
            assert far <= 0.02, f"{case} in {name}: relative distance {far:.4f}"


# --- pre-training


def objective(ref):
    """The objective in the state of the pre-trained file, its settings from that file's configuration."""
    model, settings = ref.models[ref.pretrained], ref.settings()["model"]
    image, scale = settings["modalities"]["image"], settings["loss_scale"]
    assert settings["instance_norm_target_layer"] and settings["layer_norm_targets"]
    cfg = EATConfig(
        keep=1 - image["mask_prob"],
        adjust=float(image["mask_prob_adjust"]),
        block=image["mask_length"],
        noise=float(image["mask_noise_std"]),
        clones=settings["clone_batch"],
        target="block" if settings["end_of_block_targets"] else "ffn",
        target_layers=settings["average_top_k_layers"],
        utterance="sum",
        utterance_weight=float(settings["cls_loss"]),
        loss_scale=None if scale is None else scale * model.encoder.width,  # theirs is of sums over channels
        ema=Ramp(float(settings["ema_decay"]), float(settings["ema_end_decay"]), settings["ema_anneal_end_step"]),
        decoder=model.decoder,
    )
    result = EAT(ref.encoder(ref.pretrained).train(), cfg)
    result.teacher.load_state_dict(model.teacher)
    result.decoder.load_state_dict(model.decoder_state)
    return result


def stored_noise(data):
    """`mask_tokens` at the patches they stood at."""
    k = data["ids_keep"].shape[1]
    order = data["ids_restore"].argsort(1)[:, k:, None].expand(-1, -1, data["mask_tokens"].shape[-1])
    return torch.zeros_like(data["decoder_input"]).scatter(1, order, data["mask_tokens"])


@pytest.fixture(scope="module")
def passed(ref):
    """Forward and backward with the stored mask and noise."""
    data, ours = ref.tensors("pretrain_forward"), objective(ref)
    visible = data["mask"] == 0
    views = ours.views(data["source"], visible, stored_noise(data))
    loss = ours.losses(data["source"], visible, views)
    loss.total.backward()
    return data, ours, visible, views, loss


def test_pretraining_forward(passed):
    data, _, visible, views, _ = passed
    close("targets", views.targets, data["targets"], 3e-5)
    close("cls_target", views.targets.mean(1), data["cls_target"], 3e-5)
    close("cls_pred", views.seen.cls, data["cls_pred"], 3e-5)
    close("decoder_input", views.filled, data["decoder_input"], 3e-5)
    close("decoder_out", views.guess, data["decoder_out"], 3e-5)
    # upstream emits visible patches in an order of its own; ours is ascending
    order = data["ids_keep"].argsort(1)
    assert torch.equal(data["ids_keep"].gather(1, order), visible.nonzero()[:, 1].view_as(order))
    want = data["student_encoder_out"][:, 1:]
    close("student", views.seen.patches, want.gather(1, order[..., None].expand_as(want)), 3e-5)


@torch.no_grad()
def test_teacher_layer_by_layer(passed):
    data, ours, *_ = passed
    encoded = ours.teacher(data["source"], taps=True)
    found = 0
    for i in range(ours.teacher.depth):
        if f"teacher_block_out.{i}" in data:
            close(f"teacher_block_out.{i}", encoded.layers[i], data[f"teacher_block_out.{i}"], 3e-5)
            close(f"teacher_ffn.{i}", encoded.ffn[i][:, 1:], data[f"teacher_ffn.{i}"], 3e-5)
            found += 1
    assert found


def test_losses_in_both_semantics(ref, passed):
    data, ours, visible, views, loss = passed
    want, width = ref.values["scalars"], data["targets"].shape[-1]
    scale = ours.cfg.loss_scale or width**0.5
    rows = ours.cfg.utterance_weight * len(visible)

    def near(got, name):
        return float(torch.as_tensor(got).detach()) == pytest.approx(want[name], rel=1e-5)

    assert near(loss.parts["frame"], "frame_mse_mean")
    assert near(loss.parts["utterance"], "cls_mse_mean")
    assert near(loss.total, "loss_per_sample")
    hidden = int((~visible).sum())
    assert hidden == want["sample_size"]
    assert near(hidden * scale * loss.parts["frame"].double(), "loss_frame_sum")
    assert near(hidden * scale * rows * loss.parts["utterance"].double(), "loss_cls_sum")
    assert near(1 - visible.float().mean(), "masked_pct")
    assert near(loss.parts["pred_std"], "pred_var")
    assert near(loss.parts["target_std"], "target_var")
    # the published sum is the true mean with lambda times as many rows
    published = ours.cfg
    ours.cfg = replace(published, utterance="mean", utterance_weight=published.utterance_weight * len(visible))
    mean = ours.losses(data["source"], visible, views).total
    ours.cfg = published
    assert near(mean, "loss_per_sample")


def step_tensors(ref, kind):
    stored = {k.removeprefix(kind): t for k, t in ref.tensors("pretrain_step").items() if k.startswith(kind)}
    assert stored, f"no {kind}* is stored"
    return rename(stored, eat.FAIRSEQ, kind)


def trained(ours):
    """Parameters under the names of `eat.FAIRSEQ`."""
    decoder = {f"decoder.{name}": p for name, p in ours.decoder.named_parameters()}
    return {**dict(ours.student.named_parameters()), **decoder}


def test_gradient_of_every_tensor(ref, passed):
    want = step_tensors(ref, "grad.")
    params = trained(passed[1])
    assert params.keys() == want.keys()
    for name, p in params.items():
        close(f"grad.{name}", p.grad, want[name], 1e-4 * want[name].abs().max().item())
    norm = torch.stack([p.grad.norm() for p in params.values()]).norm().item()
    clip = ref.settings()["optimization"]["clip_norm"]
    assert norm == pytest.approx(ref.values["scalars"]["grad_norm"], rel=1e-5)
    assert min(1.0, clip / (norm + 1e-6)) == pytest.approx(ref.values["scalars"]["clip_coef"], rel=1e-5)


def test_optimizer_step_and_teacher_update(ref):
    ours, scalars = objective(ref), ref.values["scalars"]
    settings = ref.settings()["optimizer"]["groups"]["default"]["optimizer"]
    params = trained(ours)
    for name, grad in step_tensors(ref, "grad.").items():
        params[name].grad = grad * scalars["clip_coef"]
    FairseqAdam(
        params.values(),
        lr=scalars["lr"],
        betas=tuple(settings["adam_betas"]),
        eps=settings.get("adam_eps", 1e-8),
        weight_decay=settings["weight_decay"],
    ).step()
    after = step_tensors(ref, "student_after.")
    assert after.keys() == params.keys()
    for name, want in after.items():
        close(f"student_after.{name}", params[name], want, 2e-6)
    ours.after_step(1)
    teacher = dict(ours.teacher.named_parameters())
    moved = step_tensors(ref, "ema_after.")
    assert teacher.keys() == moved.keys()
    for name, want in moved.items():
        close(f"ema_after.{name}", teacher[name], want, 2e-6)


def test_ema_rule_with_the_stored_decay(ref):
    teacher, student = objective(ref).teacher, ref.encoder(ref.pretrained)
    after = {k: v for k, v in step_tensors(ref, "student_after.").items() if not k.startswith("decoder.")}
    student.load_state_dict({**student.state_dict(), **after})
    ema_update(teacher, student, decay=ref.values["scalars"]["ema_decay_update1"])
    for name, want in step_tensors(ref, "ema_after.").items():
        close(name, dict(teacher.named_parameters())[name], want, 2e-6)


# --- schedules

EMAS = {"base": Ramp(0.9998, 0.99999, steps=100_000), "large": Ramp(0.9998, 0.99999, steps=150_000)}
RATES = {  # recipe -> (peak, updates, warm-up, lowest), as published
    "pretrain_base": Cosine(peak=5e-4, steps=400_000, warmup=53_333),
    "pretrain_large": Cosine(peak=4e-4, steps=400_000, warmup=53_333),
    "finetune_as2m": Cosine(peak=5e-5, steps=300_000, warmup=30_000, floor=1e-6, first=1e-6),
    "finetune_as20k": Cosine(peak=5e-5, steps=40_000, warmup=4_000, floor=1e-6, first=1e-6),
    "finetune_esc50": Cosine(peak=5e-5, steps=4_000, warmup=400, floor=1e-6, first=1e-6),
    "finetune_spc2": Cosine(peak=2e-4, steps=40_000, warmup=4_000, floor=1e-6, first=1e-6),
}


def schedule(name, decay, depth):
    """The published schedule that a name in `values.json` stands for; None if it is of no published recipe."""
    if name.startswith("ema_decay_"):
        return EMAS.get(name.removeprefix("ema_decay_"))
    recipe, block = re.fullmatch(r"(\w+?)_lr(?:_block(\d+))?", name).groups()
    return scaled(RATES[recipe], 1.0 if block is None else decay ** (depth - int(block))) if recipe in RATES else None


def own_schedule(name, ref):
    """The one of the checkpoint's own configuration, for a recipe that is not the published one."""
    if name.startswith("ema_decay_"):
        return objective(ref).cfg.ema
    assert name.startswith("pretrain_"), f"{name} is of no recipe that this test knows"
    settings = ref.settings()
    group = settings["optimizer"]["groups"]["default"]
    warmup = group["lr_scheduler"]["warmup_updates"]
    return Cosine(peak=group["lr_float"], steps=settings["optimization"]["max_update"], warmup=warmup)


def follows(ours, points):
    return ours and all(ours(int(step)) == pytest.approx(want, rel=1e-9, abs=1e-18) for step, want in points.items())


def test_schedules(ref):
    decay = float(json.loads((ref.folder / "finetune_param_groups.json").read_text())["layer_decay"])
    for name, points in ref.values["schedules"].items():
        if any(follows(schedule(name, decay, depth), points) for depth in (12, 24)):  # of a base or a large model
            continue
        ours = own_schedule(name, ref)
        for step, want in points.items():
            assert ours(int(step)) == pytest.approx(want, rel=1e-9, abs=1e-18), f"{name} at {step}"
    assert objective(ref).cfg.ema(1) == pytest.approx(ref.values["scalars"]["ema_decay_update1"], rel=1e-12)


# --- fine-tuning

MODES = {"cls_token": "cls", "mean_pooling": "mean", "lin_softmax": "lin_softmax"}


@torch.no_grad()
def test_finetuned_logits_in_every_mode(ref):
    data = ref.tensors("finetune_logits")
    checked = set()
    for path in ref.tuned:
        model = ref.models[path]
        encoded = ref.encoder(path)(data["input"])
        upstream = {"logits_hf": "cls"} if path.is_dir() else {f"logits_{m}": read for m, read in MODES.items()}
        for name, read in upstream.items():
            head = Head(model.encoder.width, replace(model.head, read=read))
            head.load_state_dict(model.head_state)
            close(f"{path.name} {name}", head(encoded), data[name], 2e-5)
            checked.add(name)
    assert checked == {name for name in data if name.startswith("logits_")}


def test_classification_losses(ref):
    data, want = ref.tensors("finetune_logits"), ref.values["scalars"]
    logits, many, one = data["logits_cls_token"], data["multilabel_targets"], data["onehot_targets"]
    assert float(bce(logits, many)) == pytest.approx(want["ft_bce_loss"], rel=1e-5)
    assert float(bce(logits, many) * many.sum()) == pytest.approx(want["ft_bce_sum"], rel=1e-5)
    assert float(many.sum()) == pytest.approx(want["ft_bce_sample_size"], rel=1e-6)
    assert len(one) == want["ft_ce_sample_size"]
    for name, value in want.items():
        if found := re.fullmatch(r"ft_ce_(?:label_smoothing_([\d.]+)_)?sum", name):
            ours = cross_entropy(logits, one, smoothing=float(found[1] or 0)) * len(one)
            assert float(ours) == pytest.approx(value, rel=1e-5), name


def test_learning_rate_and_decay_of_every_finetuned_tensor(ref):
    table = json.loads((ref.folder / "finetune_param_groups.json").read_text())
    model = ref.models[next(p for p in ref.tuned if not p.is_dir())]
    drop = table["drop_path_per_block"]
    depth = len(drop)
    encoder = ViT(replace(model.encoder, depth=depth, drop_path=drop[-1]))
    assert [block.drop_path for block in encoder.blocks] == pytest.approx(drop)
    tuner = Supervised(encoder, SupervisedConfig(head=model.head))
    decayed = table["params"]["head.weight"]["weight_decay_applied"]
    groups = layer_decay_groups(
        tuner, lr=table["peak_lr_base"], decay=float(table["layer_decay"]), weight_decay=decayed
    )
    ours = {name: group for group in groups for name in group["names"]}
    names = {k: torch.zeros(1) for k in table["params"]}
    renamed = rename_with_origin(names)
    assert ours.keys() == renamed.keys()
    for name, upstream in renamed.items():
        assert ours[name]["lr"] == pytest.approx(table["params"][upstream]["peak_lr"], rel=1e-9), upstream
        assert ours[name]["weight_decay"] == table["params"][upstream]["weight_decay_applied"], upstream


def rename_with_origin(names):
    """Our parameter name in `Supervised` -> upstream's."""
    result = {}
    for upstream in names:
        (new,) = rename({upstream: torch.zeros(1)}, eat.FINETUNED, upstream)
        result[new if new.startswith("head.") else f"net.{new}"] = upstream
    return result
