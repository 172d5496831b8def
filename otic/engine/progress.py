"""What a person sees while a run goes on: loss, clips/s, time left, learning rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from otic.engine.loop import Event

PRINT = 10.0  # seconds from one line to the next where there is no terminal
MEMORY = 0.9  # of the moving averages


class Progress:
    """A hook that draws a bar on a terminal and prints a line now and then elsewhere; `with` ends the bar.

    Args:
        name: What is being trained.
        steps: The run's last step.
        step: Where the run goes on.
        quiet: Say nothing.
        stream: A text file; stderr by default, so that results alone are on stdout.
        remark: Asked for a word to add at the end.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        step: int = 0,
        *,
        quiet: bool = False,
        stream: Any = None,
        remark: Callable[[], str] | None = None,
    ):
        self._name, self._steps, self._first, self._quiet = name, steps, step, quiet
        self._stream, self._remark = stream or sys.stderr, remark
        self._loss = self._seconds = 0.0
        self._seen, self._printed = 0, time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self._quiet and self._stream.isatty():
            self._bar, self._task = _bar(self._name, self._steps, self._first, self._stream)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        keep = MEMORY if self._seen else 0.0
        self._loss = keep * self._loss + (1 - keep) * event.loss
        self._seconds = keep * self._seconds + (1 - keep) * event.seconds
        self._seen += 1
        if self._quiet:
            return
        now, step = time.monotonic(), event.state.step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self.text(event))
        elif now - self._printed > PRINT or step == self._steps or self._seen == 1:
            self._printed = now
            print(f"{self._name}: step {step}/{self._steps}, {self.text(event)}", file=self._stream, flush=True)

    def text(self, event: Event) -> str:
        """`loss 0.412, 93.1 clips/s, 0:03:10 left, lr 4.2e-04`."""
        speed = event.state.clips / event.state.step / max(self._seconds, 1e-9)
        left = round((self._steps - event.state.step) * self._seconds)
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        remark = self._remark() if self._remark else ""
        return f"loss {self._loss:.4g}, {speed:.1f} clips/s, {clock} left, lr {event.lr:.2g}{remark and f', {remark}'}"


def _bar(name: str, steps: int, step: int, stream: Any) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
    bar = Bar(*columns, console=Console(file=stream), refresh_per_second=4)
    return bar, bar.add_task(name, total=steps, completed=step, text="")
