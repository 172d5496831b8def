"""otic: learn, use and compare representations of sound.

The public names are listed below, one by one; each is imported when it is first used, so `import otic` costs
next to nothing. Files may move; these names may not.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    # name: where it lives
    "load": "otic.inference.load",
    "Model": "otic.inference.model",
    "Embeddings": "otic.inference.embeddings",
    "pretrain": "otic.apps.pretrain",
    "evaluate": "otic.apps.evaluate",
    "open_source": "otic.data.source",
    "objectives": "otic.objectives",
    "OticError": "otic.core.errors",
    "AudioError": "otic.core.errors",
    "DataError": "otic.core.errors",
    "ConfigError": "otic.core.errors",
    "WeightsError": "otic.core.errors",
    "OticWarning": "otic.core.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'otic' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if home.__name__ == f"otic.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
