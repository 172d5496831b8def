"""Tables that list sound files (`metadata.csv`, `.csv`, `.jsonl`, `.parquet`) and plain folders, as rows.

Columns: `file` (or `file_name`; relative to the table's folder), `label` (`;` between several), `fold`, `split`,
`caption`, `captions` or `caption_1` ... , `duration_s`, `onset` and `offset` (seconds). Every other column goes into
`Row.extra`.

A row with `onset` and `offset` is one event of its file: all such rows of a file become one `Row` with `events`,
whose labels are the events' labels. An `events.csv` beside a `metadata.csv` (columns file, onset, offset, event_label
or label) adds events without touching the labels.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from otic.core.errors import DataError, OticWarning
from otic.core.registry import unknown
from otic.data.rows import Event, Row
from otic.data.where import Cell, Table

FILE, SECONDS = ("file", "file_name"), ("duration_s", "seconds", "duration")
SUFFIXES = (".csv", ".jsonl", ".parquet")
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def read_table(path: Path) -> Table:
    """All rows of a `.csv`, `.jsonl` or `.parquet` file; empty cells are left out.

    Raises:
        DataError: when the file cannot be read as such a table, or has no row.
    """
    reader = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: not a table. Expected one of {', '.join(SUFFIXES)}.")
    try:
        table = [cells for row in reader(path) if (cells := _cells(row))]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]}: {error}. Save it as UTF-8.") from error
    if not table:
        raise DataError(f"{path}: has no rows.")
    return table


def _csv(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: text in UTF-16. Save it as UTF-8.")
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            only = (reader.fieldnames or [""])[0] if len(reader.fieldnames or ()) == 1 else ""
            sign = next((sign for sign in (";", "\t", "|") if sign in only), None)
            if sign:
                raise DataError(f"{path}: {sign!r} between its columns. Save it with commas between them.")
            names = [name.strip() for name in reader.fieldnames or () if name.strip()]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice:
                raise DataError(f"{path}: two columns are called {twice!r}. Rename one, or take it out.")
            for row in reader:
                if any(row.pop(None, ())):  # empty ones are a spreadsheet's
                    raise DataError(
                        f"{path}, line {reader.line_num}: more cells than the header has. Quote text that holds commas."
                    )
                yield row
        except csv.Error as error:
            raise DataError(
                f"{path}, after line {reader.line_num}: {error}. Is a quote left open, or not doubled inside of quotes?"
            ) from error


def _jsonl(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    why = getattr(error, "msg", error)
                    raise DataError(
                        f"{path}, line {number}: cannot be read as jsonl: {why}. One object a line."
                    ) from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number}: expected one JSON object on each line.")
                yield row


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # ValueError: times that Python does not hold
        raise DataError(f"{path}: cannot be read as parquet: {error}.") from error


def _cells(row: Mapping[str, Any]) -> dict[str, Cell]:
    cells = {str(name).strip(): _cell(value) for name, value in row.items()}
    return {name: cell for name, cell in cells.items() if cell not in ("", [])}


def _cell(value: Any) -> Cell:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=lambda inner: type(inner).__name__)
    return str(value).strip()


def folder_table(files: Iterable[Path], root: Path) -> Table:
    """Columns `file`, and `label`, `split` where folders tell: `root/[split/]class/clip.wav`, two classes or more."""
    parts = [path.relative_to(root).parts for path in files]
    split = bool(parts) and all(len(p) > 1 and p[0].lower() in SPLITS for p in parts)
    inner = [p[split:] for p in parts]
    label = {len(p) for p in inner} == {2} and len({p[0] for p in inner}) > 1
    table: Table = []
    for whole, part in zip(parts, inner, strict=True):
        row: dict[str, Cell] = {"file": "/".join(whole)}
        if split:
            row["split"] = whole[0]
        if label:
            row["label"] = part[0]
        table.append(row)
    return table


def add_events(table: Table, path: Path) -> Table:
    """The table with the events of `events.csv` in a column `events`."""
    events: dict[str, list[Event]] = {}
    for row in read_table(path):
        name, label = _first(row, FILE), _first(row, ("event_label", "label"))
        if name is None or label is None:
            raise DataError(
                f"{path}: needs the columns file, onset, offset and event_label; it has {', '.join(sorted(row))}."
            )
        events.setdefault(name, []).append(_event(row, label, str(path)))
    return [{**row, "events": list(events.get(_first(row, FILE) or "", []))} for row in table]


def rows(
    table: Table, source: str, *, label_column: str = "label", split_column: str | None = None
) -> tuple[list[Row], list[str]]:
    """Rows of a table, the events of a file gathered in one, and the file of each row.

    Raises:
        DataError: when the file column, or a label or split column asked for, is missing; when a number is not one.
    """
    columns = sorted({name for row in table for name in row})
    if not any(name in columns for name in FILE):
        raise DataError(
            f"{source}: no column 'file' (or 'file_name'), or nothing in it. It has: {', '.join(columns)}. "
            "Rename the one that names the sounds."
        )
    if label_column != "label" and label_column not in columns:
        raise DataError(f"{source}: --label-column: {unknown('column', label_column, columns)}")
    if split_column is not None and split_column not in columns:
        raise DataError(f"{source}: --split-column: {unknown('column', split_column, columns)}")
    if {"start", "end"} <= set(columns) and not {"onset", "offset"} & set(columns):
        warnings.warn(
            f"{source}: 'start' and 'end' are kept as plain columns, and a row is its whole file. Events in a file "
            "have the columns 'onset' and 'offset'; cut stretches that should be clips of their own out first.",
            OticWarning,
            stacklevel=2,
        )
    usual = ("label", "labels", "event_label") if label_column == "label" else (label_column,)
    label = next((name for name in usual if name in columns), label_column)
    reader = _Reader(
        source, label, split_column or "split", [c for c in columns if re.fullmatch(r"captions?(_?\d+)?", c)]
    )
    out: dict[str, Row] = {}
    home: dict[str, str] = {}  # file -> its row that has the events
    copies: Counter[str] = Counter()  # of each file, beside its first row
    files: list[str] = []
    for number, cells in enumerate(table, 1):
        row = reader.row(cells, number)
        if row.events and row.id in home:
            out[home[row.id]] = _merge(out[home[row.id]], row)
            continue
        files.append(row.id)
        name = row.id
        while name in out:  # the same file listed again without events: a row of its own
            copies[row.id] += 1
            name = f"{row.id}#{copies[row.id] + 1}"
        out[name] = replace(row, id=name)
        if row.events:
            home[row.id] = name
    return list(out.values()), files


class _Reader:
    """Turns cells into rows; knows which columns mean what."""

    def __init__(self, source: str, label: str, split: str, captions: list[str]):
        self.source, self.label, self.split = source, label, split
        self.captions = sorted(captions, key=lambda c: int("".join(re.findall(r"\d+", c)) or 0))
        self.used = {*FILE, *SECONDS, "fold", "onset", "offset", "events", label, split, *captions}

    def row(self, cells: Mapping[str, Cell], number: int) -> Row:
        where = f"{self.source}, row {number}"
        name = _first(cells, FILE)
        if name is None:
            raise DataError(f"{where}: the file column is empty.")
        labels = tuple(_many(cells.get(self.label, ""), ";"))
        events = _events(cells.get("events"), where)
        if "onset" in cells or "offset" in cells:
            events += [_event(cells, label, where) for label in labels or ("event",)]
        return Row(
            id=name,
            seconds=_number(_first(cells, SECONDS), where) if any(s in cells for s in SECONDS) else None,
            labels=labels,
            fold=_text(cells.get("fold")),
            split=_text(cells.get(self.split)),
            captions=tuple(c for column in self.captions for c in _many(cells.get(column, ""), None)),
            events=tuple(sorted(events)),
            extra={k: _text(v) or "" for k, v in cells.items() if k not in self.used},
        )


def _merge(one: Row, other: Row) -> Row:
    labels = tuple(dict.fromkeys(one.labels + other.labels))
    return replace(one, labels=labels, events=tuple(sorted(one.events + other.events)))


def _events(cell: Cell | None, where: str) -> list[Event]:
    """The column `events` of JSON and Parquet: `[[onset, offset, label], ...]` or objects with these names."""
    try:
        items = json.loads(cell) if isinstance(cell, str) else cell or []
        each = [
            dict(zip(("onset", "offset", "label"), item, strict=False))
            if isinstance(item, list | tuple)
            else dict(item)
            for item in items
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: events {str(cell)[:60]!r}: expected [[onset, offset, label], ...].") from error
    out = []
    for values in each:
        label = values.get("label", values.get("event_label", "event"))
        out.append(_event({k: str(v) for k, v in values.items()}, str(label), where))
    return out


def _event(cells: Mapping[str, Cell], label: str, where: str) -> Event:
    onset, offset = (_number(_text(cells.get(name)), where, name) for name in ("onset", "offset"))
    if not 0 <= onset <= offset:
        raise DataError(
            f"{where}: an event from {onset} s to {offset} s. Onset and offset are seconds, 0 <= onset <= offset."
        )
    return (onset, offset, label)


def _number(text: str | None, where: str, name: str = "duration") -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        what = f"{name} is missing" if text is None else f"{name} {text!r} is no number of seconds"
        raise DataError(f"{where}: {what}.")
    return number


def _first(cells: Mapping[str, Cell], names: Iterable[str]) -> str | None:
    return next((_text(cells[name]) for name in names if name in cells), None)


def _text(cell: Cell | None) -> str | None:
    if isinstance(cell, list):
        return ";".join(map(str, cell))
    return cell or None


def _many(cell: Cell, between: str | None) -> list[str]:
    items = (
        [str(v) for v in cell if v is not None]
        if isinstance(cell, list)
        else cell.split(between)
        if between
        else [cell]
    )
    return [item.strip() for item in items if item.strip()]
