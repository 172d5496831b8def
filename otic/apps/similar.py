"""`otic similarity`: how alike one thing is to others, each a sound or words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otic.apps.cards import table
from otic.core.errors import AudioError
from otic.core.text import printable
from otic.inference.load import load
from otic.inference.model import Model
from otic.inference.words import is_text

SHOWN = 80  # characters of a text in a table
KINDS = {True: "text", False: "audio"}


@dataclass(frozen=True)
class Alike:
    """Cosines of `first` with each of `others`, from the likest down; `failed` could not be read."""

    first: str
    words: bool  # whether `first` is
    others: tuple[tuple[str, bool, float], ...]  # (name, whether it is words, cosine)
    failed: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "item": self.first,
            "kind": KINDS[self.words],
            "others": [
                {"rank": i, "item": name, "kind": KINDS[words], "cosine": cosine}
                for i, (name, words, cosine) in enumerate(self.others, 1)
            ],
            "failed": [{"file": file, "reason": reason} for file, reason in self.failed],
        }

    def text(self) -> str:
        rows = [("rank", "cosine", "kind", f"compared with the {KINDS[self.words]} {_short(self.first, self.words)}")]
        rows += [
            (str(i), f"{near:.4f}", KINDS[words], _short(name, words))
            for i, (name, words, near) in enumerate(self.others, 1)
        ]
        return table(rows)


def similarity(
    model: str | Path | Model,
    first: str,
    others: Sequence[str],
    *,
    tokenizer: str | Path | None = None,
    device: str | None = None,
) -> Alike:
    """Compare `first` with each of `others`: an existing file is sound, any other string is words.

    Raises:
        AudioError: when `first` cannot be read.
        WeightsError: when there is no such model.
        ConfigError: on words for a model that knows none.
    """
    words = _is_words(first)
    ready = load(model, device, tokenizer=tokenizer)
    place = ready.place([first])[0]
    found: list[tuple[str, bool, float]] = []
    failed: list[tuple[str, str]] = []
    for other in others:
        try:
            kind = _is_words(other)
            found.append((other, kind, float(place @ ready.place([other])[0])))
        except AudioError as error:
            failed.append((other or '""', str(error).removeprefix(f"{other}: ")))
    return Alike(first, words, tuple(sorted(found, key=lambda row: -row[2])), tuple(failed))


def _short(item: str, words: bool) -> str:
    """As it stands in a line: long texts are cut, breaks are blanks."""
    line = " ".join(item.split()) if words else item
    return printable(line if not words or len(line) <= SHOWN else f"{line[:SHOWN]} ...")


def _is_words(item: str) -> bool:
    """As `is_text`; nothing at all, and the name of a folder, are most likely mistakes."""
    if not item.strip():
        raise AudioError("an empty text: write what is to be compared.", "missing")
    if os.path.isdir(item):
        words = "" if os.sep in item else f' If words are meant, write more of them: "a sound of {item}".'
        raise AudioError(f"{item}: a folder. Name the files in it ({os.path.join(item, '*')}).{words}", "missing")
    return is_text(item)
