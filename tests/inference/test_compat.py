"""Hearing as published code does: joined channels, random crops, tiling, fusion; the same each time all the same."""

import json
import random

import numpy as np
import pytest
import soundfile
import torch

from otic.audio.cliplen import fused
from otic.audio.frontend import Frontend, htsat
from otic.core.errors import AudioError, ConfigError
from otic.core.seeds import rng
from otic.inference import compat
from otic.inference.model import Model
from otic.models.htsat import HTSAT, HTSATConfig

RATE = 8000
CARD = {"name": "h", "inference": {"window": 2.0, "short": "repeat", "compat": "msclap"}}


@pytest.fixture(scope="module")
def model():
    encoder = HTSAT(HTSATConfig(width=8, depths=(1, 1), heads=(2, 2), window=4, image=64, mels=16, classes=0))
    front = htsat(sample_rate=RATE, mel_rate=None, mels=16, fft=256, window=256, hop=80, high=4000.0)
    return Model(encoder, Frontend(front), CARD, device="cpu")


def test_crops_and_tiles_are_those_of_the_reference(golden):
    said = json.loads((golden("clap") / "msclap_crop_pad.json").read_text())
    for case in said["cases"]:
        flat = np.arange(np.prod(case["in_shape"]), dtype=np.float32).reshape(case["in_shape"])
        draw = random.Random(case["python_random_seed"]).randrange
        source = (flat.T if len(flat) > 1 else flat[0], 44100)
        wave, (start, _) = compat.heard(source, 44100, case["out_len"], draw)
        where = f"seed {case['python_random_seed']}, shape {case['in_shape']}"
        assert len(wave) == case["out_len"], where
        assert [wave[0], wave[-1]] == [case["first_flat_index"], case["last_flat_index"]], where
        for name, value in case.items():
            if name.startswith("flat_index_at_"):
                assert wave[int(name.removeprefix("flat_index_at_"))] == value, f"{where}: {name}"
        assert round(start * 44100) == case["first_flat_index"], where


def test_the_same_file_gives_the_same_vector_in_any_company(model, tmp_path):
    files = []
    for i, seconds in enumerate([5.0, 0.5, 5.0]):
        files.append(tmp_path / f"{i}.wav")
        soundfile.write(files[-1], 0.1 * rng("compat", i).standard_normal((round(seconds * RATE), 2)), RATE)
    together = model.embed(files)
    assert np.array_equal(together.vectors[2:], model.embed(files[2]).vectors) and len(together) == 3
    assert np.array_equal(together.spans[1], [0, 1]) and together.spans[0, 1] - together.spans[0, 0] == 2
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    assert [name for name, _ in model.embed([tmp_path / "bad.wav", files[0]]).failed] == [str(tmp_path / "bad.wav")]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        model.embed(tmp_path / "bad.wav")
    assert model.similarity(files[0], files[0])[0, 0] == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def laion():
    """Makes a model that hears as LAION-CLAP does, with fusion or without."""

    def make(fusion):
        shape = {"width": 8, "depths": (1, 1), "heads": (2, 2), "window": 4, "image": 64, "mels": 16, "classes": 0}
        front = htsat(sample_rate=RATE, mel_rate=None, mels=16, fft=256, window=256, hop=80, high=4000.0)
        card = {"name": "l", "inference": {"window": 2.0, "short": "repeatpad", "compat": "laion"}}
        return Model(HTSAT(HTSATConfig(**shape, fusion=fusion)), Frontend(front), card, device="cpu")

    return make


@pytest.mark.parametrize("seconds", [0.7, 2.0, 5.3])
def test_laion_fuses_long_sounds(laion, seconds):
    model, wave = laion(True), (0.2 * rng("laion").standard_normal(round(seconds * RATE))).astype(np.float32)
    found = model.embed((wave, RATE))
    spec, longer = fused(model.frontend, torch.from_numpy(wave), 2 * RATE, draw=random.Random(0).randrange)
    assert longer == (seconds > 2)
    with torch.no_grad():
        expected = model.encoder(spec[None], torch.tensor([longer])).patches.mean(1)
        unfused = model.encoder(spec[None]).patches.mean(1)
    assert np.allclose(found.vectors, expected, atol=1e-6)
    assert np.allclose(unfused, expected, atol=1e-6) != longer
    assert np.allclose(found.spans, [[0, seconds]], atol=1e-6)


def test_laion_without_fusion_crops_anywhere(laion):
    wave = rng("laion").standard_normal(5 * RATE).astype(np.float32) / 8
    model = laion(False)
    found = model.embed((wave, RATE))
    start = random.Random(0).randrange(3 * RATE + 1)
    assert np.allclose(found.spans, [[start / RATE, start / RATE + 2]])
    assert np.allclose(found.vectors, model.encode([wave[start : start + 2 * RATE]]), atol=1e-6)
    assert compat.cropped((wave[: 2 * RATE], RATE), RATE, 2 * RATE, lambda n: n // 0)[1] == (0, 2)
    assert compat.cropped((wave, RATE), RATE, 2 * RATE, lambda n: n - 1)[1] == (3, 5)  # the last place, too


def test_it_has_no_frames(model):
    with pytest.raises(ConfigError, match="one crop of a file"):
        model.embed((np.ones(100, np.float32), RATE), level="frame")
