"""A source rendered to disk: a folder of audio with `metadata.csv`, which is itself a source."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from otic.audio.containers import LEAST_RATE
from otic.core.errors import AudioWarning, ConfigError, DataError
from otic.core.files import atomic, write_json, write_text
from otic.data.crops import clips
from otic.data.rows import Row, Source

FORMATS = {"flac": "PCM_16", "wav": "PCM_16", "ogg": "VORBIS"}
OWN = ("file", "label", "fold", "split", "duration_s", "sample_rate")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What `write_folder` did.

    Attributes:
        folder: Where.
        clips: Sound files that are there now.
        new: Those of them written by this call; the others were there already.
        bad: Clips that could not be read, with the reason.
    """

    folder: Path
    clips: int
    new: int
    bad: dict[str, str] = field(default_factory=dict)


def write_folder(
    source: Source,
    out: str | Path,
    *,
    rate: int = 16_000,
    format: str = "flac",
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Render every clip to `out/audio/`, with `metadata.csv` and, where there are strong labels, `events.csv`.

    Every file appears whole or not at all, `metadata.csv` last; after an interruption the same call goes on.

    Args:
        rate: Sampling rate of the files, Hz.
        format: `flac`, `wav` (16 bit both) or `ogg` (Vorbis).
        progress: Called with (clips done, clips in all).

    Raises:
        ConfigError: on an unknown format, or a rate that is none.
        DataError: when `out` holds another data set, or no clip can be read.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is unknown. Known: {', '.join(FORMATS)}.")
    if rate < LEAST_RATE:
        raise ConfigError(f"rate={rate}: at least {LEAST_RATE} Hz make sound.")
    out = Path(out)
    _claim(source, out, rate, format)
    names = file_names(source.rows, format)
    todo = [i for i, name in enumerate(names) if not (out / name).exists()]
    bad: dict[str, str] = {}
    done = len(names) - len(todo)
    for i, wave in clips(source, rate, todo, threads=threads, bad=bad):
        _write_sound(out / names[i], wave, rate, format)
        done += 1
        if progress is not None:
            progress(done, len(names))
    there = [i for i, row in enumerate(source.rows) if row.id not in bad]
    _write_tables(out, [source.rows[i] for i in there], [names[i] for i in there], rate)
    return Written(folder=out, clips=len(there), new=len(todo) - len(bad), bad=bad)


def _claim(source: Source, out: Path, rate: int, format: str) -> None:
    """Leave a mark of what is being written, or check that the mark there is ours."""
    digest = hashlib.sha256(repr((source.rows, rate, format)).encode("utf-8", "surrogateescape")).hexdigest()
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file, not a folder. Choose a new folder.")
    mark, mine = out / "origin.json", {"name": source.name, "clips": len(source), "rate": rate, "digest": digest}
    if mark.exists():
        try:
            theirs = json.loads(mark.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{mark}: not readable ({error}). Delete {out} or choose another folder.") from error
        if theirs != mine:
            raise DataError(
                f"{out}: holds another data set ({theirs.get('name')}, {theirs.get('clips')} clips). "
                "Delete it or choose another folder."
            )
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty. Choose a new folder.")
    else:
        write_json(mark, mine)


def file_names(rows: Sequence[Row], format: str) -> list[str]:
    """`audio/NAME.FORMAT` for each row: plain, distinct (also where case does not count), made from the id."""
    seen: set[str] = set()
    out = []
    for i, row in enumerate(rows):
        stem = re.sub(r"\.(wav|flac|ogg|mp3|opus|aiff?|m4a)$", "", row.id, flags=re.IGNORECASE)
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._")[-120:] or "clip"
        if name.lower() in seen:
            name = f"{name}-{i}"
        seen.add(name.lower())
        out.append(f"audio/{name}.{format}")
    return out


def _write_sound(path: Path, wave: np.ndarray, rate: int, format: str) -> None:
    import soundfile

    peak = float(np.abs(wave).max(initial=0.0))
    if peak > 1:
        message = f"{path.name}: peak {peak:.2f} exceeds full scale, clipped."
        warnings.warn(AudioWarning(message, "over_full_scale"), stacklevel=2)
        wave = np.clip(wave, -1, 1)
    with atomic(path) as part:
        soundfile.write(part, wave, rate, format=format.upper(), subtype=FORMATS[format])


def _write_tables(out: Path, rows: Sequence[Row], names: Sequence[str], rate: int) -> None:
    events = [
        {"file": name, "onset": onset, "offset": offset, "event_label": label}
        for row, name in zip(rows, names, strict=True)
        for onset, offset, label in row.events
    ]
    if events:
        write_text(out / "events.csv", _csv(events))
    write_text(out / "metadata.csv", _csv([_cells(row, name, rate) for row, name in zip(rows, names, strict=True)]))


def _cells(row: Row, name: str, rate: int) -> Mapping[str, object]:
    own: tuple[object, ...] = (name, ";".join(row.labels), row.fold or "", row.split or "", row.seconds or "", rate)
    captions = {f"caption_{k}": text for k, text in enumerate(row.captions, 1)}
    return dict(zip(OWN, own, strict=True)) | captions | {k: v for k, v in row.extra.items() if k not in OWN}


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
