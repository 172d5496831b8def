"""Vectors of captions, computed once and kept on disk.

A folder for each encoder (its id), and in it parts that are only ever added: `keys` (SHA-256 of the texts) and
`vectors`. A part is whole or not there, so several runs may fill one cache at a time, and a stopped one loses little.

Axes: n texts, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from otic.core.errors import WeightsError
from otic.core.files import atomic
from otic.weights.language import Language
from otic.weights.sentences import SentenceEncoder

PART = 512  # texts computed between two writes: a few seconds of work, since a stop waits for the end of a part


def vectors(
    encoder: SentenceEncoder | Language,
    texts: Sequence[str],
    cache: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """One vector for each text; those never seen before are computed, each once, and kept.

    Args:
        encoder: Who turns texts into vectors.
        texts: Captions, in any order and number.
        cache: A folder, shared by any number of encoders and runs.
        progress: Called with the number of texts done and of all, while any are computed; what it raises ends the work,
            and what was computed is kept.

    Raises:
        WeightsError: when a kept file is damaged.
    """
    folder = Path(cache) / encoder.id[:32]
    keys = [key(text) for text in texts]
    known = read(folder, encoder.width)
    new = list({k: text for k, text in zip(keys, texts, strict=True) if k not in known}.items())
    for start in range(0, len(new), PART):
        if progress:
            progress(start, len(new))
        part = new[start : start + PART]
        made = encoder([text for _, text in part]).numpy()
        write(folder, [k for k, _ in part], made)
        known |= {k: row for (k, _), row in zip(part, made, strict=True)}
    if progress and new:
        progress(len(new), len(new))
    rows = np.stack([known[k] for k in keys]) if keys else np.zeros((0, encoder.width), np.float32)
    return torch.from_numpy(rows)


def key(text: str) -> bytes:
    """What a text is filed under."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def read(folder: Path, width: int) -> dict[bytes, np.ndarray]:
    """All kept vectors by their keys."""
    known: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            part = load_file(path)
            keys, rows = part["keys"], part["vectors"]
            if keys.shape != (len(rows), 32) or rows.shape[1:] != (width,):
                raise KeyError("shapes")
        except (SafetensorError, OSError, KeyError) as error:
            raise WeightsError(
                f"{path}: not a file of kept vectors ({error}). Delete it; they are made anew."
            ) from error
        known |= {k.tobytes(): row for k, row in zip(keys, rows, strict=True)}
    return known


def write(folder: Path, keys: Sequence[bytes], rows: np.ndarray) -> None:
    """Keep these; the file is named by what is in it."""
    packed = b"".join(keys)
    tensors = {"keys": np.frombuffer(packed, np.uint8).reshape(-1, 32), "vectors": np.ascontiguousarray(rows)}
    with atomic(folder / f"{sha256(packed).hexdigest()[:32]}.safetensors") as part:
        save_file(tensors, part)
