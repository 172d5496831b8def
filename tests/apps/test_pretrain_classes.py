"""Runs that learn from labels alone: the file names its own classes."""

from dataclasses import replace

import pytest
import torch
from nano_run import nano

import otic
from otic.data.source import open_source
from otic.engine import checkpoint
from otic.models.heads import HeadConfig
from otic.models.regularise import Regularise
from otic.objectives import SupervisedConfig
from otic.weights import store

DATA = "synth:corpus?clips=40"
CLASSES = open_source(DATA).classes


def recipe(**cfg):
    head = HeadConfig(classes=len(CLASSES), read="mean", std=0.5)
    hidden = {"rm": Regularise(ratio=0.3), "hide_time": 0.5}  # while training alone: what is served sees all
    return nano(name="fine", method="supervised", objective=SupervisedConfig(head=head, **hidden, **cfg))


def train(recipe, folder, data=DATA):
    return otic.pretrain(recipe, data, out=folder, steps=3, quiet=True, precision="fp32", threads=1, device="cpu")


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_a_run_names_the_classes_of_its_data(tmp_path, loss):
    run = train(recipe(loss=loss), tmp_path / "run")
    model, wave = otic.load(run.folder, device="cpu"), open_source(DATA).read(3, 16000, 0.0, 0.9)
    assert len(CLASSES) == 20 and model.classifier.multi is (loss == "bce")
    found = model.tag(wave)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)

    _, objective = run.recipe.build()
    objective.load_state_dict(checkpoint.load(run.folder)["objective"])
    objective.eval()
    with torch.no_grad():
        logits = objective.logits(model.frontend(torch.from_numpy(wave)[None], None, 96))[0]  # 88 frames, whole patches
    scores = logits.softmax(-1) if loss == "ce" else logits.sigmoid()
    assert dict(found) == pytest.approx(dict(zip(CLASSES, scores.tolist(), strict=True)), abs=1e-5)
    assert scores.max() > 1.2 * scores.min()  # else any order of the names would do


def test_the_file_says_what_its_head_is(tmp_path):
    run = train(recipe(), tmp_path / "run")
    loaded = store.load(run.weights)
    assert loaded.extra_config["classes"] == CLASSES and loaded.card["labels_used"] is True
    assert set(loaded.extra) == {f"head.{n}" for n in ("norm.weight", "norm.bias", "linear.weight", "linear.bias")}
    heir = train(replace(nano(), name="heir"), tmp_path / "heir")
    assert store.load(heir.weights).extra_config == {} and heir.load().classifier is None
