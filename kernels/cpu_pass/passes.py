"""A model made ready for compiled passes, and the threads that help with them."""

from __future__ import annotations

import math
import sys
import threading
import weakref
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernels.cpu_pass.compiled import N_FIELDS, run
from kernels.cpu_pass.job import Job
from kernels.cpu_pass.layer import RUN
from kernels.cpu_pass.outputs import PassOutputs
from kernels.cpu_pass.packing import (
    CACHE_LINE_BYTES,
    ModelWeights,
    PackedWeights,
    aligned,
    aligned_room,
)
from kernels.cpu_pass.products import HAS_BYTE_SUMS, HEADER_BYTES, N_DIGITS
from kernels.cpu_pass.sharing import LINE_BYTES, Shared
from kernels.cpu_pass.vectors import GROUP, LANES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

log = getLogger(__name__)

# How numba tells the kinds of packed weights apart; see `tile`.
KINDS = {
    torch.float32: np.float32(0),
    torch.bfloat16: np.uint16(0),
    torch.int8: np.uint8(0) if HAS_BYTE_SUMS else np.int8(0),
}
# Turns that a thread waits for the next pass before it sleeps: a millisecond or two. From one
# token to the next it does not, for waking it takes as long as a share of a pass.
PATIENCE = 50_000


class CompiledPasses:
    """Reads short runs of tokens with a model's weights, on a CPU, in float32.

    Made ready for the CPU at hand when it is made: compiled, which takes seconds, or loaded where
    an earlier process kept it. To be called by one thread at a time.
    """

    def __init__(self, weights: ModelWeights, packed: PackedWeights, n_threads: int = 1) -> None:
        """Make a job of `packed`, which was made of `weights`."""
        self.packed, self.n_threads = packed, n_threads
        first = weights.layers[0]
        self._n_layers, self._d_model = len(weights.layers), len(weights.norm_f)
        self._nheads, self._d_inner = len(first.A), len(first.gate_norm)
        self._conv_dim, d_conv = first.conv.shape
        self._vocab_size = weights.head.shape[0]
        self._padded_vocab = _up(self._vocab_size, GROUP)
        self._x_sizes = (self._nheads, self._d_inner // self._nheads)
        self._B_sizes = (weights.ngroups, weights.d_state)
        self._kind = KINDS[packed.kind]
        self._job = np.zeros(N_FIELDS, np.int64)
        fields = {
            Job.N_LAYERS: self._n_layers,
            Job.D_MODEL: self._d_model,
            Job.D_INNER: self._d_inner,
            Job.NHEADS: self._nheads,
            Job.HEADDIM: self._x_sizes[1],
            Job.NGROUPS: weights.ngroups,
            Job.D_STATE: weights.d_state,
            Job.D_CONV: d_conv,
            Job.CONV_DIM: self._conv_dim,
            Job.RESIDUAL_STRIDE: _up(self._d_model, GROUP),
            Job.PROJECTED_STRIDE: _up(self._d_inner + self._conv_dim + self._nheads, GROUP),
            Job.Y_STRIDE: self._d_inner,
            Job.LOGITS_STRIDE: self._padded_vocab,
            Job.N_THREADS: n_threads,
            Job.ITEM_BYTES: packed.kind.itemsize,
            Job.IN_PROJ: packed.in_proj.words.data_ptr(),
            Job.IN_SCALES: packed.in_proj.scales.data_ptr(),
            Job.OUT_PROJ: packed.out_proj.words.data_ptr(),
            Job.OUT_SCALES: packed.out_proj.scales.data_ptr(),
            Job.HEAD: packed.head.words.data_ptr(),
            Job.HEAD_SCALES: packed.head.scales.data_ptr(),
            Job.SMALL: packed.small.data_ptr(),
            Job.SMALL_STRIDE: packed.small[0].nbytes,
            Job.LIMITS: packed.limits.data_ptr(),
            Job.EMBEDDINGS: packed.embeddings.data_ptr(),
        }
        for field, value in fields.items():
            self._job[field] = value
        self._rooms: list[Tensor] = []
        self._max_tokens = 0
        self._states = StateRooms((0,))
        self.helpers: list[Helper] = []
        shares = _up(Shared.JOB + N_FIELDS + n_threads, LINE_BYTES // 8)
        n_shared = shares + n_threads * LINE_BYTES // 8
        self._shared = aligned(torch.zeros(n_shared, dtype=torch.int64))
        self._shared_address = self._shared.data_ptr()
        self._job[Job.SHARES] = self._shared_address + 8 * shares
        self._compile(d_conv)
        for thread in range(1, n_threads):
            helper = Helper(self._kind, self._shared, self._job, thread)
            weakref.finalize(self, helper.dismiss)
            self.helpers.append(helper)

    def __call__(
        self, tokens: Tensor, conv_state: Tensor, ssm_state: Tensor, *, with_logits: bool = True
    ) -> PassOutputs:
        """Read l tokens, 1 or more; arguments and results as in `reference`, float32, contiguous.

        The states may have a batch of 1 behind the layers, and so have those given. Without logits
        these are empty, and the head's weights are not read.
        """
        n = len(tokens)
        if n > self._max_tokens:
            self._make_room(n)
        if self._states.shape != ssm_state.shape:
            self._states = StateRooms(ssm_state.shape)
        outputs = PassOutputs(
            _room(n, self._padded_vocab if with_logits else 0),
            _room(n, self._d_model),
            _room(self._n_layers, n, self._conv_dim),
            _room(self._n_layers, n, *self._x_sizes),
            _room(self._n_layers, n, *self._B_sizes),
            _room(self._n_layers, n, self._nheads),
            _room(*conv_state.shape),
            self._states.take(),
        )
        self._job[Job.N_TOKENS : Job.SSM_AFTER + 1] = [
            n,
            *[part.data_ptr() for part in (tokens, conv_state, ssm_state, *outputs)],
        ]
        if not with_logits:
            self._job[Job.LOGITS] = 0
        for helper in self.helpers:
            helper.wake()
        run(self._kind, self._shared_address, self._job, 0, 0)
        if not with_logits or self._vocab_size == self._padded_vocab:
            return outputs
        return outputs._replace(logits=outputs.logits[:, : self._vocab_size])

    def _make_room(self, n: int) -> None:
        """Make room to work in, for passes of up to n tokens."""
        fields = (Job.RESIDUAL_STRIDE, Job.PROJECTED_STRIDE, Job.Y_STRIDE)
        rooms = [aligned_room(n * int(self._job[field]), torch.float32) for field in fields]
        headdim, (ngroups, d_state) = self._x_sizes[1], self._B_sizes
        normed = _up(max(self._d_model, self._d_inner), LANES)
        of_rows = 4 * normed + HEADER_BYTES + N_DIGITS * normed
        of_head = 4 * (2 * ngroups * d_state + 1 + headdim)
        own = _up(n * max(of_rows, of_head) + 4 * RUN * LANES * LANES, CACHE_LINE_BYTES) // 4
        rooms.append(aligned_room(self.n_threads * own, torch.float32))
        # Only now that nothing can fail any more: the job must not point at rooms that are gone.
        self._rooms = rooms
        self._job[Job.RESIDUAL : Job.OWN + 1] = [room.data_ptr() for room in rooms]
        self._job[Job.OWN_STRIDE] = 4 * own
        self._max_tokens = n

    def _compile(self, d_conv: int) -> None:
        """Read a token that nobody asked for."""
        sizes = (self._n_layers, *self._x_sizes, self._B_sizes[1])
        token = torch.zeros(1, dtype=torch.long)
        try:
            self(token, torch.zeros(self._n_layers, d_conv - 1, self._conv_dim), torch.zeros(sizes))
        except OSError as error:
            # The code is there, it only could not be kept.
            log.warning("compiled code could not be kept for the next start: %s", error)


class StateRooms:
    """Rooms for states, taken again and again: a state at another place is not in the cache.

    A pass writes a state where the one before its base was, if nobody keeps that.
    """

    MOST = 3

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Make rooms for states of a shape, float32, when they are asked for."""
        self.shape = shape
        self._rooms: list[NDArray[np.float32]] = []

    def take(self) -> Tensor:
        """Give a room that no tensor stands on."""
        for room, n_holders in zip(self._rooms, _holders(self._rooms), strict=True):
            if n_holders == _ALONE:
                return torch.from_numpy(room)
        room = aligned_room(math.prod(self.shape), torch.float32).view(self.shape).numpy()
        # Whose states are kept go first; they end with those.
        self._rooms = [*self._rooms[1 - self.MOST :], room]
        return torch.from_numpy(room)


def _holders(rooms: Sequence[object]) -> list[int]:
    return [sys.getrefcount(room) for room in rooms]


# What is counted of a thing that only a list holds.
(_ALONE,) = _holders([object()])


class Helper:
    """A thread that helps with passes; asleep while there are none."""

    def __init__(self, kind: Any, shared: Tensor, job: Any, number: int) -> None:
        """Start it; `job` is copied for its own use."""
        self._shared = shared.numpy()
        self._is_asleep = Shared.JOB + len(job) + number
        self._bell = threading.Semaphore(0)
        self.n_woken = 0
        self.thread = threading.Thread(
            target=self._run, args=(kind, shared, job.copy(), number), daemon=True
        )
        self.thread.start()

    def wake(self) -> None:
        """Have it wait for passes."""
        if self._shared[self._is_asleep]:
            self._shared[self._is_asleep] = 0
            self.n_woken += 1
            self._bell.release()

    def dismiss(self) -> None:
        """End it."""
        self._shared[Shared.IS_CLOSED] = 1
        self._bell.release()

    def _run(self, kind: Any, shared: Tensor, job: Any, number: int) -> None:
        # As the thread that leads: vanishing decays are slow where denormals are computed.
        torch.set_flush_denormal(True)
        while not self._shared[Shared.IS_CLOSED]:
            run(kind, shared.data_ptr(), job, number, PATIENCE)
            self._bell.acquire()


def _room(*sizes: int) -> Tensor:
    """Give an uninitialized tensor: in half the time that torch takes."""
    return torch.from_numpy(np.empty(sizes, np.float32))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
