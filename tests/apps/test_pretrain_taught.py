"""Runs that are taught: by labels, by another model, by what it said beforehand. Their cards say so."""

import os
import shutil
import signal

import pytest

import otic
from otic.core.errors import ConfigError
from otic.data.source import open_source
from otic.engine.interrupt import Interrupted
from otic.recipes import RECIPES
from otic.recipes.base import for_classes

DATA = "synth:corpus?clips=12"
FEW = ["batch_size=4"]


def train(recipe, folder, *settings, data=DATA, **more):
    return otic.pretrain(recipe, data, out=folder, steps=2, settings=[*FEW, *settings], quiet=True, **more)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run that learned from labels."""
    return train("supmam_tiny", tmp_path_factory.mktemp("runs") / "taught")


def test_classes_come_from_the_data(taught):
    classes = open_source(DATA).classes
    assert taught.recipe.objective.classes == len(classes) == len(taught.load().card["trained_on_classes"])
    assert taught.load().card["labels_used"] is True
    assert {"cls", "accuracy", "pixels"} <= taught.log()[-1].keys()
    recipe = RECIPES["supmam_tiny"]()
    assert for_classes(recipe, []) == recipe  # nothing to count
    assert for_classes(for_classes(recipe, classes), ["one"]).objective.classes == len(classes)


def test_labels_are_inherited_and_remembered(taught, tmp_path):
    run = train("audiomae_tiny", tmp_path / "heir", init=taught.folder)
    assert run.load().card["labels_used"] is True
    (run.folder / "model.safetensors").unlink()
    assert train("audiomae_tiny", tmp_path / "heir", init=taught.folder).load().card["labels_used"] is True
    pupil = train("distill_tiny", tmp_path / "pupil", f"objective.teachers=[{taught.folder}]").load()
    assert pupil.card["labels_used"] is True and pupil.card["teachers"] == [str(taught.folder)]


def test_a_signal_while_a_teacher_hears_keeps_what_it_heard(taught, tmp_path, monkeypatch):
    from otic.apps.progress import Progress

    data, settings = DATA.replace("12", "40"), (f"objective.teachers=[{taught.folder}]",)
    monkeypatch.setattr(Progress, "__call__", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="what was read is kept"):
        train("mam_clap_tiny", tmp_path / "run", *settings, data=data, teacher_cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 16  # a batch


def test_a_kept_teacher_teaches_like_one_beside(taught, tmp_path):
    """Crops are whole clips here; nearly, since the one beside attends to the padding behind a short clip too."""
    settings = (
        f"objective.teachers=[{taught.folder}]",
        "crop_seconds=4.015",
        "frames=400",
        "short=pad",
        "crops_per=clip",
    )
    losses = []
    for name, cache in (("beside", None), ("kept", tmp_path / "cache")):
        run = train("mam_clap_tiny", tmp_path / name, *settings, teacher_cache=cache, precision="fp32")
        losses.append([line["loss"] for line in run.log()])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 12


def test_a_teacher_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match=r"objective\.teachers=\[MODEL\]"):
        train("mam_clap_tiny", tmp_path / "none", "objective.teachers=[]")


def test_a_run_does_not_go_on_with_another_teacher(tmp_path):
    def go(folder, *settings, seed=0, hooks=()):
        data = "synth:corpus?clips=4"
        otic.pretrain(
            "distill_tiny", data, out=folder, steps=2, seed=seed, settings=[*FEW, "train.save_every=1", *settings],
            teacher_cache=tmp_path / "cache", hooks=hooks, quiet=True,
        )  # fmt: skip

    def stop(event):
        if event.state.step == 2:
            raise KeyboardInterrupt

    teacher, pupil = tmp_path / "teacher", tmp_path / "pupil"
    go(teacher)
    with pytest.raises(KeyboardInterrupt):
        go(pupil, f"objective.teachers=[{teacher}]", hooks=(stop,))
    aside = teacher.rename(tmp_path / "aside")
    go(teacher, seed=1)
    with pytest.raises(ConfigError, match="its teacher, is another model than when this run began"):
        go(pupil, f"objective.teachers=[{teacher}]")
    shutil.rmtree(teacher)
    aside.rename(teacher)
    go(pupil, f"objective.teachers=[{teacher}]")
