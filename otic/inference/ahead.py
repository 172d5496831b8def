"""Read ahead: the next windows are decoded while the encoder works on these."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], count: int = 16) -> Iterator[T]:
    """The same items in the same order, made in a thread that runs at most `count` ahead.

    What the thread raises is raised here, in its place. Leaving the loop early stops the thread.
    """
    line: queue.Queue[Any] = queue.Queue(count)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                line.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # handed over, not swallowed: the reader of the line raises it
            put((_END, error))

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = line.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
