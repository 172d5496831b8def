"""`otic tag`: names for the sounds of files, as a table, JSON, CSV, or label tracks for Audacity."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otic.apps.cards import table
from otic.apps.embed import list_files
from otic.apps.progress import Progress
from otic.core.config import override
from otic.core.errors import ConfigError
from otic.core.files import write_text
from otic.core.text import printable
from otic.inference import tagging
from otic.inference.load import load
from otic.inference.model import Model
from otic.inference.tagging import Naming, Tagged

Format = Literal["table", "csv", "json", "audacity"]
SETTLED = ("window", "hop", "layers", "pool", "frame_pool")  # options that naming chooses itself
ENDINGS: dict[str, Format] = {".csv": "csv", ".json": "json", ".txt": "audacity"}


@dataclass(frozen=True)
class Named:
    """What a job found.

    Attributes:
        how: The labels, and whether several may hold.
        files: One answer for each file, in order; bad ones say why.
        timeline: Whether they hold spans instead of ranks.
        asked: How many files there were; more than were heard when the job was interrupted.
    """

    how: Naming
    files: tuple[Tagged, ...]
    timeline: bool
    asked: int = 0

    @property
    def interrupted(self) -> bool:
        return len(self.files) < self.asked

    @property
    def failed(self) -> tuple[Tagged, ...]:
        return tuple(one for one in self.files if one.failed is not None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. `relative` is the score over the best one's."""
        return {
            "labels": list(self.how.labels),
            "multi": self.how.multi,
            "files": [
                {"file": one.source, "seconds": one.seconds, **self._answer(one)}
                for one in self.files
                if not one.failed
            ],
            "failed": [{"file": one.source, "reason": one.failed} for one in self.failed],
        }

    def _answer(self, one: Tagged) -> dict[str, Any]:
        if self.timeline:
            return {
                "spans": [{"label": s.label, "onset": s.start, "offset": s.end, "score": s.score} for s in one.spans]
            }
        best = max([tag.score for tag in one.tags], default=0.0) or 1.0
        rows = enumerate(one.tags, 1)
        return {"tags": [{"rank": i, "label": t.label, "score": t.score, "relative": t.score / best} for i, t in rows]}

    def rows(self) -> list[list[Any]]:
        """The same as a table, its first row the names of the columns."""
        columns = ["onset", "offset", "label", "score"] if self.timeline else ["rank", "label", "score", "relative"]
        out: list[list[Any]] = [["file", *columns]]
        for answer in self.to_dict()["files"]:
            found = answer["spans" if self.timeline else "tags"]
            out += [[printable(answer["file"]), *(row[name] for name in columns)] for row in found]
        return out

    def audacity(self, one: Tagged) -> str:
        """A label track: onset, offset, label; ranks stand for the whole file."""
        spans = [(s.start, s.end, s.label) for s in one.spans]
        spans = spans if self.timeline else [(0.0, one.seconds, tag.label) for tag in one.tags]
        return "".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in spans)

    def text(self, form: Format) -> str:
        """What is printed.

        Raises:
            ConfigError: on several label tracks in one place.
        """
        if form == "json":
            from otic.apps.shell import to_json

            return to_json(self.to_dict())
        if form == "audacity":
            if len(self.files) != 1:
                raise _no_place(len(self.files))
            return self.audacity(self.files[0]).rstrip("\n")
        rows = [[_short(cell) if form == "table" else cell for cell in row] for row in self.rows()]
        return table(rows) if form == "table" else _csv(rows)

    def write(self, out: Path, form: Format) -> None:
        """Into a file; label tracks of several files into a folder, each under its file's name."""
        if form != "audacity" or (len(self.files) == 1 and out.suffix):
            write_text(out, self.text(form) + "\n")
            return
        good = [one for one in self.files if not one.failed]
        for one, name in zip(good, _tracks([one.source for one in good])):
            write_text(out / f"{name}.txt", self.audacity(one))


def tag(
    model: str | Path | Model,
    audio: Sequence[str | Path],
    labels: Sequence[str] | None = None,
    *,
    timeline: bool = False,
    prompts: Sequence[str] = (),
    multi: bool = False,
    top: int | None = None,
    tagger: bool = False,
    window: float | int | None = None,
    hop: float | int | None = None,
    threshold: float | int | None = None,
    tokenizer: str | Path | None = None,
    device: str | None = None,
    settings: Sequence[str] = (),
    quiet: bool = True,
) -> Named:
    """Name the sounds of files and folders; see `Model.tag`. Ctrl-C ends it with what was found until then.

    Raises:
        DataError: when there is nothing to listen to.
        WeightsError: when there is no such model.
        ConfigError: on labels, prompts or settings that do not fit the model.
    """
    files = list_files(audio)
    ready = load(model, device, tokenizer=tokenizer)
    for setting in settings:
        if setting.partition("=")[0].strip() in SETTLED:
            raise ConfigError(f"--set {setting}: naming sounds settles that itself (of a timeline: --window, --hop).")
    ready.options = override(ready.options, settings)
    how = tagging.naming(ready, labels, prompts, multi or None, tagger)
    found: list[Tagged] = []
    with Progress("tag", quiet=quiet) as progress, _kept(found):
        progress(0, len(files))
        answers = tagging.tag(
            ready, files, how, timeline=timeline, window=window, hop=hop, threshold=threshold, top=top
        )
        for one in answers:
            found.append(one)
            progress(len(found), len(files))
    return Named(how, tuple(found), timeline, len(files))


def form_of(form: Format | None, out: Path | None, audio: Sequence[str | Path] = ()) -> Format:
    """The format that was asked for, or the one of the file's ending.

    Raises:
        ConfigError: on an ending that is none of ours, and on label tracks of several files without a place.
    """
    if form == "audacity" and out is None and (many := len(list_files(audio))) > 1:
        raise _no_place(many)
    if form is not None or out is None:
        return form or "table"
    if out.suffix not in ENDINGS:
        raise ConfigError(f"{out}: which format? End it in {', '.join(ENDINGS)}, or name one with --format.")
    return ENDINGS[out.suffix]


@contextlib.contextmanager
def _kept(found: Sequence[Tagged]) -> Iterator[None]:
    """Within the block Ctrl-C ends what is being done, but only once something was found."""
    try:
        yield
    except KeyboardInterrupt:
        if not found:
            raise


def _tracks(sources: Sequence[str]) -> list[str]:
    """Names of the files' label tracks: their own, or, where two files share theirs, with the folders they lie in."""
    names = [Path(source).name for source in sources]
    if len(set(names)) < len(set(sources)):
        paths = [os.path.abspath(source) for source in sources]
        names = [os.path.relpath(path, os.path.commonpath([os.path.dirname(p) for p in paths])) for path in paths]
    return [printable(name) for name in names]


def _no_place(tracks: int) -> ConfigError:
    return ConfigError(f"{tracks} label tracks: name a folder for them with --out.")


def _short(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")
