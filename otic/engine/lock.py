"""One process at a time in a run's folder: two would write over each other's log and checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otic.core.errors import ConfigError

LOCK = ".lock"
UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # of file systems that have no locks


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: when another process holds it, naming that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _taken(path, folder)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it looks again
        os.close(handle)


def _taken(path: Path, folder: Path) -> int:
    """The lock's open file, which still stands at `path` once it is locked."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:  # a folder that cannot be written to
            raise OSError(error.errno, error.strerror, os.fspath(folder)) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            os.close(handle)
            raise ConfigError(
                f"{folder}: {holder} is training here. Let it end, stop it, or choose another folder."
            ) from None
        except OSError as error:
            if error.errno not in UNKNOWN:
                os.close(handle)
                raise
        if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
        os.close(handle)
