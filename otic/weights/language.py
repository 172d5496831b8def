"""A published language model as the one that writes: GPT-2's weights from a local folder, under our names.

Radford et al. 2019. The folder is laid out as the transformers library does it: `config.json` (optional), and
`model.safetensors` or `pytorch_model.bin`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from otic.core.errors import WeightsError
from otic.models.text_block import TextConfig
from otic.weights.pickles import load_pickle
from otic.weights.upstream import clap_text
from otic.weights.upstream.table import rename

FILES = ("model.safetensors", "pytorch_model.bin")


def gpt2(folder: str | Path) -> tuple[TextConfig, dict[str, Tensor]]:
    """Config and weights of a `Decoder`.

    Raises:
        WeightsError: when there is no such file, or it is not GPT-2.
    """
    root = Path(folder).expanduser()
    path = next((root / name for name in FILES if (root / name).is_file()), None)
    if path is None:
        raise WeightsError(f"{folder}: holds neither {' nor '.join(FILES)}. Name a folder with GPT-2's weights.")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in _read(path).items()}
    tensors.pop("lm_head.weight", None)  # the token table, once more
    return clap_text.gpt2(rename(tensors, clap_text.GPT2, str(path)), _said(root / "config.json"), str(path))


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content: Any = load_pickle(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a checkpoint.")
    return content


def _said(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}).") from error
