"""Read ahead: threads decode the next sources while the encoder works on these.

Decoders and the resampler let go of Python's lock, so several files are read at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(
    makers: Sequence[Callable[[], Iterable[T]]], size: Callable[[T], int], room: int, threads: int
) -> Iterator[T]:
    """All items of the first maker, then all of the second, and so on, made in threads that run ahead.

    What a maker raises is raised here, in its place. Leaving the loop early stops the threads.

    Args:
        makers: Each is called once, in one of the threads, and run to its end there.
        size: Of an item.
        room: Sizes of all items that wait to be taken, together, at most; one more, so that somebody always goes on.
        threads: Makers at work at once, at most.

    >>> list(ahead([lambda: [1, 2], lambda: [], lambda: [3]], size=lambda item: 1, room=2, threads=2))
    [1, 2, 3]
    """
    shelf = _Shelf(makers, size, room)
    pool = [
        threading.Thread(target=shelf.work, name=f"read-ahead-{k}", daemon=True)
        for k in range(min(threads, len(makers)))
    ]
    for thread in pool:
        thread.start()
    try:
        for i in range(len(makers)):
            yield from shelf.take(i)
    finally:
        shelf.close()
        for thread in pool:
            thread.join()


class _Shelf(Generic[T]):
    """What was made and not yet taken, by maker. Makers are begun in order, so the one looked at is always at work."""

    def __init__(self, makers: Sequence[Callable[[], Iterable[T]]], size: Callable[[T], int], room: int):
        self._makers, self._size, self._room = makers, size, room
        self._turns, self._seen, self._held, self._closed = count(), 0, 0, False
        self._lines: dict[int, deque[T]] = {}
        self._ended: dict[int, BaseException | None] = {}
        self._change = threading.Condition()

    def work(self) -> None:
        """Make until there is nothing left to make."""
        while (i := self._turn()) is not None:
            error = None
            try:
                for item in self._makers[i]():
                    if not self._put(i, item):
                        return
            except BaseException as caught:  # handed over, not swallowed: `take` raises it
                error = caught
            with self._change:
                self._ended[i] = error
                self._change.notify_all()

    def take(self, i: int) -> Iterator[T]:
        """The items of maker `i`."""
        with self._change:
            self._seen, line = i, self._lines.setdefault(i, deque())
            self._change.notify_all()
        while True:
            with self._change:
                self._change.wait_for(lambda: line or i in self._ended)
                if not line:
                    break
                item = line.popleft()
                self._held -= self._size(item)
                self._change.notify_all()
            yield item
        del self._lines[i]
        error = self._ended.pop(i)
        if error is not None:
            raise error

    def close(self) -> None:
        """Nobody takes any more."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _turn(self) -> int | None:
        with self._change:
            i = next(self._turns)
            if self._closed or i >= len(self._makers):
                return None
            self._lines.setdefault(i, deque())
            return i

    def _put(self, i: int, item: T) -> bool:
        """Whether anybody is still there to take it."""
        size = self._size(item)
        with self._change:
            line = self._lines[i]
            self._change.wait_for(
                lambda: self._closed or self._held + size <= self._room or (i == self._seen and not line)
            )
            line.append(item)
            self._held += size
            self._change.notify_all()
            return not self._closed
