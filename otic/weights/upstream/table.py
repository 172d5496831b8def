"""Names of one layout into names of another: a table of patterns, and errors that name what is left."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from otic.core.errors import WeightsError
from otic.weights.catalogue import Entry
from otic.weights.store import must_be_real

DRAWS = {"normal_", "uniform_", "kaiming_uniform_"}


def rename(tensors: Mapping[str, Any], table: Sequence[tuple[str, str]], where: str) -> dict[str, Tensor]:
    """Each tensor under its new name, floating ones as float32.

    Args:
        tensors: As they stand in the file.
        table: Pairs (pattern of the whole name, replacement); the first that matches counts.
        where: The file, for messages.

    Raises:
        WeightsError: if names match no pattern; the first is named.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        new = next((match.expand(to) for old, to in table if (match := re.fullmatch(old, str(name)))), None)
        if new is None or not isinstance(tensor, Tensor):
            unknown.append(name)
        else:
            renamed[new] = tensor.float() if tensor.is_floating_point() else tensor
    if unknown:
        raise WeightsError(
            f"{where}: {len(unknown)} of {len(tensors)} tensors did not map (first: {unknown[0]!r}). "
            "Remove what is no weight of the model, or give the file as its authors published it."
        )
    return renamed


def require(tensors: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    """One tensor that decides the shape of the model.

    Raises:
        WeightsError: if it is missing.
    """
    if name not in tensors:
        raise WeightsError(f"{where}: the tensor for {name!r} is missing.")
    return tensors[name]


def same(stored: Tensor, ours: Tensor, atol: float) -> bool:
    """Whether a file's constant is ours, as far as `atol` and what half precision rounded off its numbers.

    The type is read off the numbers: tensors come here as float32, from files that may have been halved and written
    back. A number is in float16 or bfloat16 by half of its epsilon.
    """
    if stored.shape != ours.shape:
        return False
    halves = (kind for kind in (torch.bfloat16, torch.float16) if torch.equal(stored.to(kind).float(), stored))
    kind = next(halves, None)
    rtol = 0.0 if kind is None else torch.finfo(kind).eps / 2
    return torch.allclose(stored, ours, rtol=rtol, atol=atol)


def mlp_ratio(fc1: Tensor, width: int) -> float:
    """How wide a feed-forward is by its first weight [hidden, width], such that `int(width * ratio)` is `hidden`.

    >>> int(44 * (120 / 44)), int(44 * mlp_ratio(torch.zeros(120, 44), 44))
    (119, 120)
    """
    hidden = len(fc1)
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def must_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Check converted tensors against the module they are for (which may be on the meta device).

    Raises:
        WeightsError: naming the first tensor that is missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    for what, names in (("missing", wanted.keys() - tensors.keys()), ("unexpected", tensors.keys() - wanted.keys())):
        if names:
            raise WeightsError(f"{where}: {len(names)} of {len(wanted)} tensors {what} (first: {min(names)!r}).")
    for name, want in wanted.items():
        if (shape := tuple(tensors[name].shape)) != tuple(want.shape):
            raise WeightsError(f"{where}: {name!r} has the shape {shape}, expected {tuple(want.shape)}.")
        must_be_real(name, tensors[name], want, where)


def fuse(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Each `attn.query`, `attn.key`, `attn.value` under one another as `attn.qkv`; the rest as it is.

    Raises:
        WeightsError: if one of the three is missing.
    """
    fused = {name: t for name, t in tensors.items() if not re.search(r"attn\.(query|key|value)\.", name)}
    for name in tensors:
        if ".attn.query." in name:
            parts = [require(tensors, name.replace("query", part), where) for part in ("query", "key", "value")]
            fused[name.replace("query", "qkv")] = torch.cat(parts)
    return fused


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def on_meta(build: Any, *args: Any) -> nn.Module:
    """A module without memory: only its names and shapes."""
    with torch.device("meta"):
        return build(*args)


class _NoDraws(TorchFunctionMode):
    """Within this context nobody draws random numbers in place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            tensor.detach().zero_()  # who draws until all fits must come to an end
            return tensor
        return func(*args, **kwargs)


def blank(build: Any, *args: Any) -> Any:
    """A module whose first weights are not drawn, for the file's to take their place: seconds less for large ones."""
    with _NoDraws():
        return build(*args)


def card(path: Path, entry: Entry | None, **said: Any) -> dict[str, Any]:
    """A model's card: what its layout says of it, and over that what the catalogue says."""
    name = path.stem if path.stem != "model" else path.parent.name
    known = {k: v for k, v in asdict(entry).items() if v not in ("", {})} if entry else {}
    return {"name": name, **said, **known}


def guessed(what: str, value: object, told: object, entry: Entry | None = None) -> dict[str, str]:
    """For the card: what was taken where neither the file nor the catalogue says."""
    return {} if told or entry else {what: f"guessed: {value}"}
