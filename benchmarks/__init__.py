"""Speed and distance to a reference, one module for each subject: `python -m benchmarks [name ...]`.

A module has a docstring, whose first line becomes the section's title, and `rows()`: the lines of a Markdown table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Skipped(Exception):
    """Raised by `rows()` where a reference is not installed: the section stays as an earlier run wrote it."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown lines: the header, its rule, the rows."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in lines]
