"""Scene recipes render to the published check values; their words and strong labels come along."""

import csv
import functools

import numpy as np
import pytest
import soundfile
from sources_for_tests import write_csv

from otic.core.errors import AudioError, DataError
from otic.data.source import open_source


@pytest.fixture(scope="module")
def scenes(recordings):
    """`scenes("esc10_scenes")`: the recipe, opened once for all tests."""
    return functools.cache(lambda name: open_source(recordings(name)))


def rms(wave):
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


# The README of each recipe: 0.5 % for both where nothing is resampled, else RMS 1 %, peak 3 %.
@pytest.mark.parametrize(("name", "loud", "peak"), [("esc10_scenes", 0.005, 0.005), ("esc30_scenes", 0.01, 0.03)])
def test_scenes_match_their_check_values(recordings, scenes, name, loud, peak):
    source = scenes(name)
    index = {row.id: i for i, row in enumerate(source.rows)}
    with (recordings(name) / "render_check.csv").open() as file:
        checks = list(csv.DictReader(file))
    assert len(checks) == 24
    for check in checks:
        wave = source.read(index[check["scene_id"]], int(check["sample_rate"]))
        quarter = len(wave) // 4
        assert len(wave) == int(check["n_samples"])
        assert rms(wave) == pytest.approx(float(check["rms"]), rel=loud)
        assert np.abs(wave).max() == pytest.approx(float(check["peak"]), rel=peak)
        assert rms(wave[:quarter]) == pytest.approx(float(check["s_first_quarter"]), rel=loud, abs=1e-6)
        assert rms(wave[-quarter:]) == pytest.approx(float(check["s_last_quarter"]), rel=loud, abs=1e-6)
        assert float(wave.mean()) == pytest.approx(float(check["mean"]), abs=1e-5)
        assert int((np.abs(wave) >= 1).sum()) == int(check["n_clipped"])


@pytest.mark.parametrize(
    ("name", "count", "classes", "meanings"), [("esc10_scenes", 2400, 10, 118), ("esc30_scenes", 3600, 30, 402)]
)
def test_words_labels_and_splits(scenes, name, count, classes, meanings):
    source = scenes(name)
    assert len(source) == count and len(source.classes) == classes
    row = source.rows[0]
    assert row.split == "train" and row.fold == "1" and len(row.captions) == 5 and row.events
    assert {"semantic_id", "hard_negative", "negative_kind", "scene_type"} <= set(row.extra)
    assert all(set(r.labels) == {label for *_, label in r.events} for r in source.rows)
    assert len({r.extra["semantic_id"] for r in source.rows if r.split == "test"}) == meanings


@pytest.fixture
def recipe(tmp_path):
    """Two scenes over one recording of ones at 1 kHz."""
    soundfile.write(_made(tmp_path / "sounds/one.wav"), np.full(500, 0.5), 1000, subtype="FLOAT")
    folder = tmp_path / "sounds_scenes"
    folder.mkdir()
    (folder / "scenes.csv").write_text("scene_id,duration_s,labels,caption_1\ns1,0.3,a;b,an a\ns2,0.1,a,\n")
    (folder / "layers.csv").write_text(
        "scene_id,layer,file,src_start,src_end,onset,gain_db,fade_s\n"
        "s1,1,one.wav,0.4,0.9,0.25,20,0\n"
        "s1,0,one.wav,0,0.2,0,0,0.05\n"
        "s2,0,one.wav,0,0.01,0.02,-20,1\n"
    )
    return folder


def _made(path):
    path.parent.mkdir(parents=True)
    return path


def test_the_rule_by_hand(recipe):
    source = open_source(recipe)
    one, two = source.read(0, 1000), source.read(1, 1000)
    want = np.zeros(300)
    want[:200] = 0.5
    want[:50] *= np.arange(50) / 50
    want[150:200] *= np.arange(50)[::-1] / 50
    want[250:300] = 1.0  # 5 clipped to full scale, cut at the end of the scene
    assert np.allclose(one, want, atol=1e-6)
    want = np.zeros(100)
    want[20:30] = 0.05 * np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0]) / 5
    assert np.allclose(two, want, atol=1e-6)
    assert np.array_equal(source.read(0, 1000, 0.1, 0.05), one[100:150])
    assert source.rows[0].labels == ("a", "b") and source.rows[0].captions == ("an a",)


def test_where_on_scenes(recipe):
    source = open_source(recipe, where=["labels=b"])
    assert [row.id for row in source.rows] == ["s1"] and len(source.read(0, 1000)) == 300


def test_errors_name_the_file_and_the_column(recipe):
    (recipe / "layers.csv").rename(recipe / "kept.csv")
    write_csv(recipe / "layers.csv", [{"scene_id": "s1", "file": "one.wav"}])
    with pytest.raises(DataError, match=r"layers.csv: no column 'src_start'"):
        open_source(recipe)
    (recipe / "kept.csv").rename(recipe / "layers.csv")
    (recipe.parent / "sounds/one.wav").rename(recipe.parent / "sounds/two.wav")
    with pytest.raises(DataError, match="none of its recordings exists"):
        open_source(recipe)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("scenes", "s2,0.1", "s1,0.1", r"scenes\.csv: scene s1 is there twice"),
        ("scenes", "s2,0.1", "s2,", r"scenes\.csv, row 2: duration_s is empty"),
        ("scenes", "s2,0.1", "s2,0", r"scene s2: duration_s 0: more than 0"),
        ("scenes", "s2,0.1", "s2,1e12", r"scene s2: duration_s 1e12: more than 0 and at most 14400 s"),
        ("layers", "s2,0,one.wav", ",0,one.wav", r"layers\.csv, row 3: scene_id is empty"),
        ("layers", "s2,0,one.wav", "s2,0,", r"layers\.csv, row 3: file is empty"),
        ("layers", "s2,0,", "s2,first,", r"layers\.csv, scene s2: layer 'first' is not a number"),
        ("layers", "-20,1", "nan,1", r"layers\.csv, scene s2: gain_db 'nan' is not a number"),
        ("layers", "0.02,-20", "-0.02,-20", r"scene s2: .* onset -0\.02 s.*none may be negative"),
        (
            "layers",
            "0,0.01,0.02",
            "0.5,0.4,0.02",
            r"scene s2: 0\.5 to 0\.4 s of one\.wav.*src_end comes after src_start",
        ),
        ("render_check", "", "scene_id,sample_rate\ns1,x\n", "sample_rate 'x' is no number of Hz"),
        ("events", "", "scene_id,onset,offset,event_label\ns1,0,1,a\ns1,,1,a\n", r"events\.csv, row 2: onset is empty"),
    ],
)
def test_a_damaged_row_is_named(recipe, file, old, new, message):
    path = recipe / f"{file}.csv"
    text = path.read_text() if path.exists() else ""
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        open_source(recipe)


def test_one_bad_recording_spoils_its_own_scenes_only(recipe):
    (recipe.parent / "sounds/two.wav").write_bytes(b"")
    path = recipe / "layers.csv"
    path.write_text(path.read_text().replace("s2,0,one.wav", "s2,0,two.wav").replace("0.4,0.9", "7,8"))
    source = open_source(recipe)
    with pytest.raises(AudioError, match="an empty file"):
        source.read(1, 1000)
    with pytest.raises(AudioError, match=r"one\.wav: it ends before 7 s, where scene s1 takes a piece"):
        source.read(0, 1000)
