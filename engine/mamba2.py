"""The Mamba-2 language model in plain torch: prefill for long runs, pass and commit for short ones.

After "Transformers are SSMs" (arXiv 2405.21060). Parameter names are Hugging Face's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.graphs import ROW_COUNTS, PassGraphs
from engine.quantized import QuantizedEmbedding, QuantizedLinear, linear
from engine.state import RecurrentState
from kernels.add_rmsnorm import add_rmsnorm
from kernels.causal_conv1d import causal_conv1d
from kernels.choice import has_triton
from kernels.gated_rmsnorm import gated_rmsnorm
from kernels.mixer_pass import mixer_pass
from kernels.ssd_chunk_scan import ssd_chunk_scan
from kernels.ssm_pass import ssm_commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.config import Mamba2Config
    from engine.cpu_passes import CpuPasses

FLOAT32_PARAMETERS = ("A_log", "mixer.D", "dt_bias")


@dataclass(frozen=True, eq=False)
class InputLog:
    """The per-token inputs of the recurrence, of one layer or, stacked, of all: what commit needs.

    xBC (n, l, conv_dim), before the convolution; x (n, l, nheads, headdim) and
    B (n, l, ngroups, d_state), after it; dt (n, l, nheads) float32, after softplus. n is the batch
    of a layer, or the layers of a model whose batch is 1.
    """

    xBC: Tensor
    x: Tensor
    B: Tensor
    dt: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the tensors in the order of the fields."""
        return self.xBC, self.x, self.B, self.dt

    @classmethod
    def of_layers(cls, logs: Sequence[InputLog]) -> InputLog:
        """Stack the logs (batch 1) of a model's layers."""
        return cls(
            *(torch.cat(parts) for parts in zip(*(log.tensors for log in logs), strict=True))
        )

    @classmethod
    def of_runs(cls, logs: Sequence[InputLog]) -> InputLog:
        """Join the logs of runs that follow one another."""
        return cls(
            *(torch.cat(parts, dim=1) for parts in zip(*(log.tensors for log in logs), strict=True))
        )

    def after(self, n: int) -> InputLog:
        """Give the log of what follows the first n tokens, in memory of its own."""
        return InputLog(*(part[:, n:].clone() for part in self.tensors))

    @property
    def n_tokens(self) -> int:
        """Give the number of tokens logged."""
        return self.dt.shape[1]

    @property
    def n_bytes(self) -> int:
        """Give the bytes of all tensors."""
        return sum(part.nbytes for part in self.tensors)

    def replay(self, base: RecurrentState, A: Tensor, n: int) -> RecurrentState:
        """Give the state after the first n logged tokens (of a whole model, A (layers, nheads)).

        Touches no weight of the model: all layers go through the recurrence as one batch. `base`
        is only read; n = 0 is the base itself, shared. Raises ValueError when n is not in 0 to
        the number of tokens.
        """
        if not 0 <= n <= self.n_tokens:
            raise ValueError(f"cannot commit {n} tokens of a pass over {self.n_tokens}")
        if n == 0:
            return base
        taps = base.conv_state.shape[2]
        recent = torch.cat((base.conv_state[:, 0], self.xBC[:, :n]), dim=1)  # (layers, l, c)
        # Cloned, or the state would keep the whole concatenation alive.
        conv_state = recent[:, -taps:].clone()
        ssm_state = ssm_commit(self.x, self.dt, A, self.B, base.ssm_state[:, 0], n)
        return RecurrentState(conv_state[:, None], ssm_state[:, None])


@dataclass(frozen=True, eq=False)
class Pass:
    """The result of reading l tokens from a base state that stays as it was.

    logits (l, vocab_size) float32; hidden (l, d_model): what the logits were computed from;
    log: all layers; A (n_layers, nheads); after: the state after all of them, where it is known.
    """

    logits: Tensor
    hidden: Tensor
    base: RecurrentState
    log: InputLog
    A: Tensor
    after: RecurrentState | None = None

    def __len__(self) -> int:
        """Give the number of tokens read."""
        return self.hidden.shape[0]

    def commit(self, n: int) -> RecurrentState:
        """Give the state after the first n tokens; n = 0 is the base itself, shared."""
        if n == len(self) and self.after is not None:
            return self.after
        return self.log.replay(self.base, self.A, n)

    def first(self, n: int, base: RecurrentState) -> Pass:
        """Give the pass over the first n tokens alone, from `base`, in memory of its own."""
        log = InputLog(*(part[:, :n].clone() for part in self.log.tensors))
        return Pass(self.logits[:n].clone(), self.hidden[:n].clone(), base, log, self.A)


@dataclass(frozen=True, eq=False)
class Reading:
    """The result of reading l tokens (batch 1) in chunks, from a base state that stays as it was.

    hidden (l, d_model): what predicts each next token; states: at the positions asked for, each in
    memory of its own; log: all layers, of the tokens that were to be logged.
    """

    hidden: Tensor
    states: tuple[RecurrentState, ...]
    log: InputLog


class Mixer(nn.Module):
    """The Mamba-2 block between two residual additions."""

    def __init__(self, config: Mamba2Config) -> None:
        """Make the block's parameters, uninitialized as torch leaves them."""
        super().__init__()
        self.config = config
        self.in_proj = _projection(config, config.d_model, config.d_in_proj)
        self.conv1d = nn.Conv1d(
            config.conv_dim,
            config.conv_dim,
            config.d_conv,
            groups=config.conv_dim,
            bias=config.conv_bias,
        )
        # The recurrence's own parameters stay float32 whatever the weights are.
        self.A_log = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.D = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.dt_bias = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.norm = RMSNorm(config.d_inner, config.norm_eps)
        self.out_proj = _projection(config, config.d_inner, config.d_model)

    @property
    def A(self) -> Tensor:
        """Give the decay rates (nheads,), negative, float32."""
        return -torch.exp(self.A_log.float())

    def project(self, u: Tensor, conv_state: Tensor) -> tuple[Tensor, InputLog, Tensor, Tensor]:
        """Give z, the inputs of the recurrence, C and the convolution's state after `u`.

        u (batch, l, d_model); conv_state (batch, d_conv - 1, conv_dim), only read.
        """
        c = self.config
        z, xBC, dt = self.in_proj(u).split((c.d_inner, c.conv_dim, c.nheads), dim=-1)
        convolved, after = causal_conv1d(
            xBC, self.conv1d.weight[:, 0], self.conv1d.bias, conv_state
        )
        x, B, C = convolved.split((c.d_inner, *(c.ngroups * c.d_state,) * 2), dim=-1)
        dt = F.softplus(dt.float() + self.dt_bias.float())
        if c.dt_limit != (0.0, math.inf):
            dt = dt.clamp(*c.dt_limit)
        log = InputLog(
            xBC,
            x.unflatten(-1, (c.nheads, c.headdim)),
            B.unflatten(-1, (c.ngroups, c.d_state)),
            dt,
        )
        return z, log, C.unflatten(-1, (c.ngroups, c.d_state)), after

    def finish(self, y: Tensor, z: Tensor) -> Tensor:
        """Gate, norm and project y (batch, l, nheads, headdim) back to (batch, l, d_model)."""
        c = self.config
        normed = gated_rmsnorm(y.flatten(-2), z, self.norm.weight, c.norm_eps, c.ngroups)
        return self.out_proj(normed)


class RMSNorm(nn.Module):
    """Root mean square norm with a weight, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        """Make the weight (width,)."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, residual: Tensor, update: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Add `update` to the residual stream (..., width) float32.

        Gives the sum's norm, in the weight's dtype, and the sum.
        """
        return add_rmsnorm(residual, update, self.weight, self.eps)


class Block(nn.Module):
    """Norm, mixer, residual."""

    def __init__(self, config: Mamba2Config) -> None:
        """Make one layer."""
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mixer(config)

    def prefill(
        self,
        residual: Tensor,
        update: Tensor | None,
        conv_state: Tensor,
        ssm_state: Tensor,
        positions: Sequence[int] = (),
        *,
        log_after: int | None = None,
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]], InputLog | None]:
        """Read residual (batch, l, d_model) float32, and what is still to be added, in chunks.

        Gives both on; both states after each number of tokens in `positions`, and after all; and
        the log of what follows the first `log_after` tokens, or None.
        """
        mixer = self.mixer
        normed, residual = self.norm(residual, update)
        z, log, C, conv_after = mixer.project(normed, conv_state)
        y, ssm_after, ssm_states = ssd_chunk_scan(
            log.x,
            log.dt,
            mixer.A,
            log.B,
            C,
            mixer.D,
            ssm_state,
            mixer.config.chunk_size,
            state_positions=positions,
        )
        taps = conv_state.shape[1]
        states = [
            (torch.cat((conv_state[:, n:], log.xBC[:, max(n - taps, 0) : n]), dim=1), state)
            for n, state in zip(positions, ssm_states, strict=True)
        ]
        states.append((conv_after, ssm_after))
        logged = None if log_after is None else log.after(log_after)
        return residual, mixer.finish(y, z), states, logged

    def forward(
        self, residual: Tensor, update: Tensor | None, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, InputLog]:
        """Read a short run; the states are only read.

        Gives on the residual stream and what is still to be added to it, and the input log.
        """
        c, mixer = self.mixer.config, self.mixer
        normed, residual = self.norm(residual, update)
        z, xBC, dt = mixer.in_proj(normed).split((c.d_inner, c.conv_dim, c.nheads), dim=-1)
        y, x, B, dt = mixer_pass(
            xBC,
            dt,
            mixer.conv1d.weight[:, 0],
            mixer.conv1d.bias,
            mixer.dt_bias,
            mixer.A_log,
            mixer.D,
            conv_state,
            ssm_state,
            headdim=c.headdim,
            ngroups=c.ngroups,
            dt_limit=c.dt_limit,
        )
        return residual, mixer.finish(y, z), InputLog(xBC, x, B, dt)


class Backbone(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: Mamba2Config) -> None:
        """Make all layers."""
        super().__init__()
        self.embeddings = (
            QuantizedEmbedding(config.d_model, config.vocab_size)
            if config.tie_embeddings and config.quantization is not None
            else nn.Embedding(config.vocab_size, config.d_model)
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)


class Mamba2(nn.Module):
    """A Mamba-2 language model."""

    def __init__(
        self,
        config: Mamba2Config,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make the parameters on `device` ("meta" makes shapes alone), without meaningful values.

        The recurrence's A_log, D and dt_bias are float32 in any dtype.
        """
        super().__init__()
        self.config = config
        with torch.device(device or "cpu"):
            self.backbone = Backbone(config)
            self.lm_head = (
                None
                if config.tie_embeddings
                else _projection(config, config.d_model, config.vocab_size)
            )
        for name, parameter in self.named_parameters():
            if not name.endswith(FLOAT32_PARAMETERS):
                parameter.data = parameter.data.to(dtype)
        self._compiled: CpuPasses | None = None
        self._graphs: PassGraphs | None = None

    @property
    def blocks(self) -> list[Block]:
        """Give the layers in order."""
        return cast("list[Block]", list(self.backbone.layers))

    @property
    def dtype(self) -> torch.dtype:
        """Give the dtype of the weights that are not quantized, which activations have."""
        return self.backbone.norm_f.weight.dtype

    @property
    def device(self) -> torch.device:
        """Give the device of the weights."""
        return self.backbone.norm_f.weight.device

    def initial_state(self, batch: int = 1) -> RecurrentState:
        """Give the state before any token."""
        return RecurrentState.zeros(self.config, batch=batch, dtype=self.dtype, device=self.device)

    def prefill(
        self, tokens: Tensor, state: RecurrentState | None = None
    ) -> tuple[Tensor, RecurrentState]:
        """Read tokens (batch, l) in chunks, from `state` (None: from nothing), which is only read.

        Returns hidden (batch, l, d_model), normed, in the model's dtype, and the state after them.
        Differentiable: training goes through here. Never compiled: what is, is held against it.
        """
        hidden, states, _ = self._prefill(tokens, state or self.initial_state(tokens.shape[0]))
        return hidden, states[-1]

    def read(
        self, tokens: Tensor, base: RecurrentState, positions: Sequence[int], log_after: int
    ) -> Reading:
        """Read tokens (l,) in chunks from `base` (batch 1), which is only read.

        Gives the states after so many of them as `positions` say, in any order, 0 to l; and the
        log of what follows the first `log_after`: for a place within the run, it takes no pass.
        """
        if self._compiled is not None and len(tokens):
            return self._compiled.read(tokens, base, positions, log_after)
        hidden, states, logs = self._prefill(tokens[None], base, positions, log_after=log_after)
        return Reading(hidden[0], tuple(states[:-1]), InputLog.of_layers(logs))

    def _prefill(
        self,
        tokens: Tensor,
        state: RecurrentState,
        positions: Sequence[int] = (),
        *,
        log_after: int | None = None,
    ) -> tuple[Tensor, list[RecurrentState], list[InputLog]]:
        """Give the hidden rows, the states at the positions and the end, and the layers' logs."""
        residual, update = self.backbone.embeddings(tokens).float(), None
        states, logs = [], []
        for i, block in enumerate(self.blocks):
            residual, update, layer_states, log = block.prefill(
                residual,
                update,
                state.conv_state[i],
                state.ssm_state[i],
                positions,
                log_after=log_after,
            )
            states.append(layer_states)
            if log is not None:
                logs.append(log)
        stacked = [
            RecurrentState(*(torch.stack(parts) for parts in zip(*layers, strict=True)))
            for layers in zip(*states, strict=True)
        ]
        return self.backbone.norm_f(residual, update)[0], stacked, logs

    def forward(self, tokens: Tensor, base: RecurrentState) -> Pass:
        """Read a short run of tokens (l,) from `base` (batch 1), which is only read."""
        if self._compiled is not None and len(tokens):
            return self._compiled(tokens, base)
        if self._graphs is not None and 0 < len(tokens) <= ROW_COUNTS[-1]:
            return self._graphs(tokens, base)
        return self.layer_by_layer(tokens, base)

    def layer_by_layer(self, tokens: Tensor, base: RecurrentState) -> Pass:
        """Read a short run as `forward` does, each operation by itself, on any device."""
        residual, update = self.backbone.embeddings(tokens[None]).float(), None
        logs = []
        for i, block in enumerate(self.blocks):
            residual, update, log = block(residual, update, base.conv_state[i], base.ssm_state[i])
            logs.append(log)
        hidden = self.backbone.norm_f(residual, update)[0][0]  # (l, d_model)
        return Pass(self.logits(hidden), hidden, base, InputLog.of_layers(logs), self.A)

    def capture_passes(self) -> None:
        """Have `forward` replay graphs, for inference on a GPU; elsewhere this does nothing.

        The weights must stay where they are from then on. The first pass of a length captures.
        """
        if self.device.type == "cuda" and has_triton():
            self._graphs = PassGraphs(self.layer_by_layer, self.config, self.dtype, self.device)

    @property
    def is_compiled(self) -> bool:
        """Tell whether `forward` and `read` run compiled code."""
        return self._compiled is not None

    def compile_passes(self, n_threads: int = 1) -> None:
        """Have `forward` and `read` run compiled code from now on, with so many threads.

        Takes seconds the first time on a machine. For inference in float32 on a CPU: does nothing
        with another dtype or device, or with 4-bit weights. The weights are copied, in the
        narrowest type that keeps them as they are, and must not change any more.
        """
        # Imported here: it brings a compiler along.
        from engine.cpu_passes import CpuPasses

        self._compiled = CpuPasses.of(self, n_threads)

    @property
    def A(self) -> Tensor:
        """Give the decay rates of all layers (n_layers, nheads), float32."""
        return -torch.exp(torch.stack([block.mixer.A_log.float() for block in self.blocks]))

    def logits(self, hidden: Tensor) -> Tensor:
        """Give the next token's logits (..., vocab_size) float32 from hidden (..., d_model)."""
        head = self.backbone.embeddings if self.lm_head is None else self.lm_head
        return linear(hidden, head.weight).float()


def _projection(config: Mamba2Config, n_in: int, n_out: int) -> nn.Linear | QuantizedLinear:
    if config.quantization is None:
        return nn.Linear(n_in, n_out, bias=False)
    return QuantizedLinear(n_in, n_out, config.quantization)
