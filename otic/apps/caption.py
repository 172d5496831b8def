"""`otic caption`: what a model says of sound files, or which of some answers it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otic.apps.embed import list_files
from otic.apps.progress import Progress
from otic.core.errors import AudioError
from otic.core.text import printable
from otic.core.world import Precision
from otic.inference.caption import Said, Writer, load_writer


@dataclass(frozen=True)
class Captions:
    """What was said of several files.

    Attributes:
        prompt: What was asked.
        windows: What was said of each window, file by file; bad files say why.
        options: The answers to choose from, where there were any; then `texts` are these, the most probable first, and
            `scores` their probabilities.
    """

    prompt: str
    windows: tuple[Said, ...]
    options: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Said, ...]:
        return tuple(one for one in self.windows if one.failed is not None)

    @property
    def good(self) -> tuple[Said, ...]:
        return tuple(one for one in self.windows if one.failed is None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "prompt": self.prompt,
            "options": list(self.options),
            "captions": [{"file": one.source, **self._where(one), "text": one.text, **_all(one)} for one in self.good],
            "failed": [{"file": one.source, "reason": one.failed} for one in self.failed],
        }

    def _where(self, one: Said) -> dict[str, float]:
        """A window's seconds; an option is the answer to the whole file."""
        return {} if self.options else {"start": one.start, "end": one.end}

    def text(self) -> str:
        """A line for each window, or for each file where there is one answer to it."""
        if self.options:
            return "\n".join(f"{printable(s.source)}: {line(s.text)} ({s.scores[0]:.0%})" for s in self.good)
        return "\n".join(f"{printable(s.source)} {s.start:.1f}-{s.end:.1f} s: {line(s.text)}" for s in self.good)


def line(text: str) -> str:
    r"""A text on one line: control characters, which barely trained models of bytes write, become escapes.

    >>> line("a dog\nbarks\x1b[2J")
    'a dog barks\\x1b[2J'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(printable(text).split()))


def caption(
    model: str | Path | Writer,
    audio: Sequence[str | Path] | str | Path,
    prompt: str = "",
    *,
    options: Sequence[str] = (),
    beams: int = 4,
    longest: int = 40,
    window: float | int | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    quiet: bool = True,
) -> Captions:
    """Say what is heard in files and folders, or which option is the answer.

    Args:
        model: A model trained with the method `caption`.
        audio: Files, or folders which are searched for audio.
        prompt: What is asked, in words of the training.
        options: Answers to choose from; none: the model writes its own.
        beams: Beginnings kept while it writes; 1: the likeliest token each time.
        longest: Tokens of a text at most.
        window: Seconds heard at once; None: as long as the crops of the training.
        quiet: No progress on stderr.

    Raises:
        DataError: when there is nothing to listen to.
        WeightsError: when there is no such model, or it cannot write.
        ConfigError: on a number that makes no sense.
    """
    options = tuple(dict.fromkeys(options))  # an answer named twice would take two shares
    files = list_files([audio] if isinstance(audio, str | Path) else audio)
    writer = model if isinstance(model, Writer) else load_writer(model, device, precision)
    said: list[Said] = []
    with Progress("caption", quiet=quiet) as progress:
        progress(0, len(files))
        if options:
            for file in files:
                said.append(_answer(writer, file, prompt, options, window))
                progress(len(said), len(files))
        else:
            seen: set[str] = set()
            for one in writer.caption(files, prompt, beams=beams, longest=longest, window=window):
                said.append(one)
                seen.add(one.source)
                progress(len(seen), len(files))
    return Captions(prompt, tuple(said), options)


def _answer(writer: Writer, file: Path, prompt: str, options: Sequence[str], window: float | int | None) -> Said:
    """One file's options, the most probable first."""
    name = str(file)
    try:
        found = writer.answer(file, prompt, options, window=window)[0]
    except AudioError as error:
        return Said(name, 0.0, 0.0, failed=str(error).removeprefix(f"{name}: "))
    order = (-found).argsort(kind="stable").tolist()
    return Said(name, 0.0, 0.0, tuple(options[i] for i in order), tuple(float(found[i]) for i in order))


def _all(one: Said) -> dict[str, Any]:
    return {"texts": list(one.texts), "scores": list(one.scores)}
