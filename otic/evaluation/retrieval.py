"""Retrieval between sound and words, both ways, where one query may have several right answers.

text to audio   every caption asks for its clip
audio to text   every clip asks for its captions

A rank counts from 1; among equal similarities the wrong item stands first, so a model that says the same of everything
finds nothing. AP@10 is the sum of the precisions at the right answers among the first ten, over the number that could
stand there. Median rank is floor(median of ranks from 0) + 1. Code derived from LAION-CLAP's takes several captions of
a clip in the order of the file, not of their ranks, which is never below the true value (`mAP@10_upstream`).

Axes: q queries, g items to find (the gallery), n clips, m captions, r weightings, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Num

from otic.core.errors import DataError
from otic.data.rows import Row

TOP = 10
Weights = Num[np.ndarray, "r n"]
Statistic = Callable[[Num[np.ndarray, "r n"]], Float[np.ndarray, " r"]]  # a number under each weighting of the clips


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """The captions of some clips, and which go with which."""

    captions: tuple[str, ...]  # of all clips, one clip after the other
    owner: Int[np.ndarray, " m"]  # the clip of each caption
    meaning: Int[np.ndarray, " n"]  # clips, and their captions, match where this is equal
    by: str  # what makes a match: `semantic_id` or `row`


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What one direction of retrieval found."""

    first: Int[np.ndarray, " q"]  # rank of the best-placed right answer
    precision: Float[np.ndarray, " q"]  # AP@10
    upstream: Float[np.ndarray, " q"]  # the same with the right answers in the gallery's order
    top: Int[np.ndarray, "q k"]  # the items found, best first
    hits: Bool[np.ndarray, "q k"]  # which of these are right
    right: Int[np.ndarray, " q"]  # how many right answers there are
    gallery: int  # items to find


def captioned(rows: Sequence[Row]) -> Captioned:
    """The question that these clips pose: equal `semantic_id` matches where the data has that column, else the row.

    Raises:
        DataError: when a clip has no caption, or there are fewer than two.
    """
    bare = [row.id for row in rows if not row.captions]
    if bare or len(rows) < 2:
        raise DataError(f"{len(rows)} clips, {len(bare)} without captions: retrieval needs two or more that have some.")
    by = "semantic_id" if any("semantic_id" in row.extra for row in rows) else "row"
    names = [row.extra.get("semantic_id") or f"\0{k}" for k, row in enumerate(rows)]
    return Captioned(
        captions=tuple(caption for row in rows for caption in row.captions),
        owner=np.repeat(np.arange(len(rows)), [len(row.captions) for row in rows]),
        meaning=np.unique(names, return_inverse=True)[1],
        by=by,
    )


def both_ways(
    audio: Float32[np.ndarray, "n e"], words: Float32[np.ndarray, "m e"], asked: Captioned
) -> dict[str, Ranked]:
    """`text_to_audio` and `audio_to_text` of normalised vectors."""
    near = words @ audio.T  # [m, n]
    match = asked.meaning[asked.owner][:, None] == asked.meaning
    return {"text_to_audio": rank(near, match), "audio_to_text": rank(near.T, match.T)}


def rank(near: Float[np.ndarray, "q g"], match: Bool[np.ndarray, "q g"]) -> Ranked:
    """Where the right answers stand when each query's items are put in the order of their similarity.

    Args:
        near: Similarities, higher is nearer; NaN counts as farthest.
        match: Which items are right; each query has one at least.
    """
    near = np.where(np.isnan(near), -np.inf, near)
    best = np.where(match, near, -np.inf).max(1, keepdims=True)
    order = np.lexsort((match, -near), axis=-1)[:, :TOP]  # wrong ones first among equals
    hits, places = np.take_along_axis(match, order, 1), np.arange(1, order.shape[1] + 1)
    could = np.minimum(match.sum(1), TOP)
    in_file = (hits[:, None, :] & (order[:, None, :] <= order[:, :, None])).sum(2)  # hits up to this one in the gallery
    return Ranked(
        first=1 + (~match & (near >= best)).sum(1),
        precision=(hits * hits.cumsum(1) / places).sum(1) / could,
        upstream=(hits * in_file / places).sum(1) / could,
        top=order,
        hits=hits,
        right=match.sum(1),
        gallery=near.shape[1],
    )


def statistics(found: Mapping[str, Ranked], owner: Int[np.ndarray, " m"]) -> dict[str, Statistic]:
    """All metrics by name, as functions of how often each clip is taken; the gallery stays whole.

    A clip that is taken twice asks twice, with all its captions.
    """
    out: dict[str, Statistic] = {}
    for way, ranked in found.items():
        clip = owner if way == "text_to_audio" else np.arange(len(ranked.first))
        for k in (1, 5, 10):
            out[f"{way}_R@{k}"] = mean_of((ranked.first <= k).astype(float), clip)
        out[f"{way}_mAP@{TOP}"] = mean_of(ranked.precision, clip)
        if way == "audio_to_text" and ranked.right.max() > 1:
            out[f"{way}_mAP@{TOP}_upstream"] = mean_of(ranked.upstream, clip)
        out[f"{way}_median_rank"] = median_of(ranked.first, clip)
        out[f"{way}_mean_rank"] = mean_of(ranked.first.astype(float), clip)
    return out


def mean_of(values: Float[np.ndarray, " q"], clip: Int[np.ndarray, " q"]) -> Statistic:
    """The mean over queries, each of which belongs to a clip."""
    count = int(clip.max()) + 1
    total, asked = np.bincount(clip, values, count), np.bincount(clip, minlength=count)
    return lambda weights: (weights[:, :count] @ total) / np.maximum(weights[:, :count] @ asked, 1e-12)


def median_of(ranks: Int[np.ndarray, " q"], clip: Int[np.ndarray, " q"]) -> Statistic:
    """floor(median of ranks from 0) + 1, the two middle ones averaged where their number is even."""
    order = np.argsort(ranks, kind="stable")
    ordered, whose = ranks[order] - 1, clip[order]

    def value(weights: Weights) -> Float[np.ndarray, " r"]:
        taken = weights[:, whose].cumsum(1)  # [r, q]
        half = taken[:, -1:] / 2
        low, high = (taken < half).sum(1), (taken <= half).sum(1)  # the places of the two middle ones
        last = len(ordered) - 1
        return np.floor((ordered[np.minimum(low, last)] + ordered[np.minimum(high, last)]) / 2) + 1.0

    return value


def chance(ranked: Ranked) -> dict[str, float]:
    """What an order drawn at random gives, exactly: `R@1`, `R@5`, `R@10`, `mAP@10`, `median_rank`, `mean_rank`."""
    right, share = np.unique(ranked.right, return_counts=True)
    share, n = share / share.sum(), ranked.gallery
    places = np.arange(n)
    # P(no right answer in the first k) = product over places j < k of (n - R - j) / (n - j)
    none = np.cumprod(np.maximum(n - right[:, None] - places, 0) / (n - places), axis=1)
    found = share @ (1 - none)  # [n], by rank
    k = np.arange(1, min(TOP, n) + 1)
    precision = (1 + (k - 1) * (right[:, None] - 1) / max(n - 1, 1)) / k  # expected, where place k is right
    at_ten = (right / n / np.minimum(right, TOP)) * precision.sum(1)
    return {
        **{f"R@{at}": float(found[min(at, n) - 1]) for at in (1, 5, 10)},
        f"mAP@{TOP}": float(share @ at_ten),
        "median_rank": float(np.argmax(found >= 0.5) + 1),
        "mean_rank": float(share @ ((n + 1) / (right + 1))),
    }
