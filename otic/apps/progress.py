"""A line on stderr that says how far we are: redrawn on a terminal, now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

DRAW = 0.2  # seconds between two drawings on a terminal
PRINT = 15.0  # seconds between two lines in a log


class Progress:
    """`with Progress("embed") as progress: progress(done, total)`; says nothing when `quiet`.

    The pace is measured from the first call on: where answers come in batches, that is to be made before the work.

    Attributes:
        done: The last count it was called with.
    """

    def __init__(self, what: str, unit: str = "files", *, quiet: bool = False):
        self.done, self._what, self._unit, self._quiet = 0, what, unit, quiet
        self._live = sys.stderr.isatty()
        self._start: tuple[float, int] | None = None
        self._drawn = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and not self._quiet and self._start:
            sys.stderr.write("\n")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.done = done
        self._start = self._start or (now, done)
        if self._quiet or (now - self._drawn < (DRAW if self._live else PRINT) and done != total):
            return
        self._drawn = now
        text = f"{self._what}: {done}/{total} {self._unit}{self._pace(now, done, total)}"
        sys.stderr.write(f"\r{text}\x1b[K" if self._live else text + "\n")
        sys.stderr.flush()

    def _pace(self, now: float, done: int, total: int) -> str:
        began, first = self._start or (now, done)
        if done <= first or now <= began:
            return ""
        rate = (done - first) / (now - began)
        left = int((total - done) / rate)
        return f", {rate:.1f}/s, {left // 60}:{left % 60:02d} left"
