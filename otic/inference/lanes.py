"""Lanes: several batches at once on CPUs, each on its own cores.

A pass over a small network waits at the end of every operation until all threads are there. Batches side by side, with
a share of the threads each, do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def lanes(device: torch.device) -> int:
    """How many batches are best at work at once: as many as torch has threads; 1 on a GPU, which is full with one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(work: Callable[[A], B], items: Sequence[A], count: int) -> Iterator[B]:
    """`work` of each item, in order, up to `count` of them at once; each has its share of torch's threads.

    `work` runs in threads of its own: what torch keeps for each thread (autocast, inference mode) is for it to enter.
    What it raises is raised here.

    >>> list(side_by_side(lambda x: 2 * x, [1, 2, 3], 2))
    [2, 4, 6]
    """
    count = min(count, len(items))
    if count < 2:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()

    def alone(item: A) -> B:
        torch.set_num_threads(max(1, threads // count))
        return work(item)

    try:
        with ThreadPoolExecutor(count, "lane") as pool:
            yield from pool.map(alone, items)
    finally:
        torch.set_num_threads(threads)  # the number is each thread's own, but that of new ones and of MKL is shared
