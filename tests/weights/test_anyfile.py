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
