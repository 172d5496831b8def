"""Run by `torchrun` in `test_parallel.py`: trains the toy on this process's share and writes what came out."""

import sys
from pathlib import Path

import torch
from toy_objective import Toy, fill, toy_batches

from otic.core.errors import DataError
from otic.core.world import World
from otic.engine.config import TrainConfig
from otic.engine.loop import train
from otic.engine.optim import make_optimizer


def main(out: Path, accumulate: int) -> None:
    world = World.join("fp32", "cpu")
    cfg = TrainConfig(steps=8, warmup=2, lr=0.05, clip=0.5, accumulate=accumulate)
    toy, losses = Toy(seed=world.rank), []  # the processes begin with the first one's weights
    batches = toy_batches(size=8, rank=world.rank, world=world.size)
    train(toy, fill, batches, make_optimizer(toy, cfg), cfg, world=world, hooks=(lambda e: losses.append(e.loss),))

    weights, message = {k: v.clone() for k, v in toy.state_dict().items()}, ""
    try:
        train(toy, fill, poisoned(world), make_optimizer(toy, cfg), cfg, world=world)
    except DataError as error:
        message = str(error)
    torch.save({"toy": weights, "losses": losses, "message": message}, out / f"{world.rank}.pt")
    world.barrier()  # nobody takes the group down while another still talks in it
    world.leave()


def poisoned(world: World):
    """The second process's third batch holds a NaN."""
    for step, batch in enumerate(toy_batches(start=50, size=8, rank=world.rank, world=world.size)):
        if step == 2 and world.rank == 1:
            batch.wave[1, 0] = float("nan")
        yield batch


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
