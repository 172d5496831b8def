"""Vectors depend on the sound and the options, and on nothing else."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.errors import AudioError, ConfigError, WeightsError
from otic.core.seeds import rng
from otic.inference.encode import groups
from otic.inference.model import Model
from otic.models.readout import whole

RATE = 16000


def noise(seconds, key=0):
    return rng("noise", key).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


LENGTHS = [1.0, 0.013, 2.5, 1.0, 0.4, 7.3, 1.003, 12.0, 2.5, 0.1]


def test_company_changes_nothing(model):
    waves = [noise(s, i) for i, s in enumerate(LENGTHS)]
    together = model.encode(waves)
    alone = np.concatenate([model.encode([w]) for w in waves])
    assert together.shape == (len(waves), model.dim) and together.dtype == np.float32
    assert np.abs(together - alone).max() <= 1e-5
    assert np.abs(together[0] - together[3]).max() > 1e-2  # same length, another sound


@pytest.mark.parametrize("pool", ["cls", "mean", "mean_std", "bands", "cls+mean"])
@pytest.mark.parametrize("layers", [None, 0, [-1], [0, 2]])
def test_company_changes_nothing_in_any_reading(model, pool, layers):
    waves = [noise(s, i) for i, s in enumerate([0.5, 1.7, 0.5])]
    together = model.encode(waves, layers, pool)
    alone = np.concatenate([model.encode([w], layers, pool) for w in waves])
    assert np.abs(together - alone).max() <= 1e-5
    width = {"cls": 32, "mean": 32, "mean_std": 64, "bands": 4 * 32, "cls+mean": 64}[pool]
    assert together.shape[1] == width * (2 if layers == [0, 2] else 1)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)), tokens=st.integers(1, 300))
def test_order_is_kept_whatever_the_batches(model, make_model, order, tokens):
    waves = [noise(s, i) for i, s in enumerate([0.3, 1.1, 0.3, 2.0, 0.9, 1.1])]
    shuffled = make_model({"inference": {"tokens": tokens}}).encode([waves[i] for i in order])
    assert np.abs(shuffled - model.encode(waves)[list(order)]).max() <= 1e-5


def test_the_same_twice_is_the_same(model):
    wave = noise(3.0)
    assert np.array_equal(model.encode([wave]), model.encode([wave]))
    assert not model.encoder.training


def test_bf16_is_near_fp32(model):
    half = Model(model.encoder, model.frontend, model.card, device="cpu", precision="bf16")
    exact, near = (m.encode([noise(s) for s in (0.5, 2.0)]) for m in (model, half))
    assert near.dtype == np.float32 and 0 < np.linalg.norm(near - exact) <= 0.02 * np.linalg.norm(exact)


def test_layers_and_poolings_are_what_they_say(model):
    """Against the encoder called by hand."""
    wave = noise(1.6)
    spec = model.frontend(torch.from_numpy(wave)[None], None, 160)
    with torch.no_grad():
        seen = model.encoder(spec, taps=True)
    for layer in (0, 1, 2, -1):
        by_hand = seen.layers[layer][0, 1:].mean(0).numpy()
        assert np.abs(model.encode([wave], layer, "mean")[0] - by_hand).max() <= 1e-5
        assert np.abs(model.encode([wave], layer, "cls")[0] - seen.layers[layer][0, 0].numpy()).max() <= 1e-5
    assert np.abs(model.encode([wave], None, "cls")[0] - seen.cls[0].numpy()).max() <= 1e-5
    assert np.abs(model.encode([wave], (0, 2), "mean")[0, 32:] - seen.layers[2][0, 1:].mean(0).numpy()).max() <= 1e-5


def test_a_long_wave_is_the_mean_of_its_windows_by_duration(model):
    wave = noise(25.0)
    parts = model.encode([wave[: 10 * RATE], wave[10 * RATE : 20 * RATE], wave[15 * RATE :]])  # the last is moved back
    expected = (10 * parts[0] + 10 * parts[1] + 5 * parts[2]) / 25
    assert np.abs(model.encode([noise(1.0), wave])[1] - expected).max() <= 1e-5


def test_nothing_to_encode(model):
    assert model.encode([]).shape == (0, model.dim)


@pytest.mark.parametrize(
    ("wave", "kind"),
    [
        (np.zeros(0, np.float32), "empty_file"),
        (np.zeros((2, 100), np.float32), "bad_shape"),
        (np.full(9, np.nan), "non_finite"),
    ],
)
def test_waves_that_are_none_are_refused(model, wave, kind):
    with pytest.raises(AudioError) as caught:
        model.encode([noise(1.0), wave])
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode([noise(1)], layers=3), "layer 3: this encoder has 3"),
        (lambda m: m.encode([noise(1)], layers=-4), "layer -4"),
        (lambda m: m.encode([noise(1)], pool="men"), "Did you mean 'mean'"),
        (lambda m: m.embed((noise(1), RATE), level="frame", pool="cls"), "pooling of a frame 'cls'"),
        (lambda m: m.embed((noise(1), RATE), window=-1.0), "window=-1.0"),
        (lambda m: m.embed(noise(1)), "an array needs its rate"),
    ],
)
def test_options_that_do_not_fit_say_so(model, call, message):
    with pytest.raises(ConfigError, match=message):
        call(model)


def test_cls_of_an_encoder_without_one(make_model):
    with pytest.raises(ConfigError, match="no CLS token"):
        make_model(cls=False).encode([noise(1)], pool="cls")


def test_the_card_sets_the_defaults(make_model):
    model = make_model({"inference": {"window": 2.0, "layers": [0, 1], "pool": "mean_std"}})
    assert model.dim == 2 * 64
    assert model.embed((noise(5.0), RATE)).spans.tolist() == [[0, 2], [2, 4], [3, 5]]
    with pytest.raises(WeightsError, match="Did you mean 'window'"):
        make_model({"inference": {"windov": 2.0}})


def test_groups_hold_equal_counts_within_the_budget():
    counts = [3, 1, 3, 3, 7, 1]
    found = list(groups(counts, lambda count: 4 * count, budget=24))
    assert sorted(i for g in found for i in g) == list(range(6))
    for group in found:
        assert len({counts[i] for i in group}) == 1
        assert len(group) == 1 or counts[group[0]] * 4 * len(group) <= 24


def test_whole_columns_cover_every_frame(model, make_model):
    encoder = model.encoder
    assert [whole(encoder, f) for f in (1, 15, 16, 17, 32, 33)] == [16, 16, 16, 32, 32, 48]
    overlapping = make_model(stride=(10, 10)).encoder
    assert [whole(overlapping, f) for f in (1, 16, 17, 26, 27)] == [16, 16, 26, 26, 36]


def test_embed_takes_paths_file_objects_and_arrays(model, tmp_path):
    wave = noise(2.0)
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    expected = model.embed((wave, RATE))
    for src in (path, str(path), io.BytesIO(path.read_bytes())):
        assert np.abs(model.embed(src).vectors - expected.vectors).max() <= 1e-6
    assert np.array_equal(model.embed(wave, sample_rate=RATE).vectors, expected.vectors)
    assert model.embed(path).source == str(path) and model.embed(path).files == (str(path),)


def test_embed_resamples(model):
    t = np.arange(2 * 44100) / 44100
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    t16 = np.arange(2 * RATE) / RATE
    near = (
        model.embed((tone, 44100)).vectors
        - model.embed((np.sin(2 * np.pi * 440 * t16).astype(np.float32), RATE)).vectors
    )
    far = model.embed((tone, RATE)).vectors[0] - model.embed((tone, 44100)).vectors[0]
    assert np.abs(near).max() < 0.2 * np.abs(far).max()


def test_windows_and_their_spans(model):
    wave = noise(5.0)
    e = model.embed((wave, RATE), window=2.0, hop=1.5)
    assert (
        e.vectors.shape == (len(e.spans), model.dim)
        and e.spans[0].tolist() == [0, 2]
        and e.spans[1].tolist() == [1.5, 3.5]
    )
    assert e.spans[-1, 1] == pytest.approx(5.0)
    for vector, (start, end) in zip(e.vectors, e.spans, strict=True):
        piece = wave[round(start * RATE) : round(end * RATE)]
        assert np.abs(model.encode([piece])[0] - vector).max() <= 1e-5


def test_one_vector_for_the_whole_file(model):
    wave = noise(25.0)
    e = model.embed((wave, RATE), window=0)
    assert e.spans.tolist() == [[0, 25]]
    assert np.abs(e.vectors - model.encode([wave])).max() <= 1e-5


def test_frames_and_their_spans(model):
    wave = noise(3.0)
    e = model.embed((wave, RATE), level="frame")
    assert model.frame_rate == 6.25 and e.vectors.shape == (19, 32)  # 298 frames are 19 columns of 16
    assert np.allclose(e.spans[:, 0], np.arange(19) * 0.16) and e.spans[-1, 1] == 3.0
    assert (e.spans[:, 1] > e.spans[:, 0]).all() and np.allclose(e.spans[1:, 0], e.spans[:-1, 1])
    assert np.abs(e.vectors.mean(0) - model.encode([wave], pool="mean")[0]).max() <= 1e-5
    wide = model.embed((wave, RATE), level="frame", pool="concat")
    assert wide.vectors.shape == (19, 4 * 32)
    assert np.abs(wide.vectors.reshape(19, 4, 32).mean(1) - e.vectors).max() <= 1e-5


def test_frames_of_many_windows_run_on(model):
    wave = noise(25.0)
    e = model.embed((wave, RATE), level="frame")
    assert e.spans[0, 0] == 0 and e.spans[-1, 1] == 25 and np.allclose(e.spans[1:, 0], e.spans[:-1, 1])
    last = model.embed((wave[15 * RATE :], RATE), level="frame").vectors
    assert np.abs(e.vectors[-31:] - last[-31:]).max() <= 1e-5  # seconds 20 to 25


def test_a_change_of_sound_shows_in_the_frames_where_it_is(model):
    wave = np.zeros(4 * RATE, np.float32)
    wave[2 * RATE :] = noise(2.0)
    e = model.embed((wave, RATE), level="frame")
    early, late = e.vectors[e.spans[:, 1] <= 1.9], e.vectors[e.spans[:, 0] >= 2.1]
    between = np.linalg.norm(early.mean(0) - late.mean(0))
    assert between > 2 * max(early.std(0).max(), late.std(0).max())


def test_one_bad_file_stops_nobody(model, tmp_path):
    good = [tmp_path / "a.wav", tmp_path / "c.wav"]
    for i, path in enumerate(good):
        soundfile.write(path, noise(1.0, i), RATE)
    (tmp_path / "b.wav").write_bytes(b"no sound at all")
    e = model.embed([good[0], tmp_path / "b.wav", tmp_path / "gone.wav", good[1]])
    assert e.source == (str(good[0]), str(good[1])) and len(e.vectors) == 2
    assert [name for name, _ in e.failed] == [str(tmp_path / "b.wav"), str(tmp_path / "gone.wav")]
    assert np.abs(e.vectors[1] - model.embed(good[1]).vectors[0]).max() <= 1e-5
    with pytest.raises(AudioError, match=r"b\.wav"):
        model.embed(tmp_path / "b.wav")


def test_all_bad_is_an_empty_answer(model, tmp_path):
    e = model.embed([tmp_path / "x.wav"])
    assert e.vectors.shape == (0, model.dim) and e.spans.shape == (0, 2) and len(e.failed) == 1


def test_a_real_recording(model, recordings):
    files = sorted(recordings("esc10").rglob("*.ogg"))[:3]
    e = model.embed(files)
    assert len(e) == 3 and np.isfinite(e.vectors).all() and not e.failed
    assert np.abs(e.vectors[1] - model.embed(files[1]).vectors[0]).max() <= 1e-5


SCRIPT = """
import resource, sys, torch
from otic.audio.frontend import Frontend
from otic.inference.model import Model
from otic.models.vit import ViT, ViTConfig

torch.set_num_threads(1)
model = Model(ViT(ViTConfig(width=8, depth=1, heads=1, patch=(64, 128))), Frontend(), device="cpu")
for path in sys.argv[1:]:
    print(len(model.embed(path)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_an_hour_takes_no_more_memory_than_ten_minutes(tmp_path):
    minute = noise(30.0).repeat(2)[: 60 * 8000]
    for minutes in (10, 60):
        with soundfile.SoundFile(tmp_path / f"{minutes}.flac", "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    command = [sys.executable, "-c", SCRIPT, tmp_path / "10.flac", tmp_path / "60.flac"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (_, short), (windows, long) = (map(int, line.split()) for line in out.splitlines())
    assert windows == 360
    assert long - short < 40_000  # KiB; the hour itself is 230 MB of float32 at 16 kHz
