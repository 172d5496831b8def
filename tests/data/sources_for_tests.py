"""Small sources and sound files for the tests of this folder."""

import csv

import numpy as np
import soundfile

from otic.core.errors import AudioError
from otic.data.rows import Probe, Row, Source

RATE = 8000


class Listed(Source):
    """Rows without sound."""

    def __init__(self, rows):
        self.name, self.rows = "listed", rows

    def read(self, i, rate, start=0.0, duration=None):
        raise AssertionError

    def length(self, i):
        raise AssertionError

    def probe(self, i):
        raise AssertionError


class Numbers(Source):
    """Clip i is the ramp i, i + 1/n, ...: any sample tells the clip and the place. Clips in `broken` raise."""

    def __init__(self, lengths, broken=(), labels=None, captions=(), tell=True):
        self.name, self.lengths, self.broken, self.tell = "numbers", lengths, set(broken), tell
        labels = labels or [("even" if i % 2 == 0 else "odd",) for i in range(len(lengths))]
        self.rows = [
            Row(id=f"n{i}", seconds=n / RATE, labels=labels[i], captions=captions) for i, n in enumerate(lengths)
        ]
        self.reads = []

    def length(self, i):
        return self.lengths[i] / RATE if self.tell else None

    def probe(self, i):
        return Probe(len(self.read(i, RATE)) / RATE, RATE)

    def read(self, i, rate, start=0.0, duration=None):
        assert rate == RATE
        self.reads.append((i, start, duration))
        if i in self.broken:
            raise AudioError(f"n{i}: is broken on purpose.", "corrupt")
        n = self.lengths[i]
        wave = (i + np.arange(n) / n).astype(np.float32)
        first = round(start * rate)
        return wave[first : None if duration is None else first + round(duration * rate)]


def tone(path, seconds=0.5, rate=RATE, freq=440.0):
    """A sine in a file; made with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * freq * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate)
    return path


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
