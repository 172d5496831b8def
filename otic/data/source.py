"""SRC in one place: whatever a user calls data, as a `Source`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from otic.audio.read import decoded, find, finish, info, read
from otic.core.errors import DataError
from otic.data import manifests, mixture
from otic.data.corpus import open_corpus
from otic.data.layouts import recognise
from otic.data.rows import Joined, Probe, Row, Source, training
from otic.data.scenes import open_scenes
from otic.data.where import Table, keep

__all__ = ["Row", "Source", "Files", "open_source"]

KINDS = (
    "a folder of audio, a published data set as unpacked, a .csv, .jsonl or .parquet manifest, a scene recipe, "
    "a mixture of tasks (.yaml), or synth:corpus?clips=2000&seed=0"
)


OTHER_FILES = (".tsv", ".txt", ".json", ".xlsx", ".xls", ".gz", ".zip", ".tar")  # easily taken for a manifest


class Files(Source):
    """Sound files on disk."""

    def __init__(self, name: str, rows: list[Row], paths: list[Path]):
        assert len(rows) == len(paths)
        self.name, self.rows, self.paths = name, rows, paths

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        whole = start == 0  # a random stretch may well be silent: nothing to warn of each time
        return read(self.paths[i], rate=rate, start=start, duration=duration, warn=whole).wave

    def length(self, i: int) -> float | None:
        return info(self.paths[i]).seconds

    def probe(self, i: int) -> Probe:
        with decoded(self.paths[i]) as sound:
            samples = sum(len(block) for block in sound.mono())
            return Probe(samples / sound.decoder.rate, sound.decoder.rate, tuple(finish(sound)))

    def origin(self, i: int) -> str:
        return str(self.paths[i].absolute())


def open_source(
    src: str | Path | Sequence[str | Path],
    *,
    label_column: str = "label",
    split_column: str | None = None,
    where: str | Sequence[str] = (),
    learning: bool = False,
) -> Source:
    """Any SRC as a `Source`; several are put one after the other.

    Args:
        src: A folder of audio (searched recursively), the folder of a published data set (`otic.data.layouts`), a
            folder or file `metadata.csv`, a `.csv`, `.jsonl` or `.parquet` manifest, one sound file, a scene recipe's
            folder, a mixture of tasks (`.yaml`), `synth:NAME?clips=2000&seed=0`, or a list of these.
        label_column: The column that holds the target.
        split_column: The column that says train or test; `split` by default.
        where: Conditions on the table's columns that every row kept must meet: `in_test=0`, `fold!=5`, `fold in 1,2,3`.
        learning: Of what is kept of each SRC (and of each task of a mixture), only what `training` would learn from.

    Raises:
        DataError: when there is nothing of that name, no audio in it, a column is missing, or no row is left.
    """
    if not isinstance(src, str | Path):
        parts = [
            open_source(s, label_column=label_column, split_column=split_column, where=where, learning=learning)
            for s in src
        ]
        if not parts:
            raise DataError(f"No data given. Name {KINDS}.")
        return parts[0] if len(parts) == 1 else Joined(parts)
    path = Path(src).expanduser()
    if path.suffix.lower() in mixture.SUFFIXES and path.is_file():
        if label_column != "label" or split_column is not None:
            raise DataError(f"{path}: a mixture names the label and split columns of each task itself.")
        return mixture.open_mixture(path, partial(open_source, learning=learning), where)
    source = _one(src, label_column, split_column, where)
    return training(source) if learning else source


def _one(src: str | Path, label_column: str, split_column: str | None, where: str | Sequence[str]) -> Source:
    """A single SRC that is no mixture."""
    if str(src).startswith("synth:"):
        if label_column != "label" or split_column not in (None, "split"):
            raise DataError(f"{src}: rendered sounds have no columns to choose from, only `label` and `split`.")
        return open_corpus(str(src), where=where)
    path = Path(src).expanduser()
    if not str(src) or not path.exists():
        raise DataError(f"{src or 'empty name'}: there is no such file or folder. Data is {KINDS}.")
    if (path / "scenes.csv").is_file() and (path / "layers.csv").is_file():
        return open_scenes(path, label_column=label_column, split_column=split_column, where=where)
    table, root, name = _table(path)
    rows, files = manifests.rows(keep(table, where, name), name, label_column=label_column, split_column=split_column)
    paths = [root / file for file in files]
    if not any(p.exists() for p in paths):
        raise DataError(
            f"{name}: none of its {len(paths)} files exists (first: {paths[0]}). Paths are relative to {root}."
        )
    return Files(name, rows, paths)


def _table(path: Path) -> tuple[Table, Path, str]:
    """The table, the folder its paths are relative to, and a name."""
    if path.is_file():
        if path.suffix.lower() in manifests.SUFFIXES:
            name = path.parent.resolve().name if path.stem == "metadata" else path.stem
            table, events = manifests.read_table(path), path.parent / "events.csv"
            own = path.stem == "metadata" and events.is_file()
            return (manifests.add_events(table, events) if own else table), path.parent, name
        if path.suffix.lower() in OTHER_FILES:
            raise DataError(f"{path}: neither sound nor a table that can be read here. Data is {KINDS}.")
        return [{"file": path.name}], path.parent, path.name
    for suffix in manifests.SUFFIXES:
        if (path / f"metadata{suffix}").is_file():
            return _table(path / f"metadata{suffix}")
    published = recognise(path)
    if published is not None:
        layout, folder = published
        table = layout.table(folder)
        if not table:
            raise DataError(f"{path}: laid out as {layout.name}, but its sounds are not there.")
        return table, folder, path.resolve().name
    found = find(path)
    if not found.files:
        skipped = f" ({len(found.skipped)} entries were skipped, first: {found.skipped[0]})" if found.skipped else ""
        raise DataError(f"{path}: no audio found{skipped}. Data is {KINDS}.")
    return manifests.folder_table(found.files, path), path, path.resolve().name
