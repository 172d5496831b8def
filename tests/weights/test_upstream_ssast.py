"""SSAST's and AST's layouts at other sizes, from random weights; the golden files are in tests/parity."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import WeightsError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.heads import Head, HeadConfig
from otic.weights.anyfile import read
from otic.weights.catalogue import CATALOGUE
from otic.weights.upstream import ssast, ssast_write

PATCH = ViTConfig(width=64, depth=2, heads=1, norm="pre", dist=True, positions="learned", table=(6, 8))
FRAME = replace(PATCH, patch=(2, 128), table=(48, 1))
TUNED = replace(PATCH, stride=(10, 10), table=(12, 12))  # 128 frames
CASES = pytest.mark.parametrize("cfg", [PATCH, FRAME], ids=["patch", "frame"])


def encoder(cfg):
    return ViT(cfg, generator(str(cfg)))


def heads(cfg):
    """A state of the objective, each tensor random."""
    gen, w, pixels = generator("heads"), cfg.width, cfg.patch[0] * cfg.patch[1]
    layers = {"0.weight": (w, w), "0.bias": (w,), "2.weight": (pixels, w), "2.bias": (pixels,)}
    shapes = {"mask": (w,)} | {f"{h}.{n}": s for h in ("contrast", "generate") for n, s in layers.items()}
    return {name: torch.randn(shape, generator=gen) for name, shape in shapes.items()}


def classifier(width=64, classes=5):
    return Head(width, HeadConfig(classes=classes), generator("classifier"))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@CASES
@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("half", [False, True])
def test_pretrained_round_trip(cfg, prefix, half, tmp_path):
    net, mspm = encoder(cfg), heads(cfg)
    tensors = ssast_write.to_torch(net, mspm, prefix=prefix)
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    torch.save(tensors, tmp_path / "any.bin")
    loaded = read(tmp_path / "any.bin")
    found = ssast.convert(tensors)
    assert loaded.encoder.cfg == found.encoder == cfg and found.head is None
    rounded = (lambda t: t.half().float()) if half else (lambda t: t)
    same(found.state, {name: rounded(t) for name, t in net.state_dict().items()})
    same(found.mspm_state, {name: rounded(t) for name, t in mspm.items()})
    assert {f"mspm.{name}" for name in mspm} == loaded.extra.keys() and loaded.card["labels_used"] == "none"
    same(ssast_write.to_torch(loaded.encoder, found.mspm_state, prefix=prefix), {
        name: t if name.endswith("dim") else rounded(t) for name, t in tensors.items()
    })  # fmt: skip


@CASES
def test_what_upstream_counts_along_frequency_first(cfg):
    """One pixel, one position, one output of a head, found at upstream's place."""
    net, mspm = encoder(cfg), heads(cfg)
    tensors = ssast_write.to_torch(net, mspm, prefix="")
    (time, freq), (high, wide) = cfg.table, cfg.patch
    t, f, i, j = 5, min(1, freq - 1), 1, 7
    assert torch.equal(tensors["v.pos_embed"][0, 2 + f * time + t], net.position_table[t * freq + f])
    assert torch.equal(tensors["v.patch_embed.proj.weight"][:, 0, j, i], net.proj.weight[:, 0, i, j])
    assert torch.equal(tensors["cpredlayer.2.weight"][j * high + i], mspm["contrast.2.weight"][i * wide + j])
    assert torch.equal(tensors["gpredlayer.2.bias"][j * high + i], mspm["generate.2.bias"][i * wide + j])
    assert int(tensors["p_input_tdim"]) == time * high and int(tensors["p_input_fdim"]) == 128


def test_the_key_set_of_the_published_files():
    names = ssast_write.to_torch(encoder(PATCH), heads(PATCH)).keys()
    assert len(names) == 22 + 12 * 2 and all(name.startswith("module.") for name in names)
    tuned = ssast_write.to_torch(encoder(TUNED), head=classifier().state_dict())
    gone = {n for n in names if re.search("p_input|mask_embed|predlayer", n)}
    assert tuned.keys() == (names - gone) | {f"module.mlp_head.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")}
    assert not tuned["module.v.head.weight"].any() and tuned["module.v.head_dist.weight"].shape == (1000, 64)


def test_fine_tuned_round_trip(tmp_path):
    net, head = encoder(TUNED), classifier()
    torch.save(ssast_write.to_torch(net, head=head.state_dict()), tmp_path / "tuned.pth")
    loaded = read(tmp_path / "tuned.pth")
    assert loaded.encoder.cfg == TUNED and "guessed" in loaded.card["stride"]
    same({k.removeprefix("head."): t for k, t in loaded.extra.items()}, head.state_dict())
    assert loaded.extra_config["head"]["read"] == "cls_dist" and loaded.extra_config["head"]["eps"] == 1e-5
    assert loaded.card["labels_used"] == "those of its fine-tuning"


@pytest.mark.parametrize(("classes", "mean"), [(35, -6.845978), (50, -6.6268077), (527, -4.2677393)])
def test_statistics_follow_the_classes(classes, mean, tmp_path):
    torch.save(ssast_write.to_torch(encoder(TUNED), head=classifier(classes=classes).state_dict()), tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").frontend.mean == mean


@pytest.mark.parametrize(
    ("positions", "patch", "stride"),
    [
        (1212, (16, 16), (10, 10)),
        (850, (16, 16), (12, 12)),
        (657, (16, 16), (14, 14)),
        (512, (16, 16), (16, 16)),
        (144, (16, 16), (10, 10)),
        (108, (16, 16), (10, 10)),
        (127, (2, 128), (1, 128)),
        (511, (2, 128), (1, 128)),
        (512, (2, 128), (2, 128)),
        (12 * 30, (16, 16), (10, 10)),
    ],
)
def test_the_stride_of_a_fine_tuned_file(positions, patch, stride):
    assert ssast.stride_of(positions, patch, 128, {}, "x") == (stride, False)


def test_a_stride_may_be_given_or_is_refused():
    tensors = ssast_write.to_torch(encoder(replace(TUNED, stride=(5, 16), table=(18, 8))))
    found = ssast.convert(tensors, stride=(5, 16))
    assert found.encoder.table == (18, 8) and found.encoder.stride == (5, 16) and found.stride_known
    with pytest.raises(WeightsError, match="144 positions do not make 10 bands"):
        ssast.convert(tensors, stride=(5, 12))
    odd = ssast_write.to_torch(encoder(replace(TUNED, table=(37, 1), patch=(16, 128), stride=(16, 128))))
    odd["module.v.patch_embed.proj.weight"] = torch.zeros(64, 1, 16, 16)
    with pytest.raises(WeightsError, match="37 positions fit no published stride of 16x16 patches; pass stride"):
        ssast.convert(odd)


@pytest.mark.parametrize("cfg", [PATCH, FRAME, TUNED], ids=["patch", "frame", "tuned"])
@pytest.mark.parametrize("bare", [False, True])
def test_transformers_round_trip(cfg, bare, tmp_path):
    net, head = encoder(cfg), None if bare else classifier(classes=3)
    labels = () if bare else ("cat", "dog", "rain")
    tensors, config = ssast_write.to_transformers(net, head and head.state_dict(), labels)
    if bare:  # as a model without its classifier is saved
        tensors = {name.removeprefix("audio_spectrogram_transformer."): t for name, t in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = read(tmp_path / "model.safetensors")
    assert loaded.encoder.cfg == cfg and "stride" not in loaded.card
    same(loaded.encoder.state_dict(), net.state_dict())
    if head is not None:
        same({k.removeprefix("head."): t for k, t in loaded.extra.items()}, head.state_dict())
        assert loaded.extra_config["classes"] == list(labels)
    again, settings = ssast_write.to_transformers(loaded.encoder, head and head.state_dict(), labels)
    same(again, {"audio_spectrogram_transformer." * bare + name: t for name, t in tensors.items()})
    assert settings == config


def test_the_ports_names():
    """A sample of the names in the published port."""
    tensors, config = ssast_write.to_transformers(encoder(PATCH), classifier().state_dict())
    root = "audio_spectrogram_transformer."
    for name in (
        "embeddings.distillation_token",
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.1.attention.attention.value.bias",
        "encoder.layer.0.attention.output.dense.weight",
        "encoder.layer.0.layernorm_after.weight",
        "encoder.layer.1.intermediate.dense.weight",
        "encoder.layer.1.output.dense.bias",
        "layernorm.weight",
    ):
        assert root + name in tensors
    assert tensors["classifier.dense.weight"].shape == (5, 64) and "classifier.layernorm.bias" in tensors
    assert config["patch_size"] == 16 and config["max_length"] == 96
    assert ssast.convert(tensors, {}).encoder.eps == 1e-12  # the port's default, where its file does not say


def test_a_third_party_file_with_strides_that_do_not_fit():
    """Pre-trained files were ported with the default strides of 10: the positions decide."""
    cfg = replace(PATCH, table=(64, 8))
    tensors, config = ssast_write.to_transformers(encoder(cfg))
    found = ssast.convert(tensors, config | {"time_stride": 10, "frequency_stride": 10})
    assert found.encoder == cfg and not found.stride_known


def test_every_missing_and_unknown_tensor_is_named():
    tensors = ssast_write.to_torch(encoder(PATCH), heads(PATCH))
    for name in tensors:
        lacking = {k: t for k, t in tensors.items() if k != name}
        if re.search(r"v\.head|p_input|v\.dist", name):
            continue  # never used; or an encoder of another kind
        with pytest.raises(WeightsError, match=r"missing|embeds patches|first: "):
            ssast.convert(lacking)
    with pytest.raises(WeightsError, match=r"1 of 47 tensors did not map \(first: 'v\.bogus'\)"):
        ssast.convert({**tensors, "module.v.bogus": torch.zeros(1)})
    for name in ("module.v.blocks.1.attn.proj.bias", "module.gpredlayer.0.weight", "module.mask_embed"):
        with pytest.raises(WeightsError, match=r"has the shape"):
            ssast.convert({**tensors, name: torch.zeros(3)})
    assert not ssast.matches({"model": {}}) and not ssast.matches({"conv.weight": 1})


def test_an_encoder_that_upstream_cannot_hold():
    with pytest.raises(WeightsError, match="pre-norm"):
        ssast_write.to_torch(ViT(ViTConfig(width=32, depth=1, heads=2)))


def test_one_token_models_load():
    """`base_nokd`, which has no distillation token."""
    cfg = replace(PATCH, dist=False)
    net = encoder(cfg)
    tensors = ssast_write.to_torch(net, heads(cfg))
    assert "module.v.dist_token" not in tensors and "module.v.head_dist.weight" not in tensors
    found = ssast.convert(tensors)
    assert found.encoder == cfg
    same(found.state, net.state_dict())


@pytest.mark.parametrize("name", [n for n in CATALOGUE if n.startswith(("ssast", "ast"))])
def test_published_sizes(name):
    size = re.search(r"tiny|small", name)
    width = {"tiny": 192, "small": 384}[size[0]] if size else 768
    stride = int(name.rsplit("-", 1)[1]) if name.startswith("ast") else 16
    bands, frames = (128 - 16) // stride + 1, 128 if "spc2" in name else 1024
    cfg = replace(PATCH, width=width, depth=12, heads=width // 64, table=((frames - 16) // stride + 1, bands))
    if "frame" in name:
        cfg = replace(cfg, patch=(2, 128), table=(512, 1))
    with torch.device("meta"):
        assert sum(p.numel() for p in ViT(cfg).parameters()) == CATALOGUE[name].parameters
