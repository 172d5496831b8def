"""Several processes on one machine without `torchrun`: one for each GPU, or as many as asked for."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import multiprocessing

from otic.core.errors import ConfigError, OticError
from otic.engine.interrupt import SIGNALS, Interrupted

PATIENCE = 60.0  # seconds that a process has to save and end


def processes(devices: int | None, device: str | None) -> int:
    """How many processes to start: 1 under `torchrun`, or where one device is named.

    Raises:
        ConfigError: when there are not so many GPUs.
    """
    if "WORLD_SIZE" in os.environ:
        return 1
    gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
    if devices is None:
        return max(1, gpus) if device is None else 1
    if devices < 1 or (devices > gpus > 0):
        raise ConfigError(f"--devices {devices}: this machine has {gpus} GPUs; name 1 or more, at most as many.")
    return devices


def launch(job: Callable[..., Any], count: int, kwargs: dict[str, Any]) -> Any:
    """Run `job(**kwargs)` in `count` processes that find each other as under `torchrun`; what the first one returns.

    Ctrl-C and SIGTERM are handed to the processes, which then save.

    Raises:
        Interrupted, OticError: as the first of the processes that failed.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    children, ends = [], []
    for rank in range(count):
        mine, theirs = context.Pipe(duplex=False)
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        child = context.Process(target=_child, args=(theirs, env, job, kwargs), name=f"otic-{rank}")
        child.start()
        theirs.close()
        children.append(child)
        ends.append(mine)
    with _forwarded(children):
        return _collect(children, ends)


def _collect(children: list[Any], ends: list[Connection]) -> Any:
    """The first process's result, or the first failure; the others are then stopped."""
    results: dict[int, Any] = {}
    open_ends = dict(zip(ends, range(len(ends)), strict=True))
    try:
        while open_ends:
            for end in wait(list(open_ends)):
                assert isinstance(end, Connection)
                rank = open_ends.pop(end)
                try:
                    outcome = end.recv()
                except EOFError:
                    children[rank].join()
                    raise OticError(
                        f"process {rank} of {len(children)} died (exit {children[rank].exitcode})."
                    ) from None
                if isinstance(outcome, BaseException):
                    raise outcome
                results[rank] = outcome
    except BaseException as error:
        for child in children:
            if not isinstance(error, Interrupted):  # then they are all about to end by themselves
                child.terminate()
        raise
    finally:
        for child in children:
            child.join(PATIENCE)
            if child.is_alive():  # it waits for one that has died
                child.kill()
                child.join()
    return results[0]


def _child(end: Connection, env: dict[str, Any], job: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    os.environ.update({name: str(value) for name, value in env.items()})
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // env["WORLD_SIZE"]))
    try:
        end.send(job(**kwargs))
    except (OticError, KeyboardInterrupt) as error:
        end.send(error if _travels(error) else OticError(str(error)))


def _travels(error: BaseException) -> bool:
    """True when an exception comes out of a pickle as it went in."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except (TypeError, pickle.PicklingError):
        return False


@contextmanager
def _forwarded(children: list[Any]) -> Iterator[None]:
    """While the processes run, signals go to them and not to us."""

    def forward(number: int, frame: Any) -> None:
        for child in children:
            if child.is_alive():
                os.kill(child.pid, signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
