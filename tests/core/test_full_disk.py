"""What the system says of a write is said of the file that was meant, whichever library wrote it."""

import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import DataError
from otic.core.files import atomic, said_of
from otic.engine import checkpoint
from otic.engine.log import Log
from otic.engine.loop import Event, State

BIG = {"step": 1, "x": torch.zeros(100_000)}


@contextmanager
def room(size):
    """Files may grow to `size` bytes: the error that a full disk gives, but for its number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_without_room_is_named_and_the_last_one_kept(tmp_path):
    checkpoint.save(tmp_path, {"step": 0})
    with room(20_000), pytest.raises(OSError, match="File too large") as told:
        checkpoint.save(tmp_path, BIG)
    assert told.value.filename == str(tmp_path / checkpoint.CURRENT)
    assert checkpoint.load(tmp_path) == {"step": 0}
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.CURRENT]


def test_safetensors_without_room_are_named(tmp_path):
    with (
        room(20_000),
        pytest.raises(OSError, match="File too large") as told,
        atomic(tmp_path / "m.safetensors") as part,
    ):
        save_file({"x": BIG["x"]}, part)
    assert told.value.filename == str(tmp_path / "m.safetensors") and not list(tmp_path.iterdir())


def test_a_log_without_room_is_named(tmp_path):
    log = Log(tmp_path / "log.jsonl", every=1, last=9)
    with room(10), pytest.raises(OSError, match="File too large") as told:
        log(Event(State(1, 8, 0.5), 1.0, {}, 3.0, 1e-3, 0.5, 0.1))
    assert told.value.filename == str(tmp_path / "log.jsonl")


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (DataError("os error 28 in a user's file"), ValueError("neither"), FileNotFoundError(2, "", "other")):
        with pytest.raises(type(error)) as told, said_of(tmp_path):
            raise error
        assert told.value is error
