"""A model's own classes: the head that fine-tuning left in its weights file.

Axes: b clips, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from otic.core.config import from_dict
from otic.core.errors import ConfigError, WeightsError
from otic.core.seeds import generator
from otic.models.heads import Head, HeadConfig
from otic.models.vit import Encoded
from otic.weights.store import Loaded, fill

AUDIOSET = 527  # classes, of which a clip may have several


@dataclass(frozen=True)
class Classifier:
    """A head and what its outputs are called.

    Attributes:
        head: Reads the encoder out.
        labels: A name for each output.
        multi: Whether several may hold at once.
    """

    head: Head
    labels: tuple[str, ...]
    multi: bool

    def scores(self, encoded: Encoded) -> Float[Tensor, "b c"]:
        """Probabilities, float32: of each class alone, or over all classes."""
        logits = self.head(encoded).float()
        return logits.sigmoid() if self.multi else logits.softmax(-1)


def classifier_of(loaded: Loaded) -> Classifier | None:
    """The head of a fine-tuned file; None where there is none.

    Raises:
        WeightsError: when it does not fit.
    """
    said, tensors = loaded.extra_config, {n: t for n, t in loaded.extra.items() if n.startswith("head.")}
    if not tensors or not said.get("head"):
        return None
    name = str(loaded.card.get("name", "the model"))
    try:
        cfg = from_dict(HeadConfig, said["head"])
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{name}: its classifier does not fit this version of otic: {error}") from error
    head = Head(loaded.encoder.width, cfg, generator("classifier"))
    fill(head, {n.removeprefix("head."): t for n, t in tensors.items()}, name)
    return Classifier(head.eval(), _labels(said.get("classes") or (), cfg.classes), _multi(said, cfg.classes))


def _labels(known: Any, count: int) -> tuple[str, ...]:
    """The names, or numbers where the file has none."""
    return tuple(map(str, known)) if len(known) == count else tuple(f"class {i}" for i in range(count))


def _multi(said: dict[str, Any], count: int) -> bool:
    if "loss" in said:
        return bool(said["loss"] == "bce")
    return bool(said.get("multi", count == AUDIOSET))
