"""A run's state on disk: whole or not there, and the one before it kept.

`checkpoint.pt` is a zip archive of tensors and plain values; it is read without executing anything. PyTorch does not
check the archive's checksums when it reads, so we do.
"""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from otic.core.errors import OticWarning, WeightsError
from otic.core.files import atomic, said_of

CURRENT, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
NEW = ".checkpoint.part"

DAMAGE = (  # what reading a damaged archive may raise
    zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, struct.error,
    EOFError, RuntimeError, ValueError, LookupError,
)  # fmt: skip


def save(run: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, lists, dicts) as the run's checkpoint; the last one is kept."""
    current = run / CURRENT
    with said_of(current), atomic(run / NEW) as part, part.open("wb") as file:
        torch.save(content, file)  # into a file of ours, so that what the system says of it is heard
    if current.exists():
        os.replace(current, run / PREVIOUS)
    os.replace(run / NEW, current)
    _flush(run)


def load(run: Path) -> dict[str, Any] | None:
    """The newest good checkpoint of a run, None for a run without any.

    A damaged one is put aside with a warning, and the one before it is taken.

    Raises:
        WeightsError: when there are checkpoints, but none of them is whole.
    """
    current, previous = run / CURRENT, run / PREVIOUS
    reasons = []
    for path in (current, previous):
        if not path.exists():
            continue
        try:
            content = read(path)
        except WeightsError as error:
            reasons.append(str(error))
            continue
        if reasons:
            os.replace(current, run / DAMAGED)
            warnings.warn(OticWarning(f"{reasons[0]} Resuming from {path.name} instead."), stacklevel=2)
        return content
    if reasons:
        raise WeightsError(f"{' '.join(reasons)} Remove the folder, or name another one, to begin anew.")
    return None


def read(path: Path) -> dict[str, Any]:
    """The content of one checkpoint file, on the CPU.

    Raises:
        WeightsError: when it is cut short, altered, or not a checkpoint of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            odd = archive.testzip()
        if odd is None:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise WeightsError(
            f"{path}: damaged or cut short ({(str(error) or type(error).__name__).splitlines()[0]})."
        ) from error
    if odd is not None:
        raise WeightsError(f"{path}: damaged ({odd} does not match its checksum).")
    if not isinstance(content, dict) or "step" not in content:
        raise WeightsError(f"{path}: not a checkpoint of otic.")
    return content


def _flush(folder: Path) -> None:
    """Make the renames last: a folder's entries are flushed apart from its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
