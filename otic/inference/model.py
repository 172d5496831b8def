"""`Model`: an encoder, its front-end and its card, ready to turn sound (and words, if it knows any) into vectors.

Always in eval mode and without gradients: the same file gives the same vectors, alone or in company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from otic.audio.cliplen import Draw, Short, fused, lengthen
from otic.audio.frontend import Frontend
from otic.audio.read import read
from otic.audio.windows import starts
from otic.core.errors import AudioError, ConfigError
from otic.core.registry import unknown
from otic.core.world import Precision, World, choose_dtype, find_device
from otic.inference import compat, jobs
from otic.inference.classifier import Classifier
from otic.inference.embeddings import Embeddings, failure, join
from otic.inference.encode import (
    CLASSES,
    JOINT,
    TAGGER,
    check_layers,
    check_pool,
    check_waves,
    groups,
    read_out,
    stack,
)
from otic.inference.kinds import cost, step, stretches
from otic.inference.lanes import lanes, side_by_side
from otic.inference.options import Level, Options, from_card
from otic.inference.prompts import unit
from otic.inference.sources import Src, is_one, name_of, with_rate
from otic.inference.words import is_text, needs_words, text_vectors
from otic.models.readout import whole
from otic.models.two_tower import TwoTower

Layers = int | Sequence[int] | None
Seconds = float | int | None
FRAME_POOLS = ("mean", "concat")


class Model:
    """What `otic.load` returns.

    Attributes:
        encoder: A plain `nn.Module`, in eval mode.
        frontend: Waves to normalised spectrograms.
        card: What is known of the model; `card["inference"]` holds its defaults for `embed`.
        options: Those defaults.
        towers: The encoder beside a text tower, for models that know words; else None.
        classifier: Its own classes, for models that were trained on labels; else None.
        native: Seconds of the card's window: the longest sound that an encoder of one length hears at once, and what
            shorter ones are brought to (`options.short`).
    """

    def __init__(
        self,
        encoder: nn.Module,
        frontend: Frontend,
        card: dict[str, Any] | None = None,
        *,
        towers: TwoTower | None = None,
        classifier: Classifier | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
    ):
        self.card = card or {}
        self.options = from_card(self.card)
        self.device = find_device(device)
        self.encoder: Any = encoder.to(self.device).eval()
        self.frontend = frontend.to(self.device).eval()
        self.towers = None if towers is None else towers.to(self.device).eval()
        self.classifier = classifier
        if classifier is not None:
            classifier.head.to(self.device)
        self.native = self._native()
        self._world = World(device=self.device, dtype=choose_dtype(precision, self.device))

    @property
    def name(self) -> str:
        """What its card calls it."""
        return str(self.card.get("name", "this model"))

    @property
    def sample_rate(self) -> int:
        """Samples per second that `encode` wants; `embed` resamples by itself."""
        return self.frontend.rate

    @property
    def frame_rate(self) -> float:
        """Vectors per second at level `frame`."""
        if stretches(self.encoder):
            return float(self.encoder.grid(1)[0] / self.native)
        return self.frontend.frame_rate / step(self.encoder)

    def _native(self) -> float:
        seconds = self.options.window or jobs.SPAN
        rate, longest = self.frontend.frame_rate, getattr(self.encoder, "longest", None)
        if stretches(self.encoder):  # no more than its picture holds
            longest = self.encoder.cfg.frames - 1
        if longest is not None and longest / rate < seconds:
            seconds = longest / rate
            self.options = replace(self.options, window=min(self.options.window, seconds))
        return seconds

    @cached_property
    def dim(self) -> int:
        """Length of a vector that `embed` returns by default."""
        return self.encode([np.zeros(self.sample_rate, np.float32)]).shape[1]

    def encode(
        self, waves: Sequence[np.ndarray], layers: Layers = None, pool: str | None = None
    ) -> Float32[np.ndarray, "b D"]:
        """One vector for each wave, in order; what is longer than a window is the mean of its windows, by duration.

        Args:
            waves: Mono float samples at `sample_rate`, of any lengths.
            layers: Blocks to read, from 0 (negative: from the end), several side by side; None: the card's.
            pool: How patches become one vector (`mean`, `cls`, ...; joined by `+`); `joint`: the vector that is
                compared with words; None: the card's.

        Raises:
            AudioError: on an empty wave, one that is not `[s]`, or one with values that are not finite.
            ConfigError: on a layer or a pooling that does not exist.
        """
        options = self.choose(layer=layers, pool=pool)
        window = options.window or self.native
        cuts = [_cut(len(wave), round(window * self.sample_rate)) for wave in waves]
        pieces = [wave[a:b] for wave, cut in zip(waves, cuts, strict=True) for a, b in cut]
        if not pieces:
            return np.zeros((0, self.dim), np.float32)
        rows, ends = np.stack(self._vectors(pieces, options, by_frame=False)), np.cumsum([len(cut) for cut in cuts])
        return np.stack([jobs.weigh(rows[end - len(cut) : end], cut) for cut, end in zip(cuts, ends, strict=True)])

    def embed(
        self,
        src: Src | Iterable[Src],
        level: Level = "clip",
        window: Seconds = None,
        hop: Seconds = None,
        layer: Layers = None,
        pool: str | None = None,
        *,
        sample_rate: int | None = None,
    ) -> Embeddings:
        """Vectors of a file of any length, or of many files; long ones are streamed.

        Args:
            src: A path, a binary file object, an array (with `sample_rate`), (array, rate), or a list of these. In a
                list, an input which cannot be read is named in `failed` and the others go on.
            level: `clip`: one vector per window. `frame`: one per column of patches (`frame_rate` per second).
            window: Seconds in a window; 0: one vector for the whole file; None: the card's (10 s).
            hop: Seconds between two windows; None: the window.
            layer: As `encode`.
            pool: As `encode`; at level `frame`, `mean` or `concat` over the mel bands.
            sample_rate: Of bare arrays.

        Raises:
            AudioError: when a single source cannot be read.
            ConfigError: on an option that does not fit.
        """
        one = is_one(src)
        sources = [with_rate(s, sample_rate) for s in ([src] if one else src)]
        options = self.choose(level, window=window, hop=hop, layer=layer, pool=pool)
        parts = list(self.stream(sources, level, options, strict=one))
        return parts[0] if one else join(parts, self.dim)

    def stream(
        self, sources: Iterable[Src], level: Level = "clip", options: Options | None = None, *, strict: bool = False
    ) -> Iterator[Embeddings]:
        """As `embed`, one `Embeddings` for each source as soon as it is known; `strict` raises at the first bad one."""
        options = options or self.options
        if options.compat:
            yield from self._as_upstream(sources, level, options, strict)
            return
        seconds = 1 / self.frame_rate if level == "frame" else None

        def encode(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            return self._vectors(waves, options, by_frame=level == "frame")

        yield from jobs.run(sources, encode, self.sample_rate, options, seconds, strict=strict, span=self.native)

    def _as_upstream(
        self, sources: Iterable[Src], level: Level, options: Options, strict: bool
    ) -> Iterator[Embeddings]:
        if level == "frame":
            raise ConfigError(f'compat="{options.compat}" hears one crop of a file: there are no frames of all of it.')
        for i, src in enumerate(sources):
            name = name_of(src, i)
            try:
                vector, place = self._one_as_upstream(src, options)
                yield Embeddings(vector[None], np.array([place]), name)
            except AudioError as error:
                if strict:
                    raise
                yield failure(name, str(error))

    def _one_as_upstream(self, src: Src, options: Options) -> tuple[np.ndarray, tuple[float, float]]:
        rate, draw = self.sample_rate, compat.draws(options.seed)
        target = round(self.native * rate)
        if options.compat == "laion" and getattr(self.encoder.cfg, "fusion", False):
            sound = read(src, rate=rate)
            return self._fused(sound.wave, target, options, draw), (0.0, sound.seconds)
        hear = compat.heard if options.compat == "msclap" else compat.cropped
        wave, place = hear(src, rate, target, draw)
        return self._vectors([wave], options, by_frame=False)[0], place

    @torch.inference_mode()
    def _fused(self, wave: np.ndarray, target: int, options: Options, draw: Draw) -> np.ndarray:
        spec, longer = fused(self.frontend, torch.from_numpy(wave).to(self.device), target, draw=draw)
        with self._world.autocast():
            vector = self._read(spec[None], options, False, longer=torch.tensor([longer], device=self.device))
        return vector[0].cpu().numpy()

    def audio(self, src: Src | Iterable[Src]) -> Float32[np.ndarray, "n e"]:
        """Vectors of length one in the space of `text`, one for each source.

        Long sounds are the mean of their windows' vectors, by duration.

        Args:
            src: As `embed`, but bare arrays are at `sample_rate`.

        Raises:
            AudioError: when one cannot be read.
            ConfigError: when the model knows no words.
        """
        listed: list[Any] = [src] if is_one(src) else list(src)
        if not self.options.compat and all(isinstance(s, np.ndarray) for s in listed):
            return unit(self.encode(listed, pool=JOINT)) if listed else np.zeros((0, self._joint.cfg.dim), np.float32)
        sources = [with_rate(s, self.sample_rate) for s in listed]
        options = replace(self.choose(window=0, pool=JOINT), hop=0.0)
        rows = [e.vectors for e in self.stream(sources, "clip", options, strict=True)]
        return unit(np.concatenate(rows))

    @torch.inference_mode()
    def text(self, texts: str | Sequence[Any]) -> Float32[np.ndarray, "n e"]:
        """Vectors of length one in the space of `audio`, one for each text.

        Args:
            texts: A string, or several.

        Raises:
            ConfigError: on what is no string; when the model knows no words, or lacks its tokenizer; the message says
                what to supply.
        """
        towers = needs_words(self.towers, self.card)
        listed = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [texts]
        for text in listed:
            if not isinstance(text, str):
                raise ConfigError(f"text: expected words, not {text!r:.40}. Give a string, or a list of strings.")
        with self._world.autocast():
            return text_vectors(towers, listed)

    @property
    def scale(self) -> float:
        """What the model multiplies cosines with before a softmax.

        Raises:
            ConfigError: when the model knows no words.
        """
        return self._joint.scale.item()

    def similarity(self, a: Any, b: Any) -> Float32[np.ndarray, "n m"]:
        """Cosines between everything in `a` and everything in `b`, be it sound or words.

        A string that names an existing file is sound, and any other is words; a `Path` is always sound. Without a text
        tower, sounds are compared by what `embed` says of them.

        Args:
            a: A path, an array (at `sample_rate`), (array, rate), words, or a list of such.
            b: Likewise.

        Raises:
            AudioError: when a file cannot be read, or looks like one of sound and is not there.
            ConfigError: on words when the model knows none.
        """
        return self.place(a) @ self.place(b).T

    def tag(
        self,
        src: Src | Iterable[Src],
        labels: Sequence[str] | None = None,
        timeline: bool = False,
        *,
        prompts: str | Sequence[str] = (),
        multi: bool | None = None,
        top: int | None = None,
        tagger: bool = False,
        window: Seconds = None,
        hop: Seconds = None,
        threshold: float | int | None = None,
    ) -> list[Any]:
        """Name the sounds of a file: (label, score) from the best down, or spans of time; a list of these for a list.

        Scores order the labels. They are relative: to the other labels, or (`multi`) to the words "a sound".

        Args:
            src: As `embed`, but bare arrays are at `sample_rate`.
            labels: Words to choose from, for models that know words; None: the model's own classes.
            timeline: A list of `Span(label, start, end, score)` instead.
            prompts: Sentences with `{}` where the label goes, or names of `inference.prompts`; several are averaged.
            multi: Whether several labels may hold at once; a model's own classes know that by themselves.
            top: Only the best so many labels.
            tagger: Ask the tagging head that some audio towers carry along, trained or not.
            window: Seconds of the windows of a timeline; None: 2.
            hop: Seconds between two; None: half a window.
            threshold: Score from which on a span is told; None: 0.5 with `multi`, else 0.

        Raises:
            AudioError: when a source cannot be read.
            ConfigError: when the model has neither words nor classes.
        """
        from otic.inference import tagging

        listed: list[Any] = [src] if is_one(src) else list(src)
        how = tagging.naming(self, labels, [prompts] if isinstance(prompts, str) else prompts, multi, tagger)
        found = tagging.tag(
            self, [with_rate(s, self.sample_rate) for s in listed], how, timeline=timeline, window=window, hop=hop,
            threshold=threshold, top=top, strict=True,
        )  # fmt: skip
        answers = [list(one.spans if timeline else one.tags) for one in found]
        return answers[0] if is_one(src) else answers

    def place(self, items: Any) -> Float32[np.ndarray, "n e"]:
        listed = [items] if is_one(items) else list(items)
        words = [i for i, item in enumerate(listed) if is_text(item)]
        sounds = sorted(set(range(len(listed))) - set(words))
        read = self.text([listed[i] for i in words]) if words else None
        heard = self._heard([listed[i] for i in sounds]) if sounds or read is None else None
        width = next(x.shape[1] for x in (read, heard) if x is not None)
        out = np.zeros((len(listed), width), np.float32)
        for rows, vectors in ((words, read), (sounds, heard)):
            if vectors is not None:
                out[rows] = vectors
        return out

    def _heard(self, sources: Sequence[Src]) -> Float32[np.ndarray, "n e"]:
        if self.towers is not None:
            return self.audio(sources)
        found = [self.embed(src, window=0, sample_rate=self.sample_rate).vectors for src in sources]
        return unit(np.concatenate(found)) if found else np.zeros((0, self.dim), np.float32)

    @property
    def _joint(self) -> TwoTower:
        if self.towers is None:
            needs_words(None, self.card)
        assert self.towers is not None
        return self.towers

    def _vectors(self, waves: Sequence[np.ndarray], options: Options, *, by_frame: bool) -> list[np.ndarray]:
        """`[D]` for each wave, or `[t', D]` by frame."""
        return self.through(waves, options, lambda spec: self._read(spec, options, by_frame))

    def through(
        self, waves: Sequence[np.ndarray], options: Options, read: Callable[[Tensor], Tensor]
    ) -> list[np.ndarray]:
        """A row for each wave: what `read` makes of spectrograms `[b, 1, t, f]` of waves that fill them alike."""
        out: list[np.ndarray] = [np.zeros(0, np.float32)] * len(waves)
        check_waves(waves)
        least = round(self.native * self.sample_rate) if options.short != "pad" or stretches(self.encoder) else 0
        counts = [whole(self.encoder, self.frontend.frames(max(len(w), least))) for w in waves]
        costs = {count: cost(count, self.encoder) for count in set(counts)}
        beside = min(lanes(self.device), max(1, options.tokens // max(costs.values(), default=1)))
        batches = list(groups(counts, costs.__getitem__, options.tokens // beside, beside))

        @torch.inference_mode()
        def run(batch: list[int]) -> np.ndarray:
            wave, lengths = stack([_at_least(waves[i], least, options.short) for i in batch])
            spec = self.frontend(wave.to(self.device), lengths.to(self.device), counts[batch[0]])
            with self._world.autocast():
                return read(spec).cpu().numpy()

        for batch, vectors in zip(batches, side_by_side(run, batches, beside), strict=True):
            for i, vector in zip(batch, vectors, strict=True):
                out[i] = vector
        return out

    def _read(self, spec: Float[Tensor, "b c t f"], options: Options, by_frame: bool, **longer: Any) -> Tensor:
        if options.pool == JOINT and not by_frame:
            return F.normalize(self._joint.audio(spec, **longer).float(), dim=-1)
        if options.pool == CLASSES and self.classifier is not None:
            return self.classifier.scores(self.encoder(spec, **longer))
        if options.pool == TAGGER:
            return self.encoder.tag(self.encoder(spec, **longer))[0].float()
        how = options.frame_pool if by_frame else options.pool
        return read_out(self.encoder, spec, options.layers, how, by_frame=by_frame, **longer)

    def choose(
        self,
        level: Level = "clip",
        *,
        window: Seconds = None,
        hop: Seconds = None,
        layer: Layers = None,
        pool: str | None = None,
    ) -> Options:
        """The card's options with these changes (None keeps the card's), checked.

        Raises:
            ConfigError: on a layer or a pooling that does not exist.
        """
        changes: dict[str, Any] = {}
        if window is not None:
            changes |= {"window": float(window), "hop": 0.0}
        if hop is not None:
            changes["hop"] = float(hop)
        if layer is not None:
            changes["layers"] = (layer,) if isinstance(layer, int) else tuple(layer)
        if pool is not None:
            changes["frame_pool" if level == "frame" else "pool"] = pool
            if level == "frame" and pool not in FRAME_POOLS:
                raise ConfigError(unknown("pooling of a frame", pool, FRAME_POOLS))
        options = replace(self.options, **changes)
        check_layers(options.layers, self.encoder.depth)
        if options.pool == JOINT:
            assert self._joint is not None
        else:
            check_pool(options.pool)
        if stretches(self.encoder) and options.window > self.native:
            raise ConfigError(
                f"window={options.window:g}: {self.name} hears {self.native:g} s at once. Take that or less, or 0: one "
                "vector for the whole file."
            )
        return options


def _cut(samples: int, window: int) -> Int[np.ndarray, "w 2"]:
    """Start and end samples of the windows of a wave; of all of it when it is not longer than one."""
    first = np.array(starts(samples, window, window))
    return np.stack([first, np.minimum(first + window, samples)], 1)


def _at_least(wave: np.ndarray, samples: int, short: Short) -> np.ndarray:
    if len(wave) >= samples:
        return wave
    return lengthen(torch.from_numpy(np.ascontiguousarray(wave, np.float32)), samples, short).numpy()
