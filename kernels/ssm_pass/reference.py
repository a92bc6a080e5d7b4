"""Pass and commit by the plain recurrence: the specification."""

import torch
from torch import Tensor

from kernels.ssd_chunk_scan import reference


def ssm_pass(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, ssm_state: Tensor
) -> Tensor:
    """Give the outputs of l tokens that follow `ssm_state`, which is only read.

    x (batch, l, nheads, headdim); dt (batch, l, nheads), after softplus; A (nheads,), negative;
    B, C (batch, l, ngroups, d_state); D (nheads,) or None; ssm_state (batch, nheads, headdim,
    d_state) float32. Returns y with the shape and dtype of x.
    """
    return reference.ssd_chunk_scan(x, dt, A, B, C, D, ssm_state)[0]


def ssm_commit(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, ssm_state: Tensor, n: int) -> Tensor:
    """Give the state after the first n of l tokens; `ssm_state` is only read.

    Shapes as in `ssm_pass`, but A may be (batch, nheads) too: the layers of a model are one batch
    here. 0 <= n <= l. Returns a new tensor with the shape and dtype of ssm_state.
    """
    rows = []
    for row in range(x.shape[0]):
        one = slice(row, row + 1)
        rows.append(
            reference.ssd_chunk_scan(
                x[one, :n],
                dt[one, :n],
                A if A.dim() == 1 else A[row],
                B[one, :n],
                B[one, :n],
                None,
                ssm_state[one],
            )[1]
        )
    return torch.cat(rows)
