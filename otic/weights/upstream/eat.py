"""EAT's published layouts (cwx-worst-one/EAT @ 06c1c34; worstchan/EAT-* on the Hugging Face hub; SSLAM has the same).

fairseq       `.pt`: {cfg, model}; pre-trained `modality_encoders.IMAGE.*`, `blocks.*` and the nested teacher `_ema`;
              fine-tuned `model.*`, `fc_norm.*`, `head.*`
Hugging Face  `model.safetensors` with `config.json`: `model.*`, fine-tuned ones with `model.head.*`

Half-precision tensors are upcast. The stored table of positions is kept: half precision has rounded it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.core.config import to_dict
from otic.core.errors import ConfigError, WeightsError
from otic.models.decoders import CNNDecoder, DecoderConfig
from otic.models.heads import Head, HeadConfig
from otic.models.positions import sincos
from otic.models.vit import ViT, ViTConfig
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded
from otic.weights.upstream.table import below, card, guessed, mlp_ratio, must_fit, on_meta, rename, require, same

BLOCKS = (r"blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)", r"blocks.\1.\2.\3")
_IMAGE = r"modality_encoders\.IMAGE\."  # upstream's name for audio
FAIRSEQ = (
    BLOCKS,
    (_IMAGE + r"extra_tokens", "extra_tokens"),
    (_IMAGE + r"local_encoder\.proj\.(weight|bias)", r"proj.\1"),
    (_IMAGE + r"fixed_positional_encoder\.positions", "position_table"),
    (_IMAGE + r"context_encoder\.norm\.(weight|bias)", r"embed_norm.\1"),
    (_IMAGE + r"decoder\.blocks\.(\d+)\.0\.(weight|bias)", r"decoder.convs.\1.\2"),
    (_IMAGE + r"decoder\.proj\.(weight|bias)", r"decoder.proj.\1"),
)
FINETUNED = (
    *((r"model\." + old, new) for old, new in FAIRSEQ[:5]),
    (r"fc_norm\.(weight|bias)", r"head.norm.\1"),
    (r"head\.(weight|bias)", r"head.linear.\1"),
)
HUGGING_FACE = (
    (r"model\." + BLOCKS[0], BLOCKS[1]),
    (r"model\.extra_tokens", "extra_tokens"),
    (r"model\.local_encoder\.proj\.(weight|bias)", r"proj.\1"),
    (r"model\.fixed_positional_encoder\.positions", "position_table"),
    (r"model\.pre_norm\.(weight|bias)", r"embed_norm.\1"),
    (r"model\.fc_norm\.(weight|bias)", r"head.norm.\1"),
    (r"model\.head\.(weight|bias)", r"head.linear.\1"),
)
MARKS = {  # a name that only this layout has -> (its table, the epsilon of its head's norm)
    "modality_encoders.IMAGE.local_encoder.proj.weight": (FAIRSEQ, 1e-6),
    "model.modality_encoders.IMAGE.local_encoder.proj.weight": (FINETUNED, 1e-6),
    "model.local_encoder.proj.weight": (HUGGING_FACE, 1e-5),  # a slip of that port; its logits differ by 3e-5
}
READ = {"CLS_TOKEN": "cls", "MEAN_POOLING": "mean", "LIN_SOFTMAX": "lin_softmax"}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in our terms; every state fits `load_state_dict` of the module which its config builds.

    Attributes:
        encoder: For `ViT`; `state` is the student's.
        teacher: The moving average's state, in pre-trained fairseq files.
        decoder: For `CNNDecoder`, likewise.
        head: For `Head`, in fine-tuned files.
        labels: Names of the classes in order, where the file knows them.
    """

    encoder: ViTConfig
    state: dict[str, Tensor]
    teacher: dict[str, Tensor] | None = None
    decoder: DecoderConfig | None = None
    decoder_state: dict[str, Tensor] = field(default_factory=dict)
    head: HeadConfig | None = None
    head_state: dict[str, Tensor] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


def matches(content: Mapping[str, Any]) -> bool:
    """Whether these tensors, or those of a fairseq checkpoint, are named as one of EAT's layouts does."""
    nested = content.get("model")
    return any(mark in content or (isinstance(nested, Mapping) and mark in nested) for mark in MARKS)


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """The student, as upstream's feature extraction takes it; the classifier, where there is one.

    Args:
        content: What the file holds.
        settings: The `config.json` beside it; empty without one.
        path: The file, for messages and for a name.
        entry: What the catalogue says of it.

    Raises:
        WeightsError: as `read`.
    """
    found = _convert(content, settings, path)
    encoder = ViT(found.encoder)
    encoder.load_state_dict(found.state)
    said = card(
        path,
        entry,
        system="EAT",
        layout="EAT",
        labels_used="those of its fine-tuning" if found.head else "none",
        inference={"window": 10.0, "pool": "cls"},  # upstream's utterance vector is the CLS token
        **guessed("heads", encoder.cfg.heads, "num_heads" in _settings(content.get("cfg") or settings), entry),
    )
    extra = {f"head.{name}": tensor for name, tensor in found.head_state.items()}
    extra_config = {"head": to_dict(found.head), "classes": list(found.labels)} if found.head else {}
    return Loaded(encoder.eval(), FrontendConfig(mels=found.encoder.mels), said, extra, extra_config)


def read(path: str | Path) -> Converted:
    """Read a `.pt` file, a `.safetensors` file (with its `config.json` beside it), or a folder with the latter two.

    Raises:
        WeightsError: if it is damaged, unsafe, of another layout, or lacks or adds tensors (the first is named).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        return convert(*_read_safetensors(path), where=str(path))
    content = load_pickle(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a checkpoint.")
    return _convert(content, {}, path)


def _convert(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> Converted:
    """A bare state dict, or a fairseq checkpoint."""
    if any(mark in content for mark in MARKS):
        return convert(content, settings, where=str(path))
    if not isinstance(content.get("model"), Mapping):
        raise WeightsError(f"{path}: not a fairseq checkpoint: it has no 'model'.")
    labels = (content.get("task_state") or {}).get("labels") or {}
    return convert(content["model"], content.get("cfg") or {}, tuple(map(str, labels)), where=str(path))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = path.with_name("config.json")
    try:
        settings = json.loads(config.read_text()) if config.exists() else {}
        return load_file(path), settings
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}).") from error


def convert(
    tensors: Mapping[str, Any], settings: Mapping[str, Any], labels: tuple[str, ...] = (), where: str = "checkpoint"
) -> Converted:
    """Tensors and settings as they stand in the file, into ours.

    Args:
        tensors: `model` of a fairseq file (the teacher nested as `_ema`), or all of a safetensors file.
        settings: `cfg` of a fairseq file, or `config.json`; may be empty (heads are then guessed from the width).
        labels: Names of the classes, if known.
        where: The file, for messages.

    Raises:
        WeightsError: as `read`.
    """
    mark = next((name for name in MARKS if name in tensors), None)
    if mark is None:
        raise WeightsError(
            f"{where}: not an EAT checkpoint: none of its tensors embeds patches (first: {_first(tensors)})."
        )
    table, head_eps = MARKS[mark]
    ema = tensors.get("_ema")
    renamed = rename({k: v for k, v in tensors.items() if k != "_ema"}, table, where)
    settings = _settings(settings)
    decoder, head = below(renamed, "decoder."), below(renamed, "head.")
    state = _squeeze({k: v for k, v in renamed.items() if not k.startswith(("decoder.", "head."))}, where)
    encoder = _encoder(state, settings, where)
    teacher = None if ema is None else _squeeze(rename(ema, FAIRSEQ[:5], f"{where} (_ema)"), where)
    decoder_cfg = _decoder(decoder, encoder.width, where) if decoder else None
    head_cfg = _head(head, settings, head_eps, where) if head else None

    try:
        expected = on_meta(ViT, encoder)
    except ConfigError as error:
        raise WeightsError(f"{where}: its settings do not fit its tensors: {error}") from error
    must_fit(expected, state, where)
    if teacher is not None:
        must_fit(expected, teacher, f"{where} (_ema)")
    if decoder_cfg is not None:
        shape = (encoder.width, decoder_cfg.dim, decoder_cfg.layers, decoder_cfg.kernel, decoder_cfg.groups)
        must_fit(on_meta(CNNDecoder, *shape), decoder, f"{where} (decoder)")
    if head_cfg is not None:
        must_fit(on_meta(Head, encoder.width, head_cfg), head, f"{where} (head)")
    return Converted(
        encoder=encoder,
        state=state,
        teacher=teacher,
        decoder=decoder_cfg,
        decoder_state=decoder,
        head=head_cfg,
        head_state=head,
        labels=labels if head_cfg and len(labels) == head_cfg.classes else (),
    )


def _first(tensors: Mapping[str, Any]) -> str:
    return repr(next(iter(tensors), "it holds nothing"))


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One flat dict: a fine-tuned fairseq file nests the pre-training settings inside its own."""
    model = settings.get("model") or {}
    nested = (model.get("pretrained_model_args") or {}).get("model") or {}
    image = ((nested or model).get("modalities") or {}).get("image") or {}
    return {**settings, **image, **nested, **model}


def _squeeze(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The table of positions without its axis of length one."""
    return {**state, "position_table": require(state, "position_table", where).flatten(0, -2)}


def _encoder(state: Mapping[str, Tensor], settings: Mapping[str, Any], where: str) -> ViTConfig:
    """Shapes tell width, depth and patch; the number of heads must be stored, or follows 64 channels a head."""
    if settings.get("layer_norm_first"):
        raise WeightsError(f"{where}: layer_norm_first=true, which no published EAT has; this reader knows post-norm.")
    proj = require(state, "proj.weight", where)
    width, patch = len(proj), (proj.shape[2], proj.shape[3])
    mels, stride = int(settings.get("mel_bins", 128)), int(settings.get("stride", patch[0]))
    bands = (mels - patch[1]) // stride + 1
    rows = state["position_table"]
    grid = (len(rows) // bands, bands)
    formula = same(rows, sincos(grid, width), atol=5e-4)
    return ViTConfig(
        width=width,
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        heads=int(settings.get("num_heads", max(1, width // 64))),
        mlp_ratio=mlp_ratio(require(state, "blocks.0.mlp.fc1.weight", where), width),
        patch=patch,
        stride=None if stride == patch[0] == patch[1] else (stride, stride),
        mels=mels,
        norm="post",
        eps=float(settings.get("norm_eps", 1e-6)),
        positions="sincos" if formula else "table",
        table=grid if formula else (len(rows), 1),
    )


def _decoder(state: Mapping[str, Tensor], width: int, where: str) -> DecoderConfig:
    weight = require(state, "convs.0.weight", where)
    layers = len({name.split(".")[1] for name in state if name.startswith("convs.")})
    return DecoderConfig(
        dim=weight.shape[0], layers=layers, kernel=weight.shape[2], groups=width // max(1, weight.shape[1])
    )


def _head(state: Mapping[str, Tensor], settings: Mapping[str, Any], eps: float, where: str) -> HeadConfig:
    mode = settings.get("prediction_mode") or "CLS_TOKEN"
    if mode not in READ:
        raise WeightsError(f"{where}: prediction_mode {mode!r} is unknown. Known: {', '.join(READ)}.")
    return HeadConfig(classes=len(require(state, "linear.weight", where)), read=READ[mode], eps=eps)  # type: ignore[arg-type]
