"""Scene recipes: captioned mixtures of recorded clips with strong labels, rendered on the fly.

A recipe is a folder with `scenes.csv` (what), `layers.csv` (from which files, when, how loud) and, where there are
strong labels, `events.csv`.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otic.audio.read import MAX_SECONDS, info, read
from otic.audio.resample import resample
from otic.core.errors import AudioError, DataError
from otic.data import manifests
from otic.data.rows import Probe, Row, Source
from otic.data.where import Cell, Table, keep

CACHED = 256  # decoded source clips kept (5 s at 44.1 kHz are 0.9 MB)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One piece of a scene; times in seconds."""

    path: Path  # the recording
    first: float  # where the piece begins in it
    last: float  # and ends
    onset: float  # where it lies in the scene
    gain_db: float
    fade: float  # linear, at both ends


def open_scenes(
    folder: Path, *, label_column: str = "label", split_column: str | None = None, where: Sequence[str] = ()
) -> Source:
    """The recipe in `folder`: rows with captions, labels, events, split and fold; all else of `scenes.csv` in `extra`.

    Recordings are looked for relative to the folder's parent, then in `../NAME` for a recipe called `NAME_scenes`.

    Raises:
        DataError: when a column or all recordings are missing, or `where` leaves no row.
    """
    name = folder.resolve().name
    table = _table(folder, "scenes.csv", ("scene_id", "duration_s"))
    layers = _table(folder, "layers.csv", ("scene_id", "file", "src_start", "src_end", "onset", "gain_db", "fade_s"))
    events: Table = []
    if (folder / "events.csv").is_file():
        events = _table(folder, "events.csv", ("scene_id", "onset", "offset", "event_label"))
    strong: dict[str, list[Cell]] = defaultdict(list)
    for row in events:
        strong[str(row["scene_id"])].append([row["onset"], row["offset"], row["event_label"]])
    named: Table = [
        {**row, "file": row["scene_id"], "events": strong[str(row["scene_id"])]} for row in keep(table, where, name)
    ]
    _check_scenes(named, name)
    rows, ids = manifests.rows(named, name, label_column=label_column, split_column=split_column)
    root = _root(folder, [str(row["file"]) for row in layers])
    recipe: dict[str, list[Layer]] = defaultdict(list)
    for row in sorted(layers, key=lambda row: _number(row, "layer") if "layer" in row else 0.0):
        recipe[str(row["scene_id"])].append(_layer(row, root))
    empty = [scene for scene in ids if not recipe[scene]]
    if empty:
        raise DataError(f"{name}/layers.csv: no layer for scene {empty[0]} ({len(empty)} such scenes).")
    used = {layer.path for layers_ in recipe.values() for layer in layers_}
    return Scenes(name, rows, [recipe[scene] for scene in ids], _rate(folder, used))


def _table(folder: Path, file: str, columns: Sequence[str]) -> Table:
    table = manifests.read_table(folder / file)
    there = {column for row in table for column in row}
    for column in columns:
        if column not in there:
            raise DataError(f"{folder.name}/{file}: no column {column!r}. It has: {', '.join(sorted(there))}.")
        for number, row in enumerate(table, 1):
            if column not in row:
                raise DataError(f"{folder.name}/{file}, row {number}: {column} is empty.")
    return table


def _check_scenes(table: Table, name: str) -> None:
    """Each scene is there once, and lasts."""
    seen = set()
    for row in table:
        scene = str(row["scene_id"])
        if scene in seen:
            raise DataError(f"{name}/scenes.csv: scene {scene} is there twice. Give each a scene_id of its own.")
        if not 0 < _number(row, "duration_s", "scenes.csv") <= MAX_SECONDS:
            raise DataError(
                f"{name}/scenes.csv, scene {scene}: duration_s {row['duration_s']}: more than 0 and at most "
                f"{MAX_SECONDS:g} seconds."
            )
        seen.add(scene)


def _layer(row: Mapping[str, Cell], root: Path) -> Layer:
    first, last, onset, gain_db, fade = (
        _number(row, column) for column in ("src_start", "src_end", "onset", "gain_db", "fade_s")
    )
    if not 0 <= first < last or onset < 0 or fade < 0:
        raise DataError(
            f"layers.csv, scene {row['scene_id']}: {first:g} to {last:g} s of {row['file']}, onset {onset:g} s, fade "
            f"{fade:g} s: none may be negative, and src_end comes after src_start."
        )
    return Layer(path=root / str(row["file"]), first=first, last=last, onset=onset, gain_db=gain_db, fade=fade)


def _number(row: Mapping[str, Cell], column: str, file: str = "layers.csv") -> float:
    try:
        number = float(str(row[column]))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{file}, scene {row['scene_id']}: {column} {row[column]!r} is not a number.")
    return number


def _root(folder: Path, files: Sequence[str]) -> Path:
    """The folder that the recipe's files are relative to."""
    parent = folder.resolve().parent
    places = [parent, parent / folder.resolve().name.removesuffix("_scenes"), folder.resolve()]
    for place in places:
        if any((place / file).exists() for file in dict.fromkeys(files)):
            return place
    raise DataError(
        f"{folder}: none of its recordings exists (first: {files[0]}). Looked in {', '.join(map(str, places))}."
    )


def _rate(folder: Path, recordings: Iterable[Path]) -> int:
    """The working rate: as `render_check.csv` states it, else the lowest rate among the recordings."""
    if (folder / "render_check.csv").is_file():
        said = str(_table(folder, "render_check.csv", ("sample_rate",))[0]["sample_rate"])
        if not said.isdecimal() or not int(said):
            raise DataError(f"{folder.name}/render_check.csv: sample_rate {said!r} is no number of Hz.")
        return int(said)
    rates = set()
    for path in recordings:
        with contextlib.suppress(AudioError):  # what cannot be read is named with the scene that it is for
            rates.add(info(path).rate)
    if not rates:
        raise DataError(f"{folder}: none of its recordings can be read. Look at them with otic data check.")
    return min(rates)


class Scenes(Source):
    """Scenes rendered from their recipe at the working rate, then resampled to the rate asked for.

    Attributes:
        rate: The working rate in Hz.
    """

    def __init__(self, name: str, rows: list[Row], layers: list[list[Layer]], rate: int):
        assert len(rows) == len(layers)
        self.name, self.rows, self.layers, self.rate = name, rows, layers, rate
        self._clips: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def length(self, i: int) -> float | None:
        return self.rows[i].seconds

    def probe(self, i: int) -> Probe:
        return Probe(len(self.render(i)) / self.rate, self.rate)

    def origin(self, i: int) -> str:
        return repr((self.rate, [replace(layer, path=layer.path.absolute()) for layer in self.layers[i]]))

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        wave = self.render(i)
        wave = wave if rate == self.rate else resample(wave, self.rate, rate)
        first = round(start * rate)
        return wave[first : None if duration is None else first + round(duration * rate)]

    def render(self, i: int) -> np.ndarray:
        """Scene `i` at the working rate: layers cut, scaled, faded and added in order, then clipped to full scale.

        Raises:
            AudioError: when a recording cannot be read.
        """
        seconds = self.rows[i].seconds
        assert seconds is not None
        scene = np.zeros(round(seconds * self.rate))
        for layer in self.layers[i]:
            piece = self._clip(layer.path)[round(layer.first * self.rate) : round(layer.last * self.rate)]
            if not len(piece):
                raise AudioError(
                    f"{layer.path}: it ends before {layer.first:g} s, where scene {self.rows[i].id} takes a piece.",
                    "too_short",
                )
            piece = piece * 10 ** (layer.gain_db / 20)
            n = min(round(layer.fade * self.rate), len(piece) // 2)
            ramp = np.arange(n) / max(n, 1)
            piece[:n] *= ramp
            piece[len(piece) - n :] *= ramp[::-1]
            at = round(layer.onset * self.rate)
            scene[at : at + len(piece)] += piece[: max(len(scene) - at, 0)]
        return np.clip(scene, -1, 1).astype(np.float32)

    def _clip(self, path: Path) -> np.ndarray:
        """A recording, whole, in double precision at the working rate; the last ones used are kept."""
        with self._lock:
            wave = self._clips.pop(path, None)
            if wave is not None:
                self._clips[path] = wave
                return wave.astype(np.float64)
        wave = read(path, rate=self.rate).wave
        with self._lock:
            self._clips[path] = wave
            while len(self._clips) > CACHED:
                self._clips.popitem(last=False)
        return wave.astype(np.float64)
