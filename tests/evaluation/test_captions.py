"""Caption measures by examples worked out by hand, and by what must always hold."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.evaluation.captions import bleu, cider_d, grams, lcs, rouge_l, score, words


def split(*texts):
    return [tuple(text.split()) for text in texts]


def test_bleu_by_hand():
    # Papineni et al. 2002, section 2.1: "the" occurs twice in the reference at most, so 2 of 7 count
    said = split("the the the the the the the")
    known = [split("the cat is on the mat", "there is a cat on the mat")]
    assert bleu(said, known)[0] == pytest.approx(2 / 7)
    # one word of three is wrong; two-word runs: "a dog" is right, "dog howls" is not; nothing too short
    assert bleu(split("a dog howls"), [split("a dog barks")])[:2] == pytest.approx([2 / 3, math.sqrt(2 / 3 * 1 / 2)])
    # too short by half: exp(1 - 4 / 2)
    assert bleu(split("a dog"), [split("a dog barks twice")])[1] == pytest.approx(math.exp(-1))
    # counts are summed over the set before they are divided: (1 + 3) / (1 + 4)
    pooled = bleu(split("rain", "a b c x"), [split("rain"), split("a b c d")])
    assert pooled[0] == pytest.approx(4 / 5)


def test_rouge_by_hand():
    # Lin 2004, section 3: "police killed the gunman" against "police kill the gunman" shares 3 of 4 in order
    (a, b, c) = split("police kill the gunman", "police killed the gunman", "the gunman kill police")
    assert (lcs(a, b), lcs(c, b)) == (3, 2)
    assert rouge_l(a, [b]) == pytest.approx(3 / 4) and rouge_l(c, [b]) == pytest.approx(1 / 2)
    # precision 2/2, recall 2/4: (1 + 1.44) * 1 * 0.5 / (0.5 + 1.44)
    assert rouge_l(*[split("a dog")[0], split("a dog barks twice")]) == pytest.approx(2.44 * 0.5 / 1.94)
    assert rouge_l((), split("a")) == 0.0


def test_cider_by_hand():
    # two clips; "a" is in both, so its weight is log(2/2) = 0; the others weigh log 2
    known = [split("a dog"), split("a cat")]
    perfect = cider_d(split("a dog", "a cat"), known)
    assert perfect == pytest.approx([10 * 2 / 4] * 2)  # one-word and two-word runs match; longer ones do not exist
    wrong = cider_d(split("a cat", "a dog"), known)
    assert wrong == pytest.approx([0, 0])
    # "dog dog": counts are clipped: unigrams min(2w, w) w / (2w w) = 1/2; "dog dog" is in no reference; same length
    assert cider_d(split("dog dog", "a cat"), known)[0] == pytest.approx(10 * (1 / 2) / 4)
    # two words longer: exp(-4 / 72); unigrams dog and twice (unseen, weight log 2): cos = 1 / sqrt(2 + ...)
    said = split("a dog x y", "a cat")
    weight = math.exp(-4 / 72)
    one, two = 1 / math.sqrt(3), 1 / math.sqrt(3)  # dog x y; "a dog" "dog x" "x y", each of weight log 2
    assert cider_d(said, known)[0] == pytest.approx(10 * weight * (one + two) / 4)


texts = st.lists(st.sampled_from(["a", "dog", "cat", "barks", "rain", "and"]), min_size=1, max_size=8).map(tuple)


@settings(deadline=None, max_examples=30)
@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_bounds_and_perfection(said, data):
    known = [data.draw(st.lists(texts, min_size=1, max_size=3)) for _ in said]
    values = [*bleu(said, known), *(rouge_l(s, k) for s, k in zip(said, known, strict=True))]
    assert all(0 <= v <= 1 + 1e-9 for v in values)
    assert all(-1e-9 <= v <= 10 + 1e-9 for v in cider_d(said, known))
    echoed = [[*k, s] for s, k in zip(said, known, strict=True)]
    assert bleu(said, echoed)[0] == pytest.approx(1) and all(
        rouge_l(s, k) == pytest.approx(1) for s, k in zip(said, echoed, strict=True)
    )


@settings(deadline=None, max_examples=30)
@given(texts, texts)
def test_the_common_subsequence_against_its_definition(a, b):
    def plain(x, y):
        if not x or not y:
            return 0
        return plain(x[1:], y[1:]) + 1 if x[0] == y[0] else max(plain(x[1:], y), plain(x, y[1:]))

    assert lcs(a, b) == plain(a, b) == lcs(b, a)


def test_words_and_the_whole_set():
    assert words("Rain, rain -- it's RAINING! 2 dogs; crying_baby") == (
        "rain", "rain", "it's", "raining", "2", "dogs", "crying", "baby",
    )  # fmt: skip
    assert grams(words("a b a b"), 2) == {("a", "b"): 2, ("b", "a"): 1}
    found = score(["a dog barks in the rain", "wind blows over the old house"],
                  [["a dog barks in the rain"], ["Wind blows over the old house!", "wind"]])  # fmt: skip
    assert set(found) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"}
    assert found["bleu_4"] == pytest.approx(1) and found["rouge_l"] == pytest.approx(1) and 5 < found["cider_d"] <= 10
