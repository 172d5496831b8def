"""Any weights file: ours, or one of the published layouts, told apart by what is in it and never by its name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from otic.audio.frontend import FrontendConfig
from otic.core.config import to_dict
from otic.core.errors import WeightsError
from otic.models.vit import ViT
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded, header, load
from otic.weights.upstream import eat


def read(path: str | Path, entry: Entry | None = None) -> Loaded:
    """Load a weights file of any layout we know; nothing in it is executed.

    Args:
        path: An otic weights file, or an upstream checkpoint (a `.safetensors` one with its `config.json` beside it).
        entry: What the catalogue says of it, for the card.

    Raises:
        WeightsError: when it cannot be read, or is of no layout we know.
    """
    path = Path(path)
    if not is_safetensors(path):
        if path.suffix == ".safetensors":
            header(path)  # says what is wrong with it
        return _eat(path, entry, eat.read(path))
    head = header(path)
    if "otic" in (head.get("__metadata__") or {}):
        return load(path)
    if eat.matches(head):
        return _eat(path, entry, eat.convert(load_file(path), _settings(path), where=str(path)))
    first = next((name for name in head if name != "__metadata__"), "none")
    raise WeightsError(
        f"{path}: not written by otic, and of no published layout that it knows (first tensor: {first!r})."
    )


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


def _eat(path: Path, entry: Entry | None, found: eat.Converted) -> Loaded:
    """An EAT checkpoint: the student, as upstream's feature extraction takes it; the classifier, where there is one."""
    encoder = ViT(found.encoder)
    encoder.load_state_dict(found.state)
    card: dict[str, Any] = {
        "name": entry.name if entry else path.stem if path.stem != "model" else path.parent.name,
        "system": "EAT",
        "layout": "EAT",
        "labels_used": "those of its fine-tuning" if found.head else "none",
        **({k: v for k, v in asdict(entry).items() if v not in ("", {})} if entry else {}),
        "inference": {"window": 10.0, "pool": "cls"},  # upstream's utterance vector is the CLS token
    }
    extra = {f"head.{name}": tensor for name, tensor in found.head_state.items()}
    extra_config = {"head": to_dict(found.head), "classes": list(found.labels)} if found.head else {}
    return Loaded(encoder.eval(), FrontendConfig(mels=found.encoder.mels), card, extra, extra_config)
