"""Where the bytes come from: a path, a file object, bytes or standard input, opened so that nothing can block."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from otic.core.errors import AudioError
from otic.core.text import printable

HEAD = 1 << 12


@runtime_checkable
class File(Protocol):
    """What is asked of a binary file object."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


Bytes = str | os.PathLike | bytes | bytearray | memoryview | File


@dataclass(frozen=True)
class Opened:
    """An open source of bytes; `at` reads anywhere in it without moving anything."""

    name: str  # printable, for messages
    file: int | File  # a file descriptor (fast: decoders read it without Python), or a seekable binary file
    size: int  # bytes
    head: bytes = b""  # the first ones: most questions are about them

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        if offset + count <= len(self.head):
            return self.head[offset : offset + count]
        try:
            if isinstance(self.file, int):
                return os.pread(self.file, count, offset)
            here = self.file.tell()
            self.file.seek(offset)
            data = self.file.read(count)
            self.file.seek(here)
            return data
        except OSError as error:  # a failing disk
            raise AudioError(f"{self.name}: cannot be read ({reason(error)}).", "unreadable") from None

    def position(self) -> int:
        """How far the last one to read without `at` has come."""
        return os.lseek(self.file, 0, os.SEEK_CUR) if isinstance(self.file, int) else self.file.tell()

    def rewound(self) -> int | File:
        """The file, at its start."""
        if isinstance(self.file, int):
            os.lseek(self.file, 0, os.SEEK_SET)
        else:
            self.file.seek(0)
        return self.file


def source_name(src: object) -> str:
    """How messages and results call a source: its path, the file object's name, or its type."""
    if isinstance(src, str | os.PathLike):
        return os.fsdecode(src) if src != "-" else "<stdin>"
    name = getattr(src, "name", None)
    return name if isinstance(name, str) else f"<{type(src).__name__}>"


@contextmanager
def opened(src: Bytes) -> Iterator[Opened]:
    """Open `src` for the time of the block; file objects are read from their beginning and stay open.

    Raises:
        AudioError: missing, not a regular file (a pipe would block), unreadable or empty.
    """
    name = printable(source_name(src))
    if isinstance(src, str | os.PathLike) and os.fspath(src) != "-":
        fd, size = _regular(src, name)
        try:
            yield _some(Opened(name, fd, size))
        finally:
            os.close(fd)
        return
    file = _seekable(src, name)
    yield _some(Opened(name, file, file.seek(0, os.SEEK_END)))


def _regular(path: str | os.PathLike[str], name: str) -> tuple[int, int]:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file. Check the path.", "missing") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name[:200]}: cannot be opened ({reason(error)}).", "unreadable") from None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        what = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
        raise AudioError(
            f"{name}: {what}. Give a sound file; to read from a pipe, use - as standard input.", "not_a_file"
        )
    return fd, info.st_size


def _seekable(src: Bytes, name: str) -> File:
    """`src` as a file one can seek in; what cannot seek is read to its end."""
    if isinstance(src, bytes | bytearray | memoryview):
        return io.BytesIO(src)
    file: Any = sys.stdin.buffer if isinstance(src, str | os.PathLike) else src
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        if not isinstance(file.read(0), bytes):
            raise AudioError(f"{name}: opened as text. Open it in binary mode, open(path, 'rb').", "not_a_file")
        return cast(File, file)
    data = file.read()
    if not isinstance(data, bytes):
        raise AudioError(f"{name}: opened as text. Open it in binary mode, open(path, 'rb').", "not_a_file")
    return io.BytesIO(data)


def reason(error: Exception) -> str:
    """The system's words for what went wrong."""
    return getattr(error, "strerror", None) or str(error)


def _some(it: Opened) -> Opened:
    if not it.size:
        raise AudioError(f"{it.name}: an empty file (0 bytes).", "empty_file")
    return replace(it, head=it.at(0, HEAD))
