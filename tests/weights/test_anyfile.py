"""Published files load beside our own, by what they hold."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import WeightsError
from otic.weights.anyfile import read
from otic.weights.catalogue import CATALOGUE
from otic.weights.upstream import eat


def test_every_published_file_loads_as_its_reader_says(golden):
    root = golden("eat")
    files = sorted([*root.glob("*fairseq.pt"), *root.glob("hf_*/model.safetensors")])
    assert files
    for path in files:
        loaded, found = read(path), eat.read(path)
        assert loaded.encoder.cfg == found.encoder and not loaded.encoder.training
        for name, tensor in found.state.items():
            assert torch.equal(loaded.encoder.state_dict()[name], tensor), (path, name)
        assert len(loaded.extra) == len(found.head_state) and loaded.frontend.mels == found.encoder.mels
        assert loaded.card["labels_used"] == ("none" if found.head is None else "those of its fine-tuning")


def test_a_renamed_file_is_known_by_what_it_holds(golden, tmp_path):
    source = golden("eat") / "hf_pretrain" / "model.safetensors"
    shutil.copy(source, tmp_path / "weights.bin")
    shutil.copy(source.with_name("config.json"), tmp_path / "config.json")
    assert read(tmp_path / "weights.bin").encoder.cfg == read(source).encoder.cfg


def test_a_foreign_file_names_its_first_tensor(tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"no published layout.*'conv1\.weight'"):
        read(tmp_path / "x.safetensors")


def test_the_catalogue_fills_the_card(golden):
    entry = CATALOGUE["eat-base-30ep"]
    card = read(golden("eat") / "hf_pretrain" / "model.safetensors", entry=entry).card
    assert card["name"] == entry.name and card["licence"] == "MIT" and card["sha256"] == entry.sha256


def spoiled(golden, tmp_path, change):
    """EAT's pre-trained file with another content, and the path it lies at."""
    content = torch.load(golden("eat") / "pretrain_fairseq.pt", weights_only=False)
    torch.save(change(content), tmp_path / "changed.pt")
    return tmp_path / "changed.pt"


def weights_changed(content, change):
    return {**content, "model": {name: change(name, tensor) for name, tensor in content["model"].items()}}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wraps_a_parallel_or_compiled_model_comes_off(golden, tmp_path, prefix):
    def wrap(content):
        return {**content, "model": {prefix + name: tensor for name, tensor in content["model"].items()}}

    want = read(golden("eat") / "pretrain_fairseq.pt").encoder
    found = read(spoiled(golden, tmp_path, wrap)).encoder
    assert found.cfg == want.cfg  # the heads too, which only the settings beside the weights know
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in want.state_dict().items())


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_weights_in_a_trainers_dict_are_found(golden, tmp_path, key):
    source = golden("ssast") / "patch_tiny_depth2.pth"
    torch.save({key: torch.load(source, weights_only=False), "epoch": 3}, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").encoder.cfg == read(source).encoder.cfg


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "cfg": 5}, "of the layout 'eat', but"),
        (lambda c: {**c, "cfg": {"model": {"num_heads": "many"}}}, "of the layout 'eat', but.*'many'"),
        (lambda c: {**c, "cfg": {"model": {"num_heads": 0}}}, "multiple of 4 and of heads=0"),
        (lambda c: {**c, "cfg": {"model": {"num_heads": -4}}}, "multiple of 4 and of heads=-4"),
        (lambda c: {**c, "task_state": [1]}, "of the layout 'eat', but"),
        (lambda c: {**c, "model": {**c["model"], "_ema": 5}}, "of the layout 'eat', but"),
        (lambda c: {**c, "model": {**c["model"], 5: torch.zeros(1)}}, r"did not map \(first: 5\)"),
        (
            lambda c: weights_changed(c, lambda n, t: t / 0 if n == "blocks.0.norm1.weight" else t),
            r"1 of 30 tensors hold NaN or infinite numbers \(first: 'blocks\.0\.norm1\.weight'\).*earlier checkpoint",
        ),
        (
            lambda c: weights_changed(c, lambda n, t: t.to(torch.int8) if n == "blocks.0.norm1.weight" else t),
            "'blocks.0.norm1.weight' holds int8, not real numbers",
        ),
        (lambda c: {"optimizer": {}, "epoch": 1}, r"no published layout.*\(eat, .*holds 'optimizer', 'epoch'\. Give"),
        (lambda c: {}, "it holds nothing"),
    ],
)
def test_what_a_layout_has_not_is_named(golden, tmp_path, change, message):
    path = spoiled(golden, tmp_path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
    ],
)
def test_what_a_download_leaves_in_the_place_of_a_file_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / name)


def test_heads_that_no_config_tells_are_said_to_be_guessed(golden, tmp_path):
    path = golden("eat") / "pretrain_fairseq.pt"
    assert "heads" not in read(path).card
    torch.save({"model": torch.load(path, weights_only=False)["model"]}, tmp_path / "bare.pt")
    assert read(tmp_path / "bare.pt").card["heads"] == "guessed: 1"
