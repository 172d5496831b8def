"""Processes that need not import everything anew: forks of the one that runs the tests."""

import multiprocessing
import warnings

import torch
import torch.distributed as dist


def fork(work, *args):
    """`work(*args)`, begun in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(work, *args))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons', of threads: here only idle ones
        process.start()
    return process


def _alone(work, *args):
    torch.set_num_threads(1)  # OpenMP's other threads were not forked, and would be waited for
    work(*args)


def two_of(work, folder):
    """`work(folder)` in two processes which are one group; `folder` is where they meet."""
    processes = [fork(_member, rank, work, folder) for rank in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def _member(rank, work, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    work(folder)
    dist.destroy_process_group()
