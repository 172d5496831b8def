"""Contrastive losses of LAION-CLAP's code: values and gradients."""

import pytest
import torch
from safetensors.torch import load_file

from otic.models.contrast import crossed, symmetric

TOLERANCE = 1e-5


@pytest.fixture
def data(golden):
    tensors = load_file(golden("clap") / "loss.safetensors")
    return {name: t.clone().requires_grad_("." not in name) for name, t in tensors.items()}


def near(name, ours, wanted):
    gap = (ours - wanted).abs().max().item()
    assert gap <= TOLERANCE * max(1.0, wanted.abs().max().item()), f"{name}: differs by {gap:.2g}"


def check_gradients(prefix, data, renamed):
    for name, wanted in data.items():
        if name.startswith(f"{prefix}.grad_"):
            of = name.removeprefix(f"{prefix}.grad_")
            near(name, data[renamed.get(of, of)].grad, wanted)


def test_symmetric_cross_entropy(data):
    loss = symmetric(data["log_scale_a"].exp() * data["audio"] @ data["text"].T)
    near("clip.loss", loss, data["clip.loss"])
    loss.backward()
    check_gradients("clip", data, {"log_scale": "log_scale_a"})


def towers(data):
    scales = data["log_scale_a"].exp(), data["log_scale_t"].exp()
    return data["audio"], data["text"], data["audio_mlp"], data["text_mlp"], *scales


def test_crossed_with_the_heads(data):
    loss = crossed(*towers(data))
    near("mlp.loss", loss, data["mlp.loss"])
    loss.backward()
    check_gradients("mlp", data, {})


def test_crowded_pairs_weigh_more(data):
    weighted = [name for name in data if name.startswith("mlp_weighted_kappa")]
    assert weighted
    for name in weighted:
        kappa = float(name.removeprefix("mlp_weighted_kappa").removesuffix(".loss"))
        near(name, crossed(*towers(data), kappa), data[name])


def test_every_key_is_looked_at(data):
    known = {"audio", "text", "audio_mlp", "text_mlp", "log_scale_a", "log_scale_t"}
    odd = [
        n for n in data if n not in known and n.split(".")[0].split("_kappa")[0] not in ("clip", "mlp", "mlp_weighted")
    ]
    assert not odd, f"not compared: {odd}"
    assert isinstance(data["audio"], torch.Tensor)
