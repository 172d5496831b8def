"""The front-end's laws: the formula written again, and that a clip's output depends on that clip alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio import frontend as module
from otic.audio.frontend import Frontend, FrontendConfig, clip_mean, htsat, measure
from otic.audio.read import read
from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator

CONFIGS = {"kaldi": FrontendConfig(), "htsat": htsat(), "superb": FrontendConfig(pad="normalised", subtract_mean=False)}


def sound(seconds=1.0, *, rate=16000, seed=0, level=0.1):
    """A few tones in noise: strong and weak bands side by side."""
    gen = generator("sound", seed)
    t = torch.arange(round(seconds * rate)) / rate
    tones = sum(torch.sin(2 * math.pi * hertz * t) for hertz in 100 * 50 ** torch.rand(3, generator=gen))
    return level * (tones + 0.01 * torch.randn(len(t), generator=gen))


def kaldi_formula(wave, cfg):
    """The definition frame by frame in float64."""
    wave = wave.double().numpy()
    n = np.arange(cfg.window)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / (cfg.window - 1))

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = mel(cfg.low) + np.arange(cfg.mels + 2) * (mel(cfg.high) - mel(cfg.low)) / (cfg.mels + 1)
    at = mel(np.arange(cfg.fft // 2) * cfg.sample_rate / cfg.fft)
    rows = []
    for start in range(0, len(wave) - cfg.window + 1, cfg.hop):
        frame = wave[start : start + cfg.window]
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, cfg.fft))[:-1] ** 2
        energies = []
        for left, centre, right in zip(edges, edges[1:], edges[2:]):
            weights = np.clip(np.minimum((at - left) / (centre - left), (right - at) / (right - centre)), 0, None)
            energies.append(weights @ power)
        rows.append(np.log(np.maximum(energies, 1.1920928955078125e-07)))
    return torch.from_numpy((np.stack(rows) - cfg.mean) / (2 * cfg.std))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mels": 80, "low": 60.0, "high": 7600.0}, {"sample_rate": 32000, "window": 800, "hop": 320, "fft": 1024}],
)
def test_kaldi_formula(plain, changes):
    cfg = replace(CONFIGS["kaldi"], mean=0.0, std=0.5, **changes)
    wave = sound(0.6, seed=3)
    theirs = kaldi_formula(wave, cfg)
    difference = (Frontend(cfg, plain=plain)(wave[None])[0, 0] - theirs).abs()
    assert difference.max() < (3e-3 if plain else 2e-3)
    assert difference[theirs > -12].max() < (1e-3 if plain else 6e-4)


@pytest.mark.parametrize("fft", [1024, 1023])
def test_htsat_formula(fft):
    cfg, wave = htsat(window=fft, fft=fft), sound(0.5, rate=44160)  # 69 hops
    bank = Frontend(cfg).mel.spectrum.bank.double()
    window = torch.hann_window(fft, dtype=torch.float64)
    stft = torch.stft(wave.double(), fft, cfg.hop, window=window, center=True, pad_mode="reflect", return_complex=True)
    theirs = 10 * (stft.abs().square().mT @ bank).clamp(min=1e-10).log10()
    assert (Frontend(cfg)(wave[None])[0, 0] - theirs).abs().max() < 5e-4


def test_strong_contrast_is_computed_in_double():
    """A full-scale tone beside near silence: float32 alone would be wrong by far more in the weak bands."""
    t = torch.arange(16000) / 16000
    wave = 0.9 * torch.sin(2 * math.pi * 440 * t) + 2e-4 * torch.randn(16000, generator=generator(0))
    cfg = replace(CONFIGS["kaldi"], mean=0.0, std=0.5, subtract_mean=False)
    theirs = kaldi_formula(wave, cfg)
    fast, plain = ((Frontend(cfg, plain=p)(wave[None])[0, 0] - theirs).abs().max() for p in (False, True))
    assert fast < 2e-4
    assert plain > 3 * fast


@pytest.mark.parametrize("kind", CONFIGS)
@settings(max_examples=12, deadline=None)
@given(samples=st.integers(1, 9000), extra=st.integers(0, 6000), rubbish=st.booleans(), seed=st.integers(0, 9))
def test_padding_and_mates_change_nothing(kind, samples, extra, rubbish, seed):
    frontend = Frontend(CONFIGS[kind])
    clip = sound(9000 / 16000, seed=seed)[:samples]
    alone = frontend(clip[None])
    rows = torch.zeros(3, samples + extra)
    rows[1, :samples] = clip
    rows[0] = sound(15000 / 16000, seed=seed + 100, level=0.7)[: samples + extra]
    if rubbish:  # what lies past a clip's end is not looked at
        rows[1, samples:] = 0.5
    lengths = torch.tensor([samples + extra, samples, max(1, samples // 2)])
    together = frontend(rows, lengths)
    own = frontend.frames(samples)
    assert alone.shape[2] == own
    assert (together[1, :, :own] - alone[0]).abs().max() < 2e-5
    assert (together[1, :, own:] == together.new_tensor(frontend.pad_value)).all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_same_clip_same_bits(kind):
    """Equal to the last bit whatever stands beside it, in a block or across blocks."""
    frontend, rate = Frontend(CONFIGS[kind]), CONFIGS[kind].sample_rate
    clip = sound(2.0, rate=rate)
    alone = frontend(clip[None])[0]
    for mates in (1, 7):
        batch = torch.stack([clip] + [sound(2.0, rate=rate, seed=i + 1) for i in range(mates)])
        assert torch.equal(frontend(batch)[0], alone)
        assert torch.equal(frontend(batch.flip(0))[-1], alone)


def test_long_waves_go_in_blocks(monkeypatch):
    wave = sound(12.0)[None]
    whole = Frontend()(wave)
    monkeypatch.setattr(module, "CPU_BLOCK", 100)
    assert (Frontend()(wave) - whole).abs().max() < 1e-5


@pytest.mark.parametrize("plain", [False, True])
def test_frames_pads_and_crops(plain):
    frontend, wave = Frontend(plain=plain), sound(1.0)[None]
    spec = frontend(wave)
    assert spec.shape == (1, 1, 98, 128)
    longer = frontend(wave, frames=112)
    assert torch.allclose(longer[:, :, :98], spec, atol=1e-6)
    assert (longer[:, :, 98:] == longer.new_tensor(-FrontendConfig().mean / (2 * FrontendConfig().std))).all()
    assert torch.allclose(frontend(wave, frames=50), spec[:, :, :50], atol=1e-6)


def test_both_padding_conventions():
    values = {
        pad: Frontend(FrontendConfig(pad=pad))(sound(0.1)[None], frames=20)[0, 0, -1, 0].item()
        for pad in ("logmel", "normalised", "floor")
    }
    assert values == pytest.approx({"logmel": 0.46706, "normalised": 0.0, "floor": -1.27756}, abs=1e-5)


def test_frame_counts():
    kaldi, clap = Frontend(), Frontend(htsat())
    assert [kaldi.frames(n) for n in (160000, 80000, 16000, 400, 399, 1)] == [998, 498, 98, 1, 1, 1]
    assert [clap.frames(n) for n in (308700, 319, 320)] == [965, 1, 2]
    assert kaldi.frame_rate == 100 and kaldi.rate == 16000 and clap.rate == 44100
    for frontend in (kaldi, clap):
        for n in (1, 399, 400, 559, 560, 5000):
            assert frontend(torch.zeros(1, n)).shape[2] == frontend.frames(n)


def test_a_clip_below_one_window_is_padded_after_its_mean():
    frontend, wave = Frontend(), sound(0.02) + 0.3
    padded = torch.nn.functional.pad(wave - wave.mean(), (0, 400 - len(wave)))
    direct = Frontend(FrontendConfig(subtract_mean=False))(padded[None])
    assert torch.allclose(frontend(wave[None]), direct, atol=1e-4)
    batch = torch.zeros(2, 16000)
    batch[0, : len(wave)] = wave
    assert torch.allclose(frontend(batch, torch.tensor([len(wave), 16000]))[0, :, :1], direct[0], atol=1e-4)


def test_clip_mean_counts_real_samples_only():
    wave = torch.zeros(2, 1000)
    wave[0, :300], wave[1] = 0.5, 0.25
    assert clip_mean(wave, torch.tensor([300, 1000])).flatten().tolist() == pytest.approx([0.5, 0.25])


def test_fill_sets_the_spectrogram():
    batch = Batch(wave=torch.stack([sound(seed=i) for i in range(2)]), lengths=torch.tensor([16000, 8000]))
    filled = Frontend().fill(batch)
    assert filled.spec is not None and filled.spec.shape == (2, 1, 98, 128)
    assert torch.equal(filled.wave, batch.wave)
    assert (filled.spec[1, :, 48:] == Frontend().pad_value).all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradients(kind):
    frontend = Frontend(CONFIGS[kind])
    wave = sound(0.2, rate=CONFIGS[kind].sample_rate)[None].requires_grad_()
    spec = frontend(wave)
    spec.square().sum().backward()
    assert wave.grad is not None and wave.grad.isfinite().all() and wave.grad.abs().max() > 0
    assert (spec.detach() - frontend(wave.detach())).abs().max() < 1e-3 * (10 if kind == "htsat" else 1)


@pytest.mark.parametrize("kind", CONFIGS)
def test_export_without_complex_numbers(kind):
    frontend, rate = Frontend(CONFIGS[kind]).eval(), CONFIGS[kind].sample_rate
    example = torch.stack([sound(0.5, rate=rate, seed=i) for i in range(2)])
    program = torch.export.export(
        frontend,
        (example,),
        dynamic_shapes={"wave": {0: torch.export.Dim("b", min=1, max=64), 1: torch.export.Dim.DYNAMIC}},
    )
    values = [n.meta["val"] for n in program.graph.nodes if "val" in n.meta]
    assert values and not any(isinstance(v, torch.Tensor) and v.is_complex() for v in values)
    assert not any("fft" in str(n.target) for n in program.graph.nodes)
    other = torch.stack([sound(0.7, rate=rate, seed=i) for i in range(5, 8)])
    assert (program.module()(other) - frontend(other)).abs().max() < (0.02 if kind == "htsat" else 1e-3)


def test_autocast_does_not_touch_the_numbers():
    wave = sound()[None]
    for plain in (False, True):
        frontend = Frontend(plain=plain)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = frontend(wave)
        assert torch.equal(inside, frontend(wave))


def test_measure():
    cfg = replace(FrontendConfig(), sample_rate=16000)
    waves = [sound(0.5 + 0.2 * i, seed=i, level=0.02 * 4**i) for i in range(4)]
    mean, std = measure(waves, cfg)
    own = Frontend(replace(cfg, mean=mean, std=std))
    cells = torch.cat([own(w[None]).flatten() for w in waves])
    assert cells.mean().item() == pytest.approx(0, abs=1e-5)
    assert cells.std().item() == pytest.approx(0.5, abs=1e-4)


def test_measure_needs_sound():
    with pytest.raises(ConfigError, match="0 cells"):
        measure([])
    with pytest.raises(ConfigError, match="without variation"):
        measure([torch.zeros(16000)])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"std": 0.0}, "std=0.0"),
        ({"mels": 0}, "mels=0"),
        ({"high": 9000.0}, "9000 Hz"),
        ({"window": 600}, "must rise"),
        ({"kind": "htsat"}, "mel=slaney"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        Frontend(replace(FrontendConfig(), **changes))


def test_real_recordings_against_kaldi_native_fbank(recordings):
    """An independent implementation of Kaldi's features, at the most bands it takes (none may be empty)."""
    kaldi = pytest.importorskip("kaldi_native_fbank")
    options = kaldi.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0.0, "hanning", 80
    frontend = Frontend(replace(FrontendConfig(), mels=80, mean=0.0, std=0.5, subtract_mean=False))
    files = sorted(p for p in recordings("esc10").rglob("*") if p.suffix in (".wav", ".flac", ".ogg"))[::60]
    assert files
    for path in files:
        wave = read(path, rate=16000).wave
        theirs = kaldi.OnlineFbank(options)
        theirs.accept_waveform(16000, wave)
        theirs.input_finished()
        rows = torch.from_numpy(np.stack([theirs.get_frame(i) for i in range(theirs.num_frames_ready)]))
        difference = (frontend(torch.from_numpy(wave)[None])[0, 0] - rows).abs()
        assert difference[rows > -12].max() < 1e-3 if (rows > -12).any() else True, path.name
        assert difference.max() < 5e-3, path.name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same():
    wave, lengths = torch.stack([sound(2.0, seed=i) for i in range(4)]), torch.tensor([32000, 100, 20000, 32000])
    for cfg in CONFIGS.values():
        ours = Frontend(cfg).cuda()(wave.cuda(), lengths.cuda()).cpu()
        assert (ours - Frontend(cfg)(wave, lengths)).abs().max() < 0.02


def test_made_in_inference_mode():
    """Where tensors count no versions, a changed bank is still the one that is used."""
    wave = sound()[None]
    with torch.inference_mode():
        made = Frontend()
        assert torch.equal(made(wave), Frontend()(wave))
        made.mel.spectrum.bank.mul_(2)
        assert (made(wave) - Frontend()(wave)).mean() > 0.05
    assert made(wave).shape == (1, 1, 98, 128)
