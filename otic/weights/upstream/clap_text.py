"""The text towers of CLAP files, under the names of the transformers library: GPT-2, BERT and RoBERTa.

Widths, depths and vocabularies follow from the shapes. The number of heads does not: it is what a config beside the
file says, else one for each 64 channels, as in every published size. GPT-2 stores its linear layers transposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from otic.core.errors import ConfigError, WeightsError
from otic.models.text import TextConfig, text_tower
from otic.weights.upstream.table import blank, must_fit, require

_LAYER = r"encoder\.layer\.(\d+)\."
GPT2 = (
    (r"wte\.weight", "tokens.weight"),
    (r"wpe\.weight", "positions.weight"),
    (r"h\.(\d+)\.ln_([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
    (r"h\.(\d+)\.attn\.c_attn\.(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"h\.(\d+)\.attn\.c_proj\.(weight|bias)", r"blocks.\1.attn.out.\2"),
    (r"h\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (r"h\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (r"ln_f\.(weight|bias)", r"norm.\1"),
    (r"h\.(\d+)\.attn\.(bias|masked_bias)", r"unused.\1.\2"),  # the causal mask, in files of older versions
)
BERT = (
    (r"embeddings\.word_embeddings\.weight", "tokens.weight"),
    (r"embeddings\.position_embeddings\.weight", "positions.weight"),
    (r"embeddings\.token_type_embeddings\.weight", "types.weight"),
    (r"embeddings\.LayerNorm\.(weight|bias)", r"embed_norm.\1"),
    (r"embeddings\.(position_ids|token_type_ids)", r"unused.\1"),  # 0, 1, 2, ... and zeros, in files of older versions
    (_LAYER + r"attention\.self\.(query|key|value)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.out.\2"),
    (_LAYER + r"attention\.output\.LayerNorm\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (_LAYER + r"output\.dense\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (_LAYER + r"output\.LayerNorm\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (r"pooler\.dense\.(weight|bias)", r"pooler.\1"),
)
LINEAR = ("attn.qkv.weight", "attn.out.weight", "mlp.0.weight", "mlp.2.weight")  # what GPT-2 stores transposed


def gpt2(tensors: Mapping[str, Tensor], said: Mapping[str, Any], where: str) -> tuple[TextConfig, dict[str, Tensor]]:
    """MS-CLAP 2023's tower: (config, weights).

    Args:
        tensors: Under our names (`GPT2`).
        said: Its config, in transformers' words; may be empty.
        where: The file, for messages.

    Raises:
        WeightsError: if tensors are missing, left over, or of odd shapes.
    """
    state = {n: t.mT.contiguous() if n.endswith(LINEAR) else t for n, t in _kept(tensors).items()}
    vocab = len(require(state, "tokens.weight", where))
    end = int(_said(said, ("eos_id", "eos_token_id"), vocab - 1))
    more = {"eps": float(_said(said, ("layer_norm_epsilon", "layer_norm_eps"), 1e-5)), "end": end, "pad": 0}
    return _fit("decoder", state, said, where, tanh_gelu=True, pool=said.get("pool", "end"), **more)


def bert(
    tensors: Mapping[str, Tensor],
    said: Mapping[str, Any],
    where: str,
    kind: Literal["bert", "roberta"],
    eps: float,
) -> tuple[TextConfig, dict[str, Tensor]]:
    """The tower of MS-CLAP 2022 (BERT, first token) or of LAION-CLAP (RoBERTa, pooler): (config, weights).

    Args:
        tensors: Under our names (`BERT`), queries, keys and values fused.
        said: Its config, in transformers' words; may be empty.
        where: The file, for messages.
        kind: Which of both.
        eps: Of its norms, where its config does not say.

    Raises:
        WeightsError: if tensors are missing, left over, or of odd shapes.
    """
    state = _kept(tensors)
    pad = int(_said(said, ("pad_token_id",), 1 if kind == "roberta" else 0))
    pool = "pooler" if kind == "roberta" else "cls"
    types = len(require(state, "types.weight", where))
    if pool == "cls":
        state = {n: t for n, t in state.items() if not n.startswith("pooler.")}
    eps = float(_said(said, ("layer_norm_eps",), eps))
    return _fit(kind, state, said, where, tanh_gelu=False, pool=pool, types=types, eps=eps, pad=pad)


def _fit(
    kind: Any, state: dict[str, Tensor], said: Mapping[str, Any], where: str, **more: Any
) -> tuple[TextConfig, dict[str, Tensor]]:
    """What the shapes say, checked against the tower that it builds."""
    vocab, width = require(state, "tokens.weight", where).shape
    cfg = TextConfig(
        kind=kind,
        vocab=vocab,
        width=width,
        positions=len(require(state, "positions.weight", where)),
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        heads=int(_said(said, ("num_attention_heads", "num_heads", "n_head"), max(1, width // 64))),
        hidden=len(require(state, "blocks.0.mlp.0.weight", where)),
        **more,
    )
    try:
        must_fit(blank(text_tower, cfg), state, f"{where} (text tower)")
    except ConfigError as error:
        raise WeightsError(f"{where}: the text tower's settings do not fit its tensors: {error}") from error
    return cfg, state


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("unused.")}


def _said(said: Mapping[str, Any], names: Iterable[str], default: Any) -> Any:
    """The first of these settings that is there."""
    return next((said[name] for name in names if said.get(name) is not None), default)
