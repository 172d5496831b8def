"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otic.core.errors import OticError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write to a temporary neighbour and rename it into place when the block ends well.

    The data is flushed to the disk before the rename, so a crash leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with said_of(path):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
        os.close(fd)
        part = Path(name)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.chmod(part, 0o666 & ~_umask())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """What the system says of no file (a full disk), or of a temporary neighbour, is said of `path`."""
    try:
        yield
    except OticError:
        raise
    except Exception as error:
        cause = _of_the_system(error)
        if cause is not None and (cause.filename is None or str(cause.filename).endswith(".part")):
            code, what = cause.errno or errno.EIO, cause.strerror or str(cause)
            raise OSError(code, what, os.fspath(path)) from error
        raise


def _of_the_system(error: BaseException | None) -> OSError | None:
    """What the system said first, where a library has made another error of it (PyTorch does, and safetensors)."""
    while error is not None and not isinstance(error, OSError):
        if told := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(told[1]), os.strerror(int(told[1])))
        error = error.__cause__ or error.__context__
    return error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; a lone surrogate (a non-UTF-8 file name) becomes an escape."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
