"""A source on disk: the same rows come back; interruptions lose nothing; foreign folders are left alone."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_for_tests import RATE, Numbers

from otic.core.errors import AudioWarning, ConfigError, DataError
from otic.data.corpus import Corpus
from otic.data.export import file_names, write_folder
from otic.data.rows import Row, Source
from otic.data.source import open_source


class Loud(Source):
    """One clip beyond full scale."""

    name, rows = "loud", [Row(id="../x y.wav", seconds=0.1)]

    def length(self, i):
        return 0.1

    def probe(self, i):
        raise NotImplementedError

    def read(self, i, rate, start=0.0, duration=None):
        return np.full(rate // 10, 1.5, np.float32)


def test_what_is_written_is_read_back(tmp_path):
    source = Corpus(clips=12)
    written = write_folder(source, tmp_path / "out")
    assert (written.clips, written.new, written.bad) == (12, 12, {})
    back = open_source(tmp_path / "out")
    for i, (a, b) in enumerate(zip(source.rows, back.rows, strict=True)):
        assert (a.labels, a.split, a.captions, a.events, a.seconds) == (
            b.labels,
            b.split,
            b.captions,
            b.events,
            b.seconds,
        )
        assert b.id == f"audio/{a.id}.flac"
        assert np.abs(source.read(i, 16_000) - back.read(i, 16_000)).max() <= 1 / 32768


def test_an_interrupted_write_goes_on(tmp_path):
    source, out = Corpus(clips=8), tmp_path / "out"

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        write_folder(source, out, progress=stop)
    assert not (out / "metadata.csv").exists() and not list(out.rglob("*.part"))
    ready = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert len(ready) == 3
    written = write_folder(source, out)
    assert (written.clips, written.new) == (8, 5)
    assert all(path.stat().st_mtime_ns == time for path, time in ready.items())
    assert len(open_source(out)) == 8
    assert write_folder(source, out).new == 0


def test_other_folders_are_left_alone(tmp_path):
    write_folder(Corpus(clips=2), tmp_path / "a")
    with pytest.raises(DataError, match="holds another data set"):
        write_folder(Corpus(clips=2, seed=1), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/note.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_folder(Corpus(clips=2), tmp_path / "b")
    (tmp_path / "a/origin.json").write_text("{")
    with pytest.raises(DataError, match="not readable"):
        write_folder(Corpus(clips=2), tmp_path / "a")
    with pytest.raises(ConfigError, match="format 'mp4' is unknown"):
        write_folder(Corpus(clips=2), tmp_path / "c", format="mp4")
    with pytest.raises(ConfigError, match="rate=0: at least 1000 Hz"):
        write_folder(Corpus(clips=2), tmp_path / "c", rate=0)
    with pytest.raises(DataError, match=r"note\.txt: a file, not a folder"):
        write_folder(Corpus(clips=2), tmp_path / "b/note.txt")


def test_bad_clips_are_left_out_and_listed(tmp_path):
    with pytest.warns(AudioWarning, match="left out|full scale"):
        written = write_folder(Numbers([RATE] * 3, broken={1}), tmp_path / "out", rate=RATE, format="wav")
    assert set(written.bad) == {"n1"} and written.clips == 2
    assert [row.id for row in open_source(tmp_path / "out").rows] == ["audio/n0.wav", "audio/n2.wav"]


def test_beyond_full_scale_is_clipped_and_said(tmp_path):
    with pytest.warns(AudioWarning, match=r"peak 1.50 exceeds full scale"):
        write_folder(Loud(), tmp_path / "out", format="wav")
    wave, rate = soundfile.read(tmp_path / "out/audio/x_y.wav")
    assert rate == 16_000 and len(wave) == 1600 and wave.min() > 0.999
    assert json.loads((tmp_path / "out/origin.json").read_text())["clips"] == 1


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=20, unique=True))
def test_names_are_distinct_and_stay_inside(ids):
    names = file_names([Row(id=text) for text in ids], "flac")
    assert len({name.lower() for name in names}) == len(ids)
    assert all(
        name.startswith("audio/") and name.count("/") == 1 and ".." not in name.split("/")[1][:2] for name in names
    )
