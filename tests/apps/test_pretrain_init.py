"""`--init` where a recipe goes on with all that another run has learned, not with its encoder alone."""

from dataclasses import replace

import pytest
import torch
from nano_run import DATA, nano, run

from otic.apps.pretrain import pretrain
from otic.core.config import override
from otic.core.errors import ConfigError, WeightsError
from otic.engine.checkpoint import read
from otic.objectives.m2d import M2DConfig
from otic.objectives.sslam import SSLAMConfig
from otic.recipes import RECIPES


@pytest.fixture(scope="module")
def eat(tmp_path_factory):
    """A run of EAT, whose rate is high enough to move everything."""
    return run(tmp_path_factory.mktemp("runs") / "eat", 4)


def second(out, first, takes="objective"):
    """One update at rate 0 of SSLAM's second stage: what comes out is what went in, but for the moving average."""
    recipe = nano(method="sslam", objective=SSLAMConfig(eat=nano().objective), init=takes)
    options = {"settings": ["train.lr=0.0"], "precision": "fp32", "device": "cpu", "threads": 1}
    pretrain(recipe, DATA, out=out, steps=1, init=first, seed=3, quiet=False, **options)
    return {k.removeprefix("eat."): t for k, t in read(out / "checkpoint.pt")["objective"].items()}


def differing(a, b):
    assert a.keys() == b.keys()
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


def test_the_published_second_stage_asks_for_it():
    assert {name for name in RECIPES if RECIPES[name]().init == "objective"} == {"sslam_base"}


def test_the_second_stage_begins_with_student_teacher_and_decoder(eat, tmp_path, capsys):
    first = read(eat.folder / "checkpoint.pt")["objective"]
    ours = second(tmp_path, eat.folder)
    assert differing(ours, first) <= {"teacher"}
    decay = 0.9  # of nano's moving average, whose first step this is
    for name, tensor in first.items():
        if name.startswith("teacher.blocks"):
            student = first[name.replace("teacher", "student", 1)]
            assert torch.allclose(ours[name], decay * tensor + (1 - decay) * student, atol=1e-3), name
    assert "begins anew" not in capsys.readouterr().err


def test_the_encoder_alone_where_the_recipe_says_so(eat, tmp_path):
    first = read(eat.folder / "checkpoint.pt")["objective"]
    assert "decoder" in differing(second(tmp_path, eat.folder, "encoder"), first)


def test_a_weights_file_brings_the_encoder_and_this_is_said(eat, tmp_path, capsys):
    first = read(eat.folder / "checkpoint.pt")["objective"]
    changed = differing(second(tmp_path, eat.weights), first)
    assert "decoder" in changed and "student" not in changed
    assert "holds the encoder alone; what else sslam learns begins anew" in capsys.readouterr().err


def test_any_method_goes_on_from_its_own_run(eat, tmp_path):
    run(tmp_path, 1, init=eat.folder, settings=["train.lr=0.0", "init=objective"])
    first, ours = (read(folder / "checkpoint.pt")["objective"] for folder in (eat.folder, tmp_path))
    assert differing(first, ours) <= {"teacher"}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "m2d", "objective": M2DConfig()},
        {"objective": replace(nano().objective, decoder=replace(nano().objective.decoder, dim=64))},
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(eat, tmp_path, changes):
    recipe = nano(init="objective", **changes)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: .* To take its encoder alone: --set init=encoder\."):
        pretrain(recipe, DATA, out=tmp_path, steps=1, init=eat.folder, quiet=True, precision="fp32", device="cpu")


def test_what_learns_words_takes_the_encoder_alone():
    """Else its text tower would read with another tokenizer than it learned with."""
    with pytest.raises(ConfigError, match="clap gets a new tokenizer"):
        override(RECIPES["clap_tiny"](), ["init=objective"])
