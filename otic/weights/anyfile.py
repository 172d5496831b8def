"""Any weights file: ours, or one of the published layouts, told apart by what is in it and never by its name.

A layout is a file of `weights.upstream` with `matches(content)` (names of a safetensors file, or the top level of a
pickle) and `loaded(content, settings, path, entry)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file

from otic.core.errors import WeightsError
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded, header, load
from otic.weights.upstream import audiomae, eat, ijepa, ssast

LAYOUTS: tuple[ModuleType, ...] = (eat, audiomae, ssast, ijepa)  # the first that matches reads the file


def read(path: str | Path, entry: Entry | None = None) -> Loaded:
    """Load a weights file of any layout we know; nothing in it is executed.

    Args:
        path: An otic weights file, or an upstream checkpoint (a `.safetensors` one with its `config.json` beside it).
        entry: What the catalogue says of it, for the card.

    Raises:
        WeightsError: when it cannot be read, or is of no layout we know.
    """
    path = Path(path)
    content: Any
    if is_safetensors(path) or path.suffix == ".safetensors":
        content = header(path)  # says what is wrong with it
        if "otic" in (content.pop("__metadata__", None) or {}):
            return load(path)
    else:
        content = load_pickle(path)
        if not isinstance(content, Mapping):
            raise WeightsError(f"{path}: holds a {type(content).__name__}, not a checkpoint.")
    layout = next((layout for layout in LAYOUTS if layout.matches(content)), None)
    if layout is None:
        first = next(iter(content), "none")
        raise WeightsError(
            f"{path}: not written by otic, and of no published layout that it knows (first tensor: {first!r})."
        )
    tensors = load_file(path) if is_safetensors(path) else content
    found = layout.loaded(tensors, _settings(path), path, entry)
    assert isinstance(found, Loaded)
    return found


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors files do: a length, then an opening brace.

    Raises:
        WeightsError: when it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _settings(path: Path) -> dict[str, Any]:
    """The `config.json` beside a file of the hub; empty when there is none."""
    config = path.with_name("config.json")
    try:
        return dict(json.loads(config.read_text(encoding="utf-8"))) if config.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{config}: cannot be read ({error}).") from error
