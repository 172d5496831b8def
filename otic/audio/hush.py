"""Keeping libmpg123's remarks about damaged files off the terminal; it has no switch that soundfile could reach."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

REMARK = re.compile(rb"(Note: |Warning: |\[src/libmpg123/|\s*$)")


@dataclass
class _Detour:
    """Where standard error goes meanwhile."""

    users: int = 0
    real: int = -1
    sink: IO[bytes] | None = None


_lock = threading.Lock()
_detour = _Detour()


@contextmanager
def hushed(active: bool = True) -> Iterator[None]:
    """Drop libmpg123's lines from standard error (the descriptor, not `sys.stderr`) during the block.

    What other threads write meanwhile appears when the block ends. Used for damaged MP3 files only.
    """
    if not active or not _enter():
        yield
        return
    try:
        yield
    finally:
        _leave()


def _enter() -> bool:
    with _lock:
        if not _detour.users:
            try:
                _detour.real = os.dup(2)
            except OSError:  # there is no standard error
                return False
            _detour.sink = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by the last one to leave
            os.dup2(_detour.sink.fileno(), 2)
        _detour.users += 1
        return True


def _leave() -> None:
    with _lock:
        sink = _detour.sink
        assert sink is not None
        _detour.users -= 1
        if not _detour.users:
            os.dup2(_detour.real, 2)
        said = os.pread(sink.fileno(), os.fstat(sink.fileno()).st_size, 0)
        os.ftruncate(sink.fileno(), 0)
        os.lseek(sink.fileno(), 0, os.SEEK_SET)
        kept = b"".join(line for line in said.splitlines(keepends=True) if not REMARK.match(line))
        if kept:
            os.write(_detour.real, kept)
        if not _detour.users:
            sink.close()
            os.close(_detour.real)
