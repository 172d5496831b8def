"""Runs that learn words around another model's encoder: killed and resumed, used, and used wrongly."""

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from forks import fork
from nano_run import DATA, run
from published_text import write_bert, write_gpt2
from safetensors.torch import load_file

import otic
from otic.apps.pretrain import Interrupted, pretrain
from otic.apps.pretrain_words import KEPT, VECTORS, captioned, texts, warn_of_long
from otic.audio.frontend import Frontend
from otic.core.errors import ConfigError, DataError, OticWarning, WeightsError
from otic.core.seeds import rng
from otic.data.rows import training
from otic.data.source import open_source
from otic.engine import calibrate
from otic.engine.checkpoint import read
from otic.engine.log import read_log
from otic.models.tokenizer import Tokenizer
from otic.weights import sentence_cache, store

STEPS = 4
SMALL = (
    "batch_size=4", "crop_seconds=0.5", "objective.vocabulary=300", "objective.towers.dim=16", "train.save_every=2",
    "objective.towers.text.width=24", "objective.towers.text.depth=1", "objective.towers.reader.width=24",
)  # fmt: skip


def clap(out, init, *settings, data=DATA, **options):
    options = {"steps": STEPS, "quiet": True, "precision": "fp32", "threads": 1, "device": "cpu"} | options
    return pretrain("clap_tiny", data, out=out, init=init, settings=(*SMALL, *settings), **options)


def crash(out, at, *args, **options):
    def fail(event):
        if event.state.step == at:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        clap(out, *args, hooks=(fail,), **options)


def assert_equal(a, b):
    mine, wanted = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert mine.keys() == wanted.keys() and all(torch.equal(mine[k], wanted[k]) for k in mine)
    kept = [read(folder / "checkpoint.pt") for folder in (a, b)]
    torch.testing.assert_close(kept[0]["optimizer"], kept[1]["optimizer"], rtol=0, atol=0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A run without words."""
    return run(tmp_path_factory.mktemp("sound") / "nano", 2).folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder):
    """An unbroken run with words."""
    return clap(tmp_path_factory.mktemp("words") / "whole", encoder).folder


def test_killed_and_resumed(tmp_path, encoder, whole):
    """By SIGKILL, twice, each time in a process of its own."""
    for at in (1, 3):
        process = fork(kill, tmp_path, at, encoder)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    clap(tmp_path, encoder)
    assert_equal(tmp_path, whole)


def kill(out, at, *args):
    clap(out, *args, hooks=(lambda event: event.state.step == at and os.kill(os.getpid(), signal.SIGKILL),))


def test_what_comes_out(encoder, whole):
    model = otic.load(whole)
    before = otic.load(encoder).encoder.state_dict()
    assert all(torch.equal(t, before[n]) for n, t in model.encoder.state_dict().items())
    text, audio = model.text(["a tone rises", "noise"]), model.audio([np.ones(8000, np.float32)])
    assert model.towers is not None and text.shape == (2, 16) and audio.shape == (1, 16)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate((text, audio)), axis=1), 1, rtol=1e-5)
    assert model.card["labels_used"] == "captions" and model.card["init"] == str(encoder)
    assert {"loss", "accuracy", "scale"} <= read_log(whole / "log.jsonl")[-1].keys()


def test_a_mel_matrix_of_its_own_is_kept(tmp_path, encoder):
    """Published encoders come with the one that they were trained with."""
    found = store.load(encoder / "model.safetensors")
    bank = 0.9 * Frontend(found.frontend).mel.spectrum.bank
    first = tmp_path / "first.safetensors"
    store.save(first, found.encoder, found.frontend, found.card, bank=bank)
    clap(tmp_path / "whole", first, steps=2)
    crash(tmp_path / "broken", 1, first, steps=2)
    first.unlink()
    store.save(first, found.encoder, found.frontend, found.card)  # not asked again
    clap(tmp_path / "broken", first, steps=2)
    assert_equal(tmp_path / "whole", tmp_path / "broken")
    assert torch.equal(store.load(tmp_path / "whole" / "model.safetensors").bank, bank)
    assert torch.equal(otic.load(tmp_path / "whole").frontend.mel.spectrum.bank, bank)


def test_wrong_uses(tmp_path, encoder, whole):
    (tmp_path / "mute").mkdir()
    soundfile.write(tmp_path / "mute" / "a.wav", 0.1 * rng("mute").standard_normal(16000), 16000)
    with pytest.raises(DataError, match=r"no captions to learn words from.*column `caption`"):
        clap(tmp_path / "a", encoder, data=str(tmp_path / "mute"))
    broken = shutil.copytree(whole, tmp_path / "broken")
    (broken / KEPT).write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: cannot be read"):
        clap(broken, encoder)
    (broken / KEPT).unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json: is gone.*Put it back"):
        clap(broken, encoder)
    with pytest.raises(WeightsError, match=r"nowhere: no such folder.*gpt2"):
        clap(tmp_path / "b", encoder, f"objective.language={tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="knows sound alone"):
        otic.load(encoder).text("a dog")


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_published_tower_that_stays(tmp_path, encoder, kind):
    """Read once before the run, and not needed again: its folder may go."""
    written = {"gpt2": write_gpt2, "bert": write_bert}[kind](tmp_path / kind)
    settings = (f"objective.language={tmp_path / kind}", "objective.freeze_text=true")
    clap(tmp_path / "whole", encoder, *settings)
    crash(tmp_path / "broken", 3, encoder, *settings, teacher_cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / kind)
    clap(tmp_path / "broken", encoder, *settings, teacher_cache=tmp_path / "cache")
    assert_equal(tmp_path / "broken", tmp_path / "whole")
    assert list((tmp_path / "whole" / VECTORS).rglob("*.safetensors"))
    assert list((tmp_path / "cache").rglob("*.safetensors")) and not (tmp_path / "broken" / VECTORS).exists()
    model = otic.load(tmp_path / "whole")
    state = model.towers.text.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in written.state_dict().items())
    assert model.towers.cfg.unit_text == (kind == "bert") and model.card["language"] == str(tmp_path / kind)
    assert model.text(["a tone"]).shape == (1, 16)


def test_ctrl_c_while_the_published_tower_reads(tmp_path, encoder, monkeypatch, capsys):
    write_bert(tmp_path / "bert")
    settings = (f"objective.language={tmp_path / 'bert'}", "objective.freeze_text=true")
    write, written = sentence_cache.write, []

    def interrupt(folder, keys, rows):
        write(folder, keys, rows)
        written.extend(keys)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sentence_cache, "PART", 1)
    monkeypatch.setattr(sentence_cache, "write", interrupt)
    with pytest.raises(Interrupted, match=r"what was read is kept\. To begin again: otic pretrain clap_tiny"):
        clap(tmp_path / "run", encoder, *settings, steps=1)
    assert len(written) == 2
    clap(tmp_path / "run", encoder, *settings, steps=1, quiet=False)
    said = len(texts(training(open_source((DATA,)))))
    assert len(written) == len(set(written)) == said
    assert f"the text tower reads: {said - 2}/{said - 2} texts" in capsys.readouterr().err


def test_a_published_tower_that_learns(tmp_path, encoder):
    written = write_gpt2(tmp_path / "gpt2")
    settings = (f"objective.language={tmp_path / 'gpt2'}",)
    crash(tmp_path / "run", 3, encoder, *settings)
    clap(tmp_path / "run", encoder, *settings)
    clap(tmp_path / "whole", encoder, *settings)
    assert_equal(tmp_path / "run", tmp_path / "whole")
    assert not torch.equal(otic.load(tmp_path / "run").towers.text.tokens.weight, written.tokens.weight)


def test_a_published_vocabulary_alone(tmp_path, encoder):
    write_gpt2(tmp_path / "gpt2")
    settings = (f"objective.tokenizer={tmp_path / 'gpt2'}",)
    crash(tmp_path / "run", 1, encoder, *settings, steps=2)
    shutil.rmtree(tmp_path / "gpt2")
    towers = clap(tmp_path / "run", encoder, *settings, steps=2).load().towers
    assert towers.tokenizer.end == 260 and towers.text.cfg.vocab == 261 and towers.text.cfg.width == 24


def test_long_texts_are_named_once():
    said = texts(open_source((DATA,)))
    tokenizer = Tokenizer.train(said, 300, length=8)
    with pytest.warns(OticWarning, match=rf"\d+ of {len(said)} texts have more than 8 tokens") as caught:
        warn_of_long(tokenizer, said)
    assert len(caught) == 1
    warn_of_long(Tokenizer.train(said, 300, length=200), said)


def test_a_plan_by_minutes_stays_where_clips_that_come_again_cost_less(encoder, tmp_path, monkeypatch):
    """The first epoch's speed, at which the tower hears each clip, says nothing of the others'."""

    def look(*_):
        raise AssertionError

    monkeypatch.setattr(calibrate.Watch, "__call__", look)
    made = clap(tmp_path / "run", encoder, steps=None, minutes=0.05)
    assert made.recipe.objective.remember and len(read_log(made.folder / "log.jsonl")) == made.steps


def test_clips_without_a_caption_are_counted_and_left_out():
    whole = open_source("synth:corpus?clips=8", learning=True)
    whole.rows[0] = replace(whole.rows[0], captions=())
    with pytest.warns(OticWarning, match="1 of 6 clips without a caption; left out"):
        assert len(captioned(whole)) == 5
    for i, row in enumerate(whole.rows):
        whole.rows[i] = replace(row, captions=())
    with pytest.raises(DataError, match="no captions to learn words from"):
        captioned(whole)
