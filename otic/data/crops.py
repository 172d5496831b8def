"""Random crops for training and whole clips for evaluation, read by threads.

Which clip stands where, where it is cut and which caption goes with it follow from (seed, epoch, index) alone: not
from the number of threads or processes, not from what is in the cache, not from what ran before. Threads suffice,
because decoding and resampling release the interpreter lock.

Each epoch takes one crop of each clip, long or short, or as many as fit into it: then every second counts the same.
"""

from __future__ import annotations

import itertools
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from otic.core.batch import Batch
from otic.core.errors import AudioError, AudioWarning, ConfigError, DataError
from otic.core.seeds import rng
from otic.data.rows import Source

EDGE = 0.1  # seconds before the end that a header names, where there may be no sound left to begin with
WHOLE = 60.0  # seconds up to which a clip is decoded whole (and cached) instead of in part
TRIES = 20  # clips drawn at random in place of a bad one before all are tried in turn


class Crop(NamedTuple):
    """One clip's part in a batch."""

    wave: np.ndarray  # float32 [s], padded to the crop's length
    length: int  # real samples of it
    id: str  # clip@start in seconds
    clip: int  # its row in the source
    caption: str | None  # one of the clip's captions
    start: float  # seconds from the clip's beginning


class Crops:
    """Crops of `seconds` at `rate` from the clips of a source.

    Args:
        cache_gb: Memory for decoded clips, in 1e9 bytes; 0 decodes anew each time. The values are the same either way.
        short: A clip shorter than the crop is followed by zeros (`"pad"`) or by itself (`"repeat"`).
        per: An epoch takes one crop of each `"clip"`, or one for each started crop's length of it (`"duration"`).
        gain_db: Each crop is made louder or softer by up to so many decibels, uniformly.
        cyclic: A crop begins anywhere in its clip and goes on at its beginning; else it ends where the clip does.
        only: The clips that are taken, by their numbers; None: all.

    Attributes:
        bad: The clips that could not be read, with the reason.
    """

    def __init__(
        self,
        source: Source,
        rate: int,
        seconds: float | int,
        seed: int,
        cache_gb: float | int = 4.0,
        *,
        short: Literal["pad", "repeat"] = "pad",
        per: Literal["clip", "duration"] = "clip",
        gain_db: float | int = 0.0,
        cyclic: bool = False,
        only: Sequence[int] | None = None,
    ):
        if not len(source):
            raise DataError(f"{source.name}: no clips.")
        self.source, self.rate, self.seed, self.short, self.gain_db = source, rate, seed, short, gain_db
        self.samples, self.cyclic = round(seconds * rate), cyclic
        self.bad: dict[str, str] = {}
        self._classes = {name: k for k, name in enumerate(source.classes)}
        self._labelled = all(row.labels for row in source.rows)
        self._single = all(len(row.labels) == 1 for row in source.rows)
        self._captioned = all(row.captions for row in source.rows)
        self._asked = any("prompt" in row.extra for row in source.rows)
        self._misled = any(row.extra.get("hard_negative") for row in source.rows)
        self._cache: dict[int, np.ndarray] = {}
        self._room = round(cache_gb * 1e9)
        self._hopeless: set[int] = set()  # clips of which nothing can be read
        self._lock = threading.Lock()
        self._orders: dict[int, np.ndarray] = {}
        self._taken = list(range(len(source)) if only is None else only)
        share = [1 if per == "clip" else math.ceil(self._seconds(i) / seconds) for i in self._taken]
        ends = np.cumsum(np.maximum(share, 1) * np.array([source.rows[i].weight for i in self._taken]))
        self._crops = max(1, round(float(ends[-1])))
        self._ends = ends * (self._crops / ends[-1])  # the i-th clip has the crops of an epoch between ends i - 1 and i

    def __len__(self) -> int:
        """Crops of an epoch."""
        return self._crops

    @property
    def clips(self) -> int:
        """How many clips are taken."""
        return len(self._taken)

    def epoch_steps(self, batch_size: int) -> int:
        """Batches of an epoch (the last may begin the next one)."""
        return -(-len(self) // batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """This epoch's crops in order: a permutation drawn from (seed, epoch)."""
        order = self._orders.get(epoch)
        if order is None:
            order = rng(self.seed, "order", epoch).permutation(len(self))
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 2} | {epoch: order}
        return order

    def take(self, position: int) -> Crop:
        """What stands at `position` of the endless stream of epochs.

        Raises:
            DataError: when no clip can be read.
        """
        epoch, place = divmod(position, len(self))
        drawn = int(self.order(epoch)[place])
        dice = rng(self.seed, "crop", epoch, drawn)
        for i in self._candidates(self._whose(epoch, drawn), dice):
            at, words = dice.random(2)
            if i in self._hopeless:
                continue
            try:
                wave, start = self._cut(i, float(at))
            except AudioError as error:
                self._report(i, error)
                continue
            name = f"{self.source.rows[i].id}@{start:.3f}"
            wave, length = self._fit(wave)
            if self.gain_db:
                decibels = rng(self.seed, "gain", epoch, drawn).uniform(-self.gain_db, self.gain_db)
                wave = wave * np.float32(10 ** (decibels / 20))
            return Crop(wave, length, name, i, self._caption(i, float(words)), start)
        raise DataError(f"{self.source.name}: no clip can be read. First: {next(iter(self.bad.values()))}")

    def _whose(self, epoch: int, crop: int) -> int:
        """The clip of a crop. One of weight 1.5 has one crop in some epochs and two in others: each epoch looks at
        another place between two whole numbers, and golden steps spread these places evenly."""
        place = crop + epoch * 633 % 1024 / 1024
        return self._taken[min(int(np.searchsorted(self._ends, place, "right")), len(self._ends) - 1)]

    def _candidates(self, first: int, dice: np.random.Generator) -> Iterator[int]:
        """The clip itself; should it be bad, others drawn at random, and in the end simply all of them."""
        yield first
        for _ in range(TRIES):
            yield self._taken[int(dice.integers(len(self._taken)))]
        yield from self._taken

    def _cut(self, i: int, at: float) -> tuple[np.ndarray, float]:
        seconds = self._length(i)
        if seconds is None or seconds <= WHOLE:
            whole = self._whole(i)
            if self.cyclic:
                start = int(at * len(whole))
                return self._around(whole[start : start + self.samples], whole[:start]), start / self.rate
            start = int(at * (max(len(whole) - self.samples, 0) + 1))
            return whole[start : start + self.samples], start / self.rate
        span = self.samples / self.rate
        if self.cyclic:
            begin = math.floor(1000 * at * (seconds - EDGE)) / 1000
            wave = self.source.read(i, self.rate, begin, span)[: self.samples]
            if len(wave) == self.samples:
                return wave, begin
            return self._around(wave, self.source.read(i, self.rate, 0.0, min(span, begin))), begin
        begin = math.floor(1000 * at * max(seconds - span, 0.0)) / 1000
        return self.source.read(i, self.rate, begin, span)[: self.samples], begin

    def _around(self, wave: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What a crop lacks at the clip's end is taken from what comes before it, from the clip's beginning on."""
        return np.concatenate((wave, before[: self.samples - len(wave)]))

    def _seconds(self, i: int) -> float:
        """Seconds as the manifest says, else the header; 0 where neither knows."""
        try:
            return self.source.rows[i].seconds or self.source.length(i) or 0.0
        except AudioError:
            return 0.0  # reported when its turn comes

    def _length(self, i: int) -> float | None:
        """Seconds as the header says, else the manifest; which way a clip is read must not depend on what is cached."""
        if i in self._cache:
            return 0.0
        try:
            seconds = self.source.length(i)
        except AudioError:
            self._hopeless.add(i)
            raise
        return self.source.rows[i].seconds if seconds is None else seconds

    def _whole(self, i: int) -> np.ndarray:
        wave = self._cache.get(i)
        if wave is not None:
            return wave
        try:
            wave = self.source.read(i, self.rate)
        except AudioError:
            self._hopeless.add(i)
            raise
        with self._lock:  # first come, first kept: with a new order each epoch, no eviction rule does better
            if i not in self._cache and wave.nbytes <= self._room:
                self._cache[i] = wave
                self._room -= wave.nbytes
        return wave

    def _fit(self, wave: np.ndarray) -> tuple[np.ndarray, int]:
        if len(wave) >= self.samples:
            return wave, self.samples
        if self.short == "repeat" and len(wave):
            return np.resize(wave, self.samples), self.samples
        return np.pad(wave, (0, self.samples - len(wave))), len(wave)

    def _caption(self, i: int, at: float) -> str | None:
        captions = self.source.rows[i].captions
        return captions[int(at * len(captions))] if captions else None

    def _report(self, i: int, error: AudioError) -> None:
        name = self.source.rows[i].id
        with self._lock:
            new = name not in self.bad
            self.bad.setdefault(name, str(error))
        if new:
            warnings.warn(
                AudioWarning(f"{name}: skipped, another clip takes its place. {error}", error.kind), stacklevel=2
            )

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """Class indices `[b]`, or 0/1 rows `[b, c]` where a clip has several labels; None unless every clip has one."""
        if not self._labelled:
            return None
        if self._single:
            return torch.tensor([self._classes[self.source.rows[i].labels[0]] for i in indices])
        out = torch.zeros(len(indices), len(self._classes))
        for row, i in enumerate(indices):
            out[row, [self._classes[name] for name in self.source.rows[i].labels]] = 1
        return out

    def _said(self, column: str, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.source.rows[i].extra.get(column, "") for i in indices)

    def batch(self, taken: Sequence[Crop]) -> Batch:
        waves, lengths, ids, indices, captions, starts = zip(*taken, strict=True)
        return Batch(
            wave=torch.from_numpy(np.stack(waves)),
            lengths=torch.tensor(lengths),
            labels=self.labels(indices),
            text=tuple(captions) if self._captioned else None,
            prompts=self._said("prompt", indices) if self._asked else None,
            negatives=self._said("hard_negative", indices) if self._misled else None,
            ids=ids,
            starts=torch.tensor(starts, dtype=torch.float32),
        )


def batches(
    crops: Crops, batch_size: int, *, start: int = 0, rank: int = 0, size: int = 1, threads: int = 2
) -> Iterator[Batch]:
    """Batches without end from step `start` on, read ahead by `threads` threads.

    Step k takes clips k * batch_size ... of the stream of epochs; with `size` processes, each gets its share of
    that same batch.

    Raises:
        ConfigError: when `batch_size` is not a multiple of `size`.
        DataError: when no clip can be read.
    """
    if batch_size < 1 or batch_size % size:
        raise ConfigError(f"batch_size {batch_size} is not a positive multiple of the {size} processes.")
    own = batch_size // size
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="otic-crops") as pool:
        ahead: deque[list[Future[Crop]]] = deque()
        try:
            for step in itertools.count(start):
                first = step * batch_size + rank * own
                ahead.append([pool.submit(crops.take, p) for p in range(first, first + own)])
                if len(ahead) > max(2, 2 * threads // own):
                    yield crops.batch([future.result() for future in ahead.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def held_out(clips: int, most: int, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the clips to learn from and, drawn from the seed, of those to measure on: a tenth at most.

    Raises:
        DataError: where there is but one clip.
    """
    if clips < 2:
        raise DataError("one clip alone: none can be held out to measure on (train.schedule=plateau).")
    order = rng(seed, "held out").permutation(clips)
    count = min(most, max(1, clips // 10))
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def clips(
    source: Source,
    rate: int,
    indices: Sequence[int] | np.ndarray | None = None,
    max_seconds: float | int | None = None,
    *,
    threads: int = 2,
    bad: dict[str, str] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, wave `[s]`) in the order of `indices`, read ahead by threads; at most `max_seconds` from the beginning.

    A clip that cannot be read is left out, warned of, and put into `bad` (id to reason) where given.

    Raises:
        DataError: when none of the clips can be read.
    """
    wanted = range(len(source)) if indices is None else [int(i) for i in indices]
    good, last = 0, ""
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="otic-clips") as pool:
        try:
            for i, future in _ahead(pool, lambda i: source.read(i, rate, 0.0, max_seconds), wanted, 4 * threads):
                try:
                    wave = future.result()
                except AudioError as error:
                    name, last = source.rows[i].id, str(error)
                    if bad is not None:
                        bad[name] = last
                    warnings.warn(AudioWarning(f"{name}: left out. {error}", error.kind), stacklevel=2)
                    continue
                good += 1
                yield i, wave
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if wanted and not good:
        raise DataError(f"{source.name}: none of the {len(wanted)} clips can be read. Last: {last}")


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[int], np.ndarray], items: Sequence[int], depth: int
) -> Iterator[tuple[int, Future[np.ndarray]]]:
    """Each item with its work under way, in order, `depth` of them begun ahead of time."""
    waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
    for i in items:
        waiting.append((i, pool.submit(work, i)))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting
