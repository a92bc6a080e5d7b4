"""What a short pass gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class PassOutputs(NamedTuple):
    """Of l tokens: what follows them, the inputs of the recurrence, and the states after them.

    logits (l, vocabulary), hidden (l, d_model): what the logits were computed from; xBC (layers, l,
    conv_dim) before the convolution; x (layers, l, nheads, headdim) and B (layers, l, ngroups,
    d_state) after it; dt (layers, l, nheads), after softplus; conv_state (layers, d_conv - 1,
    conv_dim); ssm_state (layers, nheads, headdim, d_state).
    """

    logits: Tensor
    hidden: Tensor
    xBC: Tensor
    x: Tensor
    B: Tensor
    dt: Tensor
    conv_state: Tensor
    ssm_state: Tensor
