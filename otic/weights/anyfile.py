"""Any weights file: ours, or one of the published layouts, told apart by what is in it and never by its name.

A layout is a file of `weights.upstream` with `matches(content)` (names of a safetensors file, or the top level of a
pickle) and `loaded(content, settings, path, entry)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file

from otic.core.errors import ConfigError, WeightsError
from otic.core.registry import unknown
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded, header, load
from otic.weights.upstream import audiomae, eat, hf_clap, ijepa, laion, msclap, ssast

LAYOUTS: dict[str, ModuleType] = {  # the first that matches reads the file
    "eat": eat, "msclap": msclap, "laion-clap": laion, "transformers-clap": hf_clap, "audiomae": audiomae,
    "ssast": ssast, "ijepa": ijepa,
}  # fmt: skip
SETTINGS = (("config.json", ""), ("preprocessor_config.json", "preprocessor"))  # file beside the weights -> its key


def read(path: str | Path, entry: Entry | None = None, layout: str | None = None) -> Loaded:
    """Load a weights file of any layout we know; nothing in it is executed.

    Args:
        path: An otic weights file, or an upstream checkpoint (a `.safetensors` one with its `config.json` beside it).
        entry: What the catalogue says of it, for the card.
        layout: Read it as this layout (a name of `LAYOUTS`); None: the one that matches.

    Raises:
        ConfigError: on an unknown layout.
        WeightsError: when it cannot be read, or is of no layout we know.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(unknown("layout", layout, LAYOUTS))
    path = Path(path)
    content: Any
    if is_ours(path):
        return load(path)
    if is_safetensors(path) or path.suffix == ".safetensors":
        content = {name: about for name, about in header(path).items() if name != "__metadata__"}
    else:
        content = load_pickle(path)
        if not isinstance(content, Mapping):
            raise WeightsError(f"{path}: holds a {type(content).__name__}, not a checkpoint.")
    reader = LAYOUTS[layout] if layout else next((r for r in LAYOUTS.values() if r.matches(content)), None)
    if reader is None:
        first = next(iter(content), "none")
        raise WeightsError(
            f"{path}: not written by otic, and of no published layout that it knows (first tensor: {first!r})."
        )
    tensors = load_file(path) if is_safetensors(path) else content
    found = reader.loaded(tensors, _settings(path), path, entry)
    assert isinstance(found, Loaded)
    return found


def is_ours(path: Path) -> bool:
    """Whether `store.save` wrote this file.

    Raises:
        WeightsError: when it looks like a safetensors file, but is damaged.
    """
    named = path.suffix == ".safetensors"
    return (is_safetensors(path) or named) and "otic" in (header(path).get("__metadata__") or {})


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
    """The configs beside a file: `config.json` of the hub, and its own; empty when there are none.

    Its own is `NAME_config.json`, else the only one that begins with the same word: files of one kind may share it
    (`laion_tiny_config.json` beside `laion_fused.pt`).
    """
    settings: dict[str, Any] = {}
    own = path.with_name(f"{path.stem}_config.json")
    if not own.is_file():
        alike = list(path.parent.glob(f"{escape(path.stem.split('_')[0])}_*config.json"))
        own = alike[0] if len(alike) == 1 else own
    for name, key in (*SETTINGS, (own.name, "")):
        config = path.with_name(name)
        try:
            said = dict(json.loads(config.read_text(encoding="utf-8"))) if config.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{config}: cannot be read ({error}).") from error
        settings |= {key: said} if key and said else said
    return settings
