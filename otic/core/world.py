"""Where we run: which of how many processes, on which device, in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist

from otic.core.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """One process among `size`; `rank` 0 writes the files."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @staticmethod
    def join(precision: Precision = "auto", device: str | None = None) -> World:
        """Read `torchrun`'s variables and join its group (nccl on CUDA, gloo otherwise).

        Raises:
            ConfigError: on a device that is not there.
        """
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        place = find_device(device, gpu=local)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        return World(rank, size, place, choose_dtype(precision, place))

    @property
    def main(self) -> bool:
        """Is this the process that writes the files?"""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Where a step's arithmetic runs: in `dtype`; nothing changes in float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def mean(self, value: float) -> float:
        """The mean of `value` over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item() / self.size

    def gather(self, values: list[str]) -> list[str]:
        """The values of all processes, one after the other."""
        if self.size == 1:
            return values
        every: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(every, values)
        return [value for values in every for value in values]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = World()  # one process on the CPU, in fp32


def find_device(name: str | torch.device | None = None, gpu: int | None = None) -> torch.device:
    """The device of this name; None: a GPU when there is one.

    Args:
        name: As torch has it.
        gpu: Which one `cuda` without a number is; None: the process's current one. Others are not touched.

    Raises:
        ConfigError: when it is not there.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and device.index is None and gpu is not None:
            device = torch.device("cuda", gpu)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says so in both ways
        raise ConfigError(f"device {name}: not here. Name another, as cpu, or leave it out.") from error
    return device


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """`auto` is bf16 wherever the hardware multiplies it faster than fp32, else fp32."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """True on CPUs with bf16 dot products (AVX512-BF16, AMX-BF16, or Arm's BF16)."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        return False
    return any(name in flags for name in ("amx_bf16", "avx512_bf16", " bf16"))
