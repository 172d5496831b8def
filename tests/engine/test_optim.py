"""Adam with coupled decay: the decay is part of the gradient, and so of both moments."""

import pytest
import torch
from torch import nn

from otic.core.seeds import generator
from otic.engine.config import TrainConfig
from otic.engine.optim import make_optimizer, step_optimizer


def test_coupled_decay_step_by_step():
    cfg = TrainConfig(adam="l2", lr=1e-2, betas=(0.95, 0.999), weight_decay=0.3)
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(generator=generator(0))
    want = {name: p.detach().clone() for name, p in layer.named_parameters()}
    first, second = ({name: torch.zeros_like(p) for name, p in want.items()} for _ in range(2))
    optimizer = make_optimizer(layer, cfg)
    for step in range(1, 4):
        for name, p in layer.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator(step, name))
            grad = p.grad + 0.3 * want[name]
            first[name] = 0.95 * first[name] + 0.05 * grad
            second[name] = 0.999 * second[name] + 0.001 * grad.square()
            mean, spread = first[name] / (1 - 0.95**step), (second[name] / (1 - 0.999**step)).sqrt()
            want[name] = want[name] - 1e-2 * mean / (spread + 1e-8)
        step_optimizer(optimizer, cfg.lr)
    for name, p in layer.named_parameters():
        assert torch.allclose(p, want[name], atol=1e-6), name


@pytest.mark.parametrize("adam", ["torch", "l2", "fairseq"])
def test_a_step_counts_as_a_change_of_the_weights(adam):
    layer = nn.Linear(3, 2)
    optimizer = make_optimizer(layer, TrainConfig(adam=adam))
    layer(torch.ones(1, 3)).sum().backward()
    before = layer.weight._version
    step_optimizer(optimizer, 1e-3)
    assert layer.weight._version > before, "what was laid out for inference would go stale"
