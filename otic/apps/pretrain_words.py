"""The tokenizer of a run that learns words: a published one, or one trained on the run's own texts and kept with it."""

from __future__ import annotations

import json
from pathlib import Path

from otic.core.errors import ConfigError, DataError
from otic.core.files import write_json
from otic.core.world import World
from otic.data.rows import Source
from otic.models.tokenizer import Tokenizer
from otic.recipes import Recipe

KEPT = "tokenizer.json"  # in the run's folder


def tokenizer(recipe: Recipe, source: Source, folder: Path, world: World) -> Tokenizer | None:
    """The tokenizer of a recipe that needs one.

    Args:
        recipe: Its config says how large (`vocabulary`), or where a published one lies (`tokenizer`).
        source: The run's data; its captions, prompts and hard negatives are what a new one is trained on.
        folder: The run's; what was trained once is kept here.
        world: The processes; the main one trains it.

    Raises:
        DataError: when there is no text in the data.
        ConfigError: when a kept tokenizer cannot be read.
    """
    if not recipe.learns_words:
        return None
    cfg = recipe.objective
    if cfg.tokenizer:
        return Tokenizer.from_folder(cfg.tokenizer)
    path = folder / KEPT
    if world.main and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, Tokenizer.train(texts(source), cfg.vocabulary).to_dict())
    world.barrier()
    try:
        return Tokenizer.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}). Delete it to train it anew, or choose another folder."
        ) from error


def texts(source: Source) -> list[str]:
    """All that is said of the clips, each text once.

    Raises:
        DataError: when nothing is.
    """
    said: dict[str, None] = {}
    for row in source.rows:
        said |= dict.fromkeys((*row.captions, *(row.extra[c] for c in ("prompt", "hard_negative") if c in row.extra)))
    if not said:
        raise DataError(f"{source.name}: no captions to learn words from. Name data with a column `caption`.")
    return list(said)
