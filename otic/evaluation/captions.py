"""How near written captions come to those of people: n-grams, longest common subsequences, weighted n-grams.

bleu     Papineni et al. 2002: geometric mean of the clipped n-gram precisions over the whole set, times a penalty for
         brevity; n = 1 to 4
rouge_l  Lin 2004: F-measure of the longest common subsequence, recall counting 1.2 times; the best reference
cider_d  Vedantam et al. 2015 (arXiv 1411.5726), variant D: cosine of tf-idf n-grams, clipped to the reference's counts,
         times a Gaussian of the difference in length (sigma 6), mean over references and n = 1 to 4, times 10

Words are lower-cased runs of letters, digits and apostrophes. The published scores come from a tokenizer in Java that
splits some contractions otherwise, and stem nothing either.

Axes: b clips.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

ORDERS = (1, 2, 3, 4)  # n of the n-grams
RECALL = 1.2  # beta of ROUGE-L's F-measure
SIGMA = 6.0  # of CIDEr-D's length penalty, in words

Words = tuple[str, ...]


def words(text: str) -> Words:
    """What is compared.

    >>> words("A dog's bark, twice.")
    ('a', "dog's", 'bark', 'twice')
    """
    return tuple(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower()))


def score(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every measure over a set of clips: `bleu_1` ... `bleu_4`, `rouge_l`, `cider_d`.

    Args:
        written: A caption for each clip.
        references: What people wrote of each clip, at least one text.
    """
    assert written and len(written) == len(references) and all(references), "each clip needs a reference"
    said, known = [words(w) for w in written], [[words(r) for r in several] for several in references]
    out = {f"bleu_{n}": value for n, value in zip(ORDERS, bleu(said, known), strict=True)}
    rouge = float(np.mean([rouge_l(s, k) for s, k in zip(said, known, strict=True)]))
    return out | {"rouge_l": rouge, "cider_d": float(cider_d(said, known).mean())}


def grams(text: Words, n: int) -> Counter[Words]:
    """How often each run of n words occurs."""
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def bleu(written: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the whole set; the reference nearest in length counts for brevity."""
    hits, total, length, wanted = [0] * 4, [0] * 4, 0, 0
    for said, known in zip(written, references, strict=True):
        length += len(said)
        wanted += min((abs(len(k) - len(said)), len(k)) for k in known)[1]
        for n in ORDERS:
            most = Counter[Words]()
            for k in known:
                most |= grams(k, n)
            hits[n - 1] += (grams(said, n) & most).total()
            total[n - 1] += max(len(said) - n + 1, 0)
    short = 1.0 if length >= wanted else math.exp(1 - wanted / max(length, 1e-9))
    precision = [h / t if t else 0.0 for h, t in zip(hits, total, strict=True)]
    return [short * math.prod(precision[:n]) ** (1 / n) for n in ORDERS]


def rouge_l(written: Words, references: Iterable[Words]) -> float:
    """F-measure of the longest common subsequence, precision and recall each with its best reference."""
    common = [(lcs(written, known), len(known)) for known in references]
    precision = max(shared / max(len(written), 1) for shared, _ in common)
    recall = max(shared / max(length, 1) for shared, length in common)
    if not precision or not recall:
        return 0.0
    return (1 + RECALL**2) * precision * recall / (recall + RECALL**2 * precision)


def lcs(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def cider_d(written: Sequence[Words], references: Sequence[Sequence[Words]]) -> Float[np.ndarray, " b"]:
    """CIDEr-D of each clip; document frequencies are those of the references of this set."""
    seen = Counter(gram for known in references for gram in {g for k in known for n in ORDERS for g in grams(k, n)})
    clips = math.log(max(len(references), 1))

    def vector(text: Words, n: int) -> dict[Words, float]:
        return {gram: count * (clips - math.log(max(seen[gram], 1))) for gram, count in grams(text, n).items()}

    out = []
    for said, known in zip(written, references, strict=True):
        each = [
            _clipped(vector(said, n), vector(k, n)) * math.exp(-((len(said) - len(k)) ** 2) / (2 * SIGMA**2))
            for k in known
            for n in ORDERS
        ]
        out.append(10 * sum(each) / len(each))
    return np.array(out)


def _clipped(said: dict[Words, float], known: dict[Words, float]) -> float:
    """Cosine of the two, the first never larger than the second where they meet."""
    lengths = math.sqrt(sum(v * v for v in said.values()) * sum(v * v for v in known.values()))
    meet = sum(min(value, known.get(gram, 0.0)) * known.get(gram, 0.0) for gram, value in said.items())
    return meet / lengths if lengths else 0.0
