"""The whole of `evaluate` on small data with a stand-in model: rows, intervals, baselines, files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import otic
from otic.apps.evaluate import evaluate
from otic.core.errors import AudioWarning, ConfigError, DataError
from otic.evaluation import scoreboard
from otic.evaluation.results import Results

KEYS = {
    "model", "data", "protocol", "metric", "value", "ci95", "n_test", "folds", "seed", "config",
    "labels_used", "seconds",
}  # fmt: skip


@pytest.fixture
def four_folds(tones):
    return tones(fold=lambda i: str(i // 3 % 4))


@pytest.fixture
def results(model, four_folds):
    return evaluate(model, four_folds)


def test_model_and_baselines_under_both_protocols(results):
    rows = {(r.model, r.protocol, r.metric) for r in results.rows}
    models = ("spectrum", "untrained", "logmel-stats")
    assert rows == {(m, p, k) for m in models for p in ("linear", "knn") for k in ("accuracy", "uar")}
    for row in results.rows:
        assert row.n_test == 60 and row.labels_used == 45 and len(row.folds) == 4
        assert row.value == pytest.approx(np.mean(row.folds))
        assert row.ci95[0] <= row.value <= row.ci95[1]
    assert results.value("logmel-stats", "tones", "linear") > 0.9  # tones of different pitch are easy


def test_each_clip_is_decoded_once_per_rate_and_encoded_once(model, four_folds):
    evaluate(model, four_folds)
    assert four_folds.reads == 2 * 60  # 8 kHz for the model and its twin, 16 kHz for the statistics
    assert model.calls == 1


def test_same_call_same_numbers(model, four_folds, results):
    again = evaluate(model, four_folds)
    numbers = [[(r.model, r.metric, r.value, r.ci95, r.config["chosen"]) for r in x.rows] for x in (results, again)]
    assert numbers[0] == numbers[1]


def test_differences_are_of_pairs_the_better_first(results):
    rows = [d for d in results.differences if (d.protocol, d.metric) == ("linear", "accuracy")]
    assert len(rows) == 3
    for d in rows:
        values = [results.value(m, "tones", "linear") for m in (d.model, d.other)]
        assert d.value == pytest.approx(values[0] - values[1]) and d.value >= 0
        assert d.beats == (d.ci95[0] > 0) == results.beats(d.model, d.other, "tones", "linear")


def test_several_models_and_data_sets_stand_side_by_side(model, tones):
    other = tones(clips=30, split=lambda i: "test" if i % 3 == 0 else "train", labels=lambda i: (f"k{i % 2}",))
    other.name = "halves"
    two = type(model)(width=5)
    results = evaluate([model, two], [tones(), other], protocols=["knn"])
    assert {r.model for r in results.rows} == {
        "spectrum",
        "spectrum#2",
        "untrained",
        "untrained spectrum#2",
        "logmel-stats",
    }
    assert {r.data for r in results.rows} == {"tones", "halves"}
    assert [n for n in results.notes if n.startswith("tones")] and len(results.notes) == 1  # folds were drawn
    table = results.table(["accuracy"]).splitlines()
    assert len(table) == 4 and table[0].split()[3] == "spectrum"


def test_data_sets_of_one_name_are_told_apart_and_protocols_count_once(model, tones):
    two = [tones(fold=lambda i: str(i % 4), labels=lambda i, k=k: (f"k{i % k}",)) for k in (5, 7)]
    results = evaluate(model, two, protocols=["knn", "knn"], baselines=False)
    assert [(r.data, r.metric) for r in results.rows] == [
        (name, metric) for name in ("tones", "tones#2") for metric in ("accuracy", "uar")
    ]
    assert two[1].name == "tones"


def test_leaving_one_clip_out_has_an_interval_and_a_true_recall(model, tones):
    few = tones(clips=24, labels=lambda i: ("k0" if i % 4 else "k1",), fold=str)
    results = evaluate(model, few, protocols=["knn"], pools=["noise"], baselines=False)
    accuracy, uar = results.rows
    (view,) = results.views
    found = np.zeros(24)
    for split, scores in zip(view.task.splits, view.scores):
        found[split.test] = view.task.truth[split.test, scores.argmax(1)]
    rare = np.arange(24) % 4 == 0
    assert 0 < found.mean() < 1
    assert accuracy.value == pytest.approx(found.mean()) and accuracy.n_test == 24
    assert uar.value == pytest.approx((found[rare].mean() + found[~rare].mean()) / 2)
    assert accuracy.ci95[0] < accuracy.value < accuracy.ci95[1]


def test_without_baselines_the_model_is_alone(model, four_folds):
    assert {r.model for r in evaluate(model, four_folds, baselines=False).rows} == {"spectrum"}


def test_pooling_is_chosen_on_the_training_clips(model, four_folds):
    results = evaluate({"m": model}, four_folds, protocols=["linear"], pools=["noise", "mean"], baselines=False)
    assert results.rows[0].config["features"] == ["mean"] * 4


def test_several_labels_give_map_and_d_prime(model, tones):
    source = tones(clips=60, labels=lambda i: ("k0", "k2") if i % 3 == 0 else (f"k{i % 3}",))
    results = evaluate(model, source, protocols=["linear"])
    rows = results.rows
    assert [r.metric for r in rows[:3]] == ["mAP", "d_prime", "accuracy"]
    assert re.search(r"d_prime +-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\] ", results.table())
    best = next(r for r in rows if (r.model, r.metric) == ("logmel-stats", "mAP"))
    assert best.value > 0.9


def test_a_broken_clip_is_left_out_and_named(model, tones):
    source = tones(broken=("c003",), fold=lambda i: str(i // 3 % 4))
    with pytest.warns(AudioWarning, match="c003"):
        results = evaluate(model, source, protocols=["knn"])
    assert results.rows[0].n_test == 59 and list(results.failed) == ["c003"]
    assert any("1 of 60 clips" in note for note in results.notes)


def test_unused_clips_are_not_even_read(model, tones):
    kinds = ["train", "train", "test", "unused"]
    source = tones(split=lambda i: kinds[i // 3 % 4])
    evaluate(model, source, protocols=["knn"], baselines=False)
    assert source.reads == 45


def test_files_are_written_as_the_contract_says(model, four_folds, tmp_path: Path):
    evaluate(model, four_folds, protocols=["linear"], out=tmp_path)
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {"otic", "commit", "machine", "rows", "notes"} <= document.keys()
    assert document["otic"] == otic.__version__ and document["machine"]["cores"] >= 1
    assert all(row.keys() == KEYS for row in document["rows"])
    assert all(isinstance(row["ci95"], list) and 0 <= row["value"] <= 1 for row in document["rows"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "logmel-stats" in page and "spectrum" in page


def test_what_is_scored_is_kept_and_a_bad_folder_is_told_before_the_work(model, four_folds, tones, tmp_path):
    with pytest.raises(DataError, match="two or more"):
        evaluate(model, [four_folds, tones(classes=1)], protocols=["knn"], baselines=False, out=tmp_path)
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {row["data"] for row in document["rows"]} == {"tones"}
    before = four_folds.reads
    with pytest.raises(FileExistsError):
        evaluate(model, four_folds, out=tmp_path / "results.json")
    assert four_folds.reads == before


@pytest.mark.parametrize("protocols, end", [(["knn"], "of 1 task by"), (["linear", "knn"], "of 2 tasks by")])
def test_the_report_counts_the_tasks_won(model, four_folds, protocols, end):
    assert end in scoreboard.sentence(evaluate(model, four_folds, protocols=protocols))


def test_an_unknown_protocol_names_the_nearest(model, four_folds):
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        evaluate(model, four_folds, protocols=["liner"])
    assert four_folds.reads == 0


def test_nothing_to_score_is_refused(model, tones):
    with pytest.raises(ConfigError, match="No model"):
        evaluate([], tones())
    with pytest.raises(ConfigError, match="a baseline has it"):
        evaluate({"untrained": model}, tones())
    with pytest.raises(DataError, match="two or more"):
        evaluate(model, tones(classes=1))


def test_a_missing_number_is_a_key_error():
    with pytest.raises(KeyError):
        Results().value("a", "b", "c")


def test_models_that_saw_labels_are_marked_in_every_table(model, four_folds, tmp_path):
    model.card["labels_used"] = True
    results = evaluate({"taught": model}, four_folds, out=tmp_path, protocols=["knn"])
    assert results.saw_labels == ["taught"]  # not its untrained twin
    assert any("taught is not self-supervised" in note for note in results.notes)
    assert "taught †" in results.table() and "untrained †" not in results.table()
    page = (tmp_path / "report.html").read_text()
    assert "taught †" in page and "A dagger marks models that learned from labels: taught." in page
    assert json.loads((tmp_path / "results.json").read_text())["saw_labels"] == ["taught"]
    model.card["labels_used"] = "none"
    assert not evaluate({"free": model}, four_folds, protocols=["knn"]).saw_labels
