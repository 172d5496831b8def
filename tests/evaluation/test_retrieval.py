"""Ranks and their metrics against plain loops, ties, several right answers, chance by drawing, the whole protocol."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import NASTY, Balance
from words_for_tests import Scenes, WordModel

from otic.apps.evaluate import evaluate
from otic.core.errors import ConfigError, DataError
from otic.core.seeds import rng
from otic.data.rows import Row
from otic.evaluation import retrieval


def case(seed, queries=7, gallery=15, values=6):
    """Similarities with ties, and one right answer at least for each query."""
    gen = rng("retrieval", seed)
    near = gen.integers(0, values, (queries, gallery)) / values
    match = gen.random((queries, gallery)) < gen.uniform(0.05, 0.6)
    match[np.arange(queries), gen.integers(0, gallery, queries)] = True
    return near, match


def plain(near, match, top=10):
    """One query by a loop: first rank, AP, AP with the right answers in the gallery's order."""
    order = sorted(range(len(near)), key=lambda g: (-near[g], match[g]))
    place = {g: k for k, g in enumerate(order, 1)}
    right = [place[g] for g in range(len(near)) if match[g]]
    inside = [p for p in right if p <= top]
    could = min(len(right), top)
    precision = sum(j / p for j, p in enumerate(sorted(inside), 1)) / could
    upstream = sum(j / p for j, p in enumerate(inside, 1)) / could
    return min(right), precision, upstream


@given(st.integers(0, 10_000))
def test_ranks_by_a_plain_loop(seed):
    near, match = case(seed)
    got = retrieval.rank(near, match)
    for q in range(len(near)):
        first, precision, upstream = plain(near[q], match[q])
        assert got.first[q] == first
        assert got.precision[q] == pytest.approx(precision) and got.upstream[q] == pytest.approx(upstream)
        assert upstream >= precision - 1e-12
        assert got.right[q] == match[q].sum() and got.hits[q].any() == (first <= 10)


def test_a_model_that_says_the_same_of_everything_finds_nothing():
    match = np.eye(20, dtype=bool)
    got = retrieval.rank(np.ones((20, 20)), match)
    assert (got.first == 20).all() and not got.precision.any()
    assert (retrieval.rank(np.full((20, 20), np.nan), match).first == 20).all()


class Loud(WordModel):
    """Says the same, each text louder than the one before."""

    def text(self, texts):
        return super().text(texts) * np.arange(1, len(texts) + 1, dtype=np.float32)[:, None]


def test_directions_of_texts_count_and_not_their_lengths():
    pair = {"quiet": WordModel(noise=0.5), "loud": Loud(noise=0.5)}
    results = evaluate(pair, Scenes(), protocols=["zero-shot", "retrieval", "choice"], baselines=False)
    quiet, loud = ({(r.protocol, r.metric): r.value for r in results.rows if r.model == m} for m in pair)
    assert loud == pytest.approx(quiet, abs=0.01)  # rounding orders captions that read the same


def test_one_right_answer_counts_its_reciprocal_rank():
    near = -np.arange(12.0)[None].repeat(12, 0)
    got = retrieval.rank(near, np.eye(12, dtype=bool))
    assert got.first.tolist() == list(range(1, 13))
    assert got.precision == pytest.approx([1 / r if r <= 10 else 0 for r in range(1, 13)])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 99))
def test_the_median_of_a_weighting_is_that_of_the_clips_written_out(ranks, seed):
    weights = rng("median", seed).integers(0, 4, (5, len(ranks)))
    weights[:, 0] += weights.sum(1) == 0
    got = retrieval.median_of(np.array(ranks), np.arange(len(ranks)))(weights)
    for value, row in zip(got, weights):
        assert value == np.floor(np.median(np.repeat(np.array(ranks) - 1, row))) + 1


def test_a_clip_taken_twice_asks_twice():
    values, clip = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 2])
    weights = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 3]])
    assert retrieval.mean_of(values, clip)(weights) == pytest.approx([3 / 4, 3 / 5, 1.0])


@pytest.mark.parametrize("right, gallery", [(1, 12), (3, 12), (9, 30), (12, 14)])
def test_chance_is_what_random_orders_give(right, gallery):
    gen = rng("chance", right, gallery)
    near = gen.random((40_000, gallery))
    match = np.zeros(near.shape, bool)
    match[:, :right] = True
    got = retrieval.rank(near, match)
    luck = retrieval.chance(got)
    for k in (1, 5, 10):
        assert luck[f"R@{k}"] == pytest.approx((got.first <= k).mean(), abs=0.01)
    assert luck["mAP@10"] == pytest.approx(got.precision.mean(), abs=0.01)
    assert luck["mean_rank"] == pytest.approx(got.first.mean(), rel=0.03)
    assert luck["median_rank"] == pytest.approx(np.median(got.first), abs=1)


def test_equal_meanings_match_and_else_the_row_does():
    rows = [Row(id=str(i), captions=("x", "y")[: 1 + i % 2], extra={"semantic_id": m}) for i, m in enumerate("aba")]
    asked = retrieval.captioned(rows)
    assert asked.by == "semantic_id" and asked.owner.tolist() == [0, 1, 1, 2]
    assert asked.meaning[0] == asked.meaning[2] != asked.meaning[1]
    own = retrieval.captioned([Row(id=str(i), captions=("same",)) for i in range(4)])
    assert own.by == "row" and len(set(own.meaning.tolist())) == 4
    with pytest.raises(DataError, match="1 without captions"):
        retrieval.captioned([Row(id="a", captions=("x",)), Row(id="b")])


# --- the protocol


@pytest.fixture(scope="module")
def results():
    return evaluate(WordModel(noise=0.2), Scenes(), protocols=["retrieval"])


def test_both_ways_beside_the_untrained_towers_and_chance(results):
    assert {row.model for row in results.rows} == {"words", "untrained"}  # no logmel-stats: it knows no words
    for way in ("text_to_audio", "audio_to_text"):
        for metric in ("R@1", "R@5", "R@10", "mAP@10", "median_rank", "mean_rank"):
            rows = {r.model: r for r in results.rows if r.metric == f"{way}_{metric}"}
            ours, theirs = rows["words"], rows["untrained"]
            assert ours.n_test == 18 and ours.labels_used == 0 and ours.config["match"] == "semantic_id"
            assert ours.ci95[0] <= ours.value <= ours.ci95[1]
            better = ours.value < theirs.value if metric.endswith("rank") else ours.value > theirs.value
            assert better and results.beats("words", "untrained", "scenes", "retrieval", ours.metric)
            assert 0 < ours.config["chance"] <= 72
    difference = next(d for d in results.differences if d.metric == "text_to_audio_median_rank")
    assert difference.model == "words" and difference.value > 0 and difference.beats  # lower is better


def test_without_a_split_all_clips_count_and_without_meanings_the_row():
    results = evaluate(WordModel(), Scenes(split=False, meaning=False), protocols=["retrieval"], baselines=False)
    assert {r.n_test for r in results.rows} == {24} and results.rows[0].config["match"] == "row"


def test_the_table_shows_ranks_as_ranks_and_chance(results):
    lines = results.table(["text_to_audio_R@1", "text_to_audio_median_rank"]).splitlines()
    assert lines[0].endswith("chance") and len(lines) == 4
    assert results.value("words", "scenes", "retrieval", "text_to_audio_median_rank") == 1.0
    assert "  1.0 [1.0, " in lines[3]


def test_the_same_call_gives_the_same_numbers(results):
    again = evaluate(WordModel(noise=0.2), Scenes(), protocols=["retrieval"])
    assert [(r.value, r.ci95) for r in again.rows] == [(r.value, r.ci95) for r in results.rows]


def test_only_test_clips_are_heard_once_for_all_protocols():
    source = Scenes()
    evaluate(WordModel(), source, protocols=["retrieval", "zero-shot", "choice"])
    assert source.reads == 18


def test_a_model_without_words_is_refused_before_any_work(model, tones):
    source = tones()
    with pytest.raises(ConfigError, match=r"spectrum: has no text tower.*clap_tiny --init MODEL --data SRC-with-c"):
        evaluate(model, source, protocols=["knn", "retrieval"])
    assert source.reads == 0


def test_what_the_data_cannot_answer_is_a_note_and_nothing_at_all_an_error():
    bare = Scenes()
    for k, row in enumerate(bare.rows):
        bare.rows[k] = Row(id=row.id, labels=row.labels, split=row.split)
    results = evaluate(WordModel(), bare, protocols=["retrieval", "zero-shot"], baselines=False)
    assert {r.protocol for r in results.rows} == {"zero-shot"}
    assert any("no retrieval" in note and "without captions" in note for note in results.notes)
    with pytest.raises(DataError, match=r"nothing to score.*without captions"):
        evaluate(WordModel(), bare, protocols=["retrieval"], baselines=False)


def test_clips_without_captions_change_nothing():
    few, more = Scenes(), Scenes()
    model = WordModel(noise=0.3)
    kept = [k for k in range(len(few.rows)) if k % 3]
    for k, row in enumerate(more.rows):
        if k not in kept:
            more.rows[k] = replace(row, captions=())
    options = {"protocols": ["retrieval"], "baselines": False}
    whole, without = evaluate(model, few.subset(kept), **options), evaluate(model, more, **options)
    assert [r.value for r in whole.rows] == pytest.approx([r.value for r in without.rows])
    assert {r.n_test for r in without.rows} == {whole.rows[0].n_test}
    assert without.rows[0].config["without_captions"] > 0 == whole.rows[0].config["without_captions"]


def test_the_report_shows_tables_and_examples(tmp_path, results):
    from otic.apps.evaluate import write_report

    write_report(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "scenes, found by words" in page and "chance" in page
    assert "mAP@10_upstream is counted as published code does, and can exceed 100" in page
    assert page.count('class="hits"') == 12 and 'class="hit"' in page and "dog then" in page


def test_few_queries_are_all_shown(tmp_path):
    from otic.apps.evaluate import write_report

    scored = evaluate(WordModel(), Scenes().subset(range(6, 9)), protocols=["retrieval"], baselines=False)
    write_report(scored, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "all 3 queries" in page and "text_<wbr>to_<wbr>audio_<wbr>R@1" in page


def test_the_page_is_well_formed_and_escaped(tmp_path):
    source, model = Scenes(), WordModel(noise=0.3)
    for k, row in enumerate(source.rows):
        said = tuple(f"{caption} {NASTY}" for caption in row.captions)
        source.rows[k] = replace(row, id=row.id + NASTY, captions=said, labels=(row.labels[0] + NASTY,))
    model.scenes.rows = [replace(row, id=row.id + NASTY) for row in model.scenes.rows]
    source.read = lambda i, *_: np.full(100, int(source.rows[i].id[1:3]) / 1000, np.float32)
    evaluate({NASTY: model}, source, protocols=["zero-shot", "retrieval", "choice"], out=tmp_path)
    page, parser = (tmp_path / "report.html").read_text(), Balance()
    parser.feed(page)
    assert parser.open == [] and "alert(1)" in page and "<script>alert" not in page
