"""`--where in_test=0`: which rows of a table to keep."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from otic.core.errors import DataError
from otic.core.registry import unknown

Cell = str | list  # a list where JSON or Parquet gave one
Table = list[dict[str, Cell]]  # rows as the file has them; empty cells are left out

_CONDITION = re.compile(r"^\s*(.+?)\s*(==|!=|=|\s(?:not\s+)?in\s)\s*(.*?)\s*$", re.DOTALL)


def parse(condition: str) -> tuple[str, bool, list[str]]:
    """`"fold in 1,2"` -> `("fold", True, ["1", "2"])`; False where the values are excluded.

    Raises:
        DataError: when there is no `=`, `!=`, `in` or `not in`.
    """
    found = _CONDITION.match(condition)
    if not found:
        raise DataError(f"--where {condition!r}: expected column=value, column!=value or 'column in a,b'.")
    column, sign, text = found[1], " ".join(found[2].split()), found[3]
    if sign not in ("in", "not in"):
        return column, sign != "!=", [text]
    values = [v.strip() for v in re.sub(r"^[\[({](.*)[\])}]$", r"\1", text).split(",")]
    return column, sign == "in", values


def keep(table: Table, where: Iterable[str], source: str) -> Table:
    """The rows that meet every condition; an empty or absent cell equals the empty text.

    Numbers are compared as numbers (`0` equals `0.0`); several values in one cell (`dog;rain`) match one by one.

    Raises:
        DataError: on an unknown column (naming the nearest one) or when no row is left.
    """
    columns = {name for row in table for name in row}
    for condition in [where] if isinstance(where, str) else where:
        column, wanted, values = parse(condition)
        if column not in columns:
            raise DataError(f"{source}: --where {condition}: {unknown('column', column, columns)}")
        there = table
        table = [row for row in there if matches(row, column, values) == wanted]
        if not table:
            raise DataError(f"{source}: --where {condition} leaves no row. {column} holds {_some(there, column)}.")
    return table


def matches(row: Mapping[str, Cell], column: str, values: Sequence[str]) -> bool:
    cell = row.get(column, "")
    items = [str(v) for v in cell] if isinstance(cell, list) else [cell, *(cell.split(";") if ";" in cell else ())]
    wanted = {_plain(v) for v in values}
    return any(_plain(item) in wanted for item in items)


def _plain(text: str) -> str | float:
    text = text.strip()
    try:
        number = float({"true": "1", "false": "0"}.get(text.lower(), text))
    except ValueError:
        return text
    return number if math.isfinite(number) and "_" not in text else text  # `1_2` is a name, and so are `nan` and `inf`


def _some(table: Table, column: str) -> str:
    values = sorted({str(row.get(column, "")) for row in table})
    return ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "")
