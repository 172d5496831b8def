"""Probes: how much of the labels can a simple reader find in frozen vectors?

`linear`  logistic regression on standardised vectors, its L2 strength chosen on the training clips
`knn`     the nearest training clips vote, their number chosen on the training clips

Every choice (C, k, which layers and pooling) is made by an inner cross-validation over the training part of a split;
the test clips are looked at once.

Axes: n training clips, m test clips, d features, c classes, i inner folds, g settings tried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from otic.core.registry import Registry
from otic.evaluation import logistic
from otic.evaluation.metrics import METRICS
from otic.evaluation.splits import Split, Task


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The linear probe's settings to choose from."""

    strengths: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)  # C, scikit-learn's sense
    tolerance: float = 1e-3  # of the fits which only compare settings
    final_tolerance: float = 1e-4  # of the fit which is tested


@dataclass(frozen=True, kw_only=True)
class KNNConfig:
    """The nearest-neighbour probe's settings to choose from."""

    neighbours: tuple[int, ...] = (1, 3, 5, 10, 20, 50)  # k
    whitening: tuple[float, ...] = (0.0, 0.5, 1.0)  # a: axes of variance v are divided by v^(a/2); 1 makes all alike
    shrinkage: float = 1e-3  # share of the mean variance added to each axis before that
    temperature: float = 0.07  # a neighbour of cosine s votes with weight exp(s / temperature)


Setting = float | tuple[float, float]


class Probe(ABC):
    """A reader of frozen vectors, for one way of training and testing.

    Attributes:
        cfg: Its settings, a dataclass.
        worth: How good scores of held-out training clips are, `(scores, truth, multi) -> float`, to choose by.
    """

    cfg: Any
    worth: Callable[[np.ndarray, np.ndarray, bool], float]

    @property
    @abstractmethod
    def settings(self) -> tuple[Setting, ...]:
        """What there is to choose from, the most cautious first."""

    @abstractmethod
    def inner(
        self, x: Float[Tensor, "n d"], truth: Float[Tensor, "n c"], held: Bool[Tensor, "i n"], multi: bool
    ) -> Float[Tensor, "g n c"]:
        """With each setting, scores of the training clips by fits which held them out (others NaN)."""

    @abstractmethod
    def outer(
        self,
        x: Float[Tensor, "n d"],
        truth: Float[Tensor, "n c"],
        test: Float[Tensor, "m d"],
        setting: Setting,
        multi: bool,
    ) -> Float[Tensor, "m c"]:
        """Scores of the test clips after a fit to all training clips."""


class Linear(Probe):
    """Logistic regression: multinomial, or one per class where a clip may have several labels."""

    def __init__(self, cfg: LinearConfig = LinearConfig()):
        self.cfg, self.worth = cfg, likelihood

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self.cfg.strengths

    def inner(
        self, x: Float[Tensor, "n d"], truth: Float[Tensor, "n c"], held: Bool[Tensor, "i n"], multi: bool
    ) -> Float[Tensor, "g n c"]:
        axes = logistic.Axes.of(x)
        z, (folds, tried) = axes(x), (len(held), len(self.settings))
        use = (~held).to(x.dtype).repeat_interleave(tried, dim=0)  # [i g, n]
        strengths = torch.tensor(self.settings, device=x.device).repeat(folds)
        weights = logistic.fit(z, axes.power, truth, use, strengths, multi=multi, tolerance=self.cfg.tolerance)
        out = torch.full((tried, len(x), truth.shape[1]), torch.nan, device=x.device)
        for part, w in zip(held, weights.unflatten(0, (folds, tried))):
            out[:, part] = _chances(z[part] @ w, multi)
        return out

    def outer(
        self,
        x: Float[Tensor, "n d"],
        truth: Float[Tensor, "n c"],
        test: Float[Tensor, "m d"],
        setting: Setting,
        multi: bool,
    ) -> Float[Tensor, "m c"]:
        axes = logistic.Axes.of(x)
        one, strength = torch.ones(1, len(x), device=x.device), torch.tensor([setting], device=x.device)
        w = logistic.fit(axes(x), axes.power, truth, one, strength, multi=multi, tolerance=self.cfg.final_tolerance)
        return _chances(axes(test) @ w[0], multi)


class KNN(Probe):
    """The k training clips of highest cosine vote, the nearer the stronger.

    Vectors are standardised first, by the training clips: raw ones share a mean so large that all cosines are near 1.
    How far their principal axes are then brought to one variance is chosen like k: an embedding's loudest axes are
    often level and background.
    """

    def __init__(self, cfg: KNNConfig = KNNConfig()):
        self.cfg, self.worth = cfg, hits

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Pairs of k and whitening."""
        return tuple((float(k), a) for a in self.cfg.whitening for k in reversed(self.cfg.neighbours))

    def inner(
        self, x: Float[Tensor, "n d"], truth: Float[Tensor, "n c"], held: Bool[Tensor, "i n"], multi: bool
    ) -> Float[Tensor, "g n c"]:
        axes, tried = logistic.Axes.of(x), len(self.cfg.neighbours)
        out = torch.full((len(self.settings), len(x), truth.shape[1]), torch.nan, device=x.device)
        ks = [float(k) for k in reversed(self.cfg.neighbours)]
        for rows, a in zip(out.split(tried), self.cfg.whitening):
            unit = self._unit(axes, x, a, len(x))
            for part in held:
                rows[:, part] = self._votes(unit[~part], truth[~part], unit[part], ks)
        return out

    def outer(
        self,
        x: Float[Tensor, "n d"],
        truth: Float[Tensor, "n c"],
        test: Float[Tensor, "m d"],
        setting: Setting,
        multi: bool,
    ) -> Float[Tensor, "m c"]:
        assert isinstance(setting, tuple)
        k, a = setting
        axes = logistic.Axes.of(x)
        return self._votes(self._unit(axes, x, a, len(x)), truth, self._unit(axes, test, a, len(x)), [k])[0]

    def _unit(self, axes: logistic.Axes, x: Float[Tensor, "m d"], a: float, n: int) -> Float[Tensor, "m q"]:
        """Directions after standardising and whitening; `n` clips gave the axes."""
        variance = axes.power / n
        scale = (variance + self.cfg.shrinkage * variance.mean()) ** (-a / 2)
        return torch.nn.functional.normalize(axes(x)[:, :-1] * scale, dim=1)

    def _votes(
        self, x: Float[Tensor, "n d"], truth: Float[Tensor, "n c"], test: Float[Tensor, "m d"], ks: Sequence[float]
    ) -> Float[Tensor, "g m c"]:
        cosine, who = (test @ x.T).topk(min(len(x), int(max(ks))), dim=1)  # [m, k], nearest first
        weight = ((cosine - cosine[:, :1]) / self.cfg.temperature).exp()
        votes = (weight[..., None] * truth[who]).cumsum(1)  # [m, k, c]
        total = weight.cumsum(1)[..., None]
        last = [min(int(k), who.shape[1]) - 1 for k in ks]
        return (votes / total)[:, last].transpose(0, 1)


SMALL = 4_000_000  # clips * classes * axes below which one thread is faster

PROBES: Registry[Callable[[], Probe]] = Registry("protocol")
PROBES.update({"linear": Linear, "knn": KNN})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a probe said of the test clips, one entry for each split."""

    scores: tuple[np.ndarray, ...]  # [m, c] each
    settings: tuple[Setting, ...]  # the C, or the k and whitening, chosen
    features: tuple[str, ...]  # the layers and pooling chosen


def run(probe: Probe, features: Mapping[str, Float[np.ndarray, "n _"]], task: Task) -> Outcome:
    """Fit and test on every split of a task.

    Args:
        features: Ways of reading the model out, by name; with more than one, the training clips choose.
    """
    size = task.truth.size * max(min(x.shape) for x in features.values())
    with one_thread(size < SMALL):
        return _run(probe, features, task)


def _run(probe: Probe, features: Mapping[str, Float[np.ndarray, "n _"]], task: Task) -> Outcome:
    truth = torch.as_tensor(task.truth, dtype=torch.float32)
    tensors = {name: torch.as_tensor(x, dtype=torch.float32) for name, x in features.items()}
    scores, settings, chosen = [], [], []
    for split in task.splits:
        name, setting = choose(probe, tensors, truth, split, task.multi)
        x = tensors[name]
        out = probe.outer(x[split.train], truth[split.train], x[split.test], setting, task.multi)
        scores.append(out.double().numpy())
        settings.append(setting)
        chosen.append(name)
    return Outcome(scores=tuple(scores), settings=tuple(settings), features=tuple(chosen))


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Leave small matrices to one core: threads that wait for each other cost more than they bring, twentyfold where
    other programs keep the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose(
    probe: Probe, features: Mapping[str, Float[Tensor, "n _"]], truth: Float[Tensor, "n c"], split: Split, multi: bool
) -> tuple[str, Setting]:
    """The features and the setting that do best on the held-out parts of the training clips.

    All inner folds count together (`Probe.worth`); among equals the earlier, more cautious one is taken.
    """
    held, y = torch.as_tensor(split.held), truth[split.train]
    seen = split.held.any(0)
    best: tuple[float, str, Setting] | None = None
    for name, x in features.items():
        for setting, out in zip(probe.settings, probe.inner(x[split.train], y, held, multi)):
            value = probe.worth(out.double().numpy()[seen], y.numpy()[seen], multi)
            if best is None or value > best[0] + 1e-9:
                best = value, name, setting
    assert best is not None, "no features"
    return best[1], best[2]


def likelihood(scores: Float[np.ndarray, "n c"], truth: Num[np.ndarray, "n c"], multi: bool) -> float:
    """Mean log-likelihood of the labels. It moves smoothly with C, where the accuracy of a few hundred clips jumps."""
    sure = np.log(np.maximum(scores, 1e-6))
    if multi:
        return float(np.where(truth > 0, sure, np.log(np.maximum(1 - scores, 1e-6))).mean())
    return float(sure[truth > 0].mean())


def hits(scores: Float[np.ndarray, "n c"], truth: Num[np.ndarray, "n c"], multi: bool) -> float:
    """Accuracy, or mAP with several labels: votes of few neighbours are no probabilities."""
    return float(METRICS["mAP" if multi else "accuracy"](scores, truth, np.ones((1, len(scores))))[0])


def _chances(logits: Float[Tensor, "*g m c"], multi: bool) -> Float[Tensor, "*g m c"]:
    return logits.sigmoid() if multi else logits.softmax(-1)
