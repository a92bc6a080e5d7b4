"""The engine: requests in, completions out, one thread that owns the device."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.cache import StateCache
from engine.checkpoint import load_model, resolve_model
from engine.completing import Completer
from engine.decode import Decoder, Work
from engine.epochs import Epochs
from engine.fim import FimFormat, fim_format
from engine.request import Completion, CompletionRequest
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.mamba2 import Mamba2

log = getLogger(__name__)

DEFAULT_BUDGET_BYTES = 512 * 2**20
PASS_TARGET_MS = 25.0

OnDone = Callable[[Completion], None]


@dataclass(eq=False)
class Ticket:
    """A submitted request. `cancel` may be called from any thread, more than once."""

    request: CompletionRequest
    on_done: OnDone | None
    submitted: float
    # Only reads the prompt and answers nobody.
    background: bool = False
    # Set from outside: why the work should end before it is done.
    interrupted: str | None = None
    work: Generator[None, None, Completion] | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    cost: Work = field(default_factory=Work)

    def cancel(self) -> None:
        """Ask for the work to end after the pass that runs now; it is answered "cancel"."""
        self.interrupted = self.interrupted or "cancel"


class Engine:
    """Completes code from states it keeps between requests.

    Public methods may be called from any thread, except `step`, which the engine's own thread
    calls after `start`. Tests call it by hand instead, with a clock of their own.
    """

    def __init__(
        self,
        model: Mamba2,
        tokenizer: Tokenizer,
        *,
        clock: Callable[[], float] = time.monotonic,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
        n_threads: int | None = None,
        name: str = "model",
    ) -> None:
        """Put a model to work; `clock` gives seconds, `n_threads` is set by `start` on a CPU."""
        if tokenizer.n_vocab > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.n_vocab} pieces and the model's vocabulary"
                f" {model.config.vocab_size}: expected a tokenizer that belongs to these weights"
            )
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.fim: FimFormat = fim_format(tokenizer)
        self.cache = StateCache(budget_bytes)
        self.decoder = Decoder(model, tokenizer, self.cache)
        self.epochs = Epochs()
        self._completer = Completer(self.decoder, self.fim, self.epochs, clock)
        self.n_threads = n_threads
        self._clock = clock
        self._wake = threading.Condition()
        # One request and one preparation a document: the newest.
        self._requests: OrderedDict[str, Ticket] = OrderedDict()
        self._background: OrderedDict[str, Ticket] = OrderedDict()
        self._forgotten: list[str] = []
        self._n_answers: dict[str, int] = {}
        self._n_background_tokens = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    @classmethod
    def load(
        cls,
        name_or_path: str | None = None,
        *,
        device: str | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
        n_threads: int | None = None,
    ) -> Engine:
        """Load a model (None: the embedded one) onto a device (None: CUDA where there is one).

        float32 on a CPU, bfloat16 elsewhere. Raises CheckpointError or TokenizerError.
        """
        path = resolve_model(name_or_path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        tokenizer = Tokenizer.load(path)
        model = load_model(path, device=device, dtype=dtype)
        name = "embedded" if name_or_path is None else Path(path).name
        return cls(model, tokenizer, budget_bytes=budget_bytes, n_threads=n_threads, name=name)

    def submit(self, request: CompletionRequest, on_done: OnDone) -> Ticket:
        """Queue a request; `on_done` is called exactly once, and must return at once.

        The document's older request, if it still waits or runs, is answered "superseded" before
        this returns; all else is answered on the engine's thread.
        """
        ticket = Ticket(request, on_done, self._clock())
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            older = self._requests.pop(request.document, None)
            self._requests[request.document] = ticket
            # The request reads the same prompt, and in time.
            prepared = self._background.pop(request.document, None)
            self._wake.notify()
        for stale in (older, prepared):
            if stale is not None:
                self._retire(stale, "superseded")
        return ticket

    def prepare(self, request: CompletionRequest) -> None:
        """Read a request's prompt when nothing else is to do; nothing is answered."""
        ticket = Ticket(request, None, self._clock(), background=True)
        with self._wake:
            if not self._closed:
                self._background[request.document] = ticket
            self._wake.notify()

    def forget(self, document: str) -> None:
        """Drop what is known of a document's epochs; its states age out of the cache."""
        with self._wake:
            self._forgotten.append(document)
            self._background.pop(document, None)
            self._wake.notify()

    def step(self) -> bool:
        """Run one pass of one request, else of one preparation; False when there is none.

        Documents take turns.
        """
        with self._wake:
            for document in self._forgotten:
                self.epochs.forget(document)
            self._forgotten.clear()
            queue = self._requests or self._background
            if not queue:
                return False
            document, ticket = next(iter(queue.items()))
            queue.move_to_end(document)
        completion = self._advance(ticket)
        if completion is not None:
            with self._wake:
                if queue.get(document) is ticket:
                    del queue[document]
            self._answer(ticket, completion)
        return True

    def warm_up(self) -> None:
        """Run the model once at the sizes it will see, and size passes to about 25 ms."""
        with torch.inference_mode():
            state = self.model.initial_state()
            tokens = torch.full((1, 256), self.tokenizer.bos_id, device=self.model.device)
            for n_tokens in (1, 4, 16):
                self.model(tokens[0, :n_tokens], state).commit(n_tokens)
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                int(self.model.prefill(tokens, state)[0].argmax())
                seconds.append(time.perf_counter() - started)
        per_pass = int(256 * PASS_TARGET_MS / 1e3 / min(seconds))
        self.decoder.chunk_tokens = max(32, min(2048, per_pass // 32 * 32))

    def start(self) -> None:
        """Warm up and serve on a thread of its own, until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current pass; what still waits is answered "cancel"."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        with self._wake:
            waiting = list(self._requests.values())
            self._requests.clear()
            self._background.clear()
        for ticket in waiting:
            self._retire(ticket, "cancel")

    def counters(self) -> dict[str, int]:
        """Give what was answered, by stop reason, and the cache's figures."""
        with self._wake:
            answers = {f"answers_{stop}": n for stop, n in sorted(self._n_answers.items())}
        return {
            **answers,
            "cache_checkpoints": len(self.cache),
            "cache_bytes": self.cache.n_bytes,
            "cache_hits": self.cache.n_hits,
            "cache_misses": self.cache.n_misses,
            "cache_evictions": self.cache.n_evictions,
            "background_tokens": self._n_background_tokens,
        }

    def _run(self) -> None:
        # Vanishing decays would otherwise be computed with denormals, many times slower.
        torch.set_flush_denormal(True)
        if self.model.device.type == "cpu" and self.n_threads is not None:
            torch.set_num_threads(self.n_threads)
        try:
            self.warm_up()
        except Exception:
            log.exception("the warm-up failed; passes keep their first size")
        while True:
            if not self.step():
                with self._wake:
                    if self._closed:
                        return
                    if not (self._requests or self._background or self._forgotten):
                        self._wake.wait()
            elif self._closed:
                return

    def _advance(self, ticket: Ticket) -> Completion | None:
        """Run one pass of a ticket's work; give its answer when that was the last."""
        if ticket.interrupted is not None:
            if ticket.work is not None:
                ticket.work.close()
            return _empty(ticket, ticket.interrupted)
        n_before = ticket.cost.n_recomputed
        try:
            if ticket.work is None:
                ticket.timings_ms["queue"] = 1e3 * (self._clock() - ticket.submitted)
                ticket.work = self._completer.work(
                    ticket.request,
                    submitted=ticket.submitted,
                    times=ticket.timings_ms,
                    cost=ticket.cost,
                    only_read=ticket.background,
                )
            with torch.inference_mode():
                next(ticket.work)
        except StopIteration as stop:
            completion: Completion = stop.value
            return completion
        except Exception:
            log.exception("a completion failed; it is answered empty")
            return _empty(ticket, "error")
        finally:
            if ticket.background:
                self._n_background_tokens += ticket.cost.n_recomputed - n_before
        return None

    def _retire(self, ticket: Ticket, stop: str) -> None:
        """Answer a ticket that left its queue; its generator may be running: leave that alone."""
        ticket.interrupted = ticket.interrupted or stop
        self._answer(ticket, _empty(ticket, ticket.interrupted))

    def _answer(self, ticket: Ticket, completion: Completion) -> None:
        with self._wake:
            on_done, ticket.on_done = ticket.on_done, None
            if on_done is not None:
                self._n_answers[completion.stop] = self._n_answers.get(completion.stop, 0) + 1
        if on_done is None:
            return
        try:
            on_done(completion)
        except Exception:
            # It must not take the engine's thread, and every later answer, with it.
            log.exception("the receiver of a completion failed")


def _empty(ticket: Ticket, stop: str) -> Completion:
    cost = ticket.cost
    return Completion(
        text="",
        stop=stop,
        n_recomputed=cost.n_recomputed,
        n_generated=cost.n_generated,
        n_passes=cost.n_passes,
        n_healing_passes=cost.n_healing_passes,
        timings_ms=dict(ticket.timings_ms),
    )
