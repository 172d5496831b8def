"""`otic pretrain`: a recipe and a folder of audio become a model; stopped at any moment, the same command goes on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from otic.apps.pretrain_job import Job, Run
from otic.apps.pretrain_launch import launch, processes
from otic.apps.pretrain_request import Length, apart, choose, request, resume_command
from otic.apps.pretrain_words import captioned
from otic.core.world import Precision, World
from otic.data.crops import Crops, held_out
from otic.data.rows import Source
from otic.data.source import open_source
from otic.engine.interrupt import Interrupt, Interrupted
from otic.engine.loop import Hook
from otic.inference.load import read_model
from otic.recipes import RECIPES, Recipe
from otic.recipes.base import adopted, for_classes

__all__ = ["Interrupted", "Run", "pretrain"]


def pretrain(
    recipe: str | Recipe,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    where: Sequence[str] = (),
    steps: int | None = None,
    epochs: float | int | None = None,
    minutes: float | int | None = None,
    seed: int | None = None,
    precision: Precision = "auto",
    device: str | None = None,
    devices: int | None = None,
    init: str | Path | None = None,
    settings: Sequence[str] = (),
    threads: int = 2,
    cache_gb: float | int = 4.0,
    teacher_cache: str | Path | None = None,
    hooks: Sequence[Hook] = (),
    quiet: bool = False,
) -> Run:
    """Pre-train an encoder; goes on by itself where `out` holds a checkpoint.

    Launched by `torchrun`, its processes share each batch.

    Args:
        recipe: A name of `otic.recipes.RECIPES`, or a `Recipe`.
        data: Any SRC, or several (see `open_source`). A recipe that learns words takes the split `train`, where there
            is one.
        out: The run's folder.
        where: Conditions on the data's rows (`in_test=0`).
        steps: Updates of the whole run. At most one of `steps`, `epochs` and `minutes`; by default, the recipe's.
        epochs: Times that each clip is seen.
        minutes: The speed is measured first, and the number of steps settled so that the schedule ends in time. It is
            settled again where a tenth, a quarter, half or three quarters of them have shown another speed; a later
            sitting keeps it.
        seed: Of weights, order, crops and masks.
        precision: `fp32`, `bf16`, or `auto` (bf16 where the hardware is faster in it).
        device: `cpu`, `cuda:0`, ...; None: a GPU when there is one.
        devices: Processes that share each batch, one for each GPU; None: all GPUs.
        init: A MODEL whose encoder's weights are the first ones; a run's folder may bring more (`Recipe.init`).
        settings: Changes of the recipe (`--set`): `("train.lr=1e-3", "batch_size=32")`.
        threads: That read clips while the last batch is computed.
        cache_gb: Memory for decoded clips, in 1e9 bytes.
        teacher_cache: Folder where what the recipe's teachers say of each clip is kept, heard before the run; None:
            they hear each crop during it.
        hooks: Called after each step, before the run's own.
        quiet: No progress on stderr.

    Raises:
        ConfigError: on settings that do not fit each other, the data, or the run that `out` holds already.
        DataError: on data that cannot be used, and when loss or gradient become infinite or NaN.
        Interrupted: (a `KeyboardInterrupt`) after Ctrl-C or SIGTERM, the state saved; its message says how to go on.
    """
    arguments = dict(locals())
    if (count := processes(devices, device)) > 1:
        run = launch(pretrain, count, arguments)
        assert isinstance(run, Run)
        return run
    began = time.perf_counter()
    base = RECIPES[recipe]() if isinstance(recipe, str) else recipe
    if init is not None and base.adopt:
        base = adopted(base, read_model(init))
    chosen, length = choose(base, seed, settings), Length(steps, epochs, minutes, tuple(settings))
    sources = (str(data),) if isinstance(data, str | Path) else tuple(str(d) for d in data)
    apart(out, sources)
    source = open_source(sources, where=where, learning=base.learns_words)  # what `evaluate` asks for is left out
    source = captioned(source) if base.learns_words else source
    base = for_classes(base, source.classes)
    chosen = choose(base, seed, settings)
    asked = request(chosen, source, steps=steps, epochs=epochs, minutes=minutes, precision=precision, init=init)
    command = resume_command(
        base.name, sources, out=out, where=where, steps=steps, epochs=epochs, minutes=minutes, seed=seed,
        precision=precision, devices=devices, init=init, teacher_cache=teacher_cache, settings=settings,
    )  # fmt: skip
    with ExitStack() as stack:
        world = stack.enter_context(joined(precision, device))
        stack.enter_context(torch.random.fork_rng())  # dropout layers are seeded step by step
        stack.enter_context(told_once())
        stop = stack.enter_context(Interrupt(world, quiet=quiet))
        learned, held = parts(chosen, source, cache_gb)
        job = Job(
            folder=Path(out), base=base, chosen=chosen, length=length, data=sources, crops=learned, held=held,
            world=world, stop=stop, command=command, request=asked, init=init, threads=threads, cache_gb=cache_gb,
            teacher_cache=teacher_cache, hooks=tuple(hooks), quiet=quiet, began=began,
        )  # fmt: skip
        return job.run()


def parts(recipe: Recipe, source: Source, cache_gb: float | int) -> tuple[Crops, Crops | None]:
    """The clips to learn from and, where the learning rate is cut on a plateau, those held out to find it."""
    rate, seconds, seed = recipe.frontend.sample_rate, recipe.crop_seconds, recipe.seed
    learned, held = None, None
    if recipe.train.schedule == "plateau":
        learned, held = held_out(len(source), recipe.train.plateau.clips, seed)
    crops = Crops(
        source, rate, seconds, seed, cache_gb, short=recipe.short, per=recipe.crops_per, gain_db=recipe.gain_db,
        cyclic=recipe.cyclic, only=learned,
    )  # fmt: skip
    return crops, None if held is None else Crops(source, rate, seconds, seed, 0.0, short=recipe.short, only=held)


@contextmanager
def joined(precision: Precision, device: str | None) -> Iterator[World]:
    """The world of processes, left again at the end if it was not there before."""
    before = dist.is_initialized()
    world = World.join(precision, device)
    try:
        yield world
    finally:
        if not before:
            world.leave()


@contextmanager
def told_once() -> Iterator[None]:
    """Within the block a warning's text is shown once: what holds for one step (masks, sample rates) holds for all."""
    told, before = set[str](), warnings.showwarning

    def show(message: Any, *more: Any, **named: Any) -> None:
        if str(message) not in told:
            told.add(str(message))
            before(message, *more, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
