"""The one length that CLAP systems hear: rules, and that nothing is random unless asked for."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otic.audio import cliplen
from otic.audio.frontend import Frontend, htsat
from otic.core.errors import ConfigError
from otic.core.seeds import generator

FRONT = htsat(sample_rate=8000, mel_rate=None, window=64, fft=64, hop=40, mels=6, low=100.0, high=4000.0)


@given(samples=st.integers(1, 60), target=st.integers(1, 60), hop=st.integers(0, 70), data=st.data())
def test_every_rule_gives_rows_of_the_target(samples, target, hop, data):
    wave = torch.arange(1.0, samples + 1)
    crop = data.draw(st.sampled_from(["random", "start", "center", "windows"]))
    short = data.draw(st.sampled_from(["repeat", "repeatpad", "pad"]))
    draw = random.Random(0).randrange
    rows = cliplen.clips(wave, target, short=short, crop=crop, hop=hop, draw=draw)
    assert rows.shape[1] == target and (len(rows) == 1 or (crop == "windows" and samples > target))
    if samples >= target:
        assert all(torch.equal(row, torch.arange(row[0], row[0] + target)) for row in rows)  # pieces of the wave
        if crop == "windows" and hop <= target:
            assert set(rows.flatten().tolist()) == set(wave.tolist())
    else:
        whole = target // samples * samples if short != "pad" else samples
        assert torch.equal(rows[0, :whole].view(-1, samples), wave.expand(whole // samples, -1))
        rest = rows[0, whole:]
        assert torch.equal(rest, wave[: len(rest)]) if short == "repeat" else not rest.any()


def test_defaults_are_not_random():
    wave = torch.arange(25.0)
    assert torch.equal(cliplen.clips(wave, 10), cliplen.clips(wave, 10))
    with pytest.raises(ConfigError, match="pass draw"):
        cliplen.clips(wave, 10, crop="random")
    places = {float(cliplen.clips(wave, 23, crop="random", draw=cliplen.drawn(generator(i)))[0, 0]) for i in range(40)}
    assert places == {0.0, 1.0}  # 2 would fit: upstream never draws it
    with pytest.raises(ConfigError, match="without samples"):
        cliplen.clips(torch.zeros(0), 10)


@given(total=st.integers(1, 80), frames=st.integers(1, 80), seed=st.integers(0, 9))
def test_thirds_split_all_places(total, frames, seed):
    """As numpy splits a list in three, empty thirds at 0."""
    if frames > total:
        return
    thirds = [list(part) for part in np.array_split(range(total - frames + 1), 3)]
    drawn = cliplen.thirds(total, frames, cliplen.drawn(generator(seed)))
    middle = cliplen.thirds(total, frames)
    for part, a, b in zip(thirds, drawn, middle, strict=True):
        assert a in (part or [0]) and b == (part[len(part) // 2] if part else 0)


def test_fused_input():
    frontend, gen = Frontend(FRONT), generator("fused")
    wave = torch.randn(2000, generator=gen)
    for samples in (300, 800, 839):
        spec, longer = cliplen.fused(frontend, wave[:samples], 800)
        assert spec.shape == (4, 21, 6) and not longer and torch.equal(spec, spec[:1].expand(4, -1, -1))
    spec, longer = cliplen.fused(frontend, wave, 800, parts=(0, 7, 30))
    whole = frontend(wave[None])[0, 0]
    assert longer and spec.shape == (4, 21, 6)
    for i, first in enumerate((0, 7, 30), 1):
        assert torch.equal(spec[i], whole[first : first + 21])
    for t in range(21):  # centres of cells, linearly between the two nearest
        place = min(max((t + 0.5) * 51 / 21 - 0.5, 0), 50)
        left = int(place)
        expected = whole[left] + (place - left) * (whole[min(left + 1, 50)] - whole[left])
        torch.testing.assert_close(spec[0, t], expected, atol=1e-3, rtol=0)


def test_channels():
    wave = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert cliplen.mono(wave).tolist() == [2.0, 4.0]
    assert cliplen.mono(wave, "concat").tolist() == [1.0, 2.0, 3.0, 6.0]


def test_a_front_end_may_quantise_first():
    wave = 1.2 * torch.sin(torch.arange(2000) / 9.0)[None]
    plain, cut = Frontend(FRONT), Frontend(dataclasses.replace(FRONT, quantise=True))
    theirs = (np.clip(wave.numpy(), -1, 1) * 32767.0).astype(np.int16) / np.float32(32767.0)
    assert torch.equal(cut(wave), plain(torch.from_numpy(theirs.astype(np.float32))))


def test_a_front_end_may_bring_its_mel_matrix():
    own = Frontend(FRONT)
    bank = 1.3 * own.mel.spectrum.bank
    brought = Frontend(FRONT, bank=bank)
    wave = torch.randn(1, 2000, generator=generator("bank"))
    louder = own(wave) + 10 * torch.log10(torch.tensor(1.3))
    torch.testing.assert_close(brought(wave), louder, atol=1e-3, rtol=0)
    torch.testing.assert_close(Frontend(FRONT, plain=True, bank=bank)(wave), louder, atol=1e-3, rtol=0)
    with pytest.raises(ConfigError, match=r"shape \[33, 5\], but its config asks for \[33, 6\]"):
        Frontend(FRONT, bank=bank[:, :5])
