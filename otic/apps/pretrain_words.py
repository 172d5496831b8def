"""What a run that learns words reads with: a published text tower, or a tokenizer trained on the run's own texts.

It is settled when the run begins, and kept in its folder: to go on with the run, nothing else is needed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from otic.apps.progress import Progress
from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError, DataError, OticError, OticWarning
from otic.core.files import write_json
from otic.core.text import count
from otic.core.world import World
from otic.data.rows import Source
from otic.engine import checkpoint
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.objectives import Objective
from otic.objectives.clap import CLAP
from otic.recipes import Recipe
from otic.recipes.base import text_of, with_text
from otic.weights import sentence_cache, store
from otic.weights.language import Language, load_tokenizer

KEPT = "tokenizer.json"  # in the run's folder
VECTORS = "texts"  # there too: what a frozen text tower says of each text, unless this is kept elsewhere
COLUMNS = ("prompt", "hard_negative")  # texts beside the captions
SURROUNDING = 4  # tokens at most that no byte of a text stands for
CHUNK = 4096  # texts tokenized at once


@dataclass(frozen=True)
class Words:
    """The tokenizer of a run and, where it has a published text tower, that tower's shape.

    Attributes:
        text: The tower's; None: the recipe's own, which learns from nothing.
        unit: Its vectors are brought to length one.
        id: What a cache of its vectors is filed under; "": there is none.
        first: Its first weights, for a run that begins.
    """

    tokenizer: Tokenizer
    text: TextConfig | None = None
    unit: bool = False
    id: str = ""
    first: dict[str, torch.Tensor] | None = None

    def settle(self, recipe: Recipe) -> Recipe:
        """The recipe with the published tower's shape."""
        if self.text is None:
            return recipe
        return replace(recipe, objective=with_text(recipe.objective, self.text, self.unit))

    def fill(self, objective: Objective, name: str) -> None:
        """Put the published weights into an objective that was just built."""
        if self.first is not None:
            store.fill(objective.language, self.first, name)  # type: ignore[arg-type]


def words(recipe: Recipe, source: Source, folder: Path, world: World) -> Words | None:
    """What a recipe that learns words reads with; None for other recipes.

    Args:
        recipe: Its config says where a published tower lies (`language`) or a tokenizer (`tokenizer`), else how large a
            new one gets (`vocabulary`).
        source: The run's data; its captions, prompts and hard negatives are what a new tokenizer is trained on.
        folder: The run's; what was settled when it began is kept here.
        world: The processes; the main one settles it.

    Raises:
        ConfigError: when a run has begun, and what it reads with is gone or damaged.
        WeightsError: when the published tower cannot be used.
    """
    if not recipe.learns_words:
        return None
    path, said, brought = folder / KEPT, texts(source), None
    if not any((folder / name).exists() for name in (checkpoint.CURRENT, checkpoint.PREVIOUS)):
        brought = recipe.load_language() if recipe.objective.language else None
        if world.main:
            own = _tokenizer(recipe, said) if brought is None else brought.tokenizer
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, own.to_dict() | ({} if brought is None else _described(brought)))
            warn_of_long(own, said)
        world.barrier()
    return replace(_kept(path), first=None if brought is None else brought.tower.state_dict())


def _described(brought: Language) -> dict[str, Any]:
    return {"text": to_dict(brought.tower.cfg), "unit": brought.unit, "id": brought.id}


def _tokenizer(recipe: Recipe, said: Sequence[str]) -> Tokenizer:
    cfg = recipe.objective
    if not cfg.tokenizer:
        return Tokenizer.train(said, cfg.vocabulary)
    return load_tokenizer(cfg.tokenizer, text_of(cfg).kind)


def _kept(path: Path) -> Words:
    """What a run reads with, as it was settled when the run began."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        text = from_dict(TextConfig, values["text"]) if "text" in values else None
        return Words(Tokenizer.from_dict(values), text, bool(values.get("unit")), str(values.get("id", "")))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: is gone, and this run's weights mean nothing without it. Put it back, or choose another folder."
        ) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OticError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}). Put back what it was, or choose another folder."
        ) from error


def texts(source: Source) -> list[str]:
    """All that is said of the clips, each text once."""
    found: dict[str, None] = {}
    for row in source.rows:
        found |= dict.fromkeys((*row.captions, *(row.extra[c] for c in COLUMNS if c in row.extra)))
    return list(found)


def captioned(source: Source) -> Source:
    """The clips of which something is said; the others are counted in a warning.

    Raises:
        DataError: when nothing is said of any.
    """
    some = [i for i, row in enumerate(source.rows) if any(row.captions)]
    if not some:
        raise DataError(f"{source.name}: no captions to learn words from. Name data with a column `caption`.")
    if len(some) == len(source):
        return source
    rest = f"{len(source) - len(some):,} of {count(len(source), 'clip')}"
    warnings.warn(OticWarning(f"{source.name}: {rest} without a caption; left out."), stacklevel=2)
    return source.subset(some)


def warn_of_long(tokenizer: Tokenizer, said: Sequence[str]) -> None:
    """Say it once if texts will lose their ends."""
    long = [text for text in said if len(text.encode("utf-8", "replace")) + SURROUNDING > tokenizer.length]
    before = tokenizer.truncated
    for start in range(0, len(long), CHUNK):
        tokenizer(long[start : start + CHUNK])
    if cut := tokenizer.truncated - before:
        message = (
            f"{cut} of {len(said)} texts have more than {tokenizer.length} tokens; what stands beyond is not read. "
            "Shorter sentences, one thing in each, are learned from as a whole."
        )
        warnings.warn(OticWarning(message), stacklevel=2)


def understand(
    objective: Objective,
    settled: Words,
    source: Source,
    folder: Path,
    world: World,
    cache: str | Path | None,
    *,
    stop: Callable[[], None],
    quiet: bool,
) -> None:
    """Compute what a frozen published text tower says of the run's texts, or read it where it was kept.

    Args:
        objective: With its weights, on its device.
        settled: What the run reads with.
        source: The run's data.
        folder: The run's.
        world: The processes; each computes its share.
        cache: Where vectors are kept, for all runs; None: in the run's folder.
        stop: Asked now and then; raises when the user wants no more.
        quiet: No progress on stderr.
    """
    if not (isinstance(objective, CLAP) and objective.cfg.freeze_text and settled.id):
        return
    towers, said = objective.towers, texts(source)
    reader = Language(towers.text, settled.tokenizer, unit=settled.unit, id=settled.id)
    kept = folder / VECTORS if cache is None else cache
    share = said[world.rank :: world.size]
    with Progress("the text tower reads", unit="texts", quiet=quiet or not world.main) as bar:

        def step(done: int, of: int) -> None:
            bar(done, of)
            stop()

        found = sentence_cache.vectors(reader, share, kept, step)
    if world.size > 1:
        world.barrier()
        found = sentence_cache.vectors(reader, said, kept)
    objective.know(said, found)
