"""A run whose learning rate is cut where learning rests: what is held out, what the log says, and going on."""

import pytest
import torch
from nano_run import DATA, nano, run

from otic.apps.pretrain import pretrain
from otic.core.errors import DataError
from otic.engine.checkpoint import read
from otic.engine.log import read_log
from otic.weights import store

STEPS = 14
PLATEAU = ["train.schedule=plateau", "train.stair=2", "train.plateau.every=2", "train.plateau.patience=0"]
CLIPS = ["train.plateau.clips=1", "train.plateau.watch=frame", "train.plateau.threshold=0.5"]  # hard to please


def plateau(out, **options):
    return run(out, STEPS, settings=PLATEAU + CLIPS, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return plateau(tmp_path_factory.mktemp("plateau") / "whole")


def test_the_log_shows_checks_and_cuts(whole):
    log = whole.log()
    checks = [line["step"] for line in log if "held_out_frame" in line]
    assert checks == list(range(2, STEPS + 1, 2))
    warmup, share, best, wanted = whole.recipe.train.warmup, 1.0, None, []
    for step, line in enumerate(log):
        wanted.append(1e-3 * share * (step // 2 * 2 / warmup if step < warmup else 1.0))
        if "held_out_frame" in line:
            value = line["held_out_frame"]
            best, share = (value, share) if best is None or value < best / 2 else (best, share / 2)
    assert [line["lr"] for line in log] == pytest.approx(wanted, rel=1e-4) and share < 1
    assert read(whole.folder / "checkpoint.pt")["rest"][0] == share
    assert "held out frame" in whole.report.read_text(encoding="utf-8")
    assert store.load(whole.weights).card["clips_held_out"] == 1


@pytest.mark.parametrize("at", [5, 8, 13])
def test_it_goes_on_exactly(whole, tmp_path, at):
    def fail(event):
        if event.state.step == at:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plateau(tmp_path, hooks=(fail,))
    again = plateau(tmp_path)
    a, b = (read(r.folder / "checkpoint.pt") for r in (whole, again))
    assert a["rest"] == b["rest"]
    torch.testing.assert_close(a["objective"], b["objective"], rtol=0, atol=0)
    torch.testing.assert_close(a["optimizer"], b["optimizer"], rtol=0, atol=0)
    keys = ("step", "loss", "lr", "held_out_frame")
    lines = [[[line.get(k) for k in keys] for line in read_log(r.folder / "log.jsonl")] for r in (whole, again)]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_processes_agree(whole, tmp_path):
    """Each measures its share; all cut alike, or their weights would part."""
    result = plateau(tmp_path, devices=2)
    assert [line["lr"] for line in result.log()][:3] == [line["lr"] for line in whole.log()][:3]
    assert read(tmp_path / "checkpoint.pt")["rest"][0] < 1


def test_a_single_clip_cannot_be_held_out(tmp_path):
    one = DATA.replace("clips=16", "clips=1")
    with pytest.raises(DataError, match="held out"):
        pretrain(nano(), one, out=tmp_path, settings=PLATEAU, quiet=True, precision="fp32", device="cpu")
