import math

import pytest
import torch

from otic.core.seeds import generator
from otic.engine.adam import FairseqAdam


def make(seed=0):
    gen = generator("adam", seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=gen)) for shape in ((3, 4), (5,))]


def grads(step):
    gen = generator("grads", step)
    return [torch.randn(shape, generator=gen) * 10.0 ** (-4 * step) for shape in ((3, 4), (5,))]


def test_several_steps_by_the_formula():
    params, lr, wd, b1, b2, eps = make(), 0.01, 0.05, 0.9, 0.95, 1e-8
    want = [p.detach().double() for p in params]
    m, v = [torch.zeros_like(p) for p in want], [torch.zeros_like(p) for p in want]
    optimizer = FairseqAdam(params, lr=lr, betas=(b1, b2), eps=eps, weight_decay=wd)
    for s in range(1, 5):
        for i, g in enumerate(grads(s)):
            params[i].grad = g
            m[i] = b1 * m[i] + (1 - b1) * g.double()
            v[i] = b2 * v[i] + (1 - b2) * g.double() ** 2
            size = lr * math.sqrt(1 - b2**s) / (1 - b1**s)
            want[i] = want[i] * (1 - lr * wd) - size * m[i] / (v[i].sqrt() + eps)
        optimizer.step()
    for p, w in zip(params, want):
        torch.testing.assert_close(p.detach().double(), w, atol=1e-6, rtol=0)


def test_near_torch_adamw_where_epsilon_does_not_matter():
    ours, theirs = make(), make()
    first = FairseqAdam(ours, lr=0.01)
    second = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(5):
        for params in (ours, theirs):
            for p, g in zip(params, grads(0 * step)):
                p.grad = g.clone()
        first.step()
        second.step()
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=0)


def test_resumed_equals_unbroken_bit_for_bit():
    def run(params, optimizer, steps):
        for s in steps:
            for p, g in zip(params, grads(s)):
                p.grad = g
            optimizer.step()

    unbroken = make()
    run(unbroken, FairseqAdam(unbroken), range(4))
    broken = make()
    first = FairseqAdam(broken)
    run(broken, first, range(2))
    second = FairseqAdam(broken)
    second.load_state_dict(first.state_dict())
    run(broken, second, range(2, 4))
    assert all(torch.equal(p, q) for p, q in zip(unbroken, broken))


def test_groups_and_tensors_without_gradient():
    a, b = make()
    before = b.detach().clone()
    a.grad = torch.ones_like(a)
    optimizer = FairseqAdam([{"params": [a], "lr": 0.0}, {"params": [b]}], lr=1.0)
    kept = a.detach().clone()
    optimizer.step()
    assert torch.equal(a, kept) and torch.equal(b, before)
    assert optimizer.step(lambda: torch.tensor(3.0)) == pytest.approx(3.0)
