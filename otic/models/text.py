"""Text towers by their config, and texts grouped by length.

Axes: n texts, l text tokens, d width, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.models.text_bert import Bert
from otic.models.text_block import Past, TextConfig
from otic.models.text_decoder import Decoder
from otic.models.tokenizer import Tokenizer, Tokens

__all__ = ["Bert", "Decoder", "Past", "TextConfig", "fitted", "in_groups", "text_tower"]


def text_tower(cfg: TextConfig, gen: Generator | None = None) -> Decoder | Bert:
    """The tower of a config.

    Raises:
        ConfigError: if its fields do not fit together.
    """
    return Decoder(cfg, gen) if cfg.kind == "decoder" else Bert(cfg, gen)


def fitted(cfg: TextConfig, tokenizer: Tokenizer) -> TextConfig:
    """The config with the tokenizer's ids, and its size where `vocab` is 0.

    Raises:
        ConfigError: if the tower has too few tokens or positions for it.
    """
    cfg = replace(cfg, vocab=cfg.vocab or tokenizer.size, end=tokenizer.end, pad=tokenizer.pad)
    if tokenizer.size > cfg.vocab:
        raise ConfigError(f"vocab={cfg.vocab}, but the tokenizer has {tokenizer.size} tokens: set vocab=0.")
    room = cfg.positions - (cfg.pad + 1 if cfg.kind == "roberta" else 0)
    if tokenizer.length > room:
        raise ConfigError(f"the tokenizer gives up to {tokenizer.length} tokens, the tower has room for {room}.")
    return cfg


def in_groups(call: Callable[[Tokens], Tensor], tokens: Tokens, size: int = 128) -> Float[Tensor, "n e"]:
    """`call` on texts of like length together, so that little padding is computed; rows come in the order given.

    Args:
        call: One row for each text, such as `lambda t: tower(t.ids, t.mask)`.
        tokens: Texts, padded at the right.
        size: Texts of a group.
    """
    if len(tokens.ids) <= 1:
        return call(tokens)
    lengths, order = tokens.mask.sum(1).cpu().sort(stable=True)
    rows = []
    for group, long in zip(order.split(size), lengths.split(size), strict=True):
        at, most = group.to(tokens.ids.device), max(1, int(long[-1]))
        rows.append(call(Tokens(tokens.ids[at, :most], tokens.mask[at, :most])))
    return torch.cat(rows)[order.argsort().to(rows[0].device)]
