"""The record of an evaluation: rows of numbers with their intervals, as `results.json` and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import otic
from otic.core.files import write_json
from otic.core.machine import commit, machine
from otic.evaluation.baselines import is_baseline
from otic.evaluation.metrics import scale
from otic.weights.card import saw_labels

DAGGER = "†"  # of models that learned from labels


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of one model. Fractions, not percent; ranks from 1; seconds."""

    model: str
    data: str
    protocol: str
    metric: str
    value: float  # the mean of `folds`
    ci95: tuple[float, float]  # over the test clips, by bootstrap
    n_test: int  # clips tested, all folds together
    folds: tuple[float, ...]  # the value of each fold, one for a train/test split and for folds of few clips
    seed: int
    config: dict[str, Any]  # what was chosen on the training clips, and among what; how classes were asked for; chance
    labels_used: int  # labelled clips that the largest fit saw
    seconds: float  # encoding and probing


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one model is than another on the same clips."""

    model: str  # the better one
    other: str
    data: str
    protocol: str
    metric: str
    value: float  # above 0, also where the lower number is the better one
    ci95: tuple[float, float]  # of the paired difference
    beats: bool  # the interval lies above 0


@dataclass(kw_only=True)
class Results:
    """All scores of one evaluation.

    Attributes:
        rows: The scores, in the order of data, protocol, model, metric.
        differences: Every pair of models on every task.
        notes: What a reader should know before quoting a number.
        failed: Clips that could not be read, with the reason.
        saw_labels: Models whose cards say that they learned from human labels; tables mark them.
        views: What `report.html` shows beyond the scores (`score.View`, `words.Found`), not part of the JSON.
    """

    rows: list[Score] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    saw_labels: list[str] = field(default_factory=list)
    views: list[Any] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of `results.json`."""
        return {
            "otic": otic.__version__,
            "commit": commit(),
            "machine": machine(),
            "rows": [asdict(row) for row in self.rows],
            "differences": [asdict(row) for row in self.differences],
            "notes": list(self.notes),
            "saw_labels": list(self.saw_labels),
            "failed": [{"file": file, "reason": reason} for file, reason in self.failed.items()],
        }

    def write(self, path: str | Path) -> None:
        """Write `results.json`, atomically."""
        write_json(path, self.to_dict())

    def value(self, model: str, data: str, protocol: str, metric: str = "accuracy") -> float:
        """One number, for scripts.

        Raises:
            KeyError: when there is no such row.
        """
        key = (model, data, protocol, metric)
        for row in self.rows:
            if (row.model, row.data, row.protocol, row.metric) == key:
                return row.value
        raise KeyError(key)

    def beats(self, model: str, other: str, data: str, protocol: str, metric: str = "accuracy") -> bool:
        """Is `model` better than `other` by more than the paired interval?"""
        key = (model, other, data, protocol, metric, True)
        return any((d.model, d.other, d.data, d.protocol, d.metric, d.beats) == key for d in self.differences)

    def mark(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
        """Note which of these models, given by their cards, learned from human labels before any probe did."""
        for name, card in cards.items():
            if saw_labels(card) and not is_baseline(name):
                self.saw_labels.append(name)
                what = card["labels_used"] if isinstance(card["labels_used"], str) else "those of its training data"
                self.notes.append(f"{DAGGER} {name} is not self-supervised: it learned from labels ({what})")

    def title(self, model: str) -> str:
        """What a table calls a model: its name, with a dagger where it learned from labels."""
        return f"{model} {DAGGER}" if model in self.saw_labels else model

    def table(self, metrics: Iterable[str] | None = None) -> str:
        """Plain text, one line per data set, protocol and metric, one column per model; percent with the interval.

        Where guessing has a known score it stands in a last column.
        """
        wanted = set(metrics) if metrics is not None else {row.metric for row in self.rows}
        models = list(dict.fromkeys(row.model for row in self.rows))
        lines = list(dict.fromkeys((r.data, r.protocol, r.metric) for r in self.rows if r.metric in wanted))
        cells = {(r.data, r.protocol, r.metric, r.model): _cell(r) for r in self.rows}
        grid = [["data", "protocol", "metric", *map(self.title, models)]]
        grid += [[*line, *(cells.get((*line, m), "") for m in models)] for line in lines]
        chance = self.chance()
        if chance:
            last = [f"{scale(line[2]) * chance[line]:.1f}" if line in chance else "" for line in lines]
            grid = [[*row, cell] for row, cell in zip(grid, ["chance", *last])]
        return align(grid)

    def chance(self) -> dict[tuple[str, str, str], float]:
        """What guessing gives, by data set, protocol and metric, where that is known."""
        return {(r.data, r.protocol, r.metric): r.config["chance"] for r in self.rows if "chance" in r.config}


def _cell(row: Score) -> str:
    k, digits = scale(row.metric), 2 if row.metric == "d_prime" else 1
    return f"{k * row.value:.{digits}f} [{k * row.ci95[0]:.{digits}f}, {k * row.ci95[1]:.{digits}f}]"


def align(grid: list[list[str]]) -> str:
    """Lines of cells as a text table, the first one its head."""
    widths = [max(len(row[k]) for row in grid) for k in range(len(grid[0]))]
    grid = [grid[0], ["-" * w for w in widths], *grid[1:]]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in grid)
