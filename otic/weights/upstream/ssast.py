"""The published layouts of SSAST (YuanGongND/ssast @ a1a3eec) and AST (YuanGongND/ast @ 31088be).

torch         `.pth`: a state dict `module.v.*` (or without `module.`); pre-trained ones with `mask_embed`, `p_input_*`,
              `cpredlayer.*`, `gpredlayer.*`; fine-tuned ones with `mlp_head.*`
transformers  `model.safetensors` with `config.json`: `audio_spectrogram_transformer.*` and `classifier.*`

Upstream counts patches and the pixels of a patch along frequency first: positions, patch kernels and the heads' last
layer are turned round here. A fine-tuned file does not say how far its patches stand apart; see `stride_of`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.core.config import to_dict
from otic.core.errors import ConfigError, WeightsError
from otic.models.heads import Head, HeadConfig
from otic.models.vit import ViT, ViTConfig
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded
from otic.weights.upstream.table import below, card, fuse, guessed, mlp_ratio, must_fit, on_meta, rename, require

Grid = tuple[int, int]  # (time, freq)

TORCH = (
    (r"v\.(cls_token|dist_token|pos_embed)", r"\1"),
    (r"v\.patch_embed\.proj\.(weight|bias)", r"proj.\1"),
    (r"v\.blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)", r"blocks.\1.\2.\3"),
    (r"v\.norm\.(weight|bias)", r"norm.\1"),
    (r"v\.(head|head_dist)\.(weight|bias)", r"unused.\1.\2"),  # ImageNet's classes, never used
    (r"(p_input_[ft]dim)", r"\1"),
    (r"mask_embed", "mspm.mask"),
    (r"cpredlayer\.([02])\.(weight|bias)", r"mspm.contrast.\1.\2"),
    (r"gpredlayer\.([02])\.(weight|bias)", r"mspm.generate.\1.\2"),
    (r"mlp_head\.0\.(weight|bias)", r"head.norm.\1"),
    (r"mlp_head\.1\.(weight|bias)", r"head.linear.\1"),
)
_LAYER = r"encoder\.layer\.(\d+)\."
TRANSFORMERS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"proj.\1"),
    (_LAYER + r"layernorm_before\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.attention\.(query|key|value)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
    (r"classifier\.layernorm\.(weight|bias)", r"head.norm.\1"),
    (r"classifier\.dense\.(weight|bias)", r"head.linear.\1"),
)
MARKS = {  # the name that tells a layout -> its table, the default epsilons of its encoder and of its head
    "v.patch_embed.proj.weight": (TORCH, 1e-6, 1e-5),
    "embeddings.patch_embeddings.projection.weight": (TRANSFORMERS, 1e-12, 1e-12),
}
WRAPPERS = r"(module\.)?(audio_spectrogram_transformer\.)?"
STRIDES = (10, 16, 12, 14)  # of the published fine-tuned models, the commonest first
LENGTHS = (1024, 512, 128, 100, 600, 1000)  # frames that they were made for, likewise
AUDIOSET = (-4.2677393, 4.5689974)  # mean and std of the log-mel
STATISTICS = {50: (-6.6268077, 5.358466), 35: (-6.845978, 5.5654526)}  # by classes: ESC-50, Speech Commands V2


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in our terms; every state fits `load_state_dict` of the module which its config builds.

    Attributes:
        encoder: For `ViT`; its `table` is the grid that the file's positions were learned on.
        mspm_state: Of `MSPM` around that encoder, without the encoder; empty in fine-tuned files.
        head: For `Head`, in fine-tuned files (they do not say which tokens it reads: see `convert`).
        labels: Names of the classes, where the file knows them.
        stride_known: False where the stride was guessed from the number of positions.
    """

    encoder: ViTConfig
    state: dict[str, Tensor]
    mspm_state: dict[str, Tensor] = field(default_factory=dict)
    head: HeadConfig | None = None
    head_state: dict[str, Tensor] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    stride_known: bool = True


def matches(content: Mapping[str, Any]) -> bool:
    """Whether tensors of these names are one of these layouts."""
    return any(_bare(str(name)) in MARKS for name in content)


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """The encoder; as extra tensors a fine-tuned file's classifier, or a pre-trained one's heads.

    Raises:
        WeightsError: as `convert`.
    """
    found = convert(content, settings, where=str(path))
    encoder = ViT(found.encoder)
    encoder.load_state_dict(found.state)
    tuned = found.head is not None
    said = card(
        path,
        entry,
        system="AST" if tuned else "SSAST",
        layout="SSAST",
        labels_used="those of its fine-tuning" if tuned else "none",
        inference={"window": 10.24, "pool": "mean"},  # as upstream's fine-tuning reads the encoder out
        **guessed("stride", list(found.encoder.step), found.stride_known),
        **guessed("heads", found.encoder.heads, settings.get("num_attention_heads"), entry),
    )
    extra = {f"head.{name}": tensor for name, tensor in found.head_state.items()}
    extra |= {f"mspm.{name}": tensor for name, tensor in found.mspm_state.items()}
    extra_config = {"head": to_dict(found.head), "classes": list(found.labels)} if tuned else {}
    mean, std = STATISTICS.get(found.head.classes, AUDIOSET) if found.head else AUDIOSET
    frontend = FrontendConfig(mels=found.encoder.mels, mean=mean, std=std)
    return Loaded(encoder.eval(), frontend, said, extra, extra_config)


def convert(
    tensors: Mapping[str, Any],
    settings: Mapping[str, Any] = {},
    *,
    stride: Grid | None = None,
    read: str = "",
    where: str = "checkpoint",
) -> Converted:
    """Tensors as they stand in the file, into ours.

    Args:
        tensors: All of the file; floating ones of any precision.
        settings: The `config.json` of the transformers layout; empty otherwise.
        stride: (frames, mel bins) between patches of a fine-tuned file, which does not know them.
        read: What a fine-tuned head reads, a `HeadConfig.read`, which the `.pth` layout does not know either; by
            default both tokens, as AST does, and the patches of frame models, which only SSAST has.
        where: The file, for messages.

    Raises:
        WeightsError: if tensors are missing, unknown or of the wrong shape (the first is named), or if no stride
            explains the number of positions.
    """
    names = {_bare(str(name)): tensor for name, tensor in tensors.items()}
    mark = next((name for name in MARKS if name in names), None)
    if mark is None:
        first = next(iter(tensors), "it holds nothing")
        raise WeightsError(f"{where}: not an SSAST checkpoint: none of its tensors embeds patches (first: {first!r}).")
    table, *eps = MARKS[mark]
    renamed = fuse(rename(names, table, where), where)
    encoder, known = _encoder(renamed, settings, stride, float(settings.get("layer_norm_eps", eps[0])), where)
    assert encoder.table is not None
    state = _encoder_state(renamed, encoder.extra, encoder.table, where)
    mspm = turn_heads(below(renamed, "mspm."), encoder.patch[::-1])
    if mspm:
        mspm["mask"] = require(mspm, "mask", where).flatten()
        _check_heads(mspm, encoder, where)
    head, head_state = None, below(renamed, "head.")
    if head_state:
        frame = table is TORCH and encoder.patch[1] == encoder.mels
        how = read or ("mean" if frame else "cls_dist")
        classes = len(require(head_state, "linear.weight", where))
        head = HeadConfig(classes=classes, read=how, eps=float(settings.get("layer_norm_eps", eps[1])))  # type: ignore[arg-type]
        must_fit(on_meta(Head, encoder.width, head), head_state, f"{where} (head)")
    try:
        must_fit(on_meta(ViT, encoder), state, where)
    except ConfigError as error:
        raise WeightsError(f"{where}: its settings do not fit its tensors: {error}") from error
    return Converted(
        encoder=encoder,
        state=state,
        mspm_state=mspm,
        head=head,
        head_state=head_state,
        labels=_labels(settings, head),
        stride_known=known,
    )


def _encoder(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], stride: Grid | None, eps: float, where: str
) -> tuple[ViTConfig, bool]:
    """What the shapes say, and whether the stride is certain."""
    kernel, rows = require(tensors, "proj.weight", where), require(tensors, "pos_embed", where)
    width, patch, extra = len(kernel), (kernel.shape[3], kernel.shape[2]), 1 + ("dist_token" in tensors)
    n, known = rows.shape[1] - extra, True
    mels = int(tensors.get("p_input_fdim", settings.get("num_mel_bins", 128)))
    if "p_input_tdim" in tensors:  # pre-trained: patches without overlap
        stride = patch
    elif stride is None:
        stride, known = stride_of(n, patch, mels, settings, where)
    bands = (mels - patch[1]) // stride[1] + 1
    if n % bands:
        raise WeightsError(f"{where}: {n} positions do not make {bands} bands of patches, as stride={stride} would.")
    encoder = ViTConfig(
        width=width,
        depth=len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        heads=int(settings.get("num_attention_heads", max(1, width // 64))),
        mlp_ratio=mlp_ratio(require(tensors, "blocks.0.mlp.fc1.weight", where), width),
        patch=patch,
        stride=None if stride == patch else stride,
        mels=mels,
        norm="pre",
        eps=eps,
        dist=extra == 2,
        positions="learned",
        table=(n // bands, bands),
    )
    return encoder, known


def stride_of(n: int, patch: Grid, mels: int, settings: Mapping[str, Any], where: str) -> tuple[Grid, bool]:
    """(frames, mel bins) between the `n` patches of a fine-tuned file, and whether that is certain.

    The transformers layout says it (but third parties convert pre-trained files with the default strides, which then
    do not fit). Otherwise it is what a published setting gives: whole frames one apart, or square patches whose grid
    covers one of the published lengths, else any length.

    Raises:
        WeightsError: if nothing fits.
    """
    said = (settings.get("time_stride"), settings.get("frequency_stride"))
    if None not in said:
        stride = (int(said[0]), int(said[1]))  # type: ignore[arg-type]
        if n == _count(int(settings.get("max_length", 1024)), mels, patch, stride):
            return stride, True
    if patch[1] == mels:
        return ((1, mels) if n != _count(1024, mels, patch, patch) else patch), False
    square = [(s, s) for s in STRIDES]
    for stride in square:
        if n in {_count(frames, mels, patch, stride) for frames in LENGTHS}:
            return stride, False
    for stride in square:
        if n % ((mels - patch[1]) // stride[1] + 1) == 0:
            return stride, False
    raise WeightsError(f"{where}: {n} positions fit no published stride of {patch[1]}x{patch[0]} patches; pass stride.")


def _count(frames: int, mels: int, patch: Grid, stride: Grid) -> int:
    """Patches of so many frames."""
    return ((frames - patch[0]) // stride[0] + 1) * ((mels - patch[1]) // stride[1] + 1)


def _bare(name: str) -> str:
    """A name without the wrappers that a model may have been saved in."""
    return re.sub("^" + WRAPPERS, "", name)


def _encoder_state(tensors: Mapping[str, Tensor], extra: int, grid: Grid, where: str) -> dict[str, Tensor]:
    rows = tensors["pos_embed"][0]
    tokens = [require(tensors, "cls_token", where), *([tensors["dist_token"]] if extra == 2 else [])]
    state = {name: t for name, t in tensors.items() if name.split(".")[0] in ("blocks", "norm", "proj")}
    return state | {
        "proj.weight": tensors["proj.weight"].mT.contiguous(),
        "extra_tokens": torch.cat(tokens, 1),
        "extra_positions": rows[None, :extra].clone(),
        "position_table": rows[extra:].unflatten(0, grid[::-1]).transpose(0, 1).flatten(0, 1).contiguous(),
    }


def turn_heads(state: Mapping[str, Tensor], shape: Grid) -> dict[str, Tensor]:
    """The last layer of each pre-training head with a patch's pixels in the other order.

    Args:
        state: Tensors of `MSPM`.
        shape: Of a patch, in the order that the layer's rows count now.
    """
    last = {name for name in state if re.fullmatch(r"(contrast|generate)\.2\..*", name)}
    return {
        name: tensor.unflatten(0, shape).transpose(0, 1).flatten(0, 1) if name in last else tensor
        for name, tensor in state.items()
    }


def _check_heads(state: Mapping[str, Tensor], encoder: ViTConfig, where: str) -> None:
    """Both heads and the mask are there, and fit."""
    width, pixels = encoder.width, encoder.patch[0] * encoder.patch[1]
    layers = {"0.weight": (width, width), "0.bias": (width,), "2.weight": (pixels, width), "2.bias": (pixels,)}
    wanted = {f"{head}.{name}": shape for head in ("contrast", "generate") for name, shape in layers.items()}
    for name, shape in {"mask": (width,), **wanted}.items():
        if (found := tuple(require(state, name, where).shape)) != shape:
            raise WeightsError(f"{where}: {name!r} has the shape {found}, expected {shape}.")


def _labels(settings: Mapping[str, Any], head: HeadConfig | None) -> tuple[str, ...]:
    known = settings.get("id2label") or {}
    names = tuple(str(known[key]) for key in sorted(known, key=int))
    return names if head is not None and len(names) == head.classes else ()
