"""How a parity test compares two tensors."""

import torch


def close(name, got, want, atol):
    """Within `atol` everywhere; else fails with the tensor's name, the largest difference, and where it is."""
    got, want = torch.as_tensor(got).detach().double(), torch.as_tensor(want).double()
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    off = (got - want).abs()
    at = [int(i) for i in torch.unravel_index(off.argmax(), off.shape)] if off.ndim else []
    assert off.max() <= atol, f"{name}: off by {off.max():.3g} at {at}, allowed {atol:.3g}"
