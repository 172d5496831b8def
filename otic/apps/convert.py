"""`otic convert`: a published checkpoint becomes an otic weights file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from otic.core.errors import ConfigError, WeightsError
from otic.inference.load import WEIGHTS, find, read_model, reader
from otic.models import two_tower
from otic.weights import anyfile, store
from otic.weights.store import Loaded


@dataclass(frozen=True)
class Conversion:
    """What was written: the file, its layout before, how many tensors it holds, and what it does not hold."""

    file: Path
    layout: str
    tensors: int
    parameters: int  # of the encoder
    left_out: tuple[str, ...]  # names in the old file that nothing needs, alike ones counted together
    filterbank: str  # what the mel matrix of the file is; empty where it has none
    tokenizer: str  # `here`, `none needed`, or how to get the one that is needed

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file), "layout": self.layout, "tensors": self.tensors, "parameters": self.parameters,
            "unmapped": list(self.left_out), "filterbank": self.filterbank, "tokenizer": self.tokenizer,
        }  # fmt: skip

    def text(self) -> str:
        lines = [f"{self.file}: {self.tensors} tensors, from the layout of {self.layout}; read back, and equal"]
        lines += [f"filterbank: {self.filterbank}"] if self.filterbank else []
        lines += [f"tokenizer: {self.tokenizer}"]
        lines += [f"not carried over: {name}" for name in self.left_out] or ["every tensor was carried over"]
        return "\n".join(lines)


def convert(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Conversion:
    """Write `out/model.safetensors` from a published checkpoint, and check that it reads back the same.

    Args:
        file: A checkpoint file, a folder that holds one, or a name of the catalogue or of the hub.
        out: A folder, made when it is not there.
        layout: Read the file as this layout; None: the one that it matches.
        tokenizer: A folder with the vocabulary of its text tower, to go into the new file.

    Raises:
        WeightsError: when the file cannot be read, or is an otic weights file already.
        ConfigError: on an unknown layout, or a tokenizer for a model without words.
    """
    name = os.fspath(file)
    path = find(name)
    if path is not None and anyfile.is_ours(path):
        raise WeightsError(f"{name}: an otic weights file already; there is nothing to convert.")
    loaded = read_model(name) if path is None else anyfile.read(path, layout=layout)
    reader(loaded, tokenizer)
    target = Path(out) / WEIGHTS
    if Path(out).is_file():
        raise ConfigError(f"{out}: a file; the weights go into a folder, as {WEIGHTS}. Name one that may be made.")
    extra, described = dict(loaded.extra), dict(loaded.extra_config)
    if loaded.towers is not None:
        tensors, config = two_tower.to_file(loaded.towers)
        extra, described = extra | tensors, described | config
    store.save(target, loaded.encoder, loaded.frontend, loaded.card, extra, described, loaded.bank)
    return _report(target, loaded, _same(target, loaded, extra))


def _same(path: Path, loaded: Loaded, extra: dict[str, Any]) -> int:
    """How many tensors the file holds.

    Raises:
        WeightsError: when reading it gives others than were written.
    """
    again = store.load(path)
    pairs = [(again.encoder.state_dict(), loaded.encoder.state_dict()), (again.extra, extra)]
    pairs += [({"bank": again.bank}, {"bank": loaded.bank})] if loaded.bank is not None else []
    for got, want in pairs:
        for name, tensor in want.items():
            if not torch.equal(got[name], tensor):
                raise WeightsError(f"{path}: {name!r} did not read back as it was written. Is the disk in order?")
    return sum(len(want) for _, want in pairs)


def _report(path: Path, loaded: Loaded, tensors: int) -> Conversion:
    card, tokenizer = loaded.card, "none needed"
    if loaded.towers is not None:
        tokenizer = "here" if loaded.towers.tokenizer is not None else str(card["tokenizer"]["get"])
    return Conversion(
        file=path,
        layout=str(card["layout"]),
        tensors=tensors,
        parameters=sum(p.numel() for p in loaded.encoder.parameters()),
        left_out=tuple(card.get("dropped", ())),
        filterbank=str(card.get("filterbank", {}).get("says", "")),
        tokenizer=tokenizer,
    )
