"""HTSAT under the two names in which it is published: its authors' (MS-CLAP and LAION-CLAP keep them), transformers'.

Depths, widths, heads, window and mel bands follow from the shapes; the side of the image from the shift masks that its
authors' files carry. Those files also hold what only repeats the config (relative-position index, shift masks, the
transform as two convolutions): it is checked against what we compute, and dropped.

Sources: microsoft/CLAP @ e8a6467, LAION-AI/CLAP @ 1fd4c37, transformers 5.23.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from otic.core.errors import ConfigError, WeightsError
from otic.models.htsat import HTSAT, HTSATConfig
from otic.weights.upstream.table import below, blank, mlp_ratio, must_fit, require, same

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
_OURS = r"stages.\1.blocks.\2."
_SHARED = (
    (r"patch_embed\.(proj|norm)\.(weight|bias)", r"patch.\1.\2"),
    (r"patch_embed\.mel_conv2d\.(weight|bias)", r"fusion.proj.\1"),
    (r"patch_embed\.fusion_model\.local_att\.(\d+)\." + _NORM, r"fusion.local.\1.\2"),
    (r"patch_embed\.fusion_model\.global_att\.(\d+)\." + _NORM, r"fusion.whole.\1.\2"),
    (r"layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)", r"stages.\1.merge.\2"),
    (r"norm\.(weight|bias)", r"norm.\1"),
)
AUTHORS = (
    (r"bn0\." + _NORM, r"input_norm.\1"),
    (_BLOCK + r"(norm1|norm2|attn\.qkv|mlp\.fc1|mlp\.fc2)\.(weight|bias)", _OURS + r"\3.\4"),
    (_BLOCK + r"attn\.proj\.(weight|bias)", _OURS + r"attn.out.\3"),
    (_BLOCK + r"attn\.relative_position_bias_table", _OURS + "attn.rel_bias"),
    (r"tscam_conv\.(weight|bias)", r"tagger.\1"),
    (r"head\.(weight|bias)", r"unused.\1"),  # of the classes onto themselves; nothing calls it
    (r"logmel_extractor\.melW", "fixed.bank"),
    (r"spectrogram_extractor\.stft\.conv_(real|imag)\.weight", r"fixed.\1"),
    (_BLOCK + r"attn\.relative_position_index", r"fixed.index.\1.\2"),
    (_BLOCK + r"attn_mask", r"fixed.mask.\1.\2"),
    *_SHARED,
)
TRANSFORMERS = (
    (r"batch_norm\." + _NORM, r"input_norm.\1"),
    (_BLOCK + r"layernorm_before\.(weight|bias)", _OURS + r"norm1.\3"),
    (_BLOCK + r"layernorm_after\.(weight|bias)", _OURS + r"norm2.\3"),
    (_BLOCK + r"attention\.self\.(query|key|value)\.(weight|bias)", _OURS + r"attn.\3.\4"),
    (_BLOCK + r"attention\.self\.relative_position_bias_table", _OURS + "attn.rel_bias"),
    (_BLOCK + r"attention\.self\.relative_position_index", r"fixed.index.\1.\2"),
    (_BLOCK + r"attention\.output\.dense\.(weight|bias)", _OURS + r"attn.out.\3"),
    (_BLOCK + r"intermediate\.dense\.(weight|bias)", _OURS + r"mlp.fc1.\3"),
    (_BLOCK + r"output\.dense\.(weight|bias)", _OURS + r"mlp.fc2.\3"),
    *_SHARED,
)


def under(prefix: str, ours: str, table: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The table for names below a prefix (a pattern without groups), into ours below another."""
    return tuple((prefix + old, ours + new) for old, new in table)


def encoder(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], where: str, **fixed: Any
) -> tuple[HTSATConfig, dict[str, Tensor]]:
    """What an encoder's renamed tensors say, and those of them that it learns.

    Args:
        tensors: Under our names, `fixed.*` among them.
        settings: `spec_size`, `patch_stride` and `layer_norm_eps`, where a config says them.
        where: The file, for messages.
        fixed: Fields of `HTSATConfig` that the layout settles.

    Raises:
        WeightsError: if tensors are missing, left over, of odd shapes, or not what the config says they are.
    """
    state = {n: t for n, t in tensors.items() if not n.startswith(("fixed.", "unused."))}
    tables = {n: t for n, t in state.items() if n.endswith("rel_bias")}
    depths = _depths(tables, where)
    first = [require(tables, f"stages.{s}.blocks.0.attn.rel_bias", where) for s in range(len(depths))]
    kernel = require(state, "patch.proj.weight", where)
    width, patch, window = len(kernel), kernel.shape[-1], (math.isqrt(len(first[0])) + 1) // 2
    stride = _stride(settings.get("patch_stride", patch), where)
    gate = state.get("fusion.local.0.weight")
    tagger = state.get("tagger.weight")
    try:
        cfg = HTSATConfig(
            width=width,
            depths=depths,
            heads=tuple(table.shape[1] for table in first),
            window=window,
            patch=patch,
            stride=None if stride == patch else stride,
            image=_image(below(tensors, "fixed.mask.0."), window * stride, settings),
            mels=len(require(state, "input_norm.weight", where)),
            mlp_ratio=mlp_ratio(require(state, "stages.0.blocks.0.mlp.fc1.weight", where), width),
            eps=float(settings.get("layer_norm_eps", 1e-5)),
            classes=0 if tagger is None else len(tagger),
            fusion=gate is not None,
            reduction=4 if gate is None else width // len(gate),
            **fixed,
        )
        must_fit(blank(HTSAT, cfg), state, where)
    except ConfigError as error:
        raise WeightsError(f"{where}: its settings do not fit its tensors: {error}") from error
    _check_fixed(tensors, where)
    return cfg, state


def transform(tensors: Mapping[str, Tensor], where: str) -> int:
    """Samples of a frame, from the transform's stored convolutions.

    Raises:
        WeightsError: if they are not the transform of a periodic Hann window, which alone we compute.
    """
    real = require(tensors, "fixed.real", where)
    fft = real.shape[-1]
    if not same(real[0].flatten(), torch.hann_window(fft), atol=1e-3):
        raise WeightsError(f"{where}: its frames are not weighted by a periodic Hann window of {fft} samples.")
    return fft


def edges(said: Mapping[str, Any], rate: int) -> dict[str, float]:
    """Lower and upper edge of the mel bands, Hz: as a config says, else as published, and what the rate can hold."""
    return {"low": float(said.get("fmin", 50)), "high": min(float(said.get("fmax", 14000)), rate / 2)}


def _stride(said: int | Sequence[int], where: str) -> int:
    """Pixels between patches, the same down and across."""
    both = {said} if isinstance(said, int) else set(said)
    if len(both) != 1:
        raise WeightsError(f"{where}: patch_stride={list(both)}: only the same stride along both axes is known.")
    return int(both.pop())


def _depths(tables: Mapping[str, Tensor], where: str) -> tuple[int, ...]:
    """Blocks of each stage, counted in their names."""
    places = [re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\..*", name) for name in tables]
    stages = sorted({int(place[1]) for place in places if place})
    if not stages:
        raise WeightsError(f"{where}: holds no block of HTSAT's stages.")
    return tuple(sum(1 for place in places if place and int(place[1]) == s) for s in range(stages[-1] + 1))


def _image(masks: Mapping[str, Tensor], window: int, settings: Mapping[str, Any]) -> int:
    """Side of the picture: the first stage's shift mask has a row for each window (of so many pixels)."""
    if masks:
        return math.isqrt(len(next(iter(masks.values())))) * window
    return int(settings.get("spec_size", 256))


def _check_fixed(tensors: Mapping[str, Tensor], where: str) -> None:
    """The stored relative-position indices count rows and columns as ours do."""
    for name, index in below(tensors, "fixed.index.").items():
        side = math.isqrt(len(index))
        place = torch.cartesian_prod(torch.arange(side), torch.arange(side))  # (row, column)
        offset = place[:, None] - place[None] + side - 1
        if not torch.equal(index.long(), offset[..., 0] * (2 * side - 1) + offset[..., 1]):
            raise WeightsError(f"{where}: the relative positions of block {name} are not counted as HTSAT counts them.")
