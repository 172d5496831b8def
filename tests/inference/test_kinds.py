"""Encoders of other kinds than the ViT: one length of input, and short sounds brought to it."""

import numpy as np
import pytest
import torch

from otic.audio.frontend import Frontend, htsat
from otic.core.errors import ConfigError
from otic.core.seeds import generator, rng
from otic.inference.model import Model
from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.models.htsat import HTSAT, HTSATConfig
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import TwoTower, TwoTowerConfig

RATE = 8000
SECONDS = 2.0
TINY = HTSATConfig(width=8, depths=(1, 1), heads=(2, 2), window=4, image=64, mels=16, classes=5)  # 256 frames
FRONT = htsat(sample_rate=RATE, mel_rate=None, mels=16, fft=256, window=256, hop=80, high=4000.0)


def noise(seconds, key=0):
    return rng("kinds", key).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


def build(short="repeat", window=SECONDS, **more):
    gen = generator("kinds tests")
    encoder = HTSAT(HTSATConfig(**{**vars(TINY), **more}), gen)
    encoder.input_norm.running_mean.fill_(-40.0)
    encoder.input_norm.running_var.fill_(100.0)
    text = TextConfig(vocab=0, positions=80, width=16, depth=1, heads=2)
    towers = TwoTower(encoder, TwoTowerConfig(text=text, dim=24), Tokenizer.plain(), gen)
    with torch.no_grad():
        for p in towers.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen))
    card = {"name": "h", "inference": {"window": window, "short": short}}
    return Model(encoder, Frontend(FRONT), card, towers=towers, device="cpu")


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.mark.parametrize("short", ["pad", "repeat", "repeatpad"])
@pytest.mark.parametrize("read", [lambda m, w: m.encode(w), lambda m, w: m.audio(w)])
def test_company_changes_nothing(short, read):
    model = build(short)
    waves = [noise(s, i) for i, s in enumerate([0.5, 2.0, 0.013, 7.1, 0.5, 2.0])]
    together = read(model, waves)
    assert np.array_equal(together, read(model, waves))
    assert np.abs(together - np.concatenate([read(model, [w]) for w in waves])).max() <= 1e-5
    assert np.abs(together[0] - together[4]).max() > 1e-3


def test_a_short_sound_is_what_it_is_lengthened_to(model):
    wave = noise(0.7)
    tiled = np.tile(wave, 3)[: round(SECONDS * RATE)]
    assert np.array_equal(model.audio(wave), model.audio(tiled))
    padded = np.pad(wave, (0, round(SECONDS * RATE) - len(wave)))
    assert np.array_equal(build("pad").encode([wave]), build("pad").encode([padded]))
    assert np.abs(model.encode([wave]) - model.encode([padded])).max() > 1e-3


def test_against_the_encoder_called_by_hand(model):
    wave = noise(SECONDS)
    spec = model.frontend(torch.from_numpy(wave)[None])
    with torch.no_grad():
        patches = model.encoder(spec).patches
        joint = torch.nn.functional.normalize(model.towers.audio(spec), dim=-1)
    assert np.abs(model.encode([wave])[0] - patches[0].mean(0).numpy()).max() <= 1e-5
    assert np.abs(model.encode([wave], layers=-1) - model.encode([wave])).max() == 0
    assert np.abs(model.audio(wave) - joint.numpy()).max() <= 1e-5


def test_frames_lie_where_the_sound_is(model):
    e = model.embed((noise(0.7), RATE), level="frame")
    assert model.frame_rate == pytest.approx(model.encoder.steps / SECONDS)
    assert (
        e.spans[0, 0] == 0 and e.spans[-1, 1] == pytest.approx(0.7) and len(e) == int(np.ceil(0.7 * model.frame_rate))
    )
    assert (e.spans[:, 1] > e.spans[:, 0]).all()
    long = model.embed((noise(5.0), RATE), level="frame")
    assert long.spans[-1, 1] == 5 and np.allclose(long.spans[1:, 0], long.spans[:-1, 1])


def test_windows_shorter_than_the_native_one_and_not_longer(model):
    assert model.embed((noise(4.0), RATE), window=1.0).vectors.shape == (4, model.dim)
    with pytest.raises(ConfigError, match=r"window=5: h hears 2 s at once"):
        model.embed((noise(4.0), RATE), window=5)


def test_a_card_that_asks_for_more_than_the_picture_holds_gets_what_fits():
    model = build(window=10.0)
    assert model.native == model.options.window == 255 * 80 / RATE
    assert model.encode([noise(9.0)]).shape == (1, model.dim)


def test_words_and_sounds_meet(model):
    found = model.similarity([noise(1.0), "rain"], ["rain", "a dog", noise(1.0)])
    assert (
        found.shape == (2, 3)
        and found[1, 0] == pytest.approx(1, abs=1e-5)
        and found[0, 2] == pytest.approx(1, abs=1e-5)
    )


def test_one_that_can_fuse_hears_short_clips_without():
    assert build(fusion=True, reduction=2).audio([noise(1.0), noise(5.0)]).shape == (2, 24)


def test_cnn14_hears_clips_of_any_length_and_reads_its_vector():
    gen = generator("kinds cnn14")
    encoder = Cnn14(Cnn14Config(widths=(4, 8, 8), mels=16, classes=0), gen)
    card = {"inference": {"window": SECONDS, "pool": "cls"}}
    model = Model(encoder, Frontend(FRONT), card, device="cpu")
    waves = [noise(s, i) for i, s in enumerate([0.5, 2.0, 0.013, 7.1, 0.5, 1.99])]
    together = model.encode(waves)
    assert np.abs(together - np.concatenate([model.encode([w]) for w in waves])).max() <= 1e-5
    with torch.no_grad():
        alone = encoder(model.frontend(torch.from_numpy(waves[5])[None])).cls[0].numpy()
    assert np.abs(together[5] - alone).max() <= 1e-5
    assert np.abs(model.encode(waves, layers=0, pool="cls") - together).max() == 0
    e = model.embed((noise(1.0), RATE), level="frame")
    assert model.frame_rate == 25 and len(e) == 25 and e.vectors.shape[1] == 8
