"""`otic.load`: a run folder, a weights file, a catalogue name, an upstream checkpoint or a hub id becomes a `Model`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from otic.audio.frontend import Frontend
from otic.core.errors import ConfigError, WeightsError
from otic.core.registry import unknown
from otic.core.world import Precision
from otic.inference.classifier import classifier_of
from otic.inference.model import Model
from otic.inference.words import with_tokenizer
from otic.models.two_tower import TwoTower
from otic.weights import hub
from otic.weights.anyfile import read
from otic.weights.catalogue import CATALOGUE
from otic.weights.store import Loaded

PLACES = ("/", "\\", "~")  # in a name that is meant as a path
ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
WEIGHTS = "model.safetensors"  # in a run folder, and in a folder of the hub


def load(
    model: str | os.PathLike[str] | Model,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    compat: Literal["", "msclap", "laion"] = "",
) -> Model:
    """Any MODEL, ready to embed.

    Args:
        model: A run folder, an otic weights file, an upstream checkpoint file, a name of `otic models`, or a hub id
            `owner/name`. A `Model` is returned as it is.
        device: `cpu`, `cuda`, ...; None: a GPU when there is one.
        precision: `fp32`, `bf16`, or `auto` (bf16 where the hardware is faster in it).
        tokenizer: A folder with the vocabulary of a published text tower, where the weights came without it.
        compat: To compare numbers with published code. `msclap`: hear and read as MS-CLAP's does, its random crops,
            joined channels and token quirks included. `laion`: hear as LAION-CLAP's does, long sounds cropped at
            random or (by models with fusion) as a whole beside three random parts.

    Raises:
        ConfigError: on a tokenizer for a model without words.
        WeightsError: when there is no such model, or its file cannot be used. No file's code is ever run.
    """
    if isinstance(model, Model):
        return model
    loaded = read_model(model)
    gpt2 = loaded.card.get("tokenizer", {}).get("kind") == "gpt2"
    quirks = ("exclamation", "fixed") if compat == "msclap" and gpt2 else ()
    towers = reader(loaded, tokenizer, quirks)
    own: dict[str, Any] = {} if loaded.bank is None else {"bank": loaded.bank}
    frontend = Frontend(loaded.frontend, **own)
    ready = Model(
        loaded.encoder, frontend, loaded.card, towers=towers, classifier=classifier_of(loaded), device=device,
        precision=precision,
    )  # fmt: skip
    ready.options = replace(ready.options, compat=compat or ready.options.compat)
    return ready


def reader(loaded: Loaded, folder: str | os.PathLike[str] | None, quirks: Sequence[str] = ()) -> TwoTower | None:
    """The towers with the tokenizer of a folder, if it can be the one that they were trained with.

    Raises:
        ConfigError: when it cannot, or the model has no text tower.
        WeightsError: when the folder holds no such tokenizer.
    """
    own = None if loaded.towers is None else loaded.towers.tokenizer
    towers = with_tokenizer(loaded.towers, folder, loaded.card, quirks)
    if towers is None or towers.tokenizer is None or folder is None:
        return towers
    size, room = towers.tokenizer.size, towers.text.cfg.vocab
    if own is not None and size != own.size:
        raise ConfigError(
            f"tokenizer={folder}: the model brought its own, of {own.size} tokens, not {size}. Leave it out."
        )
    if size > room:
        raise ConfigError(
            f"tokenizer={folder}: it has {size} tokens, the text tower knows {room}. It needs another one."
        )
    return towers


def read_model(model: str | os.PathLike[str]) -> Loaded:
    """What `load` reads, before it goes to a device.

    Raises:
        WeightsError: as `load`.
    """
    name = os.fspath(model)
    path = find(name)
    if path is not None:
        return read(path)
    if name in CATALOGUE:
        entry = CATALOGUE[name]
        return read(hub.download(entry), entry=entry)
    return read(hub.fetch_model(name.removeprefix("hf-hub:")))


def find(name: str) -> Path | None:
    """The weights file that a path names; None for a catalogue name or a hub id.

    Raises:
        WeightsError: on a folder without weights, or on a name that is none of all this.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and name:
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        found = sorted(p for p in path.iterdir() if p.suffix in ENDINGS)
        if len(found) == 1:
            return found[0]
        what = (
            "several weights files: name one of them."
            if found
            else f"no {WEIGHTS}. Name a folder that does; a run has one after its first save."
        )
        raise WeightsError(f"{name}: this folder holds {what}")
    if path.parent.is_dir() and (near := _nearest(path)):
        raise WeightsError(f"{name}: no file or folder of this name. Did you mean {str(near)!r}?")
    if name in CATALOGUE or (hub.is_hub_id(name) and path.suffix not in ENDINGS):
        return None
    if "://" in name:
        raise WeightsError(
            f"{name}: an address. Give the path of the downloaded file; a model of the hub is owner/name."
        )
    if path.suffix in ENDINGS or any(sign in name for sign in PLACES):
        what = "a link to what is not there" if path.is_symlink() else "no file or folder of this name"
        raise WeightsError(f"{name}: {what} (seen from {Path.cwd()}). Check the path.")
    known = unknown("model", name, CATALOGUE)
    raise WeightsError(f"no file or folder of this name, and {known} A recipe becomes a model by otic pretrain.")


def _nearest(path: Path) -> Path | None:
    """What lies in the same folder and is spelt nearly so; None in the working folder, where names are catalogued."""
    beside = [] if path.parent == Path() else [other.name for other in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.7)
    return path.parent / near[0] if near else None
