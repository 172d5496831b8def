"""The Kaldi front-end against kaldi-native-fbank, one thread, the same clips.

That library refuses 128 bands (one of them holds no FFT bin), so both sides also run with the most it takes.
Sounds with strong contrast take longer, because some of their frames are computed in float64.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks import table
from benchmarks.clock import best
from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.seeds import rng

HEAD = [
    "clips",
    "bands",
    "sound",
    "otic ms/clip",
    "kaldi-native-fbank ms/clip",
    "ratio",
    "max difference above -12",
    "max",
]
SECONDS = 10
RAW = FrontendConfig(mean=0.0, std=0.5, subtract_mean=False)


def rows() -> list[str]:
    """Markdown: bands and kinds of sound, our time beside the reference's."""
    cases = [(16, 120, "noise"), (16, 120, "events"), (1, 120, "events"), (16, 80, "events")]
    cases += [(16, 128, "noise"), (64, 128, "events")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return table(HEAD, [compare(*case) for case in cases])
    finally:
        torch.set_num_threads(threads)


def compare(clips: int, bands: int, kind: str) -> tuple[object, ...]:
    waves = np.stack([sound(kind, i) for i in range(clips)])
    frontend, batch = Frontend(replace(RAW, mels=bands)), torch.from_numpy(waves)
    if bands > 120:
        (ours,) = best(lambda: frontend(batch))
        return clips, bands, kind, f"{1e3 * ours / clips:.2f}", "refused", "", "", ""
    ours, theirs = best(lambda: frontend(batch), lambda: kaldi(waves[0], bands))
    reference = torch.from_numpy(kaldi(waves[0], bands))
    difference = (frontend(batch[:1])[0, 0] - reference).abs()
    loud = difference[reference > -12].max()
    ratio = theirs / (ours / clips)
    return (
        clips, bands, kind, f"{1e3 * ours / clips:.2f}", f"{1e3 * theirs:.2f}", f"{ratio:.1f}x",
        f"{float(loud):.1e}", f"{float(difference.max()):.1e}",
    )  # fmt: skip


def kaldi(wave: np.ndarray, bands: int) -> np.ndarray:
    """The reference's features, as its users call it."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0.0, "hanning", bands
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, wave)
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def sound(kind: str, seed: int) -> np.ndarray:
    """White noise, or decaying tones over a faint background (which contrasts more). 16 kHz float32."""
    draw, n = rng("benchmark", seed), 16000 * SECONDS
    if kind == "noise":
        return (0.1 * draw.standard_normal(n)).astype(np.float32)
    wave = 0.003 * draw.standard_normal(n)
    for start in draw.integers(0, n - 16000, 12):
        t = np.arange(16000) / 16000
        wave[start : start + 16000] += (
            draw.uniform(0.05, 0.4) * np.exp(-5 * t) * np.sin(2 * np.pi * draw.uniform(100, 4000) * t)
        )
    return wave.astype(np.float32)
