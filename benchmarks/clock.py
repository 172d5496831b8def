"""How long something takes, on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable


def best(
    *works: Callable[[], object], seconds: float = 5.0, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """The least time of each callable, in seconds: the processor's, all threads together, or another clock's.

    They take turns, so that a busy minute hits all alike.
    """
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for work, found in zip(works, times, strict=True):
            start = clock()
            work()
            found.append(clock() - start)
    return [min(found) for found in times]
