"""Words into numbers: byte-level BPE trained on the spot, or a published vocabulary from a local folder.

Byte-level BPE is Radford et al. 2019 (after Sennrich et al. 2016, arXiv 1508.07909); WordPiece as in BERT. What a text
becomes:

own        text, end
gpt2       text, a lone space, end ("<|endoftext|>"), as MS-CLAP 2023 has it
roberta    <s>, text, </s>
bert       [CLS], lower-cased text, [SEP]

A text that is too long loses its last words, never what closes it; `truncated` counts these. Nothing here needs a
network, and no text can spell a special token.

Axes: n texts, l text tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import tokenizers

Kind = Literal["gpt2", "roberta", "bert"]
COMPAT = {
    "exclamation": '"!" is a special token, the padding: "!!" and " !" fall apart, "<|endoftext|>" may be spelled out',
    "fixed": "pad to `length` always, and refuse longer texts",
}  # what MS-CLAP's code does to GPT-2's tokens
PAD, END = "‹pad›", "‹end›"  # these brackets are no characters of the byte alphabet: no text can spell them


class Tokens(NamedTuple):
    """Texts as numbers, padded at the right."""

    ids: Int[Tensor, "n l"]
    mask: Bool[Tensor, "n l"]  # True where a token is real

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What surrounds the tokens of a text."""

    length: int  # most tokens of a text, special ones included
    pad: int  # id of padding
    end: int  # id that closes a text
    start: int | None = None  # id that opens it
    lone: int | None = None  # id of the space before the end (GPT-2)
    unknown: int | None = None  # id of what the vocabulary lacks
    compat: tuple[str, ...] = ()  # of COMPAT


class Tokenizer:
    """Texts in, `Tokens` out.

    >>> tokenizer = Tokenizer.train(["a dog barks", "a dog howls", "rain"], size=300)
    >>> tokenizer(["a dog"]).ids.shape[0], tokenizer.decode(tokenizer(["a dog"]).ids[0])
    (1, 'a dog')
    """

    def __init__(self, inner: tokenizers.Tokenizer, rules: Rules):
        _check(rules)
        self._inner, self.rules = inner, rules
        inner.no_truncation()
        inner.no_padding()
        # special tokens are text when a text holds them, except where upstream's code thinks otherwise
        inner.encode_special_tokens = "exclamation" not in rules.compat
        self.size: int = 1 + max(inner.get_vocab().values())
        self.pad, self.end, self.length = rules.pad, rules.end, rules.length
        self.truncated = 0  # texts that were cut so far

    @staticmethod
    def train(texts: Iterable[str], size: int = 2048, length: int = 77) -> Tokenizer:
        """Byte-level BPE of these texts: the same each time, whatever their order.

        Args:
            texts: Captions; what occurs once is not merged.
            size: Most tokens; at least 258 (the bytes, padding, end).
            length: Most tokens of a text.

        Raises:
            ConfigError: if `size` is too small for the bytes.
        """
        from otic.models.tokenizer_files import train_bpe

        return _own(train_bpe(map(clean, texts), size, (PAD, END)), length)

    @staticmethod
    def plain(length: int = 77) -> Tokenizer:
        """One token for each byte: nothing to train, nothing to store."""
        from otic.models.tokenizer_files import byte_bpe

        return _own(byte_bpe((PAD, END)), length)

    @staticmethod
    def from_folder(path: str | Path, kind: Kind = "gpt2", length: int = 77, compat: Sequence[str] = ()) -> Tokenizer:
        """A published vocabulary: `tokenizer.json`, or `vocab.json` and `merges.txt`, or `vocab.txt`.

        Args:
            path: Where these files lie.
            kind: Whose rules they follow.
            length: Most tokens of a text.
            compat: Of `COMPAT`: what MS-CLAP's code does to GPT-2's tokens, mistakes included.

        Raises:
            WeightsError: if the files are missing or of another kind.
        """
        from otic.models.tokenizer_files import open_folder

        inner, special = open_folder(Path(path), kind, "exclamation" in compat)
        return Tokenizer(inner, Rules(length=length, compat=tuple(compat), **special))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Ids of the texts, padded to the longest.

        Raises:
            ConfigError: with compat "fixed", if a text is too long.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = [self._close(e.ids) for e in self._encode([clean(t) for t in texts])]
        longest = max(map(len, rows), default=1)
        ids = np.full((len(rows), self.length if "fixed" in self.rules.compat else longest), self.pad, np.int64)
        mask = np.zeros(ids.shape, np.bool_)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask))

    def _encode(self, texts: list[str]) -> list[Any]:
        if self.rules.lone is not None:
            texts = [text + " " for text in texts]  # so the text ends in the lone space, or in a run of spaces
        return self._inner.encode_batch_fast(texts, add_special_tokens=False)

    def _close(self, body: list[int]) -> list[int]:
        """One row: special tokens added, the text cut where it is too long."""
        head = [] if self.rules.start is None else [self.rules.start]
        room = self.length - len(head) - 1
        if len(body) > room:
            if "fixed" in self.rules.compat:
                raise ConfigError(
                    f'a text of {len(body) + len(head) + 1} tokens, over {self.length}: compat "fixed" refuses it as '
                    "MS-CLAP's code does. Shorten it, or leave that flag out."
                )
            self.truncated += 1
            lone = [] if self.rules.lone is None else [self.rules.lone]
            body = body[: room - len(lone)] + lone
        return [*head, *body, self.end]

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of one row, up to its end token.

        With GPT-2's vocabulary padding and "!" are one id: pass real tokens only.
        """
        row: list[int] = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        row = row[1:] if row and row[0] == self.rules.start else row
        row = row[: row.index(self.end)] if self.end in row else row
        if self.rules.lone is None:
            return self._inner.decode([i for i in row if i != self.pad], skip_special_tokens=False).removeprefix(" ")
        return self._inner.decode(row, skip_special_tokens=False).removesuffix(" ")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {"rules": to_dict(self.rules), "tokenizer": json.loads(self._inner.to_str())}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Tokenizer:
        """The inverse of `to_dict`.

        Raises:
            WeightsError: if these values are no tokenizer.
        """
        from otic.models.tokenizer_files import parse

        if not {"rules", "tokenizer"} <= values.keys():
            raise WeightsError('tokenizer: "rules" and "tokenizer" are missing. Was this written by to_dict?')
        return Tokenizer(parse(json.dumps(values["tokenizer"]), "tokenizer"), from_dict(Rules, values["rules"]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles go the way of files: the library's own forget that special tokens are to be text."""
        return Tokenizer.from_dict, (self.to_dict(),)


def _own(inner: tokenizers.Tokenizer, length: int) -> Tokenizer:
    return Tokenizer(inner, Rules(length=length, pad=0, end=1))


def _check(rules: Rules) -> None:
    for flag in rules.compat:
        if flag not in COMPAT:
            raise ConfigError(f"compat {flag!r} is unknown; there are {', '.join(COMPAT)}.")
    if rules.compat and rules.lone is None:
        raise ConfigError(f'compat {rules.compat} repeats MS-CLAP\'s handling of GPT-2: it needs kind="gpt2".')
    if rules.length < 4:
        raise ConfigError(f"length={rules.length}: a text needs 4 tokens at least.")


def clean(text: str) -> str:
    """What cannot be written as UTF-8 (a lone surrogate) becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
