"""Classes by their names: vectors of prompts, scores, ranks, and the whole protocol with a stand-in for the model."""

import numpy as np
import pytest
from words_for_tests import Scenes, WordModel

from otic.apps.evaluate import evaluate
from otic.core.errors import ConfigError, DataError
from otic.core.seeds import rng
from otic.data.rows import Row
from otic.evaluation import zero_shot
from otic.inference.prompts import PROMPTS, class_vectors, unit


class Talker:
    """Every text is a direction of its own, longer or shorter."""

    def __init__(self):
        self.asked = []

    def text(self, texts):
        self.asked += texts
        return np.stack([rng(t).normal(size=5) * (1 + len(t)) for t in texts]).astype(np.float32)


def test_a_class_is_the_mean_of_its_prompts_normalised_before_and_after():
    model = Talker()
    got = class_vectors(model, ["Sea_waves", "dog"], ["a {}", "{}", "hear {} now"])
    assert model.asked == ["a sea waves", "a dog", "sea waves", "dog", "hear sea waves now", "hear dog now"]
    for row, texts in zip(got, (model.asked[::2], model.asked[1::2])):
        said = [v / np.linalg.norm(v) for v in (Talker().text([t])[0] for t in texts)]
        mean = np.mean(said, axis=0)
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_scores_are_a_softmax_of_scaled_cosines_or_have_the_order_of_their_sigmoids():
    audio, named = (unit(rng(n).normal(size=(4, 6)).astype(np.float32)) for n in ("a", "b"))
    logits = 30.0 * (audio @ named.T)
    want = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert zero_shot.scores(30.0, audio, named, multi=False) == pytest.approx(want, abs=1e-5)
    many = zero_shot.scores(30.0, audio, named, multi=True)
    assert 1 / (1 + np.exp(-many)) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    assert np.isfinite(zero_shot.scores(1e4, audio, named, multi=False)).all()
    assert np.isfinite(zero_shot.scores(1e4, audio, named, multi=True)).all()


def test_a_large_scale_leaves_the_order_where_several_are_right():
    """Sigmoids of 45 and of 55 are both 1 in 64 bits, and mAP would be that of ties."""
    task = zero_shot.question(rows(["a b", "b", "a", "b"]), ["a", "b"])
    cosines = np.array([[0.55, 0.52], [0.45, 0.60], [0.50, 0.40], [0.42, 0.58]], np.float32)
    said = zero_shot.scores(100.0, cosines, np.eye(2, dtype=np.float32), task.multi)
    assert zero_shot.statistics(said, task, ["mAP"])["mAP"](np.ones((1, 4)))[0] == pytest.approx(1)


def test_ranks_of_the_right_class():
    said = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.1, 0.3, 0.2]])
    truth = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]])
    assert zero_shot.ranks(said, truth).tolist() == [1, 3, 2]


def rows(labels, folds=None):
    return [Row(id=str(i), labels=tuple(x.split()), fold=folds[i] if folds else None) for i, x in enumerate(labels)]


def test_folds_are_scored_one_by_one_and_clips_without_a_label_not_at_all():
    task = zero_shot.question(rows([*"ab" * 5, "", *"ac" * 5], "1" * 10 + "2" * 11), ["a", "b", "c"])
    assert [s.name for s in task.splits] == ["1", "2"] and not task.multi
    assert [s.test.tolist() for s in task.splits] == [list(range(10)), list(range(11, 21))]
    task = zero_shot.question(rows(["a", "b c", ""]), ["a", "b", "c"])
    assert task.multi and [s.test.tolist() for s in task.splits] == [[0, 1]]
    assert task.truth.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    with pytest.raises(DataError, match="two classes"):
        zero_shot.question(rows(["a", "a"]), ["a"])


def test_small_folds_are_scored_together():
    task = zero_shot.question(rows(["a", "b", "", "a", "c"], "12345"), ["a", "b", "c"])
    assert [(s.name, s.test.tolist()) for s in task.splits] == [("all", [0, 1, 3, 4])]


def test_chance_of_guessing():
    single = zero_shot.question(rows(["a", "b", "b", "b"]), ["a", "b", "c"])
    assert zero_shot.chance(single, ["accuracy", "uar"]) == pytest.approx({"accuracy": 1 / 3, "uar": 1 / 3})
    multi = zero_shot.question(rows(["a", "a b"]), ["a", "b", "c"])
    got = zero_shot.chance(multi, ["mAP", "accuracy", "f1"])
    assert got == pytest.approx({"mAP": 0.75, "accuracy": 0.5})


# --- the protocol


def single(clips=24, **options):
    """Scenes that are called by their first sound alone."""
    source = Scenes(clips, **options)
    for k, row in enumerate(source.rows):
        source.rows[k] = Row(id=row.id, labels=row.labels[:1], split=row.split, captions=row.captions)
    return source


def test_single_labels_give_accuracy_and_uar():
    results = evaluate(WordModel(width=64), single(), protocols=["zero-shot"])
    assert [r.metric for r in results.rows] == ["accuracy", "uar"] * 2
    ours = results.rows[0]
    assert ours.value > 0.9 and ours.config["chance"] == pytest.approx(1 / 6) and ours.n_test == 18
    assert ours.config["prompts"] == ["this is a sound of {}"] and ours.labels_used == 0
    assert results.beats("words", "untrained", "scenes", "zero-shot")


def test_several_labels_give_map():
    results = evaluate(WordModel(), Scenes(), protocols=["zero-shot"], baselines=False)
    assert [r.metric for r in results.rows] == ["mAP", "d_prime", "accuracy"]


def test_classes_are_those_of_the_whole_source():
    source = single()
    source.rows = [row for row in source.rows if row.split == "train" or row.labels != ("dog",)]
    model = WordModel()
    results = evaluate(model, source, protocols=["zero-shot"], baselines=False)
    assert results.rows[0].config["classes"] == 6  # `dog` is only in the training part, and may be guessed
    assert "this is a sound of dog" in model.asked


def test_prompts_are_named_or_written_and_several_are_averaged():
    model = WordModel()
    given = ["heard", "the {} sound"]
    results = evaluate(model, single(), protocols=["zero-shot"], prompt=given, baselines=False)
    assert results.rows[0].config["prompts"] == [*PROMPTS["heard"], "the {} sound"]
    assert {"dog can be heard", "the dog sound"} <= set(model.asked)
    source = single()
    with pytest.raises(ConfigError, match=r"'hear' is unknown. Did you mean 'heard'.*\{\}"):
        evaluate(model, source, protocols=["zero-shot"], prompt=["hear"])
    assert source.reads == 0


def test_the_report_names_classes_and_confusions(tmp_path):
    evaluate(WordModel(width=8, noise=0.5), single(), protocols=["zero-shot"], out=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "scenes, named by words alone" in page and "Confusions" in page and "most often instead" in page


def test_probes_and_words_share_one_report(tmp_path):
    results = evaluate(WordModel(), Scenes(), protocols=["knn", "zero-shot", "retrieval", "choice"], out=tmp_path)
    assert {(r.model, r.protocol) for r in results.rows} == {
        *((m, p) for m in ("words", "untrained") for p in ("knn", "zero-shot", "retrieval", "choice")),
        ("logmel-stats", "knn"),
    }
    page = (tmp_path / "report.html").read_text()
    assert "looked at closely" in page and "found by words" in page and "named by words" in page
    assert "untrained on" in page and "logmel-stats on" in page
