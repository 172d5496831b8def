"""Randomness as a pure function of where we are: (seed, step, rank, ...), never of what ran before."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def fold(*keys: int | str) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    digest = hashlib.blake2b("\x1f".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for these keys: `generator(seed, step, rank)`."""
    return torch.Generator(device).manual_seed(fold(*keys))


def rng(*keys: int | str) -> np.random.Generator:
    """A numpy generator for these keys."""
    return np.random.default_rng(fold(*keys))
