"""The demo goes the whole way: data, pre-training, scores beside baselines, a report, with or without labels."""

import json

import pytest

from otic.apps.demo import demo
from otic.data.export import write_folder
from otic.data.source import open_source

SMALL = (
    "encoder.width=32", "encoder.depth=1", "encoder.heads=2", "objective.clones=2", "objective.decoder.layers=1",
    "objective.decoder.dim=32", "objective.decoder.groups=4", "batch_size=8", "inference.layers=[0]",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, demo(data="synth:corpus?clips=80", out=out, minutes=0.05, settings=SMALL, quiet=True)


def test_the_table_has_the_model_and_both_baselines(done):
    out, result = done
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["model"] for row in rows} == {"pretrained", "untrained", "logmel-stats"}
    assert {row["protocol"] for row in rows} == {"linear", "knn", "zero-shot", "retrieval"}
    assert all(row["ci95"][0] <= row["value"] <= row["ci95"][1] and row["n_test"] == 20 for row in rows)
    assert all(name in result.text for name in ("pretrained", "untrained", "logmel-stats", "otic embed"))


def test_words_are_scored_beside_untrained_towers(done):
    _, result = done
    values = {(r.model, r.metric): r.value for r in result.results.rows if r.protocol in ("zero-shot", "retrieval")}
    for metric in ("accuracy", "text_to_audio_R@1", "text_to_audio_R@5"):
        assert {model for model, name in values if name == metric} == {"pretrained", "untrained"}
    assert result.words is not None and result.words.load().towers is not None
    assert "text_to_audio_R@5" in result.text and "mean_rank" not in result.text
    assert not result.results.saw_labels, "the probed encoder saw no caption"


def test_the_report_shows_curves_masks_and_the_map(done):
    page = (done[0] / "report.html").read_text(encoding="utf-8")
    for title in (
        "Scores",
        "Training",
        "What the model sees",
        "looked at closely",
        "named by words alone",
        "How it was made",
    ):
        assert title in page


def test_the_held_out_clips_are_not_learnt_from(done, monkeypatch):
    asked = {}

    def stop(recipe, data, **options):
        asked.update(options)
        raise InterruptedError

    monkeypatch.setattr("otic.apps.demo.pretrain", stop)
    with pytest.raises(InterruptedError):
        demo(data="synth:corpus?clips=80", out=done[0])
    assert asked["where"] == ("split=train",)


def test_the_same_command_again_goes_on(done):
    out, first = done
    again = demo(data="synth:corpus?clips=80", out=out, minutes=0.05, settings=SMALL, quiet=True)
    assert again.run.steps == first.run.steps
    assert [r.value for r in again.results.rows] == [r.value for r in first.results.rows]


def test_data_without_labels_gets_a_map(tmp_path):
    write_folder(open_source("synth:corpus?clips=16"), tmp_path / "made")
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for i, file in enumerate(sorted((tmp_path / "made").rglob("*.flac"))):
        file.rename(sounds / f"{i}.flac")
    out = tmp_path / "my run"
    result = demo(data=sounds, out=out, minutes=0.02, settings=SMALL, quiet=True)
    assert not result.results.rows
    assert "no labels" in result.text
    assert f"otic info '{out}'" in result.text and "otic evaluate" not in result.text, "what is told to try works"
    assert "Embedding map" in (out / "report.html").read_text(encoding="utf-8")
