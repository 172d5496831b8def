"""Exponential moving averages of a module: teachers."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def ema_copy(module: M) -> M:
    """A frozen copy in eval mode, to be moved by `ema_update`."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """teacher <- decay * teacher + (1 - decay) * student; buffers and frozen tensors are copied.

    Only names that the teacher has are moved, so a student may carry more (a decoder, say).
    """
    have = dict(student.named_parameters())
    moving = [(p, have[n].detach()) for n, p in teacher.named_parameters() if have[n].requires_grad]
    if moving:
        ours, theirs = (list(side) for side in zip(*moving, strict=True))
        torch._foreach_lerp_(ours, theirs, 1 - decay)
    for name, p in teacher.named_parameters():
        if not have[name].requires_grad:
            p.copy_(have[name])
    buffers = dict(student.named_buffers())
    for name, b in teacher.named_buffers():
        b.copy_(buffers[name])
