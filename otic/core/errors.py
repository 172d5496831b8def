"""What a user can get wrong: one root, four children. Broken invariants are asserted instead.

A message says what was wrong, where, and how to mend it, in one line:
`siren.wav: 44100 Hz, but this encoder wants 16000 Hz. Resample it, or pass resample=True.`
"""

from __future__ import annotations


class OticError(Exception):
    """The root of every error that a user's input can cause."""


class AudioError(OticError):
    """A file or an array that cannot be used as sound.

    Args:
        message: What, where and the mend.
        kind: A short machine-readable name (`empty_file`, `corrupt`, `non_finite`, ...).
    """

    def __init__(self, message: str, kind: str = "corrupt"):
        super().__init__(message)
        self.kind = kind


class DataError(OticError):
    """A data set, manifest or split that cannot be used."""


class ConfigError(OticError):
    """A setting, recipe or name that does not exist or does not fit."""


class WeightsError(OticError):
    """A checkpoint that cannot be loaded."""


class OticWarning(UserWarning):
    """The root of our warnings: the work goes on, but the user should know."""


class AudioWarning(OticWarning):
    """A sound that could be used, but not as it claims to be (`kind` as in `AudioError`)."""

    def __init__(self, message: str, kind: str = "corrupt"):
        super().__init__(message)
        self.kind = kind
