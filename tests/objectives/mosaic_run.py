"""Run by `torchrun` in `test_mosaic.py`: loss and gradients of this process's clips, averaged over processes."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from test_mosaic import FIRST, SECOND, head

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
net, objective = head()
own = slice(rank * len(FIRST) // size, (rank + 1) * len(FIRST) // size)
joined = torch.nn.ModuleList([net, objective])
loss = objective.losses(net(FIRST[own]), net(SECOND[own])).total
loss.backward()
grads = {n: p.grad.clone() for n, p in joined.named_parameters() if p.grad is not None}
for grad in grads.values():
    dist.all_reduce(grad)  # what data parallelism does: the mean over processes
mean = {n: g / size for n, g in grads.items()}
total = loss.detach().clone()
dist.all_reduce(total)
torch.save({"loss": total / size, "grads": mean, "bn": objective.projector.bn1.running_var},
           Path(sys.argv[1]) / f"{rank}.pt")  # fmt: skip
dist.destroy_process_group()
