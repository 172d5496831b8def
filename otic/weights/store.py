"""One file for a model: a safetensors file whose metadata say how to build and feed it.

The header's metadata hold one key, `otic`, a JSON document `{version, encoder: {kind, ...}, frontend, card, extra}`.
Reading it executes nothing: the file names a kind of encoder that we know, and everything else is numbers.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from otic.audio.frontend import FrontendConfig
from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError, WeightsError
from otic.core.files import atomic
from otic.core.registry import Registry, unknown
from otic.models import two_tower
from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.models.htsat import HTSAT, HTSATConfig
from otic.models.two_tower import TwoTower
from otic.models.vit import ViT, ViTConfig

BANK = "frontend.bank"  # the tensor that holds a front-end's own mel matrix
VERSION = 1  # of the layout of the metadata; a file with a higher one is refused
LONGEST_HEADER = 100_000_000  # bytes, the safetensors limit

ENCODERS: Registry[tuple[Any, Any]] = Registry("kind of encoder")  # kind -> (config class, module class)
ENCODERS.add((ViTConfig, ViT), "vit")
ENCODERS.add((HTSATConfig, HTSAT), "htsat")
ENCODERS.add((Cnn14Config, Cnn14), "cnn14")


@dataclass(frozen=True)
class Loaded:
    """What a weights file holds.

    Attributes:
        encoder: A plain module, in eval mode, on the CPU.
        frontend: The config of the front-end which the encoder was trained with.
        card: What a person should know of the model (name, data, labels used, ...) and its defaults for inference.
        extra: Further tensors by name (a head's, say); empty for a bare encoder.
        extra_config: What describes them (label names, say).
        bank: The front-end's mel matrix `[bins, mels]`, where a published file brings its own.
        towers: The encoder with a text tower beside it, where the model knows words.
    """

    encoder: Any
    frontend: FrontendConfig
    card: dict[str, Any]
    extra: dict[str, Tensor] = field(default_factory=dict)
    extra_config: dict[str, Any] = field(default_factory=dict)
    bank: Tensor | None = None
    towers: TwoTower | None = None


def save(
    path: str | Path,
    encoder: nn.Module,
    frontend: FrontendConfig,
    card: Mapping[str, Any],
    extra: Mapping[str, Tensor] | None = None,
    extra_config: Mapping[str, Any] | None = None,
    bank: Tensor | None = None,
) -> None:
    """Write a model atomically: tensors as they are (on the CPU), configs and card as JSON in the metadata.

    Raises:
        WeightsError: when the encoder is of no kind that `load` could build again.
    """
    from safetensors.torch import save_file

    kind = next((k for k, (_, module) in ENCODERS.items() if type(encoder) is module), None)
    if kind is None:
        raise WeightsError(f"{path}: cannot save a {type(encoder).__name__}. Known encoders: {', '.join(ENCODERS)}.")
    document = {
        "version": VERSION,
        "encoder": {"kind": kind, **to_dict(encoder.cfg)},
        "frontend": to_dict(frontend),
        "card": to_dict(card),
        "extra": to_dict(extra_config or {}),
    }
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
    tensors |= {} if bank is None else {BANK: bank}
    alone = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(path) as part:
        save_file(alone, part, metadata={"otic": json.dumps(document)})


def load(path: str | Path) -> Loaded:
    """Read a model that `save` wrote; nothing in the file is executed.

    Raises:
        WeightsError: when the file is not safetensors, cut short, not ours, written by a newer otic, or when its
            tensors are not exactly those which its config asks for (the first odd ones are named).
    """
    document = describe(path)
    encoder_cfg = dict(document["encoder"])
    kind = encoder_cfg.pop("kind", None)
    if kind not in ENCODERS:
        raise WeightsError(f"{path}: " + unknown("kind of encoder", kind, ENCODERS))
    config, module = ENCODERS[kind]
    try:
        cfg = from_dict(config, encoder_cfg)
        frontend = from_dict(FrontendConfig, document["frontend"])
        with torch.random.fork_rng(devices=[]):  # the first weights are thrown away; nobody's random numbers move
            encoder = module(cfg)
    except (ConfigError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its config does not fit this version of otic: {error}") from error
    tensors = tensors_of(path)
    fill(encoder, _below("encoder.", tensors), str(path))
    extra, described = _below("extra.", tensors), document.get("extra", {})
    try:
        towers = two_tower.from_file(encoder.eval(), extra, described)
    except (ConfigError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its text tower does not fit this version of otic: {error}") from error
    return Loaded(encoder.eval(), frontend, document["card"], extra, described, tensors.get(BANK), towers)


def build(cfg: Any, gen: torch.Generator | None = None) -> Any:
    """An encoder of this config's kind, with its first weights.

    Raises:
        ConfigError: when the config is of no kind we know.
    """
    module = next((module for kind, module in ENCODERS.values() if type(cfg) is kind), None)
    if module is None:
        raise ConfigError(f"{type(cfg).__name__}: no encoder has such a config. Known: {', '.join(ENCODERS)}.")
    return module(cfg, gen)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load `tensors` into `module`, upcast to its dtypes; every name and shape must fit.

    Raises:
        WeightsError: naming the first tensors that are missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    for what, names in (("missing", wanted.keys() - tensors.keys()), ("unexpected", tensors.keys() - wanted.keys())):
        if names:
            raise WeightsError(f"{where}: {len(names)} of {len(wanted)} tensors {what} (first: {sorted(names)[0]!r}).")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            have, want = list(tensor.shape), list(wanted[name].shape)
            raise WeightsError(f"{where}: {name!r} has the shape {have}, but its config asks for {want}.")
        must_be_real(name, tensor, wanted[name], where)
    module.load_state_dict(dict(tensors))


def must_be_real(name: str, tensor: Tensor, wanted: Tensor, where: str) -> None:
    """Refuse whole or complex numbers where a model has real ones: converted, they would be other weights.

    Raises:
        WeightsError: naming the tensor and its type.
    """
    if wanted.is_floating_point() and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(f"{where}: {name!r} holds {kind}, not real numbers. Take the file before it was quantised.")


def describe(path: str | Path) -> dict[str, Any]:
    """The JSON document of a weights file, without reading its tensors.

    Raises:
        WeightsError: as `load`.
    """
    meta = header(path).get("__metadata__") or {}
    if "otic" not in meta:
        raise WeightsError(f"{path}: a safetensors file, but not written by otic: its metadata lack the key 'otic'.")
    try:
        document = json.loads(meta["otic"])
        version = document["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: its metadata key 'otic' cannot be read ({error}).") from error
    if not isinstance(version, int) or version > VERSION:
        raise WeightsError(
            f"{path}: written by a newer otic (format {version}, this one reads {VERSION}). Upgrade otic."
        )
    for key in ("encoder", "frontend", "card"):
        if not isinstance(document.get(key), dict):
            raise WeightsError(f"{path}: its metadata lack {key!r}.")
    return document


def header(path: str | Path) -> dict[str, Any]:
    """The header of any safetensors file, checked against the file's size.

    Raises:
        WeightsError: when the file is missing, not safetensors, or cut short.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(LONGEST_HEADER, size):
                raise WeightsError(f"{path}: not a safetensors file{' (it is empty)' if not size else ''}.")
            head = json.loads(file.read(length))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or cut short inside its header.") from error
    try:
        end = 8 + length + max((int(t["data_offsets"][1]) for n, t in head.items() if n != "__metadata__"), default=0)
        dict(head.get("__metadata__") or {})
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: not a safetensors file: its header is damaged. Download it again.") from error
    if size < end:
        raise WeightsError(f"{path}: cut short: {size} of {end} bytes. Copy or download it again.")
    return head


def tensors_of(path: str | Path) -> dict[str, Tensor]:
    """All tensors of any safetensors file.

    Raises:
        WeightsError: as `header`; when shapes, types and sizes in it contradict one another.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        line = str(error).removeprefix("Error while deserializing header: ")[:160]
        raise WeightsError(f"{path}: a damaged safetensors file ({line}). Copy or download it again.") from error


def parameters(path: str | Path) -> int:
    """How many numbers the encoder's tensors hold, counted in the header."""
    return sum(math.prod(t["shape"]) for name, t in header(path).items() if name.startswith("encoder."))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
