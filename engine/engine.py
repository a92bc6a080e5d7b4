"""The engine: requests in, completions out, one thread that owns the device."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.budget import CPU_BYTES, default_budgets, default_threads
from engine.cache import StateCache
from engine.checkpoint import load_model, resolve_model
from engine.completing import Completer
from engine.copying import CopyWeights
from engine.declaration import Declaration, read_declaration
from engine.decode import Decoder, Work
from engine.epochs import Epochs
from engine.fim import FimFormat, fim_format
from engine.prompts import Prompts
from engine.quantized import Quantization
from engine.request import Completion, CompletionRequest
from engine.slots import SlotPool
from engine.tokenizer import Tokenizer
from engine.warm_restart import SavedStates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cache import Checkpoint
    from engine.mamba2 import Mamba2

log = getLogger(__name__)

PASS_TARGET_MS = 25.0
# Of the budget: for the trails of the documents being edited. The rest is cached states.
TRAIL_SHARE = 0.25
# A build that has waited so long takes turns with requests, however many come.
PATIENCE_MS = 300.0
# So much of the time that a request has waited counts as time that it has not had: nobody starves.
SHARE_OF_WAITING = 0.1

OnDone = Callable[[Completion], None]


class _Interrupted(Exception):
    """Something came that goes first."""


@dataclass(eq=False)
class Ticket:
    """A submitted request. `cancel` may be called from any thread, more than once."""

    request: CompletionRequest
    on_done: OnDone | None
    submitted: float
    # Only reads the prompt and answers nobody.
    background: bool = False
    # What was being prepared for the document when this was submitted: of an older text.
    older_build: Ticket | None = None
    # Set from outside: why the work should end before it is done.
    interrupted: str | None = None
    work: Generator[Completion | None, None, None] | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    cost: Work = field(default_factory=Work)
    # In its passes.
    spent_s: float = 0.0

    def rank(self, now: float) -> tuple[bool, float]:
        """Give its place among those that wait: the least goes first.

        Who has no time left, or is called off, is done with one step more.
        """
        waited_s, deadline_ms = now - self.submitted, self.request.deadline_ms
        is_late = deadline_ms is not None and 1e3 * waited_s >= deadline_ms
        is_last = self.interrupted is not None or (is_late and not self.background)
        return not is_last, self.spent_s - SHARE_OF_WAITING * waited_s

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
        budget_bytes: int = CPU_BYTES,
        host_budget_bytes: int = 0,
        int8_states: bool = False,
        n_threads: int | None = None,
        name: str = "model",
        saved: SavedStates | None = None,
        declaration: Declaration | None = None,
        copy_weights: CopyWeights | None = None,
    ) -> None:
        """Put a model to work; `clock` gives seconds, `n_threads` is set by `start` on a CPU.

        `budget_bytes` bounds the states kept on the model's device, `host_budget_bytes` those that
        move on to the host's memory from there. `int8_states` keeps them in a quarter of the
        bytes, and gives up exactness. `saved` is where states outlast the process: `start` takes
        them up, `close` writes them. With `copy_weights` what followed the same text elsewhere has
        its share in answers that are not raw.
        """
        if min(budget_bytes, host_budget_bytes) < 0:
            raise ValueError(
                f"budget_bytes is {budget_bytes} and host_budget_bytes {host_budget_bytes},"
                " expected 0 or more"
            )
        if tokenizer.n_vocab > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.n_vocab} pieces and the model's vocabulary"
                f" {model.config.vocab_size}: expected a tokenizer that belongs to these weights"
            )
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.declaration = declaration or Declaration()
        self.fim: FimFormat = fim_format(tokenizer)
        self.epochs = Epochs()
        self._clock = clock
        self._budgets = (budget_bytes, host_budget_bytes, int8_states)
        self.copy_weights = copy_weights
        self._begin(self._allocated())
        self.n_threads = n_threads
        self._wake = threading.Condition()
        # One request and one preparation a document: the newest.
        self._requests: OrderedDict[str, Ticket] = OrderedDict()
        self._background: OrderedDict[str, Ticket] = OrderedDict()
        self._forgotten: list[str] = []
        # Generators of superseded work: closed on the engine's thread, where they may clean up.
        self._dropped: list[Ticket] = []
        self._saved = saved
        self._never_saved: set[str] = set()
        self._background_turn = False
        # Time that a build took while requests waited: they get as much before its next pass. A
        # chunk of a prompt takes as long as half a dozen written tokens.
        self._owed_s = 0.0
        self._n_answers: dict[str, int] = {}
        self._n_background_tokens = self._n_background_passes = 0
        self._thread: threading.Thread | None = None
        self._closed = self._is_saved = self._is_saving_due = False

    @classmethod
    def load(
        cls,
        name_or_path: str | None = None,
        *,
        device: str | None = None,
        n_threads: int | None = None,
        states_folder: Path | None = None,
        int8_states: bool = False,
        quantize: str | None = None,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> Engine:
        """Load a model (None: the embedded one) onto a device (None: CUDA where there is one).

        float32 on a CPU, bfloat16 elsewhere. With `states_folder`, states of recently edited
        documents are kept there from one run to the next, inexact ones (`int8_states`) apart from
        exact ones. `quantize`: "int8" or "int4", the weights as such from here on; `on_progress` is
        told, often, what is being done and the share of it that is. Raises CheckpointError or
        TokenizerError.
        """

        def telling(what: str) -> Callable[[float], None] | None:
            return None if on_progress is None else partial(on_progress, what)

        path = resolve_model(name_or_path, telling(f"downloading {name_or_path}"))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        tokenizer = Tokenizer.load(path)
        model = load_model(
            path,
            device=device,
            dtype=dtype,
            quantize=None if quantize is None else Quantization.named(quantize),
            on_progress=telling("loading the model"),
        )
        name = "embedded" if name_or_path is None else Path(path).name
        saved = None
        if states_folder is not None:
            saved = SavedStates.of_model(
                states_folder,
                path,
                dtype=model.dtype,
                quantization=model.config.quantization,
                int8_states=int8_states,
            )
        try:
            model.compile_passes(n_threads or default_threads())
        except Exception:
            log.exception("passes could not be compiled: they take several times as long")
        # Captured at the first pass, which is the warm-up's.
        model.capture_passes()
        budget_bytes, host_budget_bytes = default_budgets(model.device)
        return cls(
            model,
            tokenizer,
            budget_bytes=budget_bytes,
            host_budget_bytes=host_budget_bytes,
            int8_states=int8_states,
            n_threads=n_threads,
            name=name,
            saved=saved,
            declaration=read_declaration(path),
            copy_weights=CopyWeights.load(path),
        )

    def submit(self, request: CompletionRequest, on_done: OnDone) -> Ticket:
        """Queue a request; `on_done` is called exactly once, and must return at once.

        The document's older request, if it still waits or runs, is answered "superseded" before
        this returns; all else is answered on the engine's thread.
        """
        ticket = Ticket(request, on_done, self._clock())
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if not request.may_be_saved:
                self._never_saved.add(request.document)
            older = self._requests.pop(request.document, None)
            self._requests[request.document] = ticket
            ticket.older_build = self._background.get(request.document)
            if older is not None:
                self._dropped.append(older)
            self._wake.notify()
        if older is not None:
            self._retire(older, "superseded")
        return ticket

    def prepare(self, request: CompletionRequest, *, key: str | None = None) -> None:
        """Read a request's exact prompt when nothing else is to do; nothing is answered.

        Replaces what was being prepared for the document, or for `key`; the progress is kept.
        """
        ticket = Ticket(request, None, self._clock(), background=True)
        with self._wake:
            if not request.may_be_saved:
                self._never_saved.add(request.document)
            if not self._closed:
                self._queue_background(key or request.document, ticket)
            self._wake.notify()

    def is_preparing(self, document: str) -> bool:
        """Tell whether a document's exact prompt is still to be read, or being read."""
        with self._wake:
            return document in self._background

    def forget(self, document: str) -> None:
        """Drop what is known of a document's epochs; its states age out of the cache."""
        with self._wake:
            self._forgotten.append(document)
            for key, ticket in list(self._background.items()):
                if ticket.request.document == document:
                    self._dropped.append(self._background.pop(key))
            self._wake.notify()

    def step(self) -> bool:
        """Run one pass of one request, else of one preparation; False when there is none.

        Of several, the one that has had the least time, and less than others for how long it has
        waited: a short answer does not wait for a long one that came before it. A preparation that
        has waited 300 ms gets every second pass, but not more time than the requests do.
        """
        with self._wake:
            forgotten, self._forgotten = self._forgotten, []
            for document in forgotten:
                self.epochs.forget(document)
                self.decoder.forget(document)
            dropped, self._dropped = self._dropped, []
            queue = self._next_queue()
            if queue:
                now = self._clock()
                document, ticket = min(queue.items(), key=lambda item: item[1].rank(now))
                queue.move_to_end(document)
        for stale in dropped:
            if stale.work is not None:
                with torch.inference_mode():
                    stale.work.close()
        if not queue:
            return False
        started = self._clock()
        completion = self._advance(ticket)
        spent_s = self._clock() - started
        ticket.spent_s += spent_s
        self._owed_s = spent_s if self._background_turn else max(0.0, self._owed_s - spent_s)
        if completion is not None:
            with self._wake:
                if queue.get(document) is ticket:
                    del queue[document]
                waiting = self._background.get(document)
                if _wants_build(ticket, completion) and waiting in (None, ticket.older_build):
                    build = Ticket(ticket.request, None, self._clock(), background=True)
                    self._queue_background(document, build)
            self._answer(ticket, completion)
            self._finish(ticket)
        return True

    def warm_up(self) -> None:
        """Run the model once at the sizes it will see, and size passes to about 25 ms."""
        with torch.inference_mode():
            state = self.model.initial_state()
            tokens = torch.full((256,), self.tokenizer.bos_id, device=self.model.device)
            for n_tokens in (1, 2, 4, 8, 16):
                self.model(tokens[:n_tokens], state).commit(n_tokens)
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                int(self.model.read(tokens, state, (256,), 256).hidden.argmax())
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
        if self._saved is not None and not self._is_saved:
            self._is_saved = True
            self._saved.save(self._worth_saving())

    def save_soon(self) -> None:
        """Have the states that `close` would save written once nothing else is to do."""
        with self._wake:
            self._is_saving_due = self._saved is not None
            self._wake.notify()

    def counters(self) -> dict[str, int]:
        """Give what was answered, by stop reason, and the cache's figures.

        `int8_states` is 1 where answers go on from states kept as int8, and are not exact.
        """
        with self._wake:
            answers = {f"answers_{stop}": n for stop, n in sorted(self._n_answers.items())}
        return {
            **answers,
            **{f"cache_{name}": n for name, n in sorted(self.cache.counts.items())},
            "cache_checkpoints": len(self.cache),
            "cache_bytes": self.cache.n_bytes,
            "int8_states": int(self.cache.tiers[0].int8),
            "trail_hits": self.decoder.n_trail_hits,
            "trail_bytes": self.decoder.trail_bytes,
            "background_tokens": self._n_background_tokens,
            "background_passes": self._n_background_passes,
        }

    def _allocated(self) -> list[SlotPool]:
        """Make room for states: on the model's device, and on the host if that is asked for."""
        budget_bytes, host_budget_bytes, int8 = self._budgets
        model = self.model
        on_device = SlotPool(
            model.config,
            budget_bytes - int(budget_bytes * TRAIL_SHARE),
            dtype=model.dtype,
            device=model.device,
            int8=int8,
        )
        tiers = [on_device]
        if host_budget_bytes:
            pinned = model.device.type == "cuda"
            tiers.append(
                SlotPool(
                    model.config, host_budget_bytes, dtype=model.dtype, int8=int8, pinned=pinned
                )
            )
        return tiers

    def _begin(self, tiers: Sequence[SlotPool]) -> None:
        """Start with nothing kept."""
        trail_bytes = int(self._budgets[0] * TRAIL_SHARE)
        self.cache = StateCache(tiers, self.model.device)
        self.decoder = Decoder(
            self.model,
            self.tokenizer,
            self.cache,
            trail_budget_bytes=trail_bytes,
            copy_weights=self.copy_weights,
        )
        prompts = Prompts(self.fim, self.epochs, self.decoder)
        self._completer = Completer(self.decoder, prompts, self._clock)

    def _worth_saving(self) -> Iterator[Checkpoint]:
        """Yield the last checkpoint of every epoch and trunk that may be saved."""
        seen = set()
        for checkpoint, owner in self.cache.checkpoints():
            document = owner[0] if isinstance(owner, tuple) else owner
            if owner is not None and owner not in seen and document not in self._never_saved:
                seen.add(owner)
                yield checkpoint

    def _queue_background(self, key: str, ticket: Ticket) -> None:
        older = self._background.pop(key, None)
        if older is not None:
            # Steady typing replaces a build again and again: it has waited since its first.
            ticket.submitted, ticket.spent_s = older.submitted, older.spent_s
            self._dropped.append(older)
        self._background[key] = ticket

    def _next_queue(self) -> OrderedDict[str, Ticket]:
        """Give the queue whose turn it is; empty when there is nothing to do."""
        if not (self._requests and self._background):
            return self._requests or self._background
        oldest = min(ticket.submitted for ticket in self._background.values())
        waited = 1e3 * (self._clock() - oldest) >= PATIENCE_MS
        self._background_turn = waited and not self._background_turn and self._owed_s <= 0
        return self._background if self._background_turn else self._requests

    def _run(self) -> None:
        # Vanishing decays would otherwise be computed with denormals, many times slower.
        torch.set_flush_denormal(True)
        if self.model.device.type == "cpu" and self.n_threads is not None:
            # Where passes are compiled they have these threads. Those of torch would be idle, but
            # spin on the same cores behind each of its operations.
            torch.set_num_threads(1 if self.model.is_compiled else self.n_threads)
        try:
            self.warm_up()
        except Exception:
            log.exception("the warm-up failed; passes keep their first size")
        try:
            for checkpoint in () if self._saved is None else self._saved.load(self.model):
                self.cache.add(checkpoint)
        except Exception:
            log.exception("saved states were not taken up")
        while not self._closed:
            try:
                self._serve()
            except Exception:
                log.exception("the engine failed; it starts again with nothing kept")
                self._restart()

    def _serve(self) -> None:
        """Step until closed."""
        while not self._closed:
            if not self.step():
                with self._wake:
                    if not (self._is_busy() or self._closed or self._is_saving_due):
                        self._wake.wait()
                if self._is_saving_due and not self._is_busy():
                    self._save_while_idle()

    def _is_busy(self) -> bool:
        return bool(self._requests or self._background or self._forgotten or self._dropped)

    def _save_while_idle(self) -> None:
        """Save, state by state; begun again later when something comes in between."""
        assert self._saved is not None, "saving is due only where there is a folder"

        def while_idle() -> Iterator[Checkpoint]:
            for checkpoint in self._worth_saving():
                if self._is_busy() or self._closed:
                    # What is on disk by now, and what was before, stays.
                    raise _Interrupted
                yield checkpoint

        with suppress(_Interrupted):
            self._saved.save(while_idle())
            self._is_saving_due = False

    def _restart(self) -> None:
        """Answer everything that waits "error", and forget all states: any may be wrong."""
        with self._wake:
            waiting = list(self._requests.values())
            self._requests.clear()
            self._background.clear()
            self._dropped.clear()
            chunk_tokens = self.decoder.chunk_tokens
            # The slots are used again: there may be no room for as many more.
            for tier in self.cache.tiers:
                tier.clear()
            self._begin(self.cache.tiers)
            self.decoder.chunk_tokens = chunk_tokens
        for ticket in waiting:
            self._retire(ticket, "error")

    def _advance(self, ticket: Ticket) -> Completion | None:
        """Run one pass of a ticket's work; give its answer when that was the last."""
        if ticket.interrupted is not None:
            if ticket.work is not None:
                with torch.inference_mode():
                    ticket.work.close()
            return _empty(ticket, ticket.interrupted)
        n_tokens, n_passes = ticket.cost.n_recomputed, ticket.cost.n_passes
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
                return next(ticket.work)
        except Exception:
            log.exception("a completion failed; it is answered empty")
            return _empty(ticket, "error")
        finally:
            if ticket.background:
                self._n_background_tokens += ticket.cost.n_recomputed - n_tokens
                self._n_background_passes += ticket.cost.n_passes - n_passes

    def _finish(self, ticket: Ticket) -> None:
        """Do what is left of a ticket's work once it is answered."""
        try:
            with torch.inference_mode():
                if ticket.work is not None:
                    next(ticket.work, None)
        except Exception:
            log.exception("what an answer took was not kept")

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


def _wants_build(ticket: Ticket, completion: Completion) -> bool:
    """Tell whether a request was answered without its epoch's prompt having been read."""
    if ticket.background:
        return False
    return completion.kind != "epoch" or (
        completion.stop == "deadline" and not completion.token_ids
    )


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
