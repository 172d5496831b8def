"""Words to vectors, and what of a user's input is sound and what is words.

Axes: n texts, l tokens, e joint width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from otic.audio.find import EXTENSIONS
from otic.core.errors import AudioError, ConfigError, OticWarning
from otic.core.text import printable
from otic.models.text import in_groups
from otic.models.tokenizer import Kind, Tokenizer, Tokens
from otic.models.two_tower import TwoTower

BUDGET = 2048  # tokens in one pass through the text tower
PUBLISHED: dict[Kind, str] = {
    "gpt2": "GPT-2 (hf.co/gpt2: tokenizer.json, or vocab.json and merges.txt)",
    "roberta": "RoBERTa (hf.co/roberta-base: tokenizer.json, or vocab.json and merges.txt)",
    "bert": "BERT (hf.co/bert-base-uncased: tokenizer.json, or vocab.txt)",
}


def needs_words(towers: TwoTower | None, card: Mapping[str, Any]) -> TwoTower:
    """The towers, when they can read.

    Raises:
        ConfigError: saying what to supply.
    """
    name = card.get("name", "this model")
    if towers is None:
        raise ConfigError(
            f"{name}: this model knows sound alone, no words. Align it with some (otic pretrain clap_tiny --init "
            "MODEL --data SRC-with-captions --out RUN), or load one that was, as msclap-2023."
        )
    if towers.tokenizer is None:
        kind, _ = vocabulary(towers, card)
        raise ConfigError(
            f"{name}: its weights came without the tokenizer of their text tower, so it hears, but cannot read. Name a "
            f"folder with the files of {PUBLISHED[kind]}: otic.load(MODEL, tokenizer=FOLDER), or --tokenizer FOLDER."
        )
    return towers


def vocabulary(towers: TwoTower, card: Mapping[str, Any]) -> tuple[Kind, int]:
    """Which published vocabulary the text tower was trained with, and its longest text, as the card says, else as its
    kind suggests."""
    said: Mapping[str, Any] = card.get("tokenizer") or {}
    guess: Kind = {"decoder": "gpt2", "roberta": "roberta", "bert": "bert"}[towers.cfg.text.kind]  # type: ignore[assignment]
    return said.get("kind", guess), int(said.get("length", 77))


def with_tokenizer(
    towers: TwoTower | None, folder: str | os.PathLike[str] | None, card: Mapping[str, Any], compat: Sequence[str] = ()
) -> TwoTower | None:
    """The towers with the tokenizer of a folder; unchanged without one.

    Raises:
        ConfigError: when the model has no text tower.
        WeightsError: when the folder holds no such tokenizer.
    """
    if folder is None:
        return towers
    if towers is None:
        raise ConfigError(f"tokenizer={os.fspath(folder)}: this model has no text tower to use it.")
    kind, length = vocabulary(towers, card)
    towers.tokenizer = Tokenizer.from_folder(Path(folder), kind, length, compat)
    if compat:  # MS-CLAP's code counts "!" as padding, and so looks for the end of a text too early
        towers.text.cfg = replace(towers.text.cfg, pool="count_nonzero")
    return towers


def text_vectors(towers: TwoTower, texts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
    """Joint vectors of length one. Each distinct text is read once, beside others of about its length; its vector does
    not depend on them. The first that is cut is named in a warning."""
    assert towers.tokenizer is not None
    distinct = list(dict.fromkeys(texts))
    warn_of_long(towers.tokenizer, distinct)
    tokens, place = towers.tokenizer(distinct), towers.log_scale.device

    def call(tokens: Tokens) -> Tensor:
        return F.normalize(towers.words(tokens.to(place)).float(), dim=-1).cpu()

    vectors = in_groups(call, tokens, max(1, BUDGET // max(1, tokens.ids.shape[1]))).numpy()
    row = {text: i for i, text in enumerate(distinct)}
    return vectors[[row[text] for text in texts]]


def warn_of_long(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Name the first text that will lose its end; a model says so once."""
    for text in texts:
        if tokenizer.truncated or len(text.encode("utf-8", "replace")) + 4 <= tokenizer.length:
            continue  # said already; or shorter even in bytes, with all that surrounds it
        tokenizer([text])
        if tokenizer.truncated:
            start = printable(" ".join(text[:40].split()))
            message = f"a text has more than {tokenizer.length} tokens, and what stands beyond is not read: {start} ..."
            warnings.warn(OticWarning(message), stacklevel=2)


def is_text(item: Any) -> bool:
    """Whether something is words: a string that names neither an existing file nor, by its ending, one of sound.

    Raises:
        AudioError: on a string that looks like a file of sound which is not there.
    """
    if not isinstance(item, str) or os.path.isfile(item):
        return False
    if os.path.splitext(item)[1].lower() in EXTENSIONS:
        raise AudioError(f"{printable(item)}: there is no such file.", "missing")
    return True
