"""Audio-MAE's published layout (facebookresearch/AudioMAE @ bd60e29), and its encoder alone under timm's equal names.

pre-trained  {model}: `cls_token`, `pos_embed`, `patch_embed.*`, `blocks.*`, `norm.*`, and the decoder: `decoder_*`
             with windowed (`meta_mlp`, `tau`) or plain blocks
fine-tuned   {model}: the same encoder without `norm.*`, with `fc_norm.*` (after the mean over patches) and `head.*`

The table of positions is always the file's: its codes are those of the transposed grid, taken in token order, so that
a shorter clip reads a prefix of it and a longer one has none. The CLS token's own code is added to the token.
A fine-tuned encoder has no final norm; `fc_norm` belongs to the head and is never taken for `norm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.core.config import to_dict
from otic.core.errors import ConfigError, WeightsError
from otic.models.heads import Head, HeadConfig
from otic.models.vit import ViT, ViTConfig
from otic.models.vit_decoder import DecoderShape, TransformerDecoder
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded
from otic.weights.upstream.table import below, card, guessed, mlp_ratio, must_fit, on_meta, rename, require

_BLOCK = r"(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
TABLE = (
    ("cls_token", "extra_tokens"),
    ("pos_embed", "position_table"),
    (r"patch_embed\.proj\.(weight|bias)", r"proj.\1"),
    (r"blocks\." + _BLOCK, r"blocks.\1.\2.\3"),
    (r"norm\.(weight|bias)", r"norm.\1"),
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.position_table"),
    (r"decoder_embed\.(weight|bias)", r"decoder.embed.\1"),
    (r"decoder_blocks\." + _BLOCK, r"decoder.blocks.\1.\2.\3"),
    (r"decoder_blocks\.(\d+)\.attn\.tau", r"decoder.blocks.\1.attn.tau"),
    (r"decoder_blocks\.(\d+)\.attn\.meta_mlp\.(fc1|fc2)\.(weight|bias)", r"decoder.blocks.\1.attn.bias.\2.\3"),
    (r"decoder_norm\.(weight|bias)", r"decoder.norm.\1"),
    (r"decoder_pred\.(weight|bias)", r"decoder.proj.\1"),
    (r"fc_norm\.(weight|bias)", r"head.norm.\1"),
    (r"head\.(weight|bias)", r"head.linear.\1"),
)
BACK = (  # our names in `state`, `decoder.*` and `head.*` -> upstream's
    ("extra_tokens", "cls_token"),
    ("position_table", "pos_embed"),
    (r"proj\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"(blocks\..+|norm\..+)", r"\1"),
    (r"decoder\.mask_token", "mask_token"),
    (r"decoder\.position_table", "decoder_pos_embed"),
    (r"decoder\.blocks\.(\d+)\.attn\.bias\.(.+)", r"decoder_blocks.\1.attn.meta_mlp.\2"),
    (r"decoder\.proj\.(weight|bias)", r"decoder_pred.\1"),
    (r"decoder\.(.+)", r"decoder_\1"),
    (r"head\.norm\.(weight|bias)", r"fc_norm.\1"),
    (r"head\.linear\.(weight|bias)", r"head.\1"),
)
MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in our terms; every state fits `load_state_dict` of the module which its config builds.

    Attributes:
        encoder: For `ViT`.
        decoder: For `TransformerDecoder` (with `pixels` outputs), in pre-trained files.
        head: For `Head`, in fine-tuned files.
    """

    encoder: ViTConfig
    state: dict[str, Tensor]
    decoder: DecoderShape | None = None
    decoder_state: dict[str, Tensor] = field(default_factory=dict)
    head: HeadConfig | None = None
    head_state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """Outputs of the decoder for each patch."""
        return self.encoder.patch[0] * self.encoder.patch[1]


def matches(content: Mapping[str, Any]) -> bool:
    """Whether these tensors, or those of `model` in a pickle, are a ViT's with one input channel under MAE's names."""
    nested = content.get("model")
    names = nested if isinstance(nested, Mapping) else content
    if not all(mark in names for mark in MARKS):
        return False
    weight = names[MARKS[2]]
    shape = list(weight["shape"] if isinstance(weight, Mapping) else getattr(weight, "shape", ()))
    return len(shape) == 4 and shape[1] == 1  # images have three


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """The encoder, and the classifier where there is one; the decoder is left (see `read`).

    Args:
        content: What the file holds.
        settings: The `config.json` beside it; empty without one.
        path: The file, for messages and for a name.
        entry: What the catalogue says of it.

    Raises:
        WeightsError: as `read`.
    """
    found = convert(_tensors(content), settings, str(path))
    encoder = ViT(found.encoder)
    encoder.load_state_dict(found.state)
    said = card(
        path,
        entry,
        system="Audio-MAE",
        layout="Audio-MAE",
        labels_used="those of its fine-tuning" if found.head else "none",
        inference={"window": 10.0, "pool": "mean"},
        **guessed("heads", encoder.cfg.heads, settings.get("num_heads"), entry),
    )
    extra = {f"head.{name}": tensor for name, tensor in found.head_state.items()}
    extra_config = {"head": to_dict(found.head), "classes": []} if found.head else {}
    frontend = FrontendConfig(mels=found.encoder.mels, mean=-4.2677393, std=4.5689974)
    return Loaded(encoder.eval(), frontend, said, extra, extra_config)


def read(path: str | Path, settings: Mapping[str, Any] | None = None) -> Converted:
    """Read a `.pth` or `.safetensors` file with all it holds, the decoder too.

    Args:
        path: The file.
        settings: As `convert`.

    Raises:
        WeightsError: if it is damaged, unsafe, of another layout, or lacks or adds tensors (the first is named).
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError

        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: cannot be read ({error}).") from error
    else:
        content = load_pickle(path)
    if not isinstance(content, Mapping) or not matches(content):
        raise WeightsError(f"{path}: not an Audio-MAE checkpoint: it lacks one of {', '.join(MARKS)} for one channel.")
    return convert(_tensors(content), settings or {}, str(path))


def _tensors(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A bare state dict, or the one in a training checkpoint."""
    nested = content.get("model")
    return nested if isinstance(nested, Mapping) else content


def convert(tensors: Mapping[str, Any], settings: Mapping[str, Any], where: str = "checkpoint") -> Converted:
    """Tensors as they stand in the file, into ours.

    Args:
        tensors: By upstream's names.
        settings: `num_heads`, `decoder_num_heads` and `mels` where they are not the published models' (64 channels a
            head, 16 heads in a global decoder, 128 bins): a state dict does not tell.
        where: The file, for messages.

    Raises:
        WeightsError: as `read`.
    """
    renamed = rename(tensors, TABLE, where)
    head = below(renamed, "head.")
    if head and "linear.weight" not in head:
        raise WeightsError(
            f"{where}: has 'fc_norm' but no 'head': which vector that norm is for is unknown. "
            "Use the pre-trained file (with 'norm'), or the fine-tuned one with its head."
        )
    state = _with_codes({k: v for k, v in renamed.items() if not k.startswith(("decoder.", "head."))}, where)
    decoder = _decoder_codes(below(renamed, "decoder."), where)
    encoder_cfg = _encoder(state, settings, bool(head), where)
    decoder_cfg = _decoder(decoder, settings, where) if decoder else None
    head_cfg = HeadConfig(classes=len(head["linear.weight"]), read="mean") if head else None
    found = Converted(
        encoder=encoder_cfg, state=state, decoder=decoder_cfg, decoder_state=decoder, head=head_cfg, head_state=head
    )
    try:
        must_fit(on_meta(ViT, encoder_cfg), state, where)
        if decoder_cfg is not None:
            built = on_meta(TransformerDecoder, encoder_cfg.width, decoder_cfg, found.pixels)
            must_fit(built, decoder, f"{where} (decoder)")
        if head_cfg is not None:
            must_fit(on_meta(Head, encoder_cfg.width, head_cfg), head, f"{where} (head)")
    except ConfigError as error:
        raise WeightsError(f"{where}: its settings do not fit its tensors: {error}") from error
    return found


def revert(found: Converted) -> dict[str, Tensor]:
    """Under upstream's names again, for other people's programs; the CLS token's code stays added to the token."""
    parts = {"": found.state, "decoder.": found.decoder_state, "head.": found.head_state}
    tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
    zero = torch.zeros(1, found.encoder.width)
    tensors["position_table"] = torch.cat((zero, tensors["position_table"]))[None]
    if found.decoder is not None:
        first = tensors.pop("decoder.cls_position")[None]
        tensors["decoder.position_table"] = torch.cat((first, tensors["decoder.position_table"]))[None]
    return rename(tensors, BACK, "model")


def _with_codes(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The position table of the patches alone; the CLS token with its code."""
    codes, cls = require(state, "position_table", where), require(state, "extra_tokens", where)
    if codes.ndim != 3 or cls.shape != (1, 1, codes.shape[2]):
        raise WeightsError(f"{where}: 'pos_embed' {tuple(codes.shape)} and 'cls_token' {tuple(cls.shape)} do not fit.")
    return {**state, "position_table": codes[0, 1:], "extra_tokens": cls + codes[:, :1]}


def _decoder_codes(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    if not state:
        return state
    codes = require(state, "position_table", f"{where} (decoder)")
    if codes.ndim != 3 or codes.shape[1] < 2:
        raise WeightsError(f"{where}: 'decoder_pos_embed' has the shape {tuple(codes.shape)}, expected (1, 1 + n, d).")
    return {**state, "position_table": codes[0, 1:], "cls_position": codes[0, 0]}


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def _encoder(state: Mapping[str, Tensor], settings: Mapping[str, Any], tuned: bool, where: str) -> ViTConfig:
    proj, hidden = require(state, "proj.weight", where), require(state, "blocks.0.mlp.fc1.weight", where)
    width = len(proj)
    return ViTConfig(
        width=width,
        depth=_depth(state),
        heads=int(settings.get("num_heads", max(1, width // 64))),
        mlp_ratio=mlp_ratio(hidden, width),
        patch=(proj.shape[2], proj.shape[3]),
        mels=int(settings.get("mels", 128)),
        norm="pre",
        final_norm=not tuned,
        init="xavier",
        positions="table",
        table=(len(state["position_table"]), 1),
    )


def _decoder(state: Mapping[str, Tensor], settings: Mapping[str, Any], where: str) -> DecoderShape:
    where = f"{where} (decoder)"
    embed, hidden = require(state, "embed.weight", where), require(state, "blocks.0.mlp.fc1.weight", where)
    tau, network = state.get("blocks.0.attn.tau"), state.get("blocks.0.attn.bias.fc1.weight")
    local = tau is not None and network is not None
    return DecoderShape(
        decoder="local" if local else "global",
        width=len(embed),
        depth=_depth(state),
        heads=len(tau) if tau is not None else int(settings.get("decoder_num_heads", 16)),
        mlp_ratio=mlp_ratio(hidden, len(embed)),
        bias_hidden=len(network) if network is not None else 384,
        positions="table",
        table=(len(state["position_table"]), 1),
    )
