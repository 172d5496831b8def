"""Sound files under a folder: every one once, whatever links, pipes and names lie in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from otic.core.errors import AudioError
from otic.core.text import printable

_KNOWN = ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64"
_BY_PYAV = ".m4a .m4b .mp4 .aac .webm .mka .mkv .mov .avi .wma .3gp .amr"
EXTENSIONS = frozenset(f"{_KNOWN} {_BY_PYAV}".split())


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a scan found, in path order: sound files, and what looked like one but cannot be read, with the reason."""

    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def find(folder: str | os.PathLike[str], *, hidden: bool = False) -> Found:
    """Sound files under `folder`, by extension and recursively; links are followed, but no folder is entered twice.

    Opens nothing, so a pipe cannot block it. Folders reached by their real path come before those reached by a link.

    Args:
        folder: Where to look.
        hidden: Also files and folders whose name starts with a dot.

    Raises:
        AudioError: `folder` is not a folder, or must not be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise AudioError(
            f"{printable(root)}: not a folder. Give the folder to search, or read the file itself.", "missing"
        )
    found, seen, linked = Found(), set[tuple[int, int]](), [root]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            here = waiting.pop()
            for entry in _entries(here, found, seen):
                if hidden or not entry.name.startswith("."):
                    _sort_in(Path(entry.path), entry, found, waiting, linked)
    found.files.sort(key=os.fsencode)
    found.skipped.sort(key=lambda pair: os.fsencode(pair[0]))
    return found


def _entries(folder: Path, found: Found, seen: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder not seen before, by name; a folder that must not be read is reported."""
    try:
        info = folder.stat()
        if (info.st_dev, info.st_ino) in seen:
            return
        seen.add((info.st_dev, info.st_ino))
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        found.skipped.append((folder, f"a folder that cannot be read: {error.strerror}"))
        return
    yield from entries


def _sort_in(path: Path, entry: os.DirEntry[str], found: Found, waiting: list[Path], linked: list[Path]) -> None:
    """One entry goes to the files, to the folders still to enter, or (where it looks like sound) to the skipped."""
    audio = path.suffix.lower() in EXTENSIONS
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if audio:
            found.skipped.append((path, _why(error)))
        return
    if stat.S_ISDIR(mode):
        (linked if entry.is_symlink() else waiting).append(path)
        if audio:
            found.skipped.append((path, "a folder, not a file"))
    elif audio and stat.S_ISREG(mode):
        found.files.append(path)
    elif audio:
        found.skipped.append((path, "a pipe" if stat.S_ISFIFO(mode) else "not a regular file"))


def _why(error: OSError) -> str:
    return "a link to nothing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
