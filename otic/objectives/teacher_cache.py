"""What a teacher says of every clip, heard once and kept on disk.

A clip is heard whole, in the teacher's consecutive windows; a crop takes the cells that lie in it. So a kept teacher
knows what surrounds the crop, where one beside the student hears the crop alone: for crops that are whole clips both
say the same. Only a wave that training does not change can be taught so.

One safetensors file for each clip, below a folder of the data set and the teacher; each is whole or not there, so a
broken-off pass goes on where it was. It is filed under the clip's id and the place of its sound, so that data sets
named alike keep apart, and heard again when that sound has changed. Tokens are float16: 64 of 768 channels take 98 kB.

Axes: b clips, s samples, m cells, e a token's width, w windows, p the pooled width.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from otic.core.batch import Batch
from otic.core.errors import DataError
from otic.core.files import atomic, write_json
from otic.data.crops import clips
from otic.data.rows import Row, Source
from otic.models.cells import Cells
from otic.objectives.teacher import Lesson, Teacher, WindowTeacher, windows

ABOUT = "teacher.json"


def cache_teacher(
    teacher: WindowTeacher,
    source: Source,
    folder: str | Path,
    *,
    batch: int = 16,
    threads: int = 2,
    rank: int = 0,
    size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CachedTeacher:
    """Hear what is not in the folder yet; clips are read at the teacher's own rate.

    Args:
        teacher: On the device where it should work; wrap the call in autocast for speed.
        source: The clips. One that cannot be read is left out, with a warning. Moved ones are heard again.
        folder: May hold several data sets and teachers.
        batch: Clips at a time.
        threads: That read them.
        rank: With `size` processes, each hears its share.
        size: See `rank`.
        progress: Told after each batch how many of how many are done.

    Returns:
        A teacher that reads what has been kept, and needs neither the model nor a device.
    """
    root = Path(folder) / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', source.name)[:80]}-{teacher.identity()}"
    about = {
        "teacher": teacher.name, "data": source.name, "rate": teacher.rate, "width": teacher.width,
        "pooled_width": teacher.pooled_width, "labels_used": teacher.labels_used,
    }  # fmt: skip
    write_json(root / ABOUT, about)
    missing = [i for i, row in enumerate(source.rows) if i % size == rank and not _kept(root, row, source.origin(i))]
    heard = clips(source, teacher.rate, missing, threads=threads) if missing else iter(())
    done = 0
    while some := list(islice(heard, batch)):
        for (i, wave), entry in zip(some, _hear(teacher, [wave for _, wave in some]), strict=True):
            entry.save(root, source.rows[i], len(wave) / teacher.rate, source.origin(i))
        done += len(some)
        if progress:
            progress(done, len(missing))
    return CachedTeacher(root, source)


class CachedTeacher(Teacher):
    """What `cache_teacher` has kept of one teacher on one data set.

    Args:
        root: The folder.
        source: The clips, which are found by their ids.

    Raises:
        DataError: when the folder is none of these.
    """

    def __init__(self, root: str | Path, source: Source):
        super().__init__()
        self.root, self._source = Path(root), source
        self._rows = {row.id: i for i, row in enumerate(source.rows)}
        try:
            about = json.loads((self.root / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{root}: holds no kept teacher ({error}).") from error
        self.name, self.rate, self.width = about["teacher"], about["rate"], about["width"]
        self.pooled_width, self.labels_used = about["pooled_width"], about["labels_used"]

    def forward(self, batch: Batch, rate: int) -> Lesson:
        assert batch.starts is not None, "a kept teacher must know where each crop begins: Batch.starts"
        names = [name.rpartition("@")[0] for name in batch.ids]
        seconds = batch.wave.shape[1] / rate
        parts = [
            Entry.load(self.root, name, self._origin(name)).crop(start, seconds, heard / rate)
            for name, start, heard in zip(names, batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        ]
        place = batch.wave.device
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Lesson(
            _stack([part.tokens for part in parts]).to(place),
            Cells(_stack([part.cells.time for part in parts]), _stack([part.cells.freq for part in parts])),
            torch.cat(pooled).to(place) if pooled else None,
        )

    def identity(self) -> str:
        return self.root.name.rpartition("-")[2]

    def _origin(self, name: str) -> str:
        return self._source.origin(self._rows[name]) if name in self._rows else ""


@dataclass(frozen=True)
class Entry:
    """What is kept of one clip."""

    tokens: Float[Tensor, "m e"]
    cells: Cells
    pooled: Float[Tensor, "w p"] | None  # of each window
    spans: Float64[Tensor, "w 2"]  # the windows, in seconds
    seconds: float = 0.0  # of the clip

    def crop(self, start: float, seconds: float, heard: float) -> Lesson:
        """The cells of a crop, on its own clock.

        Args:
            start: Where it begins in the clip.
            seconds: Its length.
            heard: How much of it is sound; more than the clip has left when the clip was repeated to fill it.
        """
        whole = self._again(heard) if heard > self.seconds - start + 1e-3 else self
        time = whole.cells.time - start
        inside = (time[:, 1] > 0) & (time[:, 0] < seconds)
        pooled = None
        if whole.pooled is not None:
            share = (whole.spans - start).clamp(0, min(seconds, heard)).diff(dim=1).float()  # [w, 1]
            pooled = ((whole.pooled * share).sum(0) / share.sum())[None]
        tokens, freq = whole.tokens[inside][None], whole.cells.freq[inside]
        return Lesson(tokens, Cells(time[inside], freq), pooled)

    def _again(self, seconds: float) -> Entry:
        """The clip after itself, as often as it fits."""
        count = int(-(-seconds // self.seconds))
        later = torch.arange(count, dtype=torch.float64).mul(self.seconds)[:, None, None]
        return Entry(
            self.tokens.repeat(count, 1),
            Cells((self.cells.time.clamp(max=self.seconds) + later).flatten(0, 1), self.cells.freq.repeat(count, 1)),
            None if self.pooled is None else self.pooled.repeat(count, 1),
            (self.spans + later).flatten(0, 1),
            self.seconds * count,
        )

    def save(self, root: Path, row: Row, seconds: float, origin: str = "") -> None:
        """Keep it below `root`; `seconds` are those heard, which the row may know otherwise."""
        from safetensors.torch import save_file

        tensors = {"tokens": self.tokens.half(), "time": self.cells.time, "freq": self.cells.freq, "spans": self.spans}
        if self.pooled is not None:
            tensors["pooled"] = self.pooled.half()
        told = {"id": row.id, "claimed": str(row.seconds), "seconds": repr(seconds), "stamp": _stamp(origin)}
        with atomic(_file(root, row.id, origin)) as part:
            save_file({name: x.cpu().contiguous() for name, x in tensors.items()}, part, metadata=told)

    @staticmethod
    def load(root: Path, name: str, origin: str = "") -> Entry:
        """What was kept of the clip of this id, whose sound is at `origin`.

        Raises:
            DataError: when the clip has not been heard, or its file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = _file(root, name, origin)
        if not path.is_file():
            raise DataError(f"{name}: the teacher has not heard it (no {path}). Fill the folder again.")
        try:
            with safe_open(path, "pt") as file:
                seconds = float(file.metadata()["seconds"])
                x = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}). Remove it, and go on: {name} is heard again.") from error
        pooled = x["pooled"].float() if "pooled" in x else None
        return Entry(x["tokens"].float(), Cells(x["time"], x["freq"]), pooled, x["spans"], seconds)


@torch.no_grad()
def _hear(teacher: WindowTeacher, waves: list[np.ndarray]) -> Iterator[Entry]:
    """Entries of these waves; windows of one length are heard together."""
    cuts = [windows(len(wave), teacher.window, teacher.rate) for wave in waves]
    pieces = [(k, a, b) for k, cut in enumerate(cuts) for a, b in cut]
    said: dict[tuple[int, int], Lesson] = {}
    for length in sorted({b - a for _, a, b in pieces}):
        same = [(k, a) for k, a, b in pieces if b - a == length]
        for group in (same[i : i + len(waves)] for i in range(0, len(same), len(waves))):
            lesson = _together(teacher, torch.from_numpy(np.stack([waves[k][a : a + length] for k, a in group])))
            said |= {key: _row(lesson, i, key[1] / teacher.rate) for i, key in enumerate(group)}
    for k, cut in enumerate(cuts):
        lessons = [said[k, a] for a, _ in cut]
        pooled = [lesson.pooled for lesson in lessons if lesson.pooled is not None]
        yield Entry(
            torch.cat([lesson.tokens[0] for lesson in lessons]),
            Cells(torch.cat([x.cells.time for x in lessons]), torch.cat([x.cells.freq for x in lessons])),
            torch.cat(pooled) if pooled else None,
            torch.tensor(cut, dtype=torch.float64) / teacher.rate,
        )


def _together(teacher: WindowTeacher, wave: Float[Tensor, "b s"]) -> Lesson:
    place = next((x.device for x in (*teacher.parameters(), *teacher.buffers())), torch.device("cpu"))
    return teacher.hear(wave.to(place), torch.full((len(wave),), wave.shape[1], device=place))


def _row(lesson: Lesson, i: int, seconds: float) -> Lesson:
    pooled = None if lesson.pooled is None else lesson.pooled[i : i + 1].float().cpu()
    return Lesson(lesson.tokens[i : i + 1].float().cpu(), lesson.cells.later(seconds), pooled)


def _file(root: Path, name: str, origin: str) -> Path:
    key = hashlib.sha256(f"{name}\n{origin}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return root / key[:2] / f"{key}.safetensors"


def _kept(root: Path, row: Row, origin: str) -> bool:
    """Whether this clip has been heard; not if its manifest now says another length, or its file was written since."""
    from safetensors import SafetensorError, safe_open

    path = _file(root, row.id, origin)
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            told: dict[str, Any] = file.metadata()
    except SafetensorError:
        return False
    return told.get("claimed") == str(row.seconds) and told.get("stamp") == _stamp(origin)


def _stamp(origin: str) -> str:
    """Size and time of the file that a clip is read from; "" of one that is rendered."""
    try:
        about = os.stat(origin)
    except (OSError, ValueError):
        return ""
    return f"{about.st_size} {about.st_mtime_ns}"


def _stack(rows: list[Tensor]) -> Tensor:
    """Rows of unequal length as one tensor; zeros (cells without extent) fill them up."""
    return torch.nn.utils.rnn.pad_sequence([row.squeeze(0) if row.ndim == 3 else row for row in rows], batch_first=True)
