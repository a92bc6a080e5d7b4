"""A model on a CPU through compiled passes: short runs in one, long ones in many."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from engine.mamba2 import InputLog, Pass, Reading
from engine.state import RecurrentState
from kernels.cpu_pass import CompiledPasses, LayerWeights, ModelWeights, narrowest, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from engine.mamba2 import Mamba2
    from kernels.cpu_pass import PassOutputs

# A long run is read so many tokens at once: with the embedded model 32 is 1.6 times as fast as 16,
# and what tokens of a run do to each other, which grows with it, is still little.
RUN_TOKENS = 32


class CpuPasses:
    """Reads tokens (batch 1) with a copy of a model's weights, which must not change any more."""

    def __init__(self, model: Mamba2, packed_as: torch.dtype, n_threads: int) -> None:
        """Make the passes ready, with matrices kept as `packed_as`; takes seconds."""
        self._A = model.A
        weights = weights_of(model)
        self.passes = CompiledPasses(weights, pack(weights, packed_as), n_threads)

    @classmethod
    def of(cls, model: Mamba2, n_threads: int) -> CpuPasses | None:
        """Make passes that keep the weights as they are; None where there are none.

        There are for inference in float32 on a CPU, but not for 4-bit weights.
        """
        if model.device.type != "cpu" or model.dtype != torch.float32:
            return None
        packed_as = narrowest(weights_of(model))
        return None if packed_as is None else cls(model, packed_as, n_threads)

    def __call__(self, tokens: Tensor, base: RecurrentState) -> Pass:
        """Read a short run of tokens (l,), 1 or more, as `Mamba2.forward` does."""
        read = self._read(tokens, base, with_logits=True)
        after = RecurrentState(read.conv_state, read.ssm_state)
        return Pass(read.logits, read.hidden, base, _log_of(read), self._A, after)

    def read(
        self, tokens: Tensor, base: RecurrentState, positions: Sequence[int], log_after: int
    ) -> Reading:
        """Read tokens (l,), 1 or more, as `Mamba2.read` does: in passes that end at positions."""
        length, state = len(tokens), base
        kept, hidden, logs = {}, [], []
        if 0 in positions:
            kept[0] = RecurrentState(base.conv_state.clone(), base.ssm_state.clone())
        for start, end in pairwise(sorted({*range(0, length, RUN_TOKENS), *positions, length, 0})):
            read = self._read(tokens[start:end], state)
            state = RecurrentState(read.conv_state, read.ssm_state)
            if end in positions:
                kept[end] = state
            hidden.append(read.hidden)
            if end > log_after or end == length:
                logs.append(_log_of(read).after(max(0, log_after - start)))
        states = tuple(kept[n] for n in positions)
        return Reading(torch.cat(hidden), states, InputLog.of_runs(logs))

    def _read(
        self, tokens: Tensor, base: RecurrentState, *, with_logits: bool = False
    ) -> PassOutputs:
        states = base.conv_state.contiguous(), base.ssm_state.contiguous()
        return self.passes(tokens, *states, with_logits=with_logits)


def _log_of(read: PassOutputs) -> InputLog:
    return InputLog(read.xBC, read.x, read.B, read.dt)


def weights_of(model: Mamba2) -> ModelWeights:
    """Give what passes read of a model; shared with it."""
    head = model.backbone.embeddings if model.lm_head is None else model.lm_head
    return ModelWeights(
        embeddings=model.backbone.embeddings.weight,
        layers=[
            LayerWeights(
                norm=block.norm.weight,
                in_proj=block.mixer.in_proj.weight,
                conv=block.mixer.conv1d.weight[:, 0],
                conv_bias=block.mixer.conv1d.bias,
                A=block.mixer.A,
                D=block.mixer.D,
                dt_bias=block.mixer.dt_bias,
                gate_norm=block.mixer.norm.weight,
                out_proj=block.mixer.out_proj.weight,
            )
            for block in model.blocks
        ],
        norm_f=model.backbone.norm_f.weight,
        head=head.weight,
        ngroups=model.config.ngroups,
        d_state=model.config.d_state,
        norm_eps=model.config.norm_eps,
        dt_limit=model.config.dt_limit,
    )
