"""A mixture of tasks: labelled and captioned data sets as questions about sound, and what is to be answered.

A mixture is a YAML file, and wherever data is asked for it will do. Its tasks share one model and one loss; what a task
wants is said in words (Pengi, arXiv 2305.11834; the audio encoder of MS-CLAP 2023 was taught so, arXiv 2309.05767):

    temperature: 2
    tasks:
      - {data: esc10, prompt: "what is this sound?", target: "{label}", where: fold!=5}
      - {data: emodb4, prompt: "what emotion is this?", target: "{label}", where: fold!=5}
      - {data: scenes, prompt: "describe the sound", target: caption}

Of task i with n_i clips an epoch takes clips in the share w_i n_i^(1/T): T = 1 as they come, T = inf all tasks alike.
An epoch is as short as it can be with each clip in it at least once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import yaml

from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError, DataError
from otic.core.registry import unknown
from otic.data.rows import Joined, Probe, Row, Source

SUFFIXES = (".yaml", ".yml")
CAPTION = "caption"  # the target that stands for one of a clip's own captions


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question about the sounds of one data set."""

    data: str | tuple[str, ...]  # SRC, relative to the mixture's root
    prompt: str = ""  # what is asked; columns in braces are filled in, as in the target
    target: str = "{label}"  # the answer: words with {label} or any other column in braces, or `caption`
    name: str = ""  # in front of its clips' ids; by default the data's
    label_column: str = "label"  # what {label} stands for
    split_column: str | None = None  # where train and test stand
    where: str | tuple[str, ...] = ()  # conditions on its rows, as fold!=5
    names: dict[str, str] = field(default_factory=dict)  # what labels are called in the answer: {cry: a crying baby}
    weight: float = 1.0  # its share of an epoch, beside its size


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The tasks of a file."""

    tasks: tuple[Task, ...]  # at least one
    root: str = ""  # folder that the tasks' data are relative to, itself relative to the file
    temperature: float = 1.0  # T; above 1, small tasks come more often than their clips are many


def read_mixture(path: Path) -> Mixture:
    """The file's tasks; a bare list of them is a mixture of temperature 1.

    Raises:
        DataError: when the file is no YAML, or no mixture: the task and the field are named.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}.") from error
    values = document if isinstance(document, dict) else {"tasks": document}
    if not isinstance(values.get("tasks"), list) or not values["tasks"]:
        raise DataError(f"{path}: no tasks. Expected a list of {{data: SRC, prompt: ..., target: ...}}.")
    tasks = tuple(_task(item, f"{path}, task {number}") for number, item in enumerate(values["tasks"], 1))
    try:
        mixture = from_dict(Mixture, {**values, "tasks": tasks})
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    if not mixture.temperature > 0:
        raise DataError(f"{path}: temperature={mixture.temperature}: must be above 0; 1 leaves the sizes as they are.")
    return mixture


def _task(item: Any, where: str) -> Task:
    if not isinstance(item, dict):
        raise DataError(f"{where}: {item!r} is no task. Expected {{data: SRC, prompt: ..., target: ...}}.")
    plain = to_dict(item)  # YAML reads the label 0 as a number
    if "data" not in plain:
        raise DataError(f"{where}: names no data.")
    if isinstance(plain.get("names"), dict):
        plain["names"] = {label: str(name) for label, name in plain["names"].items()}
    try:
        task = from_dict(Task, plain)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error
    if not 0 < task.weight < float("inf"):
        raise DataError(f"{where}: weight={task.weight}: must be above 0. Leave the task out instead.")
    return task


def open_mixture(path: Path, opener: Callable[..., Source], where: Sequence[str] = ()) -> Source:
    """The mixture of a file as one source: rows with the target as caption, the prompt in `extra` and a weight.

    Args:
        path: The YAML file.
        opener: Opens the SRC of a task: `open_source`.
        where: Conditions on the rows of every task, besides its own.

    Raises:
        DataError: as `read_mixture` and `open_source`, and where a row lacks what its task's words ask for.
    """
    mixture = read_mixture(path)
    parts = [_open(task, path, path.parent / mixture.root, opener, where) for task in mixture.tasks]
    often = repeats([len(part) for part in parts], [task.weight for task in mixture.tasks], mixture.temperature)
    for part, times in zip(parts, often, strict=True):
        part.rows = [replace(row, weight=times * row.weight) for row in part.rows]
    joined = Joined(parts)
    joined.name = path.stem
    return joined


def repeats(sizes: Sequence[int], weights: Sequence[float], temperature: float) -> list[float]:
    """How often an epoch takes each clip of a task, at least once.

    >>> repeats([400, 100], [1.0, 1.0], 2.0)  # shares 20 : 10
    [1.0, 2.0]
    """
    share = np.asarray(weights) * np.asarray(sizes, float) ** (1 / temperature)
    times = share / np.asarray(sizes)
    return [float(t) for t in times / times.min()]


def _open(task: Task, path: Path, root: Path, opener: Callable[..., Source], where: Sequence[str]) -> Asked:
    data = [task.data] if isinstance(task.data, str) else list(task.data)
    if any(Path(src).suffix.lower() in SUFFIXES for src in data):
        raise DataError(f"{path}: a mixture cannot hold another one ({', '.join(data)}). Copy its tasks.")
    own = [task.where] if isinstance(task.where, str) else task.where
    source = opener(
        [src if src.startswith("synth:") else str(root / src) for src in data],
        label_column=task.label_column, split_column=task.split_column, where=[*own, *where],
    )  # fmt: skip
    rows = [row for row in source.rows if row.captions] if task.target == CAPTION else source.rows
    if not rows:
        raise DataError(f"{source.name}: no row has a caption, but {path.name} asks for them.")
    if len(rows) < len(source):
        source = source.subset([i for i, row in enumerate(source.rows) if row.captions])
    return Asked(task.name or source.name, source, [ask(row, task, source.name) for row in rows])


def ask(row: Row, task: Task, source: str) -> Row:
    """The row with its task's answer as the caption and the question under `prompt`.

    Raises:
        DataError: naming the row and the column that it lacks.
    """
    words = {**row.extra, "split": row.split or "", "fold": row.fold or "", "label": _spoken(row, task)}
    captions = row.captions if task.target == CAPTION else (_fill(task.target, words, row, source),)
    return replace(row, captions=captions, extra={**row.extra, "prompt": _fill(task.prompt, words, row, source)})


def _spoken(row: Row, task: Task) -> str:
    """The labels as they are said: `crying_baby;rain` becomes `crying baby, rain`."""
    return ", ".join(task.names.get(label, label.replace("_", " ")) for label in row.labels)


def _fill(template: str, words: dict[str, str], row: Row, source: str) -> str:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise DataError(f"{template!r}: {error}. Columns stand in braces, as {{label}}.") from error
    for name in fields:
        if name not in words:
            raise DataError(f"{source}, {row.id}: {template!r}: {unknown('column', name, words)}")
        if not words[name]:
            raise DataError(f"{source}, {row.id}: {template!r}: {name} is empty. Leave such rows out with `where`.")
    pieces = [(text, name) for text, name, _, _ in Formatter().parse(template)]
    return "".join(text + (words[name] if name is not None else "") for text, name in pieces)


class Asked(Source):
    """A source whose rows say something else; the sounds are its own."""

    def __init__(self, name: str, sounds: Source, rows: list[Row]):
        assert len(sounds) == len(rows)
        self.name, self.sounds, self.rows = name, sounds, rows

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        return self.sounds.read(i, rate, start, duration)

    def length(self, i: int) -> float | None:
        return self.sounds.length(i)

    def probe(self, i: int) -> Probe:
        return self.sounds.probe(i)

    def origin(self, i: int) -> str:
        return self.sounds.origin(i)
