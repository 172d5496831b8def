"""A run's folder belongs to one process at a time."""

import os
import signal
import time

import pytest
from forks import fork

from otic.core.errors import ConfigError
from otic.engine.lock import LOCK, locked


def test_a_second_one_is_told_who_has_the_folder(tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(ConfigError, match=rf"run: process {os.getpid()} on \S+ is training here"),
        locked(tmp_path / "run"),
    ):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


def hold(folder):
    with locked(folder):
        time.sleep(60)


def test_one_that_was_killed_holds_nothing(tmp_path):
    process = fork(hold, tmp_path)
    until = time.monotonic() + 30
    while not (tmp_path / LOCK).exists() or not (tmp_path / LOCK).stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(ConfigError, match=f"process {process.pid}"), locked(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as told, locked(tmp_path):
        pass
    assert told.value.filename == str(tmp_path)
