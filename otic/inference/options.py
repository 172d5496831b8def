"""How a model is read out: which windows, which layers, which pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from otic.audio.cliplen import Short
from otic.core.config import from_dict
from otic.core.errors import ConfigError, WeightsError

Level = Literal["clip", "frame"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `Model.embed` does unless told otherwise; a model's card carries its own under `inference`."""

    window: float = 10.0  # seconds in one window; 0 = one vector for the whole file (mean of its windows)
    hop: float = 0.0  # seconds between the starts of two windows; 0 = the window, so that none overlap
    layers: tuple[int, ...] = ()  # blocks to read, counted from 0, negative from the end; () = the encoder's output
    pool: str = "mean"  # patches -> one vector: a name of `models.pooling` or `cls`, several joined by `+`; or `joint`
    frame_pool: Literal["mean", "concat"] = "mean"  # the mel bands of one frame: averaged, or side by side
    # a wave shorter than the model's window: silence after it (where the encoder needs one length, else nothing),
    short: Short = "pad"  # itself again and again, or itself as often as it fits whole and then silence
    compat: Literal["", "msclap", "laion"] = ""  # hear files as that code does (`inference.compat`); a vector for each
    seed: int = 0  # of its crops
    tokens: int = 8192  # patches in one pass through the encoder; bounds the memory

    def __post_init__(self) -> None:
        if not self.window >= 0 or not self.hop >= 0:
            raise ConfigError(f"window={self.window}, hop={self.hop}: seconds, 0 or more.")
        if self.tokens < 1:
            raise ConfigError(f"tokens={self.tokens}: at least 1.")


def from_card(card: Mapping[str, Any]) -> Options:
    """The defaults which a model's card names.

    Raises:
        WeightsError: when the card's `inference` does not fit.
    """
    try:
        return from_dict(Options, card.get("inference") or {})
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{card.get('name', 'the model')}: its card's `inference`: {error}") from error
