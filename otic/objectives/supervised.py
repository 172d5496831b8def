"""Learning from labels: the fine-tuning objective of EAT, AST and Audio-MAE, and the losses that it is made of.

While training it may hide parts of a clip: regularised masking in every layer (A-JEPA, arXiv 2311.15830), or whole
time steps and frequency rows from the start (Audio-MAE, arXiv 2207.06405).

Axes: b clips, t frames, f mel bins, n patches, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.batch import Batch, Loss
from otic.core.config import to_dict
from otic.core.errors import ConfigError
from otic.models.heads import Head, HeadConfig
from otic.models.regularise import Regularise
from otic.models.vit import ViT
from otic.objectives.base import Objective


def bce(
    logits: Float[Tensor, "b c"], targets: Float[Tensor, "b c"], per: Literal["label", "clip", "cell"] = "label"
) -> Float[Tensor, ""]:
    """Binary cross-entropy over classes that may hold together, float32.

    Args:
        logits: Any real numbers.
        targets: 0..1, mixed ones too.
        per: The sum is divided by the sum of the targets (EAT on AudioSet), by the clips, or by all cells (AST).
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    counts: dict[str, Any] = {"label": labels_in(targets), "clip": len(targets), "cell": targets.numel()}
    return total / counts[per]


def labels_in(targets: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Their number; a hair where there is none, which can be divided by."""
    return targets.sum().clamp_min(1e-6)


def cross_entropy(
    logits: Float[Tensor, "b c"], targets: Float[Tensor, "b c"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with one class for each clip (or a mixture), mean over clips, float32.

    Args:
        logits: Any real numbers.
        targets: Rows that sum to 1.
        smoothing: This share of each row is spread over all classes.
    """
    return F.cross_entropy(logits.float(), targets.float(), label_smoothing=smoothing)


def check_labels(labels: Tensor, classes: int, limit: str = "the head has") -> None:
    """
    Args:
        labels: Class indices, which are looked at on the CPU alone, or rows.
        classes: So many there are.
        limit: What says so.

    Raises:
        ConfigError: if there are more classes, or rows of fewer.
    """
    if labels.ndim == 1 and labels.device.type != "cpu":
        return
    have = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if have > classes or (labels.ndim == 2 and have < classes):
        least = "" if labels.ndim == 2 else "at least "
        raise ConfigError(f"the labels have {least}{have} classes, but {limit} {classes}.")


def label_rows(labels: Tensor, classes: int, limit: str = "the head has") -> Float[Tensor, "b c"]:
    """Class indices as one-hot rows; rows as they are. Arguments and errors as `check_labels` has them."""
    check_labels(labels, classes, limit)
    return labels.float() if labels.ndim == 2 else F.one_hot(labels.long(), classes).float()


def check_shares(labels: Tensor, ids: Sequence[str] = ()) -> None:
    """Whether each row shares one clip among the classes.

    Args:
        labels: Class indices, or rows, which are looked at on the CPU alone.
        ids: The clips' names, where they are known.

    Raises:
        ConfigError: if a row is no share of one clip among classes, as `cross_entropy` wants it.
    """
    if labels.ndim != 2 or labels.device.type != "cpu":
        return
    sums = labels.float().sum(1)
    odd = (~((sums - 1).abs() < 0.01)).nonzero()[:, 0].tolist()  # room for bfloat16; a further label adds a whole one
    if odd:
        clip = ids[odd[0]] if len(ids) == len(labels) else f"clip {odd[0]} of the batch"
        raise ConfigError(
            f"{clip}: its labels sum to {sums[odd[0]]:g}, but loss=ce learns one class for each clip, or a mixture "
            "that sums to 1. Set objective.loss=bce, for classes that may hold together."
        )


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    head: HeadConfig = field(default_factory=HeadConfig)  # what reads the encoder out
    loss: Literal["bce", "ce"] = "ce"  # several classes at once, or exactly one
    per: Literal["label", "clip", "cell"] = "label"  # what bce's sum is divided by
    smoothing: float = 0.0  # label smoothing of ce (EAT on ESC-50: 0.1)
    rm: Regularise = field(default_factory=lambda: Regularise(ratio=0.0))  # patches barred from attention (A-JEPA: 0.1)
    hide_time: float = 0.0  # share of the time steps that are dropped while training (Audio-MAE on AudioSet: 0.2)
    hide_freq: float = 0.0  # share of the frequency rows, likewise


class Supervised(Objective):
    """An encoder with a head, trained end to end on labels.

    Args:
        encoder: Trained in place.
        cfg: Settings.
        gen: Source of the head's initial weights.
    """

    labels_used = True

    def __init__(self, encoder: ViT, cfg: SupervisedConfig = SupervisedConfig(), gen: Generator | None = None):
        super().__init__()
        self.cfg, self.net, self.head = cfg, encoder, Head(encoder.width, cfg.head, gen)

    @property
    def encoder(self) -> nn.Module:
        return self.net

    def check(self, batch: Batch) -> None:
        if batch.labels is not None:
            check_labels(batch.labels, self.cfg.head.classes)
            if self.cfg.loss == "ce":
                check_shares(batch.labels, batch.ids)

    def extras(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        return tensors, {"head": to_dict(self.cfg.head), "loss": self.cfg.loss}

    def forward(self, batch: Batch, gen: Generator) -> Loss:
        assert batch.spec is not None, "the front-end has not filled the batch"
        visible = self.draw(batch.spec, gen)
        logits, targets = self.logits(batch.spec, visible, gen), self._targets(batch)
        weight: float | Tensor = 1.0
        if self.cfg.loss == "ce":
            total = cross_entropy(logits, targets, self.cfg.smoothing)
        else:
            total = bce(logits, targets, self.cfg.per)
            weight = labels_in(targets) if self.cfg.per == "label" else 1.0
        hit = (logits.argmax(1) == targets.argmax(1)).float().mean()
        return Loss(total, {"accuracy": hit.detach()}, weight)

    def draw(self, spec: Float[Tensor, "b 1 t f"], gen: Generator) -> Bool[Tensor, "b n"] | None:
        """The patches that this step sees; None: all."""
        cfg, grid = self.cfg, self.net.grid(spec.shape[2])
        if not self.training or not (cfg.hide_time or cfg.hide_freq):
            return None
        return masking.strips(len(spec), grid, keep_time=1 - cfg.hide_time, keep_freq=1 - cfg.hide_freq, gen=gen)

    def logits(
        self,
        spec: Float[Tensor, "b 1 t f"],
        visible: Bool[Tensor, "b n"] | None = None,
        gen: Generator | None = None,
    ) -> Float[Tensor, "b c"]:
        """What the head says of clips, or of the visible patches of them."""
        encoded = self.net.encode(self.net.tokens(spec)[0], visible, gen=gen, regularise=self.cfg.rm)
        return self.head(encoded)

    def _targets(self, batch: Batch) -> Float[Tensor, "b c"]:
        """
        Raises:
            ConfigError: if the batch has no labels, or such as `check` refuses.
        """
        if batch.labels is None:
            raise ConfigError("the data has no labels to learn from: name their column, or choose another objective.")
        self.check(batch)
        return label_rows(batch.labels, self.cfg.head.classes)
