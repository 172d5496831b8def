"""A weights file comes back as it went in, and a bad one says what is wrong with it."""

import json
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from otic.audio.frontend import FrontendConfig
from otic.core.errors import WeightsError
from otic.models.vit import ViT, ViTConfig
from otic.weights import store

TINY = ViTConfig(width=32, depth=2, heads=2, mels=32)
FRONT = FrontendConfig(mels=32, mean=-3.5, std=2.25)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    encoder = ViT(TINY)
    torch.nn.init.normal_(encoder.proj.weight, generator=torch.Generator().manual_seed(5))
    store.save(
        path,
        encoder,
        FRONT,
        {"name": "tiny", "labels_used": "none"},
        {"head.weight": torch.ones(3, 32)},
        {"classes": ["a", "b", "c"]},
    )
    return path, encoder


def rewrite(path, change):
    """The same file with another document in its metadata."""
    document = store.describe(path)
    change(document)
    save_file(load_file(path), path, metadata={"otic": json.dumps(document)})


def test_round_trip(saved):
    path, encoder = saved
    loaded = store.load(path)
    assert loaded.encoder.cfg == TINY and loaded.frontend == FRONT
    assert loaded.card == {"name": "tiny", "labels_used": "none"}
    assert loaded.extra_config == {"classes": ["a", "b", "c"]} and loaded.extra["head.weight"].shape == (3, 32)
    assert not loaded.encoder.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, loaded.encoder.state_dict()[name]), name


@settings(max_examples=15, deadline=None)
@given(
    width=st.sampled_from([8, 16, 24]),
    depth=st.integers(1, 3),
    norm=st.sampled_from(["pre", "post"]),
    cls=st.booleans(),
    positions=st.sampled_from(["sincos", "learned", "table"]),
    patch=st.sampled_from([(16, 16), (4, 8)]),
)
def test_every_shape_of_vit_comes_back(tmp_path_factory, width, depth, norm, cls, positions, patch):
    cfg = ViTConfig(
        width=width, depth=depth, heads=2, norm=norm, cls=cls, positions=positions, patch=patch, mels=32,
        table=None if positions == "sincos" else (6, 32 // patch[1]),
    )  # fmt: skip
    encoder = ViT(cfg).eval()
    path = tmp_path_factory.mktemp("w") / "m.safetensors"
    store.save(path, encoder, FRONT, {})
    spec = torch.randn(1, 1, patch[0] * 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(store.load(path).encoder(spec).patches, encoder(spec).patches)


def test_the_same_model_gives_the_same_bytes(saved, tmp_path):
    path, encoder = saved
    for name in ("a", "b"):
        store.save(tmp_path / name, encoder, FRONT, {"name": "tiny"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != path.read_bytes()


def test_loading_moves_no_random_numbers(saved):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    store.load(saved[0])
    assert torch.equal(torch.rand(2), expected)


def test_parameters_are_counted_in_the_header(saved):
    path, encoder = saved
    assert store.parameters(path) == sum(t.numel() for t in encoder.state_dict().values())


def test_a_shared_tensor_is_written_twice(tmp_path):
    shared = torch.ones(4)
    store.save(tmp_path / "m", ViT(TINY), FRONT, {}, {"a": shared, "b": shared.view(2, 2).mT})
    assert store.load(tmp_path / "m").extra["b"].shape == (2, 2)


def framed(head, body=b""):
    return struct.pack("<Q", len(head)) + head.encode() + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"RIFF1234WAVEfmt and so on and on", "not a safetensors"),
        (b"\x80\x04\x95 a pickle \x00\x00\x00\x00", "not a safetensors"),
        (struct.pack("<Q", 100) + b'{"a": ' + b" " * 94, "not a safetensors"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors"),
        (struct.pack("<Q", 2) + b"{}", "lack the key 'otic'"),
        (struct.pack("<Q", 2**62) + b"{}", "not a safetensors"),
        (framed('{"a": 5}'), "header is damaged"),
        (framed('{"a": {"shape": [1], "data_offsets": ["a", "b"]}}'), "header is damaged"),
        (framed('{"__metadata__": 5}'), "header is damaged"),
        (framed('{"a":' * 9999 + "1" + "}" * 9999), "not a safetensors"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        store.load(tmp_path / "x")


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "data_offsets": [0, 4]},
    ],
)
def test_a_header_that_contradicts_itself_is_refused(saved, about):
    path, _ = saved
    head = {"__metadata__": {"otic": json.dumps(store.describe(path))}, "a": about}
    path.write_bytes(framed(json.dumps(head), bytes(4)))
    with pytest.raises(WeightsError, match=r"a damaged safetensors file \(.*download it again"):
        store.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"gone: cannot be read \(No such file"):
        store.load(tmp_path / "gone")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_a_file_cut_short_is_refused(saved, share):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"cut short|not a safetensors"):
        store.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=99), r"newer otic \(format 99"),
        (lambda d: d.update(version="x"), "newer otic"),
        (lambda d: d.pop("frontend"), "lack 'frontend'"),
        (lambda d: d["encoder"].update(kind="vitt"), "Did you mean 'vit'"),
        (lambda d: d["encoder"].update(widht=3), "Did you mean 'width'"),
        (lambda d: d["encoder"].update(depth="two"), "depth: 'two' does not fit"),
        (lambda d: d["encoder"].update(depth=3), "12 of 34 tensors missing|tensors missing.*blocks.2"),
        (lambda d: d["encoder"].update(depth=1), "tensors unexpected.*blocks.1"),
        (lambda d: d["encoder"].update(width=16), r"has the shape .* but its config asks for"),
        (lambda d: d["encoder"].update(heads=5), "5"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(saved, change, message):
    path, _ = saved
    rewrite(path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        store.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_half_precision_is_upcast(saved):
    path, encoder = saved
    half = {name: t.half() for name, t in load_file(path).items()}
    save_file(half, path, metadata={"otic": json.dumps(store.describe(path))})
    weight = store.load(path).encoder.proj.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, encoder.proj.weight.half().float())


def test_an_unknown_module_is_not_saved(tmp_path):
    with pytest.raises(WeightsError, match="cannot save a Linear"):
        store.save(tmp_path / "m", torch.nn.Linear(2, 2), FRONT, {})
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    with pytest.raises(TypeError):
        store.save(tmp_path / "m", ViT(TINY), FRONT, {"odd": object()})
    assert not list(tmp_path.iterdir())


def test_an_older_config_without_a_newer_field_still_loads(saved):
    path, _ = saved
    rewrite(path, lambda d: d["encoder"].pop("drop_path"))
    assert store.load(path).encoder.cfg == replace(TINY)
