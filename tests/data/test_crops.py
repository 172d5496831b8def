"""Order and crops: pure functions of (seed, epoch, index), each clip once an epoch, bad clips replaced."""

import csv
import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_for_tests import RATE, Numbers

from otic.core.errors import AudioWarning, ConfigError, DataError
from otic.data.crops import Crops, batches, clips, held_out
from otic.data.source import open_source


def some(crops, batch_size, count, **options):
    stream = batches(crops, batch_size, **options)
    out = list(itertools.islice(stream, count))
    stream.close()
    return out


def same(a, b):
    return torch.equal(a.wave, b.wave) and torch.equal(a.lengths, b.lengths) and a.ids == b.ids and a.text == b.text


def crops_of(source, seconds=0.01, seed=0, **options):
    return Crops(source, RATE, seconds, seed, **options)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 10))
def test_every_clip_once_an_epoch(n, seed, epoch):
    crops = crops_of(Numbers([100] * n), seed=seed)
    indices = [crops.take(p).clip for p in range(epoch * n, (epoch + 1) * n)]
    assert sorted(indices) == list(range(n))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 60), most=st.integers(1, 9), seed=st.integers(0, 99), per=st.sampled_from(["clip", "duration"]))
def test_clips_that_are_held_out_are_never_taken(n, most, seed, per):
    learned, held = held_out(n, most, seed)
    assert sorted(learned + held) == list(range(n)) and len(held) == min(most, max(1, n // 10))
    source = Numbers([100 + k for k in range(n)], {k for k in range(n) if k % 3 == 0 and k != learned[-1]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)  # others of the same part stand in for bad ones
        crops = crops_of(source, seed=seed, only=learned, per=per)
        assert {crops.take(p).clip for p in range(2 * len(crops))} <= set(learned)
    assert crops.clips == len(learned) and len(crops) >= len(learned)


def test_what_is_held_out_follows_from_the_seed():
    drawn = [tuple(held_out(50, 5, seed)[1]) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


def test_one_clip_cannot_be_held_out():
    with pytest.raises(DataError, match="held out"):
        held_out(1, 5, 0)


def test_the_order_changes_by_epoch_and_by_seed():
    crops = crops_of(Numbers([100] * 30))
    orders = [tuple(crops.order(epoch)) for epoch in range(5)] + [tuple(crops_of(Numbers([100] * 30), seed=1).order(0))]
    assert len(set(orders)) == 6


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    size=st.sampled_from([1, 2, 4]),
    threads=st.sampled_from([1, 4]),
    start=st.integers(0, 9),
    cache=st.sampled_from([0.0, 1e-6, 1.0]),
)
def test_a_batch_does_not_depend_on_threads_ranks_start_or_cache(lengths, size, threads, start, cache):
    plain = some(crops_of(Numbers(lengths)), 8, start + 3)[start:]
    shares = [
        some(crops_of(Numbers(lengths), cache_gb=cache), 8, 3, start=start, rank=r, size=size, threads=threads)
        for r in range(size)
    ]
    for k, whole in enumerate(plain):
        parts = [share[k] for share in shares]
        assert torch.equal(whole.wave, torch.cat([p.wave for p in parts]))
        assert torch.equal(whole.lengths, torch.cat([p.lengths for p in parts]))
        assert list(whole.ids) == [name for p in parts for name in p.ids]


def test_crops_differ_between_epochs_and_cover_the_clip():
    source = Numbers([8000])
    starts = [crops_of(source).take(p).wave[0] for p in range(200)]
    assert min(starts) < 0.05 and max(starts) > 0.94 and len(set(starts)) > 150


def test_a_crop_is_a_piece_of_its_clip_and_the_id_says_where():
    crops = crops_of(Numbers([400, 900]))
    for p in range(20):
        wave, length, name, i, _, begin = crops.take(p)
        n = crops.source.lengths[i]
        start = round(float((wave[0] - i) * n))
        assert np.allclose(wave, i + (start + np.arange(80)) / n, atol=1e-6)
        assert name == f"n{i}@{start / RATE:.3f}" and length == 80 and begin == start / RATE


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 200), seed=st.integers(0, 99), short=st.sampled_from(["pad", "repeat"]))
def test_a_cyclic_crop_goes_on_at_its_clips_beginning(n, seed, short):
    """For clips shorter than the crop, as long, and longer."""
    crops = crops_of(Numbers([n]), seed=seed, short=short, cyclic=True)
    whole = crops.source.read(0, RATE)
    for p in range(6):
        wave, length, name, _, _, begin = crops.take(p)
        rolled = np.roll(whole, -round(begin * RATE))
        expected = np.resize(rolled, 80) if short == "repeat" else np.pad(rolled, (0, 80))[:80]
        assert np.array_equal(wave, expected)
        assert 0 <= begin < n / RATE and name == f"n0@{begin:.3f}"
        assert length == (80 if short == "repeat" else min(n, 80))


def test_a_clip_as_long_as_the_crop_moves_only_if_crops_are_cyclic():
    on = {"cyclic": True}
    still, moved, again, uncached, other = (
        [crops_of(Numbers([800]), 0.1, seed, **options).take(p) for p in range(50)]
        for seed, options in [(0, {}), (0, on), (0, on), (0, {**on, "cache_gb": 0}), (1, on)]
    )
    assert {crop.id for crop in still} == {"n0@0.000"} and all(not crop.start for crop in still)
    whole = still[0].wave
    assert len({crop.start for crop in moved}) > 40
    assert min(crop.start for crop in moved) < 0.01 and max(crop.start for crop in moved) > 0.09
    for crop in moved:
        assert np.array_equal(crop.wave, np.roll(whole, -round(crop.start * RATE))) and crop.length == 800
    for same in (again, uncached):
        assert all(a.id == b.id and np.array_equal(a.wave, b.wave) for a, b in zip(moved, same, strict=True))
    assert [crop.id for crop in other] != [crop.id for crop in moved]


def test_cyclic_crops_leave_the_cache_as_it_is():
    source = Numbers([800, 800])
    crops = crops_of(source, 0.1, cyclic=True)
    for p in range(20):
        crops.take(p)
    assert len(source.reads) == 2
    assert all(np.array_equal(crops._cache[i], source.read(i, RATE)) for i in range(2))


def test_cyclic_crops_of_long_clips_are_read_in_parts():
    source = Numbers([RATE * 70])
    crops = crops_of(source, seconds=30.0, cyclic=True)
    whole = source.read(0, RATE)
    taken = [crops.take(p) for p in range(20)]
    assert any(crop.start > 40 for crop in taken) and any(crop.start < 40 for crop in taken)
    for wave, length, _, _, _, begin in taken:
        assert length == 30 * RATE and np.array_equal(wave, np.roll(whole, -round(begin * RATE))[: 30 * RATE])
    assert all(duration <= 30.0 for *_, duration in source.reads[1:])


def test_short_clips_are_padded_or_repeated():
    wave, length, *_ = crops_of(Numbers([50])).take(0)
    assert length == 50 and len(wave) == 80 and not wave[50:].any()
    assert np.array_equal(wave[:50], np.arange(50, dtype=np.float32) / np.float32(50))
    again, length, *_ = crops_of(Numbers([50]), short="repeat").take(0)
    assert length == 80 and np.array_equal(again[50:], again[:30])


def test_long_clips_are_read_in_part():
    source = Numbers([RATE * 70])
    crops = crops_of(source, seconds=1.0)
    waves = [crops.take(p).wave for p in range(6)]
    assert all(len(wave) == RATE for wave in waves)
    assert all(duration == 1.0 for *_, duration in source.reads) and len({start for _, start, _ in source.reads}) == 6
    assert all(0 <= start <= 69 for _, start, _ in source.reads)


def test_a_header_without_a_length_leaves_it_to_the_manifest():
    source = Numbers([RATE * 70, RATE], tell=False)
    crops = crops_of(source, seconds=1.0)
    for p in range(2):
        crops.take(p)
    assert {i: duration for i, _, duration in source.reads} == {0: 1.0, 1: None}


def test_the_cache_holds_what_fits():
    source = Numbers([1000] * 4)
    crops = crops_of(source, cache_gb=2 * 4000 / 1e9)
    for p in range(12):
        crops.take(p)
    assert len(source.reads) == 4 + 2 + 2


def test_bad_clips_are_reported_once_and_replaced_the_same_way():
    crops = crops_of(Numbers([100] * 10, broken={2, 5}))
    with pytest.warns(AudioWarning) as told:
        first = some(crops, 5, 6)
    assert sorted(str(w.message).split(":")[0] for w in told) == ["n2", "n5"]
    assert set(crops.bad) == {"n2", "n5"} and "on purpose" in crops.bad["n2"]
    assert not any(name.split("@")[0] in crops.bad for batch in first for name in batch.ids)
    with pytest.warns(AudioWarning):
        later = some(crops_of(Numbers([100] * 10, broken={2, 5})), 5, 3, start=3, threads=4)
    assert all(map(same, first[3:], later))


def test_only_bad_clips_are_an_error():
    with pytest.warns(AudioWarning), pytest.raises(DataError, match="no clip can be read"):
        some(crops_of(Numbers([100] * 3, broken={0, 1, 2})), 2, 1)


def test_one_good_clip_among_many_bad_ones_is_found():
    crops = crops_of(Numbers([100] * 300, broken=set(range(300)) - {77}))
    with pytest.warns(AudioWarning):
        assert all(crops.take(p).clip == 77 for p in range(3))


def test_bad_recordings_are_skipped_and_named(recordings):
    folder = recordings("bad_audio") / "files"
    with (folder.parent / "expect.csv").open(encoding="utf-8") as file:
        expected = {row["file"].removeprefix("files/"): row["expected"] for row in csv.DictReader(file)}
    source = open_source(folder)
    crops = Crops(source, 16_000, 0.5, seed=0)
    with pytest.warns(AudioWarning):
        batch = some(crops, len(source), 1)[0]
    assert {name for name, want in expected.items() if want == "error"} <= set(crops.bad)
    assert not {name for name, want in expected.items() if want in ("ok", "warn")} & set(crops.bad)
    assert torch.isfinite(batch.wave).all() and batch.wave.shape == (len(source), 8000)


def test_labels_and_captions():
    one = some(crops_of(Numbers([100] * 4, captions=("a", "b"))), 4, 5)
    for batch in one:
        assert [int(name[1]) % 2 for name in batch.ids] == batch.labels.tolist()
    assert {text for batch in one for text in batch.text} == {"a", "b"}
    many = some(crops_of(Numbers([100] * 2, labels=[("x", "y"), ("z",)])), 2, 1)[0]
    assert sorted(many.labels.tolist()) == [[0, 0, 1], [1, 1, 0]] and many.text is None
    none = some(crops_of(Numbers([100] * 2, labels=[("x",), ()])), 2, 1)[0]
    assert none.labels is None


def test_batch_size_must_fit_the_processes():
    with pytest.raises(ConfigError, match="not a positive multiple"):
        next(batches(crops_of(Numbers([100])), 3, size=2))


def test_epoch_steps():
    assert crops_of(Numbers([100] * 10)).epoch_steps(4) == 3


def test_clips_keep_their_order_and_leave_out_bad_ones():
    source, bad = Numbers([100 + i for i in range(30)], broken={7}), {}
    with pytest.warns(AudioWarning, match="n7: left out"):
        out = list(clips(source, RATE, threads=4, bad=bad))
    assert [i for i, _ in out] == [i for i in range(30) if i != 7] and set(bad) == {"n7"}
    assert all(len(wave) == 100 + i for i, wave in out)
    part = list(clips(source, RATE, indices=[3, 1], max_seconds=50 / RATE))
    assert [(i, len(wave)) for i, wave in part] == [(3, 50), (1, 50)]
    assert list(clips(source, RATE, indices=[])) == []
    with pytest.warns(AudioWarning), pytest.raises(DataError, match="none of the 1 clips"):
        list(clips(source, RATE, indices=[7]))


def test_each_second_counts_the_same_when_an_epoch_goes_by_duration():
    source = Numbers([RATE // 2, RATE, RATE * 5 // 2, RATE * 79 // 10])
    crops = crops_of(source, 1.0, seed=3, per="duration", short="repeat")
    assert len(crops) == 1 + 1 + 3 + 8
    taken = [crops.take(k) for k in range(2 * len(crops))]
    for epoch in (taken[: len(crops)], taken[len(crops) :]):
        assert np.bincount([crop.clip for crop in epoch]).tolist() == [1, 1, 3, 8]
    cuts = [crop.id for crop in taken if crop.clip == 3]
    assert len(set(cuts)) == len(cuts), "crops of one clip are cut at places of their own"
    assert all(crop.length == RATE for crop in taken)


def test_gain_changes_levels_within_its_range_and_nothing_else():
    source = open_source("synth:corpus?clips=12")
    plain, louder = (Crops(source, 16000, 1.0, seed=3, gain_db=g) for g in (0.0, 6.0))
    decibels = []
    for position in range(24):
        a, b = plain.take(position), louder.take(position)
        assert (a.id, a.length, b.wave.dtype) == (b.id, b.length, np.float32)
        at = np.abs(a.wave).argmax()
        ratio = b.wave[at] / a.wave[at]
        np.testing.assert_allclose(b.wave, ratio * a.wave, atol=1e-6)
        decibels.append(20 * np.log10(ratio))
    assert np.abs(decibels).max() <= 6 and np.ptp(decibels) > 6 and len(set(decibels)) == 24
    assert np.array_equal(louder.take(5).wave, louder.take(5).wave)
