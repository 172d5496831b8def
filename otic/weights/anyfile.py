"""Any weights file: ours, or one of the published layouts, told apart by what is in it and never by its name.

A layout is a file of `weights.upstream` with `matches(content)` (names of a safetensors file, or the top level of a
pickle) and `loaded(content, settings, path, entry)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from otic.core.errors import ConfigError, WeightsError
from otic.core.registry import unknown
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded, header, load, tensors_of
from otic.weights.upstream import audiomae, eat, hf_clap, ijepa, laion, msclap, ssast

LAYOUTS: dict[str, ModuleType] = {  # the first that matches reads the file
    "eat": eat, "msclap": msclap, "laion-clap": laion, "transformers-clap": hf_clap, "audiomae": audiomae,
    "ssast": ssast, "ijepa": ijepa,
}  # fmt: skip
WRAPS = re.compile(r"^((module|_orig_mod)\.)+")  # what DataParallel and torch.compile put before every name
IMPOSTORS = {  # first bytes -> what the file is
    b"version https://git-lfs": "a pointer of git-lfs, not the file itself. Fetch it: git lfs pull",
    b"<!doctype": "a web page, not a checkpoint. Download it again, logged in if the site asks for it",
    b"<html": "a web page, not a checkpoint. Download it again, logged in if the site asks for it",
}
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
    found = load(path) if is_ours(path) else _published(path, entry, layout)
    _must_be_finite(found, path)
    return found


def _published(path: Path, entry: Entry | None, layout: str | None) -> Loaded:
    content: Any
    if is_safetensors(path) or path.suffix == ".safetensors":
        content = tensors_of(path)
    else:
        content = load_pickle(path)
        if not isinstance(content, Mapping):
            raise WeightsError(f"{path}: holds a {type(content).__name__}, not a checkpoint.")
    readers = {layout: LAYOUTS[layout]} if layout else LAYOUTS
    views = ((name, view) for view in _views(content) for name, reader in readers.items() if reader.matches(view))
    name, view = next(views, (layout, content))
    if name is None:
        first = ", ".join(map(repr, list(content)[:3])) or "nothing"
        raise WeightsError(
            f"{path}: not written by otic, and of no published layout that it knows ({', '.join(LAYOUTS)}); it holds "
            f"{first}{', ...' if len(content) > 3 else ''}. Give the file with the model's weights."
        )
    settings = _settings(path)
    try:
        found = LAYOUTS[name].loaded(view, settings, path, entry)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # readers look for what their layout has; a file or a config that has something else there raises any of these
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(
            f"{path}: of the layout {name!r}, but it or the config beside it holds what that has not ({line})."
        ) from error
    assert isinstance(found, Loaded)
    return found


def _views(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A checkpoint as it is; without what wraps a parallel or compiled model; out of a trainer's dict."""
    yield content
    yield {WRAPS.sub("", str(k)): _unwrapped(v) for k, v in content.items()}
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            yield _unwrapped(content[key])


def _unwrapped(value: Any) -> Any:
    return {WRAPS.sub("", str(k)): v for k, v in value.items()} if isinstance(value, Mapping) else value


def _must_be_finite(found: Loaded, path: Path) -> None:
    """No weight is NaN or infinite: such a model answers everything with NaN."""
    tensors = (found.towers or found.encoder).state_dict() | found.extra
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise WeightsError(
            f"{path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinite numbers (first: {bad[0]!r}). The file "
            "is damaged, or its training went astray: take an earlier checkpoint."
        )


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
        WeightsError: when it cannot be opened, or is what a download left in the place of the file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error
    for begin, what in IMPOSTORS.items():
        if start.lower().startswith(begin):
            raise WeightsError(f"{path}: {what}.")
    return start[8:9] == b"{"


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
            said = dict(json.loads(config.read_text(encoding="utf-8-sig"))) if config.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{config}: cannot be read ({error}).") from error
        settings |= {key: said} if key and said else said
    return settings
