"""What a stored mel matrix is: for which rate and which band it was built.

MS-CLAP 2023 resamples to 44.1 kHz, names 50-8000 Hz in its paper and its settings, and in fact multiplies with filters
built for 32 kHz and 50-14000 Hz, because its wrapper ignores the settings (microsoft/CLAP @ e8a6467, issue 38). So the
matrix in the file is what counts; here it is recognised, to be said on the model's card.

Axes: bins of the power spectrum (0 .. fft / 2), mels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from otic.audio.melbank import MelShape, mel_bank
from otic.weights.upstream.table import same

RATES = (32000, 44100, 48000, 16000, 22050)  # Hz that published filters were built for
TOPS = (14000.0, 8000.0, 16000.0, 12000.0, 7600.0)  # Hz, upper edges
LOWS = (50.0, 0.0, 20.0)  # Hz, lower edges
SAME = 1e-3  # of the largest weight, beside what half precision rounds off: files may come from another libm


@dataclass(frozen=True, kw_only=True)
class Filterbank:
    """A mel matrix, recognised or not."""

    at: int  # Hz of the waves it is applied to
    bins: int  # of the spectrum
    mels: int
    lowest_bin: int  # that any filter weighs
    highest_bin: int  # likewise: 447 for (32 kHz, 14 kHz), 325 for (44.1 kHz, 14 kHz), 185 for (44.1 kHz, 8 kHz)
    shape: MelShape | None = None  # None: of no published kind
    rate: int | None = None  # Hz it was built for
    low: float | None = None  # Hz, its edges at that rate
    high: float | None = None

    @property
    def band(self) -> tuple[float, float]:
        """Hz that it hears in the waves it is applied to."""
        if self.rate is None or self.low is None or self.high is None:
            step = self.at / (2 * (self.bins - 1))
            return self.lowest_bin * step, self.highest_bin * step
        return self.low * self.at / self.rate, self.high * self.at / self.rate

    @property
    def mended(self) -> dict[str, Any]:
        """Fields of `FrontendConfig` that say the same."""
        if self.shape is None:
            return {}
        rate = None if self.rate == self.at else self.rate
        return {"mel": self.shape, "mel_rate": rate, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        low, high = self.band
        heard = f"hears {low:.1f}-{high:.1f} Hz; highest bin {self.highest_bin} of {self.bins - 1}"
        if self.shape is None:
            return f"{self.mels} bands of no published shape, taken from the file; {heard}"
        made = f"{self.mels} {self.shape} bands built for {self.rate} Hz and {self.low:g}-{self.high:g} Hz"
        return f"{made}, applied at {self.at} Hz: {heard}"

    def to_card(self) -> dict[str, Any]:
        """For a model's card."""
        return {"says": str(self), **{k: v for k, v in asdict(self).items() if v is not None}}


def recognise(bank: Float[Tensor, "bins mels"], at: int) -> Filterbank:
    """What this matrix is, among all that published systems use.

    Args:
        bank: From the file.
        at: Hz of the waves it is applied to.
    """
    bank = bank.float()
    bins, mels = bank.shape
    heard = bank.abs().sum(1).nonzero().flatten().tolist() or [0]
    known: dict[str, Any] = next(
        (k for k in _published(at) if _same(bank, mel_bank(k["shape"], fft=2 * (bins - 1), mels=mels, **_edges(k)))), {}
    )
    return Filterbank(at=at, bins=bins, mels=mels, lowest_bin=heard[0], highest_bin=heard[-1], **known)


def _published(at: int) -> list[dict[str, Any]]:
    """Every combination, the likeliest first."""
    rates = dict.fromkeys((32000, at, *RATES))
    shapes: tuple[MelShape, ...] = ("slaney", "htk")
    return [
        {"shape": shape, "rate": rate, "low": low, "high": high}
        for shape in shapes
        for low in LOWS
        for high in TOPS
        for rate in rates
        if high <= rate / 2
    ]


def _edges(known: dict[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in ("rate", "low", "high")}


def _same(bank: Tensor, other: Tensor) -> bool:
    return same(bank, other, atol=SAME * float(other.max()))
