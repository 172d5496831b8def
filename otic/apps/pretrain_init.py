"""What a run begins with: another model's encoder, or all that another run's objective has learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from otic.core.errors import WeightsError
from otic.engine import checkpoint
from otic.inference.load import read_model
from otic.models.tokenizer import Tokenizer
from otic.objectives import Objective
from otic.objectives.teacher import Teacher
from otic.recipes import Recipe
from otic.weights import store
from otic.weights.card import saw_labels


def begin(
    recipe: Recipe,
    encoder: Any,
    init: str | Path,
    teachers: Sequence[Teacher],
    tokenizer: Tokenizer | None,
    note: Callable[[str], None],
) -> tuple[Objective, Tensor | None]:
    """The objective around `encoder`, which gets the weights of `init`; the rest too, where the recipe asks for it.

    With it the mel matrix that the weights were trained with, where they bring one and the front-end is the same.

    Args:
        recipe: Its `init` says what is taken.
        encoder: Just built; filled in place.
        init: A MODEL. A run's folder knows decoder, predictor and teacher, a weights file does not.
        teachers: As of `Recipe.wrap`.
        tokenizer: Likewise.
        note: Told what a person should know.

    Raises:
        WeightsError: when shapes differ, or what is asked for is not there.
    """
    first = read_model(init)
    store.fill(encoder, first.encoder.state_dict(), str(init))
    objective = recipe.wrap(encoder, teachers, tokenizer)
    objective.labels_used = objective.labels_used or saw_labels(first.card)
    if recipe.init == "objective":
        path = Path(init).expanduser() / checkpoint.CURRENT
        if path.is_file():
            inherit(objective, checkpoint.read(path), path)
        else:
            note(f"{init}: holds the encoder alone; what else {recipe.method} learns begins anew.")
    return objective, first.bank if first.frontend == recipe.frontend else None


def inherit(objective: Objective, saved: dict[str, Any], path: Path) -> None:
    """Put the state of a finished or broken-off run into the objective, or into one within it (EAT in SSLAM).

    Raises:
        WeightsError: when it fits neither.
    """
    state: dict[str, Tensor] = saved["objective"]
    inner = (part for part in objective.modules() if isinstance(part, Objective) and _fits(part, state))
    try:
        store.fill(next(inner, objective), state, str(path))
    except WeightsError as error:
        raise WeightsError(f"{error} To take its encoder alone: --set init=encoder.") from error


def _fits(part: Objective, state: dict[str, Tensor]) -> bool:
    own = part.state_dict()
    return own.keys() == state.keys() and all(own[name].shape == tensor.shape for name, tensor in state.items())
