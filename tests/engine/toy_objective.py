"""An objective without randomness of its own, so that runs cut differently can be compared; with a teacher to move."""

import torch
from torch import Tensor, nn

from otic.core.batch import Batch, Loss
from otic.core.ema import ema_copy, ema_update
from otic.objectives import Objective

CLIP = 24  # samples, seen as one spectrogram frame row


class Toy(Objective):
    """Predicts the clip's own mean square from its samples; the loss is a mean over clips."""

    def __init__(self, width: int = 8, seed: int = 0):
        super().__init__()
        gen = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(CLIP, width), nn.Tanh(), nn.Linear(width, 1))
        for p in self.net.parameters():
            nn.init.normal_(p, std=0.3, generator=gen)
        self.teacher = ema_copy(self.net)
        self.drawn: list[float] = []

    @property
    def encoder(self) -> nn.Module:
        return self.net

    def forward(self, batch: Batch, gen: torch.Generator) -> Loss:
        assert batch.spec is not None
        self.drawn.append(torch.rand((), generator=gen).item())
        x = batch.spec.flatten(1)
        error = (self.net(x).flatten() - x.square().mean(1)).square().mean()
        return Loss(error, {"error": error.detach()})

    def after_step(self, step: int) -> None:
        ema_update(self.teacher, self.net, decay=0.9)


def fill(batch: Batch) -> Batch:
    from dataclasses import replace

    return replace(batch, spec=batch.wave[:, None, None])


def toy_batch(step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
    """This process's share of the step's batch of `size` clips."""
    wave = torch.randn(size, CLIP, generator=torch.Generator().manual_seed(1000 + step))
    own = size // world
    ids = [f"clip{step}-{k}" for k in range(size)]
    mine = slice(rank * own, (rank + 1) * own)
    return Batch(wave[mine], torch.full((own,), CLIP), ids=ids[mine])


def toy_batches(start: int = 0, size: int = 8, rank: int = 0, world: int = 1):
    step = start
    while True:
        yield toy_batch(step, size, rank, world)
        step += 1


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
