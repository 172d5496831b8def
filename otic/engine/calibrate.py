"""How many steps fit into so many minutes: measured before the run, then fixed, so that the schedule ends in time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from otic.core.world import ALONE, World
from otic.engine.loop import Event

WARM = 2  # first steps left out: they pay for memory and caches
LEAST = 3  # steps measured at least


class Enough(Exception):
    """Raised by `Stopwatch` when it has seen enough; it ends the loop whose speed is measured."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a step: while clips are read for the first time, and once they are in memory."""

    first: float
    later: float

    def steps(self, seconds: float, epoch: int | None) -> int:
        """Steps that fit into `seconds`, at least one.

        Args:
            seconds: The time there is.
            epoch: Steps until every clip is in memory; None when they will never all be.
        """
        if epoch is None or seconds <= epoch * self.first:
            return max(1, int(seconds / self.first))
        return max(1, epoch + int((seconds - epoch * self.first) / self.later))


class Stopwatch:
    """A hook that measures steps for `seconds`, then raises `Enough`."""

    def __init__(self, seconds: float, world: World = ALONE):
        self._until, self._world = time.perf_counter() + seconds, world
        self._steps: list[tuple[float, float]] = []  # seconds in all, and without waiting for data

    def __call__(self, event: Event) -> None:
        self._steps.append((event.seconds, event.seconds - event.waited))
        late = self._world.mean(float(time.perf_counter() > self._until)) > 0
        if late and len(self._steps) >= WARM + LEAST:
            raise Enough

    def pace(self) -> Pace:
        """What was measured, the mean over all processes; the first (slow) steps do not count."""
        total, computing = zip(*self._steps[WARM:], strict=True)
        first, later = statistics.fmean(total), statistics.median(computing)
        return Pace(self._world.mean(first), self._world.mean(min(later, first)))
