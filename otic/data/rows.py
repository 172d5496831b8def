"""A data set is a list of rows and a way to read each one's sound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

TRAIN = {"train", "training"}  # names of the split that is learned from, in small letters
VALID = {"valid", "val", "validation", "dev"}  # of the one that settings are chosen on
TEST = {"test", "eval", "evaluation", "testing"}  # of the one that is asked about
Event = tuple[float, float, str]  # onset and offset in seconds, label


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of one clip without hearing it."""

    id: str  # unique in its source: the file as the manifest names it, or the scene's name
    seconds: float | None = None  # as the manifest claims, None where it does not say
    labels: tuple[str, ...] = ()  # class names, in the manifest's order
    fold: str | None = None  # cross-validation fold
    split: str | None = None  # train, test, ...
    captions: tuple[str, ...] = ()  # sentences that describe it
    events: tuple[Event, ...] = ()  # strong labels, sorted by onset
    extra: dict[str, str] = field(default_factory=dict)  # every other column that is not empty
    weight: float = 1.0  # how often an epoch takes it, beside clips of weight 1


@dataclass(frozen=True)
class Probe:
    """What a clip turns out to be when it is read to its end."""

    seconds: float  # of sound that came out
    rate: int  # of the file, in Hz
    notes: tuple[tuple[str, str], ...] = ()  # what the reader warns of: kind (truncated, silent, ...) and text


class Source(ABC):
    """Rows with their sound.

    Attributes:
        name: A short name for tables and messages.
        rows: One for each clip.
    """

    name: str
    rows: list[Row]

    @abstractmethod
    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        """Clip `i` as mono float32 `[s]` at `rate`, from `start` seconds on, all of it or `duration` seconds.

        Raises:
            AudioError: when the clip cannot be used.
        """

    @abstractmethod
    def length(self, i: int) -> float | None:
        """Seconds of clip `i` as its own header says (not the manifest), None where that is unknown.

        Raises:
            AudioError: when the header cannot be read.
        """

    @abstractmethod
    def probe(self, i: int) -> Probe:
        """Clip `i` read to its end, in memory that does not grow with its length.

        Raises:
            AudioError: when the clip cannot be used.
        """

    def origin(self, i: int) -> str:
        """Where clip `i` comes from: the path of its file, or how it is rendered. What is kept of it on disk belongs
        to this, since sources and clips may be named alike; "" where the id says it all."""
        return ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> list[str]:
        """All labels that occur, sorted."""
        return sorted({label for row in self.rows for label in row.labels})

    def subset(self, indices: Sequence[int] | np.ndarray) -> Source:
        """These rows only, in this order."""
        return Subset(self, [int(i) for i in indices])


def split_of(row: Row) -> str:
    """The row's split in small letters; "" where it has none."""
    return (row.split or "").lower()


def training(source: Source) -> Source:
    """Without the rows of other splits, where there is a split `train`; else without those of a split `test`.

    All of a source that is nothing but `test`: it was asked for.
    """
    kinds = [split_of(row) for row in source.rows]
    known = any(kind in TRAIN for kind in kinds)
    own = [i for i, kind in enumerate(kinds) if (kind in TRAIN or not kind if known else kind not in TEST)]
    return source.subset(own) if 0 < len(own) < len(source) else source


class Subset(Source):
    """Some rows of another source."""

    def __init__(self, whole: Source, indices: list[int]):
        self.name, self._whole, self._indices = whole.name, whole, indices
        self.rows = [whole.rows[i] for i in indices]

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        return self._whole.read(self._indices[i], rate, start, duration)

    def length(self, i: int) -> float | None:
        return self._whole.length(self._indices[i])

    def probe(self, i: int) -> Probe:
        return self._whole.probe(self._indices[i])

    def origin(self, i: int) -> str:
        return self._whole.origin(self._indices[i])


class Joined(Source):
    """Several sources, one after the other; ids get the source's name in front."""

    def __init__(self, parts: Sequence[Source]):
        self.name = "+".join(part.name for part in parts)
        self._where = [(part, i) for part in parts for i in range(len(part))]
        self.rows = []
        for part, name in zip(parts, _distinct([part.name for part in parts]), strict=True):
            self.rows += [replace(row, id=f"{name}/{row.id}") for row in part.rows]

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        part, own = self._where[i]
        return part.read(own, rate, start, duration)

    def length(self, i: int) -> float | None:
        part, own = self._where[i]
        return part.length(own)

    def probe(self, i: int) -> Probe:
        part, own = self._where[i]
        return part.probe(own)

    def origin(self, i: int) -> str:
        part, own = self._where[i]
        return part.origin(own)


def _distinct(names: Sequence[str]) -> list[str]:
    """The same names, a repeated one numbered: `a, b, a` becomes `a, b, a#2`."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out
