"""One sitting of a pre-training run: settle its length, build or resume, train, save, export."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otic import __version__
from otic.apps.pretrain_init import begin
from otic.apps.pretrain_request import Length, check_same
from otic.apps.pretrain_teachers import check_teachers, teachers
from otic.apps.pretrain_words import Words, understand, words
from otic.audio.frontend import Frontend, measure
from otic.core.batch import Batch
from otic.core.config import to_dict
from otic.core.errors import ConfigError, OticWarning
from otic.core.files import atomic, write_json
from otic.core.machine import commit
from otic.core.seeds import generator
from otic.core.text import count
from otic.core.world import World
from otic.data.crops import Crops, batches
from otic.engine import checkpoint
from otic.engine.calibrate import Enough, Pace, Replan, Stopwatch, Watch
from otic.engine.check import Check
from otic.engine.config import endless_warmup
from otic.engine.health import CLIPS, Health, interval
from otic.engine.hooks import Save
from otic.engine.interrupt import Interrupt, Interrupted
from otic.engine.lock import locked
from otic.engine.log import Log, read_log, warnings_in
from otic.engine.loop import Event, Hook, State, train
from otic.engine.optim import make_optimizer
from otic.engine.plateau import Rest
from otic.engine.progress import Progress
from otic.objectives import Objective
from otic.objectives.teacher import Teacher
from otic.recipes import Recipe
from otic.recipes.base import CHECKING, with_ramps
from otic.weights import store

if TYPE_CHECKING:
    from otic.inference.model import Model

WEIGHTS, LOG, PREVIEW, SETTINGS = "model.safetensors", "log.jsonl", "preview.npz", "recipe.json"
PAGE = "report.html"
MEASURED = 512  # crops that the normalisation statistics are measured on
SHARE, MOST = 0.05, 20.0  # of the minutes given, and seconds at most, spent on measuring the speed
SPARE = 0.02  # of the minutes given, left for saving
SHOWN = 8  # clips in the preview


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where its files are: weights, log, checkpoint, preview.
        recipe: What was run, its length and statistics settled.
        steps: Finished updates.
        clips: Clips seen.
        seconds: Time in the training loop, over all sittings.
        loss: The loss in the last line of its log.
        bad: Clips that could not be read in this sitting, with the reason.
    """

    folder: Path
    recipe: Recipe
    steps: int
    clips: int
    seconds: float
    loss: float | None
    bad: dict[str, str]

    @property
    def weights(self) -> Path:
        """The model's file."""
        return self.folder / WEIGHTS

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / PAGE

    @property
    def notes(self) -> list[str]:
        """What the run warned of: collapse."""
        return warnings_in(self.folder / LOG)

    def log(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl`: step, loss, its parts, lr, grad_norm, clips_per_second, ..."""
        return read_log(self.folder / LOG)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "out": str(self.folder), "weights": str(self.weights), "recipe": to_dict(self.recipe), "steps": self.steps,
            "clips_seen": self.clips, "seconds": round(self.seconds, 3), "loss": self.loss, "bad": self.bad,
            "notes": self.notes, "report": str(self.report),
        }  # fmt: skip

    def load(self) -> Model:
        """The trained model."""
        from otic.inference.load import load

        return load(self.folder)


@dataclass(frozen=True)
class Plan:
    """What is trained, from its first step or from a checkpoint."""

    recipe: Recipe
    frontend: Frontend
    objective: Objective
    optimizer: torch.optim.Optimizer
    state: State
    bank: torch.Tensor | None  # the front-end's mel matrix, where the first weights brought one

    def fill(self, batch: Batch) -> Batch:
        if not self.objective.needs_spec(batch):
            return batch
        return self.frontend.fill(batch, self.recipe.frames or None)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The arguments of `pretrain`, made ready."""

    folder: Path
    base: Recipe  # as named
    chosen: Recipe  # with the user's changes
    length: Length
    data: tuple[str, ...]
    crops: Crops  # what is learned from
    held: Crops | None  # held out to find a plateau
    world: World
    stop: Interrupt
    command: str  # goes on with this run
    request: dict[str, Any]  # what a later sitting must ask for too
    init: str | Path | None
    threads: int
    cache_gb: float | int
    teacher_cache: str | Path | None
    hooks: tuple[Hook, ...]
    quiet: bool
    began: float  # by time.perf_counter

    def run(self) -> Run:
        self._check()
        with locked(self.folder) if self.world.main else contextlib.nullcontext():
            return self._run()

    def _run(self) -> Run:
        saved = self._saved()
        recipe = self._settle() if saved is None else self._settled(saved)
        plan = self._build(recipe, saved)
        self._tell(plan)
        unfinished = plan.state.step < recipe.train.steps
        if unfinished:
            if saved is None:
                self._save(plan)
            plan = self._trained(plan, self._clock(recipe) if saved is None else None)
            self._save(plan)
        self._finish(plan)
        if self.world.main and (unfinished or not (self.folder / PAGE).exists()):
            self._page(plan)
        return self._result(plan)

    def _check(self) -> None:
        cfg, share = self.chosen, self.world.size * self.chosen.train.accumulate
        if cfg.batch_size < 1 or cfg.batch_size % share:
            raise ConfigError(
                f"batch_size={cfg.batch_size}: must be a multiple of {share} "
                f"({self.world.size} processes x train.accumulate={cfg.train.accumulate})."
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: is a file. --out names a folder.")

    def _saved(self) -> dict[str, Any] | None:
        """The checkpoint to go on from; the main process looks first, since it may put a damaged one aside."""
        if not self.world.main:
            self.world.barrier()
            return checkpoint.load(self.folder)
        for part in self.folder.glob(".*.part"):
            part.unlink()  # of a sitting that was killed while it wrote
        saved = checkpoint.load(self.folder)
        self.world.barrier()
        return saved

    def _settled(self, saved: dict[str, Any]) -> Recipe:
        check_same(saved["request"], self.request, self.folder, self.base)
        return self._with(saved["statistics"], saved["steps"])

    def _settle(self) -> Recipe:
        """Statistics and length, measured where they are not given."""
        minutes, steps = self.length.minutes, self.length.total(self.chosen, len(self.crops))
        if minutes is None and (odd := endless_warmup(self._with(None, steps).train)):
            raise ConfigError(odd)
        statistics = self._statistics() if self.chosen.measure_statistics else None
        if minutes is None:
            return self._with(statistics, steps)
        return self._with(statistics, self._fitting(60.0 * minutes, self._with(statistics, self.chosen.train.steps)))

    def _with(self, statistics: list[float] | None, steps: int) -> Recipe:
        recipe = self.length.plan(self.base, self.chosen, steps)
        if statistics is None:
            return recipe
        mean, std = statistics
        return replace(recipe, frontend=replace(recipe.frontend, mean=mean, std=std))

    def _statistics(self) -> list[float]:
        """Mean and std of the log-mel over the first crops of the data."""
        count = min(MEASURED, len(self.crops))

        def cuts() -> Iterator[torch.Tensor]:
            for k in range(count):
                wave, real, *_ = self.crops.take(k)
                self._quit_early("nothing to save")
                yield torch.from_numpy(wave[:real])

        pair = measure(cuts(), self.chosen.frontend)
        return [self.world.mean(float(f"{value:.6g}")) for value in pair]

    def _fitting(self, seconds: float, recipe: Recipe) -> int:
        """How many steps fit: a trial run, thrown away, says how long one takes."""
        plan = self._build(recipe, None)
        pace = self._timed(plan, min(SHARE * seconds, MOST))
        if getattr(recipe.objective, "remember", False):  # clips that come again cost less
            plan.state.step = 0
            pace = Pace(pace.first, self._timed(plan, 0.0).later)
        left = seconds * self._usable - (time.perf_counter() - self.began)
        return pace.steps(self.world.mean(max(left, 0.0)), self._first_epoch())

    @property
    def _usable(self) -> float:
        """Share of the minutes given that is spent on steps."""
        return 1 - SPARE - (0.0 if self.held is None else CHECKING)

    def _clock(self, recipe: Recipe) -> Watch | None:
        """Looks whether a run in minutes will end in time; its first sitting alone, a later one keeps the length. Where
        clips that come again cost less, the speed of now says nothing of the speed to come."""
        if self.length.minutes is None or getattr(recipe.objective, "remember", False):
            return None
        until = self.began + 60.0 * self.length.minutes * self._usable
        return Watch(recipe.train.steps, until, self._first_epoch(), self.world)

    def _trained(self, plan: Plan, watch: Watch | None) -> Plan:
        while True:
            try:
                self._train(plan, watch)
                return plan
            except Replan as found:
                steps = found.steps
            self._note(f"{plan.recipe.name}: {steps} updates instead of {plan.recipe.train.steps}, to end in time")
            plan = self._replanned(plan, steps)

    def _replanned(self, plan: Plan, steps: int) -> Plan:
        """As if resumed with another number of steps: the schedule and the ramps are another run's, from here on."""
        recipe, other = plan.recipe, self._with(None, steps)
        plan.objective.cfg = with_ramps(plan.objective.cfg, other.objective)
        changed = replace(recipe, train=other.train, objective=with_ramps(recipe.objective, other.objective))
        return replace(plan, recipe=changed)

    def _timed(self, plan: Plan, seconds: float) -> Pace:
        watch = Stopwatch(seconds, self.world)
        with contextlib.suppress(Enough):
            self._loop(plan, (watch, self._quit))
        return watch.pace()

    def _quit(self, event: Event) -> None:
        if self.stop.wanted():
            raise Interrupted(f"stopped before the first step, nothing to save. To begin again: {self.command}")

    def _quit_early(self, kept: str = "what was read is kept") -> None:
        """Before any step; processes which share a run have parts of unlike length here, and cannot agree."""
        if self.world.size == 1 and self.stop.wanted():
            raise Interrupted(f"stopped before the first step, {kept}. To begin again: {self.command}")

    def _first_epoch(self) -> int | None:
        """Steps until all clips are in the cache; None where they do not fit or their length is not known."""
        seconds = [row.seconds for row in self.crops.source.rows]
        if any(s is None for s in seconds):
            return None
        size = 4 * self.crops.rate * sum(s for s in seconds if s is not None)
        return self.crops.epoch_steps(self.chosen.batch_size) if size < 0.95e9 * self.cache_gb else None

    def _build(self, recipe: Recipe, saved: dict[str, Any] | None) -> Plan:
        reads, tokenizer = self._words, None
        if reads is not None:
            recipe, tokenizer = reads.settle(recipe), reads.tokenizer
        encoder, objective = recipe.build(self._teachers, tokenizer)
        bank = None if saved is None else saved.get("bank")
        if saved is None and self.init is not None:
            objective, bank = begin(recipe, encoder, self.init, self._teachers, tokenizer, self._note)
        if saved is None and reads is not None:
            reads.fill(objective, str(recipe.objective.language))
        objective.to(self.world.device).train()
        optimizer = make_optimizer(objective, recipe.train)
        state = State()
        if saved is not None:
            objective.load_state_dict(saved["objective"])
            objective.labels_used = objective.labels_used or saved.get("labels_used", False)
            check_teachers(saved.get("teachers"), self._identities, recipe, self.folder)
            optimizer.load_state_dict(saved["optimizer"])
            rest, unlogged = Rest(*saved.get("rest", ())), dict(saved.get("unlogged", {}))
            state = State(saved["step"], saved["clips"], saved["seconds"], rest, unlogged)
        if reads is not None:
            understand(
                objective, reads, self.crops.source, self.folder, self.world, self.teacher_cache,
                stop=self._quit_early, quiet=self.quiet,
            )  # fmt: skip
        frontend = Frontend(recipe.frontend, bank=bank).to(self.world.device)
        return Plan(recipe, frontend, objective, optimizer, state, bank)

    @cached_property
    def _teachers(self) -> list[Teacher]:
        return teachers(
            self.chosen, self.crops.source, self.teacher_cache, self.world, threads=self.threads,
            stop=self._quit_early, quiet=self.quiet,
        )  # fmt: skip

    @cached_property
    def _identities(self) -> list[str]:
        return [teacher.identity() for teacher in self._teachers]

    @cached_property
    def _words(self) -> Words | None:
        return words(self.chosen, self.crops.source, self.folder, self.world)

    def _loop(self, plan: Plan, hooks: tuple[Hook, ...]) -> None:
        recipe, world = plan.recipe, self.world
        stream = batches(
            self.crops, recipe.batch_size, start=plan.state.step, rank=world.rank, size=world.size, threads=self.threads
        )
        try:
            train(
                plan.objective, plan.fill, stream, plan.optimizer, recipe.train,
                world=world, hooks=hooks, state=plan.state, seed=recipe.seed,
            )  # fmt: skip
        finally:
            stream.close()  # type: ignore[attr-defined]  # ends the reading threads

    def _train(self, plan: Plan, watch: Watch | None) -> None:
        cfg, step, main = plan.recipe.train, plan.state.step, self.world.main
        save = Save(lambda: self._save(plan), cfg, self.stop, self.command, self.world)
        health = self._health(plan) if main else None
        check = self._watch(plan)

        def rare(event: Event) -> dict[str, Any]:
            return (health(event) if health else {}) | (check.found if check else {})

        since = plan.state.unlogged
        log = (Log(self.folder / LOG, cfg.log_every, cfg.steps, step, rare, since),) if main else ()
        remark = (lambda: "collapsed" * bool(health.warned)) if health else None
        with Progress(plan.recipe.name, cfg.steps, step, quiet=self.quiet or not main, remark=remark) as progress:
            own = (*([check] if check else ()), *log, progress, save, *([watch] if watch else ()))
            self._loop(plan, (*self.hooks, *own))

    def _watch(self, plan: Plan) -> Check | None:
        """Measures the objective on the clips held out: each once, in as many batches as they fill."""
        held, size, world = self.held, plan.recipe.batch_size, self.world
        if held is None:
            return None

        def stream() -> Iterator[Batch]:
            every = batches(held, size, rank=world.rank, size=world.size, threads=self.threads)
            with contextlib.closing(every):  # type: ignore[type-var]
                yield from itertools.islice(every, max(1, len(held) // size))

        return Check(plan.objective, plan.fill, stream, plan.recipe.train, world=world, seed=plan.recipe.seed)

    def _health(self, plan: Plan) -> Health:
        """Measures the encoder on the run's first crops, which follow from the seed."""
        recipe, path, step = plan.recipe, self.folder / LOG, plan.state.step
        clips = self.crops.batch([self.crops.take(k) for k in range(max(8, min(CLIPS, len(self.crops))))])
        spec = plan.frontend.fill(clips.to(self.world.device), recipe.frames or None).spec
        assert spec is not None
        every = interval(recipe.train.steps, recipe.batch_size)
        history = [line for line in read_log(path) if line["step"] <= step] if path.exists() else []
        return Health(plan.objective.encoder, spec, every, recipe.train.steps, world=self.world, history=history)

    def _save(self, plan: Plan) -> None:
        """Checkpoint and model; both are whole at any moment."""
        if self.world.main:
            state, front = plan.state, plan.recipe.frontend
            content = {
                "otic": __version__, "request": self.request, "steps": plan.recipe.train.steps,
                "statistics": [front.mean, front.std] if plan.recipe.measure_statistics else None,
                "step": state.step, "clips": state.clips, "seconds": state.seconds,
                "rest": list(state.rest), "unlogged": dict(state.unlogged), "bank": plan.bank,
                "labels_used": plan.objective.labels_used, "teachers": self._identities,
                "objective": plan.objective.state_dict(), "optimizer": plan.optimizer.state_dict(),
            }  # fmt: skip
            checkpoint.save(self.folder, content)
            self._export(plan)
        self.world.barrier()

    def _export(self, plan: Plan) -> None:
        extra, described = plan.objective.extras()
        if "head" in described:  # what its outputs are called, the data alone knows
            described = {**described, "classes": self.crops.source.classes}
        encoder, frontend = plan.objective.encoder, plan.recipe.frontend
        store.save(self.folder / WEIGHTS, encoder, frontend, self._card(plan), extra, described, plan.bank)

    def _card(self, plan: Plan) -> dict[str, Any]:
        recipe, state = plan.recipe, plan.state
        return {
            "name": self.folder.resolve().name, "recipe": recipe.name, "objective": recipe.method,
            "data": list(self.data), "clips_in_data": len(self.crops.source), "clips_seen": state.clips,
            **({} if self.held is None else {"clips_held_out": self.held.clips}),
            "crop_seconds": recipe.crop_seconds, "steps": state.step, "steps_planned": recipe.train.steps,
            "seed": recipe.seed, "init": None if self.init is None else str(self.init),
            "labels_used": plan.objective.labels_used, **self._taught(recipe), "notes": warnings_in(self.folder / LOG),
            "otic": __version__, "commit": commit(), "inference": to_dict(recipe.inference),
        }  # fmt: skip

    def _taught(self, recipe: Recipe) -> dict[str, Any]:
        """Who and what taught it besides the sound: teachers, a published text tower, names of classes."""
        names, language = list(getattr(recipe.objective, "teachers", ())), getattr(recipe.objective, "language", "")
        classes = self.crops.source.classes if getattr(recipe.objective, "lambda_cls", 0) else []
        said = {"teachers": names, "language": language, "trained_on_classes": classes}
        return {key: value for key, value in said.items() if value}

    def _finish(self, plan: Plan) -> None:
        """What a run that is killed between two files still lacks, and a picture of what it does."""
        if not self.world.main:
            return
        weights = self.folder / WEIGHTS
        if not weights.exists() or store.describe(weights)["card"].get("steps") != plan.state.step:
            self._export(plan)
        if not (self.folder / PREVIEW).exists():
            self._preview(plan)
        write_json(self.folder / SETTINGS, to_dict(plan.recipe))

    def _page(self, plan: Plan) -> None:
        """`report.html`; whatever goes wrong with it, the run is done."""
        from otic.apps.pretrain_page import write_page

        try:
            write_page(self.folder, plan.recipe, self._card(plan), plan.state.seconds)
        except Exception as error:
            message = f"{self.folder / PAGE}: not written ({type(error).__name__}: {error}). The run is complete."
            warnings.warn(OticWarning(message), stacklevel=2)

    @torch.no_grad()
    def _preview(self, plan: Plan) -> None:
        """`preview.npz`: what the objective shows of a few clips (spectrogram, mask, prediction), if it can."""
        stream = batches(self.crops, SHOWN, threads=self.threads)
        batch = next(stream).to(self.world.device)
        stream.close()  # type: ignore[attr-defined]
        plan.objective.eval()
        gen = generator(plan.recipe.seed, "preview", device=self.world.device)
        shown = plan.objective.preview(plan.fill(batch), gen)
        if not shown:
            return
        arrays: dict[str, Any] = {name: tensor.float().cpu().numpy() for name, tensor in shown.items()}
        with atomic(self.folder / PREVIEW) as part, part.open("wb") as file:
            np.savez_compressed(file, ids=np.array([str(i) for i in batch.ids]), **arrays)

    def _tell(self, plan: Plan) -> None:
        """One line of what is about to happen."""
        cfg, step, clips = plan.recipe, plan.state.step, len(self.crops.source)
        steps = cfg.train.steps
        epochs = steps * cfg.batch_size / len(self.crops)
        self._note(
            f"{cfg.name}: {count(clips, 'clip')} x {epochs:.1f} epochs / batches of {cfg.batch_size} = "
            f"{count(steps, 'update')}, "
            f"crops of {cfg.crop_seconds:g} s, {str(self.world.dtype).removeprefix('torch.')} on {self.world.device}"
        )
        if said := plan.objective.labels_used:
            what = said if isinstance(said, str) else "labels, its own or another model's"
            self._note(f"{cfg.name}: learns from {what}; its card says so.")
        if self.held is not None:
            self._note(f"{cfg.name}: {self.held.clips} of the clips are held out, to see when learning rests.")
        if clips < cfg.batch_size:
            self._note(
                f"{cfg.name}: a batch of {cfg.batch_size} holds each clip more than once; more data would serve better."
            )
        if odd := endless_warmup(cfg.train):
            self._note(f"{cfg.name}: {odd}")
        if step >= steps:
            done = count(step, "step")
            self._note(f"{self.folder}: this run is finished ({done}). Remove the folder to run it again.")
        elif step:
            self._note(f"{self.folder}: going on at step {step} of {steps}")

    def _note(self, text: str) -> None:
        if self.world.main and not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _result(self, plan: Plan) -> Run:
        lines = read_log(self.folder / LOG) if (self.folder / LOG).exists() else []
        loss = lines[-1]["loss"] if lines else None
        state = plan.state
        return Run(self.folder, plan.recipe, state.step, state.clips, state.seconds, loss, dict(self.crops.bad))
