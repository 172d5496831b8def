"""A training step of EAT-base on the CPU: speed, and the share of the machine that it uses.

A step is forward, backward, clipping, optimizer and teacher update on one 10-s clip with 16 masked clones. The
reference is what the published code does at the same size in fp32 on a comparable machine with two cores, 0.127
clips/s. "Share" is our arithmetic rate over that of the machine's own matrix product, of the shape in which most of it
happens: it says what is left to gain. Both rates are of one thread, per second of processor time, so that other
programs hardly matter; clips/s are of all threads, by the clock on the wall.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks import table
from otic.core.batch import Batch
from otic.core.seeds import generator
from otic.engine.adam import FairseqAdam
from otic.models import DecoderConfig, ViT, ViTConfig
from otic.objectives import EAT, EATConfig

REFERENCE = 0.127  # clips/s of the published code, fp32


def gigaflops(encoder: ViTConfig, cfg: EATConfig, frames: int) -> float:
    """Arithmetic of a step for one clip, multiply and add counted apart: teacher once, the rest three times.

    >>> round(gigaflops(ViTConfig(), EATConfig(), 1024))
    1083
    """
    d, bands = encoder.width, encoder.mels // encoder.patch[1]
    n = frames // encoder.patch[0] * bands
    shape: DecoderConfig = cfg.decoder
    dim = shape.dim or d

    def blocks(tokens: int) -> float:
        ffn = 4 * encoder.mlp_ratio * d * d
        return encoder.depth * tokens * (8 * d * d + ffn + 4 * tokens * d)

    embed = 2 * n * d * encoder.patch[0] * encoder.patch[1]
    convs = sum(2 * n * c * dim // shape.groups * shape.kernel**2 for c in [d] + [dim] * (shape.layers - 1))
    decoder = cfg.clones * (convs + 2 * n * dim * d)
    student = cfg.clones * blocks(1 + int(n * cfg.keep))
    return (embed + blocks(1 + n) + 2 * embed + 3 * (student + decoder)) / 1e9


def matmul_rate(dtype: torch.dtype, tokens: int = 1648, width: int = 768, repeats: int = 12) -> float:
    """GFLOP per second of processor time of the largest matrix product of a block, the best of several."""
    layer = nn.Linear(width, 4 * width).to(dtype)
    x = torch.randn(tokens, width, generator=generator("bench")).to(dtype)
    best = float("inf")
    with torch.no_grad():
        for _ in range(repeats):
            start = time.process_time()
            layer(x)
            best = min(best, time.process_time() - start)
    return 8 * tokens * width**2 / best / 1e9


def seconds(dtype: torch.dtype, clips: int = 1, frames: int = 1024, steps: int = 2) -> tuple[float, float]:
    """(wall, processor) seconds of the fastest of `steps` whole training steps, after one that warms up."""
    objective = EAT(ViT(ViTConfig()), EATConfig()).train()
    params = [p for p in objective.parameters() if p.requires_grad]
    optimizer = FairseqAdam(params, lr=1e-4)
    spec = torch.randn(clips, 1, frames, 128, generator=generator("bench", "clips"))
    batch = Batch(torch.zeros(clips, 1), torch.ones(clips, dtype=torch.long), spec=spec)
    walls, processors = [], []
    for step in range(steps + 1):
        wall, processor = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective(batch, generator("bench", step))
        loss.total.backward()
        nn.utils.clip_grad_norm_(params, 4.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step + 1)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return min(walls[1:]), min(processors[1:])


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other on a busy machine, and their waiting counts as processor time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rows() -> list[str]:
    """Markdown: a header, its rule, and a row for each precision."""
    lines = []
    work = gigaflops(ViTConfig(), EATConfig(), 1024)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        wall, _ = seconds(dtype)
        with one_thread():
            before = matmul_rate(dtype)
            _, processor = seconds(dtype, steps=1)
            peak, rate = max(before, matmul_rate(dtype)), work / processor
        numbers = [f"{1 / wall:.3f}", f"{work / wall:.0f}", f"{rate:.0f}", f"{peak:.0f}"]
        lines.append([name, *numbers, f"{rate / peak:.0%}", f"{1 / wall / REFERENCE:.1f}"])
    head = ["precision", "clips/s", "GFLOP/s", "per core", "matmul per core", "share", f"x reference ({REFERENCE})"]
    return table(head, lines)
