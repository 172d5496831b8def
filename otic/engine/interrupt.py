"""Ctrl-C and SIGTERM: the step is finished, the state saved, and the caller told."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from otic.core.world import ALONE, World

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 2.0  # seconds after which a second Ctrl-C is meant as one


class Interrupted(KeyboardInterrupt):
    """A run was stopped from outside after its state had been saved; the message says how to go on."""


class Interrupt:
    """Within `with Interrupt(world) as stop:` a signal sets a flag; a second Ctrl-C ends things at once.

    `torchrun` passes on a Ctrl-C that its processes have had already, so one within `AGAIN` seconds does not count.
    Python lets the main thread alone handle signals; elsewhere this does nothing.

    Args:
        world: The processes that stop together.
        quiet: Do not say on stderr that the signal has been heard; a step may take a while.
    """

    def __init__(self, world: World = ALONE, *, quiet: bool = True):
        self._world, self._quiet, self._since = world, quiet or not world.main, math.inf
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._set) for s in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wanted(self) -> bool:
        """True once a signal has come, on any of the processes; they must all ask alike."""
        return self._world.mean(float(self._since < math.inf)) > 0

    def _set(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and now - self._since > AGAIN:
            raise KeyboardInterrupt("interrupted again: the last checkpoint stands.")
        if self._since == math.inf and not self._quiet:
            with contextlib.suppress(OSError):  # a signal may come in the middle of a `print`, which cannot be entered
                os.write(2, b"stopping after this step; Ctrl-C again stops at once\n")
        self._since = min(self._since, now)
