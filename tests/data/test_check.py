"""`check` calls every file good, doubtful or bad, and counts what is there."""

import csv
import json

import numpy as np
import pytest
import soundfile
from sources_for_tests import RATE, tone, write_csv

from otic.core.errors import DataError
from otic.data.check import check


def test_good_doubtful_and_bad(tmp_path):
    for name in ("dog/a.wav", "dog/b.flac", "cat/c.wav"):
        tone(tmp_path / name, seconds=1.0)
    tone(tmp_path / "cat/d.wav", rate=16_000)
    soundfile.write(tmp_path / "cat/silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "cat/broken.wav").write_bytes(b"RIFF and nothing more")
    seen = []
    report = check(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (report.good, report.usable) == (4, 5) and report.seconds == pytest.approx(4.5)
    assert [(f.id, f.kind) for f in report.warned] == [("cat/silent.wav", "silent")]
    assert [f.id for f in report.bad] == ["cat/broken.wav"] and "\n" not in report.bad[0].reason
    assert report.rates == {8000: 4, 16_000: 1} and report.labels == {"cat": 3, "dog": 2}
    assert (report.shortest, report.median, report.longest) == (0.5, 1.0, 1.0)
    assert seen == [(k, 6) for k in range(1, 7)]
    assert json.loads(json.dumps(report.to_dict()))["usable"] == 5
    text = "\n".join(report.lines())
    assert "4 good, 1 warned, 1 bad" in text and "bad     cat/broken.wav: " in text and "labels: cat 3, dog 2" in text


def test_a_manifest_that_lies_about_lengths(tmp_path):
    tone(tmp_path / "a.wav", seconds=1.0)
    tone(tmp_path / "b.wav", seconds=1.0)
    write_csv(tmp_path / "metadata.csv", [
        {"file": "a.wav", "duration_s": "1.01", "fold": "1"}, {"file": "b.wav", "duration_s": "9", "fold": "2"},
        {"file": "gone.wav", "duration_s": "1", "fold": "2"},
    ])  # fmt: skip
    report = check(tmp_path)
    assert report.good == 1 and report.folds == {"1": 1, "2": 1}
    assert [(f.id, f.kind, f.reason) for f in report.warned] == [
        ("b.wav", "wrong_length", "the manifest says 9 s, but there are 1.00 s")
    ]
    assert [f.id for f in report.bad] == ["gone.wav"]


def test_events_after_the_end_are_told(tmp_path):
    tone(tmp_path / "a.wav", seconds=1.0)
    write_csv(tmp_path / "metadata.csv", [{"file": "a.wav", "label": "x", "onset": "0.5", "offset": "9"}])
    assert [(f.kind, f.reason) for f in check(tmp_path).warned] == [
        ("event_outside", "an event ends at 9 s, but there are 1.00 s")
    ]


def test_a_broken_link_is_listed_as_skipped(tmp_path):
    tone(tmp_path / "a.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing")
    report = check(tmp_path)
    assert report.good == 1 and [name.endswith("dangling.wav") for name, _ in report.skipped] == [True]


def test_a_name_with_a_line_break_stays_on_its_line(tmp_path):
    (tmp_path / "a\nb\x1b[2J.wav").write_bytes(b"RIFF and nothing more")
    tone(tmp_path / "c.wav")
    lines = check(tmp_path).lines()
    assert lines[-1].startswith("  bad     a\\nb\\x1b[2J.wav: ") and not any("\n" in line for line in lines)


def test_other_sources():
    report = check("synth:corpus?clips=8", where=["split=train"])
    assert report.good == 6 and report.rates == {16_000: 6} and report.splits == {"train": 6}
    with pytest.raises(DataError, match="no such file"):
        check("nowhere")


def test_the_outcomes_expected_of_odd_files(recordings):
    folder = recordings("bad_audio")
    with (folder / "expect.csv").open(encoding="utf-8") as file:
        expected = {row["file"].removeprefix("files/"): row["expected"] for row in csv.DictReader(file)}
    report = check(folder / "files")
    bad, warned = {f.id: f for f in report.bad}, {f.id: f for f in report.warned}
    outcome = {name: "error" if name in bad else "warn" if name in warned else "ok" for name in expected}
    wrong = {
        name: (want, outcome[name])
        for name, want in expected.items()
        if outcome[name] not in want.split("_or_") and name not in ("clipped_square.wav", "no_extension")
    }
    assert wrong == {}
    assert report.good + len(warned) + len(bad) == len(expected) - 1  # a scan goes by extension
    assert report.seconds > 7200
