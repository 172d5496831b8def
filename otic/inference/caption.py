"""What a model says of sound: texts for files of any length, and answers out of a list.

Axes: b clips, w windows, k prefix tokens, d the language model's width, o options.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otic.core.errors import ConfigError, WeightsError
from otic.core.world import Precision
from otic.inference import jobs
from otic.inference.embeddings import Embeddings
from otic.inference.load import load, read_model
from otic.inference.model import Model
from otic.inference.options import Options
from otic.inference.sources import Src, is_one, with_rate
from otic.inference.words import warn_of_long
from otic.models.captioner import Captioner, from_file

ROWS = 256  # texts that are written or weighed at once


@dataclass(frozen=True)
class Said:
    """What was said of one window of one source.

    Attributes:
        source: Its name.
        start: Seconds, where the window begins.
        end: Seconds, where it ends.
        texts: The likeliest first.
        scores: The mean log-probability of the tokens of each (with `power` 1).
        failed: Why the source could not be read further; then there is no text.
    """

    source: str
    start: float
    end: float
    texts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    failed: str | None = None

    @property
    def text(self) -> str:
        """The likeliest."""
        return self.texts[0] if self.texts else ""


class Writer:
    """A model that answers in words.

    Attributes:
        model: The model as any other: encoder, front-end, card.
        captioner: The encoder with mapper and language model.
    """

    def __init__(self, model: Model, captioner: Captioner):
        self.model, self.captioner = model, captioner.to(model.device).eval()

    def caption(
        self,
        src: Src | Iterable[Src],
        prompt: str = "",
        *,
        beams: int = 4,
        longest: int = 40,
        power: float = 1.0,
        window: float | int | None = None,
    ) -> Iterator[Said]:
        """What is said of each window of each source, in order; the same each time.

        Args:
            src: A path, a file object, an array at `model.sample_rate`, (array, rate), or a list of these.
            prompt: What is asked, in words of the training.
            beams: Beginnings kept by the search; 1: the likeliest token each time.
            longest: Tokens of a text at most.
            power: Of the length that a text's log-probability is divided by.
            window: Seconds heard at once; None: as long as the crops of the training.

        Raises:
            ConfigError: on a number that makes no sense.
        """
        if beams < 1 or longest < 1:
            raise ConfigError(f"beams={beams}, longest={longest}: at least 1.")
        warn_of_long(self.captioner.tokenizer, [prompt])
        for group in _grouped(self._stream(src, window), max(1, ROWS // beams)):
            rows = [vectors for part in group for vectors in part.vectors]
            told = self._write(rows, prompt, beams, longest, power)
            for part in group:
                for start, end in part.spans.tolist():
                    words, worth = next(told)
                    yield Said(str(part.source), start, end, tuple(words), tuple(worth))
                yield from (Said(name, 0.0, 0.0, failed=reason) for name, reason in part.failed)

    def answer(
        self, src: Src | Iterable[Src], prompt: str, options: Sequence[str], *, window: float | int | None = None
    ) -> Float[np.ndarray, "b o"]:
        """How probable each option is for each source, given that one of them is right.

        p(option) is that of its tokens and the end token after the prompt. A long source's log-probabilities are the
        mean of its windows', by duration.

        Args:
            src: As `caption`.
            prompt: What is asked.
            options: The answers to choose from, in words of the training.
            window: As `caption`.

        Raises:
            AudioError: when a source cannot be read.
            ConfigError: without options.
        """
        if not options:
            raise ConfigError("no options to choose from: name at least one.")
        warn_of_long(self.captioner.tokenizer, [prompt, *options])
        logs = []
        for part in self._stream(src, window, strict=True):
            rows = self._weigh(self._prefix(list(part.vectors)), prompt, options)
            logs.append(jobs.weigh(rows, part.spans))
        log = np.stack(logs).astype(np.float64) if logs else np.zeros((0, len(options)))
        shifted = np.exp(log - log.max(1, keepdims=True, initial=-np.inf))
        return shifted / shifted.sum(1, keepdims=True)

    def _write(
        self, rows: Sequence[np.ndarray], prompt: str, beams: int, longest: int, power: float
    ) -> Iterator[tuple[list[str], list[float]]]:
        size = max(1, ROWS // beams)
        for first in range(0, len(rows), size):
            prefix = self._prefix(rows[first : first + size])
            texts, scores = self.captioner.write(prefix, prompt, beams, longest, power)
            yield from zip(texts, scores.tolist(), strict=True)

    def _weigh(self, prefix: Float[Tensor, "w k d"], prompt: str, options: Sequence[str]) -> np.ndarray:
        size = max(1, ROWS // len(options))
        parts = [self.captioner.weigh(part, prompt, options) for part in prefix.split(size)]
        return torch.cat(parts).cpu().numpy()

    def _stream(
        self, src: Src | Iterable[Src], window: float | int | None, *, strict: bool = False
    ) -> Iterator[Embeddings]:
        """The prefix of every window, flat, source by source."""
        model = self.model
        sources = [with_rate(s, model.sample_rate) for s in ([src] if is_one(src) else src)]
        seconds = float(window or model.card.get("crop_seconds") or model.native)
        options = replace(model.options, window=min(seconds, model.native) if window is None else seconds, hop=0.0)

        def encode(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            return self._hear(waves, options)

        return jobs.run(sources, encode, model.sample_rate, options, strict=strict)

    def _hear(self, waves: Sequence[np.ndarray], options: Options) -> list[np.ndarray]:
        return self.model.through(waves, options, lambda spec: self.captioner.prefix(spec).float().flatten(1))

    def _prefix(self, rows: Sequence[np.ndarray]) -> Float[Tensor, "w k d"]:
        width = self.captioner.decoder.width
        return torch.from_numpy(np.stack(rows)).to(self.model.device).unflatten(1, (-1, width))


def _grouped(parts: Iterable[Embeddings], size: int) -> Iterator[list[Embeddings]]:
    """Sources one after the other until they have `size` windows; those of a long source stay together."""
    group: list[Embeddings] = []
    for part in parts:
        group.append(part)
        if sum(map(len, group)) >= size:
            yield group
            group = []
    if group:
        yield group


def load_writer(
    model: str | os.PathLike[str], device: str | torch.device | None = None, precision: Precision = "fp32"
) -> Writer:
    """A model that was trained to answer (method `caption`), ready to do so.

    Args:
        model: A run folder, a weights file, or a hub id.
        device: `cpu`, `cuda`, ...; None: a GPU when there is one.
        precision: Of the encoder: `fp32`, `bf16` or `auto`.

    Raises:
        WeightsError: when there is no such model, or it cannot write.
    """
    loaded, ready = read_model(model), load(model, device, precision)
    try:
        captioner = from_file(ready.encoder, loaded.extra, loaded.extra_config)
    except (ConfigError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{os.fspath(model)}: its language model does not fit this version of otic: {error}"
        ) from error
    if captioner is None:
        raise WeightsError(
            f"{os.fspath(model)}: this model cannot write. Train one that can: otic pretrain caption_tiny --data "
            "SRC-with-captions --init MODEL --out RUN."
        )
    return Writer(ready, captioner)
