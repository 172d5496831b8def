"""What the readers of CLAP files have in common: a converted checkpoint, and the model that it makes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.models.two_tower import TwoTower, TwoTowerConfig
from otic.weights.catalogue import Entry
from otic.weights.store import ENCODERS, Loaded
from otic.weights.upstream.filterbank import recognise
from otic.weights.upstream.table import blank, card, must_fit

TOKENIZERS = {  # kind -> what to look for, where it is published, and the rules that the tower was trained with
    "gpt2": {
        "kind": "gpt2", "length": 77, "files": "tokenizer.json, or vocab.json and merges.txt",
        "of": "openai-community/gpt2",
        "rules": "text + ' <|endoftext|>', no lower-casing, no start token; padded with id 0 ('!')",
    },
    "roberta": {
        "kind": "roberta", "length": 77, "files": "tokenizer.json, or vocab.json and merges.txt",
        "of": "FacebookAI/roberta-base",
        "rules": "<s> text </s>, truncated; padded with id 1",
    },
    "bert": {
        "kind": "bert", "length": 100, "files": "tokenizer.json, or vocab.txt",
        "of": "google-bert/bert-base-uncased",
        "rules": "[CLS] text [SEP], lower case, truncated; padded with id 0",
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in our terms; every state fits `load_state_dict` of the module which its config builds.

    Attributes:
        encoder: Config of an `HTSAT` or a `Cnn14`.
        frontend: How its sound was made into spectrograms.
        bank: The mel matrix, where the file holds the one it was trained with.
        towers: For `TwoTower`; None for a bare audio encoder.
        towers_state: Its tensors without the encoder's.
        extra: Further tensors, by our names.
        dropped: What the file holds beside that, alike names as one (`gpt.h.N.attn.bias (12)`).
    """

    encoder: Any
    state: dict[str, Tensor]
    frontend: FrontendConfig
    bank: Tensor | None = None
    towers: TwoTowerConfig | None = None
    towers_state: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def build(found: Converted, said: dict[str, Any]) -> Loaded:
    """The model, with the card that is `said` of it."""
    encoder = _filled(_module(found.encoder), found.state, found.encoder)
    towers = None
    if found.towers is not None:
        state = found.towers_state | {f"encoder.{n}": t for n, t in found.state.items()}
        towers = _filled(TwoTower, state, encoder, found.towers)
    return Loaded(encoder, found.frontend, said, found.extra, bank=found.bank, towers=towers)


def describe(found: Converted, path: Path, entry: Entry | None, *, tokenizer: str, **more: Any) -> dict[str, Any]:
    """The card: with what every CLAP file needs said of its filterbank and of its tokenizer.

    Args:
        found: The file.
        path: Its place.
        entry: What the catalogue says of it.
        tokenizer: A key of `TOKENIZERS`.
        more: Further lines.
    """
    rate = found.frontend.sample_rate
    if found.bank is not None:
        more["filterbank"] = recognise(found.bank, rate).to_card()
    if found.towers is not None:
        needs = TOKENIZERS[tokenizer]
        get = (
            f"Not in this file. Where there is a network, download {needs['files']} from hf.co/{needs['of']} into a "
            "folder, and name it: otic.load(..., tokenizer=FOLDER). Sound alone needs none."
        )
        more["tokenizer"] = {**needs, "get": get}
    if found.dropped:
        more["dropped"] = list(found.dropped)
    return card(path, entry, labels_used="captions, and labels of its audio tower's first training", **more)


def check_towers(found: Converted, where: str) -> None:
    """The joint space's tensors fit its config.

    Raises:
        WeightsError: naming the first that does not.
    """
    if found.towers is not None:
        encoder = blank(_module(found.encoder), found.encoder)
        whole = found.towers_state | {f"encoder.{n}": t for n, t in found.state.items()}
        must_fit(blank(TwoTower, encoder, found.towers), whole, where)


def state_of(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The state dict of a checkpoint: under `key`, or the content itself, without what wraps a parallel model."""
    nested = content.get(key)
    names = nested if isinstance(nested, Mapping) else content
    return {str(name).removeprefix("module."): value for name, value in names.items()}


def _module(cfg: Any) -> Any:
    return next(module for kind, module in ENCODERS.values() if type(cfg) is kind)


def aside(names: Mapping[str, Any], table: Sequence[tuple[str, str]], kept: Tensor | None = None) -> tuple[str, ...]:
    """Names that the table knows to be repetitions or unused, alike ones as one: `h.N.attn.bias (12)`.

    Args:
        names: What the file holds.
        table: Of its layout; it renames such tensors to `unused.*` and `fixed.*`.
        kept: The mel matrix, where it is carried on.
    """
    alike: Counter[str] = Counter()
    for name in names:
        if kept is not None and name.endswith("melW"):
            continue
        new = next((match.expand(to) for old, to in table if (match := re.fullmatch(old, name))), "")
        if new.startswith("unused.") or ".unused." in new or ".fixed." in new:
            alike[re.sub(r"(?<=\.)\d+(?=\.)", "N", name)] += 1
    return tuple(f"{name} ({count})" for name, count in alike.items())


def _filled(module: Any, state: Mapping[str, Tensor], *args: Any) -> Any:
    """A module of this class with this state, in eval mode."""
    made = blank(module, *args)
    made.load_state_dict(dict(state), assign=True)
    return made.eval()
