"""What processes that train one model together say to each other.

`torchrun --nproc-per-node N -m training.train …` starts them; each has its own samples, and all
take the same steps. A process that was started alone is rank 0 of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import nn


class Ranks:
    """The processes of this run, and which of them this one is."""

    def __init__(self) -> None:
        """Meet the others, if torchrun started some."""
        if dist.is_torchelastic_launched() and not dist.is_initialized():
            dist.init_process_group("gloo")
        is_alone = not dist.is_initialized()
        self.rank, self.n = (0, 1) if is_alone else (dist.get_rank(), dist.get_world_size())

    def rows(self, n: int) -> range:
        """Give the numbers of this rank's rows, where each has n."""
        return range(self.rank * n, (self.rank + 1) * n)

    def share_gradients(self, model: nn.Module) -> None:
        """Put the mean of all ranks' gradients in the place of a model's own."""
        if self.n == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= self.n
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def seconds(self, own: float) -> float:
        """Give the first rank's time, by which all go: the learning rate follows it."""
        if self.n == 1:
            return own
        taken = torch.tensor(own, dtype=torch.float64)
        dist.broadcast(taken, 0)
        return float(taken)
