"""Our encoders in the layouts of SSAST and AST: what `ssast` reads, written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from otic.core.errors import WeightsError
from otic.models.vit import ViT
from otic.weights.upstream.ssast import turn_heads
from otic.weights.upstream.table import below, rename

PREFIX = "module."  # of a model saved in its parallel wrapper, as all published files were
IMAGENET = 1000  # classes of the heads that nobody uses
TRANSFORMERS = (
    (r"(cls_token)", r"embeddings.\1"),
    (r"dist_token", "embeddings.distillation_token"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"proj\.(.*)", r"embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.norm1\.(.*)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(.*)", r"encoder.layer.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.attn\.(query|key|value)\.(.*)", r"encoder.layer.\1.attention.attention.\2.\3"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", r"encoder.layer.\1.output.dense.\2"),
    (r"norm\.(.*)", r"layernorm.\1"),
)


def to_torch(
    encoder: ViT,
    mspm: Mapping[str, Tensor] | None = None,
    head: Mapping[str, Tensor] | None = None,
    prefix: str = PREFIX,
    frames: int | None = None,
) -> dict[str, Tensor]:
    """A state dict as upstream saves it: a pre-trained one with the state of `MSPM`, a fine-tuned one with a head's.

    Args:
        encoder: With CLS and distillation token and learned positions.
        mspm: `MSPM.state_dict()` (tensors below its encoder are passed over).
        head: `Head.state_dict()`.
        prefix: What upstream's wrapper puts before each name.
        frames: Length of the clips it was pre-trained on; by default the shortest that gives the grid of the positions.

    Raises:
        WeightsError: if upstream has no place for such an encoder.
    """
    state, cfg = _foreign(encoder), encoder.cfg
    unused = {"weight": torch.zeros(IMAGENET, cfg.width), "bias": torch.zeros(IMAGENET)}
    names = {f"v.{_to_timm(name)}": tensor for name, tensor in state.items()}
    for kind in ("head", "head_dist") if cfg.dist else ("head",):
        names |= {f"v.{kind}.{name}": tensor.clone() for name, tensor in unused.items()}
    if mspm is not None:
        assert cfg.table is not None
        if cfg.step != cfg.patch:
            raise WeightsError("upstream's pre-trained layout knows patches without overlap only.")
        frames = frames or (cfg.table[0] - 1) * cfg.step[0] + cfg.patch[0]
        names |= {"p_input_fdim": torch.tensor(cfg.mels), "p_input_tdim": torch.tensor(frames)}
        names["mask_embed"] = mspm["mask"].view(1, 1, -1)
        turned = turn_heads(mspm, cfg.patch)
        for ours, theirs in (("contrast.", "cpredlayer."), ("generate.", "gpredlayer.")):
            names |= {theirs + name: tensor for name, tensor in below(turned, ours).items()}
    for name, tensor in (head or {}).items():
        names["mlp_head." + name.replace("norm", "0").replace("linear", "1")] = tensor
    return {prefix + name: tensor.detach().clone().contiguous() for name, tensor in names.items()}


def to_transformers(
    encoder: ViT, head: Mapping[str, Tensor] | None = None, labels: tuple[str, ...] = (), frames: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `config.json` of the transformers layout; arguments as `to_torch`.

    Args:
        labels: Names of the head's classes.
        frames: Length of the input; by default the shortest that gives the grid of the positions.

    Raises:
        WeightsError: as `to_torch`.
    """
    cfg, names = encoder.cfg, {}
    for name, tensor in _foreign(encoder).items():
        for new, part in _split(name, tensor):
            names["audio_spectrogram_transformer." + _to_transformers(new)] = part.detach().clone().contiguous()
    for name, tensor in (head or {}).items():
        names["classifier." + name.replace("norm", "layernorm").replace("linear", "dense")] = tensor.detach().clone()
    assert cfg.table is not None
    square = cfg.patch[0] if cfg.patch[0] == cfg.patch[1] else list(cfg.patch[::-1])
    config: dict[str, Any] = {
        "architectures": ["ASTForAudioClassification" if head else "ASTModel"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.heads,
        "intermediate_size": int(cfg.width * cfg.mlp_ratio),
        "layer_norm_eps": cfg.eps,
        "patch_size": square,
        "time_stride": cfg.step[0],
        "frequency_stride": cfg.step[1],
        "max_length": frames or (cfg.table[0] - 1) * cfg.step[0] + cfg.patch[0],
        "num_mel_bins": cfg.mels,
        "qkv_bias": True,
    }
    if labels:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    return names, config


def _foreign(encoder: ViT) -> dict[str, Tensor]:
    """The encoder's tensors turned upstream's way round, under the names that both tables lead to."""
    cfg, state = encoder.cfg, encoder.state_dict()
    if cfg.norm != "pre" or cfg.positions != "learned" or not cfg.cls:
        raise WeightsError("SSAST's layouts hold pre-norm encoders with learned positions and a CLS token only.")
    assert cfg.table is not None
    grid = state.pop("position_table").unflatten(0, cfg.table).transpose(0, 1).flatten(0, 1)
    state["pos_embed"] = torch.cat((state.pop("extra_positions"), grid[None]), 1)
    tokens = state.pop("extra_tokens")
    state["proj.weight"] = state["proj.weight"].mT
    return state | {"cls_token": tokens[:, :1]} | ({"dist_token": tokens[:, 1:]} if cfg.dist else {})


def _to_timm(name: str) -> str:
    return f"patch_embed.{name}" if name.startswith("proj.") else name


def _split(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """A fused projection as its three parts; anything else as it is."""
    if ".attn.qkv." not in name:
        return [(name, tensor)]
    return [(name.replace("qkv", part), t) for part, t in zip(("query", "key", "value"), tensor.chunk(3), strict=True)]


def _to_transformers(name: str) -> str:
    (new,) = rename({name: torch.empty(0)}, TRANSFORMERS, name)
    return new
