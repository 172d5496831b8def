"""A small labelled data set and a model-like object, so that scoring is tested without any training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from otic.core.errors import AudioError
from otic.core.seeds import rng
from otic.data.rows import Row, Source


class Tones(Source):
    """A tone per clip, pitch by class; clips named in `broken` cannot be read."""

    name = "tones"

    def __init__(self, rows: list[Row], broken: tuple[str, ...] = ()):
        self.rows, self.broken, self.reads = rows, broken, 0

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        self.reads += 1
        row = self.rows[i]
        if row.id in self.broken:
            raise AudioError(f"{row.id}: broken.", "corrupt")
        gen = rng(row.id)
        time = np.arange(int(rate * gen.uniform(0.2, 0.4))) / rate
        wave = sum(np.sin(2 * np.pi * 300 * (1 + int(label[1:])) * time) for label in row.labels)
        return (0.1 * wave + 0.03 * gen.normal(size=len(time))).astype(np.float32)

    def length(self, i: int) -> float | None:
        return None

    def probe(self, i: int):
        raise AssertionError("scoring reads the clips it needs and no more")


class Encoder(torch.nn.Module):
    """A random projection of the spectrum; `cfg` is its width."""

    def __init__(self, cfg: int):
        super().__init__()
        self.cfg = cfg
        self.project = torch.nn.Linear(65, cfg)


class SpectrumModel:
    """What scoring needs of a model: rate, card, encode, and the parts that `untrained` rebuilds."""

    def __init__(self, width: int = 12, rate: int = 8000):
        self.sample_rate, self.card, self.calls = rate, {"name": "spectrum"}, 0
        self.encoder, self.frontend = Encoder(width), SimpleNamespace(cfg=None)

    def encode(self, waves, layers=None, pool=None):
        self.calls += 1
        spectra = [np.abs(np.fft.rfft(w, 128, norm="forward")) for w in waves]
        if pool == "noise":
            return np.stack([rng(w.tobytes().hex()[:99]).normal(size=self.encoder.cfg) for w in waves])
        with torch.no_grad():
            return self.encoder.project(torch.tensor(np.array(spectra)).float()).numpy()


def tone_rows(clips: int = 60, classes: int = 3, **columns) -> list[Row]:
    """Rows `c000 ...`; `columns` are functions of the index giving `fold`, `split`, `labels` or `extra`."""
    return [
        Row(id=f"c{i:03}", **{"labels": (f"k{i % classes}",)} | {name: of(i) for name, of in columns.items()})
        for i in range(clips)
    ]


@pytest.fixture
def tones():
    """`tones(broken=("c003",), fold=lambda i: str(i % 4))`: a `Source` of tones."""
    return lambda broken=(), **columns: Tones(tone_rows(**columns), broken)


@pytest.fixture
def rows():
    return tone_rows


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SpectrumModel()
