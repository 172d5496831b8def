"""The embedded corpus: deterministic, balanced, in range, events where they are said to be."""

import numpy as np
import pytest

from otic.core.errors import DataError
from otic.data.corpus import Corpus, render
from otic.data.kinds import KINDS
from otic.data.source import open_source

RATE = 16_000


def test_the_same_clip_whenever_and_however_many():
    few, many = open_source("synth:corpus?clips=21&seed=3"), open_source("synth:corpus?clips=60&seed=3")
    assert few.rows == many.rows[:21]
    for i in (0, 7, 20):
        assert np.array_equal(few.read(i, RATE), many.read(i, RATE))


def test_another_seed_is_another_corpus():
    one, two = Corpus(clips=3, seed=0), Corpus(clips=3, seed=1)
    assert one.rows[0].seconds != two.rows[0].seconds
    assert not np.array_equal(one.read(0, RATE)[:1000], two.read(0, RATE)[:1000])


@pytest.mark.parametrize("label", sorted(KINDS))
def test_every_kind_is_finite_in_range_and_as_long_as_it_says(label):
    source = Corpus(clips=len(KINDS) * 4)
    for i, row in enumerate(source.rows):
        if row.labels == (label,):
            wave = source.read(i, RATE)
            assert wave.dtype == np.float32 and np.isfinite(wave).all()
            assert len(wave) == round(row.seconds * RATE) and 2 <= row.seconds <= 4
            assert 1e-3 < np.abs(wave).max() < 1
            assert 2 <= len(row.captions) <= 4 and len(set(row.captions)) == len(row.captions)


def test_classes_and_splits_are_balanced():
    source = Corpus(clips=len(KINDS) * 8)
    for label in KINDS:
        splits = [row.split for row in source.rows if row.labels == (label,)]
        assert sorted(splits) == ["test"] * 2 + ["train"] * 6
    assert {row.split for row in Corpus(clips=20).rows} == {"train", "test"}


def test_the_event_is_where_the_row_says():
    """Sound minus the same background is silent outside the event; loudness inside is above that outside on average."""
    source = Corpus(clips=240)
    ratios = []
    for i, row in enumerate(source.rows):
        (onset, offset, label), wave = row.events[0], source.read(i, RATE)
        assert 0 <= onset < offset <= row.seconds and label == row.labels[0]
        inside = np.zeros(len(wave), bool)
        inside[round(onset * RATE) : round(offset * RATE)] = True
        if (~inside).sum() > RATE // 2:
            ratios.append(10 * np.log10(np.mean(wave[inside] ** 2) / np.mean(wave[~inside] ** 2)))
    ratios = np.array(ratios)
    assert len(ratios) > 60 and np.mean(ratios) > 8 and (ratios > 1).mean() > 0.9


def test_levels_vary_by_tens_of_decibels():
    source = Corpus(clips=100)
    level = [10 * np.log10(np.mean(source.read(i, RATE) ** 2)) for i in range(100)]
    assert np.std(level) > 6


def test_reading_a_part_is_cutting_the_whole():
    source = Corpus(clips=1)
    assert np.array_equal(source.read(0, RATE, 0.5, 1.0), source.read(0, RATE)[8000:24000])


def test_order_kinds_are_each_other_backwards():
    """A rising chirp's strongest frequency rises, a falling one's falls."""
    for label, sign in (("rising chirp", 1), ("falling chirp", -1)):
        for seed in range(10):
            wave = KINDS[label].make(np.random.default_rng(seed), 32_000)
            peaks = [np.abs(np.fft.rfft(part)[20:]).argmax() for part in (wave[2000:6000], wave[-6000:-2000])]
            assert np.sign(peaks[1] - peaks[0]) == sign


def test_settings_are_checked():
    for text, message in (
        ("synth:corpse", "Did you mean 'corpus'"),
        ("synth:corpus?clip=3", "Did you mean 'clips'"),
        ("synth:corpus?clips=many", "not a whole number"),
        ("synth:corpus?clips=0", "at least 1"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(text)


def test_columns_that_are_not_there_are_refused():
    assert len(open_source("synth:corpus?clips=4", split_column="split")) == 4
    for wrong in ({"split_column": "fold"}, {"label_column": "kind"}):
        with pytest.raises(DataError, match="no columns to choose from"):
            open_source("synth:corpus?clips=4", **wrong)


def test_where_on_the_corpus():
    test = open_source("synth:corpus?clips=80", where=["split=test", "label in bell,rain"])
    assert {(row.split, row.labels[0]) for row in test.rows} == {("test", "bell"), ("test", "rain")}
    whole = Corpus(clips=80)
    i = next(i for i, row in enumerate(whole.rows) if row.id == test.rows[0].id)
    assert np.array_equal(test.read(0, RATE), whole.read(i, RATE))


def test_render_is_pure():
    row = Corpus(clips=1).rows[0]
    assert np.array_equal(render(row, np.random.default_rng(1)), render(row, np.random.default_rng(1)))


def test_captions_are_true_of_their_clip():
    """What is added to a kind's sentences agrees with the clip's own level, background and hum."""
    rows = Corpus(clips=400).rows
    for row in rows:
        depth, level = float(row.extra["depth_db"]), float(row.extra["level_db"])
        for text in row.captions:
            assert any(text.startswith(sentence) for sentence in KINDS[row.labels[0]].captions)
            assert "hum" not in text or row.extra["hum"] == "1" or row.labels == ("engine",)
            assert "noise" not in text or depth < 10 or row.labels == ("noise bursts",)
            assert "quiet place" not in text or depth > 22
            assert not text.endswith((", faint", "very quietly")) or level < -35
    assert sum("quiet place" in text for row in rows for text in row.captions) > 10


def test_the_background_is_as_far_below_as_the_row_says():
    """Measured where the clip has background alone; the colour filter and the level do not change the ratio much."""
    source, errors = Corpus(clips=200), []
    for i, row in enumerate(source.rows):
        (onset, offset, _), wave = row.events[0], source.read(i, RATE)
        first, last = round(onset * RATE), round(offset * RATE)
        rest = np.concatenate([wave[:first], wave[last:]])
        if len(rest) > RATE // 2 and float(row.extra["depth_db"]) > 10:
            ratio = 10 * np.log10(np.mean(wave[first:last] ** 2) / np.mean(rest**2))
            errors.append(ratio - float(row.extra["depth_db"]))
    assert len(errors) > 40 and abs(np.median(errors)) < 3 and np.std(errors) < 6
