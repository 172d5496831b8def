"""From a label to the sentences that ask for it: `air_conditioner` -> "this is a sound of air conditioner".

Several templates are an ensemble: their vectors are averaged (`class_vectors`). Published numbers hang on the
wording: on ESC-50, MS-CLAP 2022 scores .786 with "i can hear X" and .826 with "this is a sound of X" (2206.04769).

Axes: c classes, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from otic.core.errors import ConfigError
from otic.core.registry import Registry, unknown

PLACE = "{}"  # where the label goes
DEFAULT = "sound"

PROMPTS: Registry[tuple[str, ...]] = Registry("prompt")
PROMPTS.update(
    {
        "sound": ("this is a sound of {}",),  # MS-CLAP 2022 (2206.04769)
        "the-sound": ("this is the sound of {}",),  # the ESC-50 example of the 2023 release
        "laion": ("This is a sound of {}.",),  # LAION-CLAP's evaluation script
        "heard": ("{} can be heard",),  # M2D-CLAP, MGA-CLAP
        "bare": ("{}",),  # keyword spotting, and MGA-CLAP on UrbanSound8K
        "emotion": ("this person is feeling {}",),  # MS-CLAP 2022
        "speakers": ("{} persons speaking",),  # MS-CLAP 2022, counting
        "song": ("This is a {} song.",),  # LAION-CLAP, genres
        "music": ("This is a sound of {} music.",),  # ours
        "ensemble": ("this is a sound of {}", "{}", "{} can be heard"),  # ours
    }
)


def clean(label: str, *, commas: bool = False) -> str:
    """A label as words: underscores become blanks, capitals small.

    Args:
        commas: `_and_` is a comma, as in FSD50K, whose labels are AudioSet's with ", " written so.

    >>> clean("Sea_waves"), clean("Accelerating_and_revving_and_vroom", commas=True)
    ('sea waves', 'accelerating, revving, vroom')
    """
    text = label.replace("_and_", ", ") if commas else label
    return " ".join(text.replace("_", " ").split()).lower()


def fill(template: str, label: str) -> str:
    """The template with the label in its place.

    >>> fill("{} can be heard", "rain")
    'rain can be heard'
    """
    return template.replace(PLACE, label)


def templates(given: Sequence[str]) -> tuple[str, ...]:
    """Templates as they are, names of `PROMPTS` as what they stand for, nothing as the default.

    Raises:
        ConfigError: on a text that is neither.
    """
    out: list[str] = []
    for text in given or (DEFAULT,):
        if PLACE not in text and text not in PROMPTS:
            raise ConfigError(f"{unknown('prompt', text, PROMPTS)} Or write one with {PLACE} where the label goes.")
        out += [text] if PLACE in text else PROMPTS[text]
    return tuple(dict.fromkeys(out))


def class_vectors(
    model: Any, classes: Sequence[str], templates: Sequence[str], word: Callable[[str], str] = clean
) -> Float32[np.ndarray, "c e"]:
    """A direction for each class: the mean over templates of its sentences' vectors, normalised before and after.

    Args:
        model: Whose `text` gives a vector for each sentence.
        classes: Labels.
        templates: From `templates`.
        word: Turns a label into what stands in the sentence.
    """
    said = model.text([fill(template, word(label)) for template in templates for label in classes])
    return unit(unit(said).reshape(len(templates), len(classes), -1).mean(0))


def unit(x: Float32[np.ndarray, "*n e"]) -> Float32[np.ndarray, "*n e"]:
    """Vectors brought to length one."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
