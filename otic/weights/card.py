"""What a model's card says, read by programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def saw_labels(card: Mapping[str, Any]) -> bool:
    """Whether the model learned from human labels: a card says so with true or with words (`AudioSet (527 classes)`).

    >>> saw_labels({"labels_used": "none"}), saw_labels({"labels_used": True}), saw_labels({})
    (False, True, False)
    """
    said = card.get("labels_used")
    return said.strip().lower() not in ("", "none", "no", "unknown") if isinstance(said, str) else bool(said)
