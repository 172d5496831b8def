"""Cnn14 of PANNs under its authors' names, as MS-CLAP 2022 keeps it (microsoft/CLAP @ e8a6467)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.weights.upstream.table import blank, must_fit, require

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
AUTHORS = (
    (r"bn0\." + _NORM, r"input_norm.\1"),
    (r"conv_block(\d+)\.(conv1|conv2)\.weight", r"blocks.\1.\2.weight"),
    (r"conv_block(\d+)\.(bn1|bn2)\." + _NORM, r"blocks.\1.\2.\3"),
    (r"fc1\.(weight|bias)", r"fc.\1"),
    (r"fc_audioset\.(weight|bias)", r"tagger.\1"),
    (r"logmel_extractor\.melW", "fixed.bank"),
    (r"spectrogram_extractor\.stft\.conv_(real|imag)\.weight", r"fixed.\1"),
)


def encoder(tensors: Mapping[str, Tensor], where: str) -> tuple[Cnn14Config, dict[str, Tensor]]:
    """What an encoder's renamed tensors say, and those of them that it learns.

    Raises:
        WeightsError: if tensors are missing, left over, or of odd shapes.
    """
    state = {n: t for n, t in tensors.items() if not n.startswith("fixed.")}
    pairs = sum(1 for name in state if name.endswith("conv1.weight"))
    tagger = state.get("tagger.weight")
    cfg = Cnn14Config(
        widths=tuple(len(require(state, f"blocks.{i}.conv1.weight", where)) for i in range(1, pairs + 1)),
        mels=len(require(state, "input_norm.weight", where)),
        classes=0 if tagger is None else len(tagger),
    )
    must_fit(blank(Cnn14, cfg), state, where)
    return cfg, state
