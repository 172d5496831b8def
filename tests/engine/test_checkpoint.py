"""Checkpoints: whole or not there, the last good one kept, nothing executed."""

import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otic.core.errors import OticWarning, WeightsError
from otic.engine import checkpoint


def content(step):
    return {"step": step, "objective": {"w": torch.arange(50.0) + step}, "request": {"a": [1, None, "x"], "b": 0.5}}


def same(a, b):
    return (
        a["step"] == b["step"]
        and torch.equal(a["objective"]["w"], b["objective"]["w"])
        and a["request"] == b["request"]
    )


def test_round_trip(tmp_path):
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, content(3))
    assert same(checkpoint.load(tmp_path), content(3))
    checkpoint.save(tmp_path, content(4))
    assert same(checkpoint.load(tmp_path), content(4))
    assert same(checkpoint.read(tmp_path / checkpoint.PREVIOUS), content(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint.PREVIOUS, checkpoint.CURRENT]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_seen(tmp_path, data):
    """Whatever byte flips and wherever a file is cut: what is read is what was written, or is refused."""
    checkpoint.save(tmp_path, content(3))
    path = tmp_path / checkpoint.CURRENT
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw = raw[:at]
    else:
        raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        read = checkpoint.read(path)
    except WeightsError:
        return
    assert same(read, content(3))  # a byte that nothing depends on


def test_a_damaged_one_falls_back_and_stays_aside(tmp_path):
    for step in (3, 4):
        checkpoint.save(tmp_path, content(step))
    path = tmp_path / checkpoint.CURRENT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(OticWarning, match=r"checkpoint\.pt: damaged or cut short .* Resuming from checkpoint.previous"):
        assert same(checkpoint.load(tmp_path), content(3))
    checkpoint.save(tmp_path, content(4))  # must not put the damaged one in place of the good one
    assert same(checkpoint.load(tmp_path), content(4))
    assert same(checkpoint.read(tmp_path / checkpoint.PREVIOUS), content(3))


def test_killed_between_the_two_renames(tmp_path):
    checkpoint.save(tmp_path, content(3))
    os.replace(tmp_path / checkpoint.CURRENT, tmp_path / checkpoint.PREVIOUS)
    assert same(checkpoint.load(tmp_path), content(3))


def test_none_whole_is_an_error(tmp_path):
    (tmp_path / checkpoint.CURRENT).write_bytes(b"")
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="anew"):
        checkpoint.load(tmp_path)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_nothing_is_executed(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / checkpoint.CURRENT
    path.write_bytes(pickle.dumps(Bomb())) if how == "pickle" else torch.save({"step": Bomb()}, path)
    with pytest.raises(WeightsError):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_strange_file_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / checkpoint.CURRENT)
    with pytest.raises(WeightsError, match="not a checkpoint of otic"):
        checkpoint.load(tmp_path)
