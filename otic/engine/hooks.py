"""Hooks that end or keep a run: save now and then, stop when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable

from otic.core.world import ALONE, World
from otic.engine.config import TrainConfig
from otic.engine.interrupt import Interrupt, Interrupted
from otic.engine.loop import Event


class Save:
    """Calls `save` every so many minutes or steps, and before a run stops because of a signal.

    Args:
        save: Writes the run's state; called on every process at the same step.
        cfg: How often.
        stop: Asked after each step.
        command: What to type to go on.

    Raises:
        Interrupted: after a signal, the state saved.
    """

    def __init__(self, save: Callable[[], None], cfg: TrainConfig, stop: Interrupt, command: str, world: World = ALONE):
        self._save, self._cfg, self._stop, self._command, self._world = save, cfg, stop, command, world
        self._saved = time.monotonic()

    def __call__(self, event: Event) -> None:
        step, cfg = event.state.step, self._cfg
        stopped = self._stop.wanted()
        if stopped or self._due(step):
            self._save()
            self._saved = time.monotonic()
        if stopped and step < cfg.steps:
            raise Interrupted(f"stopped at step {step} of {cfg.steps}, state saved. To go on: {self._command}")

    def _due(self, step: int) -> bool:
        cfg = self._cfg
        if step == cfg.steps:
            return False  # the end of the run saves by itself
        if cfg.save_every and step % cfg.save_every == 0:
            return True
        # processes must agree, and their clocks do not
        late = time.monotonic() - self._saved > 60 * cfg.save_minutes
        return self._world.mean(float(late and self._world.main)) > 0
