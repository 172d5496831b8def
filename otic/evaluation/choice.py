"""Hard negatives: is a clip nearer to each of its captions than to one that is nearly right?

`order` swaps what comes first ("a dog, then rain"), `class` names one sound that is not there. Whoever hears no order
is right half of the time on the first; a tie is half right, since it is no answer.

Axes: n clips, m captions, e joint width, r weightings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from otic.core.errors import DataError
from otic.data.rows import Row
from otic.evaluation.retrieval import Statistic, mean_of

CHANCE = 0.5
CAPTION, KIND = "hard_negative", "negative_kind"  # columns


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Every caption of some clips beside the wrong one."""

    captions: tuple[str, ...]
    owner: Int[np.ndarray, " m"]  # the clip of each caption
    wrong: tuple[str, ...]  # one for each clip, "" where it has none
    kinds: tuple[str, ...]  # of the wrong ones


def pairs(rows: Sequence[Row]) -> Pairs:
    """The pairs that the columns `hard_negative` and `negative_kind` pose.

    Raises:
        DataError: when no clip has both a caption and a hard negative.
    """
    wrong = [row.extra.get(CAPTION, "") for row in rows]
    of = [i for i, row in enumerate(rows) for _ in row.captions if wrong[i]]
    if not of:
        raise DataError(f"none of {len(rows)} clips has captions and a {CAPTION!r}: choice needs both.")
    return Pairs(
        captions=tuple(caption for i, row in enumerate(rows) for caption in row.captions if wrong[i]),
        owner=np.array(of),
        wrong=tuple(wrong),
        kinds=tuple(row.extra.get(KIND, "") for row in rows),
    )


def right(
    audio: Float32[np.ndarray, "n e"],
    captions: Float32[np.ndarray, "m e"],
    wrong: Float32[np.ndarray, "n e"],
    owner: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """1 where the caption is nearer to its clip than the wrong one, 0.5 where they are equally near."""
    true = (captions * audio[owner]).sum(1)
    return 0.5 * (1 + np.sign(true - (wrong * audio).sum(1)[owner]).astype(float))


def statistics(good: Float[np.ndarray, " m"], asked: Pairs) -> tuple[dict[str, Statistic], dict[str, int]]:
    """`choice_KIND` for each kind (plain `choice` where the data names none), and the clips that each rests on."""
    kind = np.array([asked.kinds[i] for i in asked.owner])
    parts = {f"choice_{k}" if k else "choice": kind == k for k in sorted(set(kind.tolist()), reverse=True)}
    counts = {name: len(np.unique(asked.owner[part])) for name, part in parts.items()}
    return {name: mean_of(good[part], asked.owner[part]) for name, part in parts.items()}, counts
