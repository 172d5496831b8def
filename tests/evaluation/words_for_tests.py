"""A stand-in for a model with words, which hears what a scene holds as well as it is told to.

A clip is a constant tone of its own number; `audio` looks its kinds up, so vectors are known in the test.
"""

from types import SimpleNamespace

import numpy as np
import torch

from otic.core.seeds import fold, generator, rng
from otic.data.rows import Row, Source

WORDS = ("dog", "rain", "clock", "siren", "bird", "train")


class Scenes(Source):
    """Clips of two sounds each, the first before the second, with captions and a wrong one."""

    name = "scenes"

    def __init__(self, clips: int = 24, *, split: bool = True, meaning: bool = True, labels: bool = True):
        self.rows, self.reads = [], 0
        for i in range(clips):
            first, second = WORDS[i % 6], WORDS[(i + 1 + i // 6 % 3) % 6]
            kind = ("order", "class")[i % 2]
            wrong = f"{second} then {first}" if kind == "order" else f"{first} then horn"
            extra = {"hard_negative": wrong, "negative_kind": kind}
            self.rows.append(
                Row(
                    id=f"s{i:02}",
                    labels=(first, second) if labels else (),
                    split=("train" if i < clips // 4 else "test") if split else None,
                    captions=(f"{first} then {second}", f"a {first} then a {second}"),
                    extra=extra | ({"semantic_id": f"{first}>{second}"} if meaning else {}),
                )
            )

    def read(self, i: int, rate: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        self.reads += 1
        return np.full(100, int(self.rows[i].id[1:]) / 1000, np.float32)

    def length(self, i: int) -> float | None:
        return None

    def probe(self, i: int):
        raise AssertionError("scoring reads the clips it needs and no more")


class Towers(torch.nn.Module):
    """A word's vector; `cfg` is the joint width."""

    def __init__(self, encoder, cfg, tokenizer=None, gen=None):
        super().__init__()
        self.encoder, self.cfg, self.tokenizer = encoder, cfg, tokenizer
        self.key = int(torch.randint(2**31, (1,), generator=gen or generator("towers")))


class Encoder(torch.nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.weight = cfg, torch.nn.Parameter(torch.zeros(1))


class WordModel:
    """Sums of word vectors, the later word turned: order is heard. Untrained towers hear and say unlike things."""

    sample_rate, scale = 8000, 20.0

    def __init__(self, width: int = 16, order: bool = True, noise: float = 0.0):
        self.card, self.order, self.noise = {"name": "words"}, order, noise
        self.encoder, self.frontend = Encoder(width), SimpleNamespace(cfg=None)
        self.towers = Towers(self.encoder, width, "tokenizer")
        self.home, self.asked, self.scenes = self.towers.key, [], Scenes()

    def encode(self, waves, layers=None, pool=None):
        return self.audio(waves)

    def _word(self, word, place, who):
        if word not in (*WORDS, "horn"):
            return np.zeros(self.towers.cfg)
        vector = rng(fold(word, who)).normal(size=self.towers.cfg)
        return np.roll(vector, place) if self.order else vector

    def _sum(self, words, who):
        known = [w for w in words if w in (*WORDS, "horn")]
        out = sum((self._word(w, k, who) for k, w in enumerate(known)), np.zeros(self.towers.cfg))
        out = out + 1e-6
        return (out / np.linalg.norm(out)).astype(np.float32)

    def audio(self, waves):
        rows = [self.scenes.rows[round(float(w[0]) * 1000)] for w in waves]
        trained = self.towers.key == self.home
        clean = np.stack([self._sum(row.captions[0].split(), 0 if trained else row.id) for row in rows])
        noise = np.stack([rng("noise", row.id).normal(size=clean.shape[1]) for row in rows])
        out = clean + self.noise * noise
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    def text(self, texts):
        self.asked += texts
        who = 0 if self.towers.key == self.home else "fresh"
        return np.stack([self._sum(t.split(), who) for t in texts])
