"""Logistic regression for many weightings and strengths of regularisation at once.

Minimises  C * sum_i u_i * loss_i + |W|^2 / 2  (scikit-learn's C; the intercept is free) for each of p problems, which
share the features and differ in the clip weights u and in C. The features are rotated into their principal axes, where
the Hessian is nearly diagonal; scaled by it, L-BFGS needs tens of steps at any C, and each step is two matrix products
for all problems together.

Axes: n clips, d features, q principal axes (+ 1 for the intercept), c classes, p problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MEMORY, STEPS = 10, 300
FREE = 1e-6  # the intercept's penalty, relative to the weights'; keeps that of an unseen class finite


@dataclass(frozen=True)
class Axes:
    """Standardised features in their principal axes."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    basis: Float[Tensor, "d q"]
    power: Float[Tensor, " q"]  # sum of squares along each axis

    @staticmethod
    def of(x: Float[Tensor, "n d"]) -> Axes:
        """Mean 0 and spread 1 for each feature (a constant one stays 0), then the axes that hold any variance."""
        mean, spread = x.mean(0), x.std(0, correction=0)
        scale = torch.where(spread > 1e-6 * (mean.abs() + 1e-12), 1 / spread.clamp(min=1e-30), 0.0)
        z = (x - mean) * scale
        tall = z.shape[0] >= z.shape[1]
        power, vectors = torch.linalg.eigh((z.T @ z if tall else z @ z.T).double())
        keep = power > power[-1].clamp(min=1e-12) * 1e-7
        power, vectors = power[keep], vectors[:, keep].float()
        basis = vectors if tall else z.T @ (vectors / power.sqrt()).float()
        return Axes(mean, scale, basis, power.float())

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n q1"]:
        """Coordinates along the axes, and a column of ones for the intercept."""
        z = ((x - self.mean) * self.scale) @ self.basis
        return torch.cat([z, torch.ones(len(z), 1, device=z.device)], dim=1)


def fit(
    z: Float[Tensor, "n q1"],
    power: Float[Tensor, " q"],
    truth: Float[Tensor, "n c"],
    use: Float[Tensor, "p n"],
    strengths: Float[Tensor, " p"],
    *,
    multi: bool = False,
    tolerance: float = 1e-4,
) -> Float[Tensor, "p q1 c"]:
    """The weights of each problem.

    Args:
        z: What `Axes` makes of the features; the last column is 1.
        power: `Axes.power`.
        truth: One-hot, or multi-hot with `multi` (one logistic regression per class).
        use: Weight of each clip in each problem.
        strengths: C of each problem.
        tolerance: Stop when the scaled gradient has fallen to this share of its first length.
    """
    share = use.sum(1) / len(z)
    spread = 0.25 if multi else (1 - 1 / truth.shape[1]) / truth.shape[1]  # variance of a guess at the start
    penalty = torch.cat([torch.ones_like(power), power.new_tensor([FREE])])
    curve = torch.cat([power, power.new_tensor([float(len(z))])])
    scale = (strengths[:, None] * spread * share[:, None] * curve + penalty).rsqrt()[:, :, None]  # [p, q1, 1]

    def value_and_slope(v: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        w = v * scale[which]
        logits = (z @ w.transpose(0, 1).flatten(1)).unflatten(1, (len(w), -1))  # [n, p, c]
        weight = (use[which] * strengths[which, None]).T  # [n, p]
        if multi:
            loss = (torch.nn.functional.softplus(logits) - logits * truth[:, None]).sum(-1)
            error = logits.sigmoid() - truth[:, None]
        else:
            top = logits.logsumexp(-1)
            loss = top - (logits * truth[:, None]).sum(-1)
            error = (logits - top[..., None]).exp() - truth[:, None]
        decay = penalty[:, None] * w
        value = (weight * loss).sum(0, dtype=torch.float64) + 0.5 * (decay * w).sum((1, 2), dtype=torch.float64)
        slope = (z.T @ (error * weight[..., None]).flatten(1)).unflatten(1, (len(w), -1)).transpose(0, 1)
        return value, (slope + decay) * scale[which]

    start = torch.zeros(len(use), z.shape[1], truth.shape[1], device=z.device)
    return minimise(value_and_slope, start, tolerance=tolerance) * scale


Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def minimise(value_and_slope: Slope, start: Float[Tensor, "p q c"], *, tolerance: float) -> Float[Tensor, "p q c"]:
    """L-BFGS for p independent convex problems in step; those that have arrived drop out.

    Args:
        value_and_slope: `(points [k, q, c], which [k]) -> (values [k], gradients [k, q, c])`.
    """
    out, which = start.clone(), torch.arange(len(start), device=start.device)
    x, (value, slope) = start, value_and_slope(start, which)
    first = _norm(slope)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # moves, changes of slope, 1 / their product
    for _ in range(STEPS):
        active = _norm(slope) > tolerance * first[which]
        if not active.all():
            out[which[~active]] = x[~active]
            which, x, value, slope = which[active], x[active], value[active], slope[active]
            steps = [(s[active], y[active], r[active]) for s, y, r in steps]
            if not len(which):
                return out
        move = _direction(slope, steps)
        new, new_value, new_slope, moved = _search(value_and_slope, which, x, value, slope, move)
        s, y = new - x, new_slope - slope
        product = _dot(s, y)
        steps = [*steps[-MEMORY + 1 :], (s, y, torch.where(product > 1e-12 * _dot(y, y), 1 / product, 0.0))]
        x, value, slope = new, new_value, new_slope
        if not moved.all():  # no step lowers the value: float32 has no more to give
            slope = torch.where(moved[:, None, None], slope, torch.zeros_like(slope))
    out[which] = x
    return out


def _direction(slope: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion; a step of no curvature has weight 0."""
    move, alphas = -slope, []
    for s, y, r in reversed(steps):
        alpha = r * _dot(s, move)
        move = move - alpha[:, None, None] * y
        alphas.append(alpha)
    if steps:
        s, y, r = steps[-1]
        gain = torch.where(r > 0, _dot(s, y) / _dot(y, y).clamp(min=1e-30), 1.0)
        move = move * gain[:, None, None]
    for (s, y, r), alpha in zip(steps, reversed(alphas)):
        move = move + (alpha - r * _dot(y, move))[:, None, None] * s
    return move


def _search(
    value_and_slope: Slope, which: Tensor, x: Tensor, value: Tensor, slope: Tensor, move: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve each problem's step until its value falls enough (Armijo); most pass at once."""
    along = _dot(slope, move)
    size = torch.ones_like(along)
    new = x + move
    new_value, new_slope = value_and_slope(new, which)
    for _ in range(12):
        slack = 1e-7 * value.abs()  # rounding of the sums
        bad = new_value > value + 1e-4 * size * along + slack
        if not bad.any():
            break
        size[bad] *= 0.5
        new[bad] = x[bad] + size[bad, None, None] * move[bad]
        new_value[bad], new_slope[bad] = value_and_slope(new[bad], which[bad])
    moved = new_value <= value + slack
    new = torch.where(moved[:, None, None], new, x)
    return new, new_value, new_slope, moved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)
