"""The engine: requests in, completions out, one thread that owns the device."""

from __future__ import annotations

import threading
import time
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
from engine.decode import Decoder
from engine.epochs import Epochs
from engine.fim import FimFormat, fim_format
from engine.prompts import Prompts
from engine.quantized import Quantization
from engine.saving import Saving
from engine.schedule import Schedule
from engine.slots import SlotPool
from engine.ticket import Ticket
from engine.tokenizer import Tokenizer
from engine.warm_restart import SavedStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.mamba2 import Mamba2
    from engine.request import Completion, CompletionRequest
    from engine.ticket import OnDone

log = getLogger(__name__)

PASS_TARGET_MS = 25.0
# Of the budget: for the trails of the documents being edited. The rest is cached states.
TRAIL_SHARE = 0.25


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
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.declaration = declaration or Declaration()
        self.fim: FimFormat = fim_format(tokenizer)
        self.epochs = Epochs()
        self._clock = clock
        self._budgets = (budget_bytes, host_budget_bytes, int8_states)
        self.copy_weights = copy_weights
        self._begin(self._allocated())
        self.n_threads = n_threads
        # Whoever touches what several threads do holds it: these five, and a ticket's `on_done`.
        self._wake = threading.Condition()
        self._schedule = Schedule()
        self._saving = Saving(saved)
        self._forgotten: list[str] = []
        self._closed = False
        self._n_answers: dict[str, int] = {}
        # The engine's thread alone counts these.
        self._n_background_tokens = self._n_background_passes = 0
        self._thread: threading.Thread | None = None

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
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
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
        ticket = Ticket(
            request=request, key=request.document, submitted=self._clock(), on_done=on_done
        )
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if not request.may_be_saved:
                self._saving.exclude(request.document)
            older = self._schedule.add(ticket)
            self._wake.notify()
        if older is not None:
            self._retire(older, "superseded")
        return ticket

    def prepare(self, request: CompletionRequest, *, key: str | None = None) -> None:
        """Read a request's exact prompt when nothing else is to do; nothing is answered.

        Replaces what was being prepared for the document, or for `key`; the progress is kept.
        """
        with self._wake:
            if not request.may_be_saved:
                self._saving.exclude(request.document)
            if not self._closed:
                self._add_build(request, key or request.document)
            self._wake.notify()

    def is_preparing(self, document: str) -> bool:
        """Tell whether a document's exact prompt is still to be read, or being read."""
        with self._wake:
            return self._schedule.has_build(document)

    def forget(self, document: str) -> None:
        """Drop what is known of a document's epochs; its states age out of the cache."""
        with self._wake:
            self._forgotten.append(document)
            self._schedule.drop_builds(document)
            self._wake.notify()

    def step(self) -> bool:
        """Run one pass of the request or build whose turn it is; False when nothing waits.

        `Schedule.turn` says whose it is.
        """
        with self._wake:
            forgotten, self._forgotten = self._forgotten, []
            for document in forgotten:
                self.epochs.forget(document)
                self.decoder.forget(document)
            dropped = self._schedule.take_dropped()
            ticket = self._schedule.turn(self._clock())
        for older in dropped:
            older.close()
        if ticket is None:
            return False
        started = self._clock()
        completion = self._advance(ticket)
        spent_s = self._clock() - started
        with self._wake:
            self._schedule.charge(ticket, spent_s)
            if completion is not None:
                self._schedule.remove(ticket)
                if _wants_build(ticket, completion) and not self._schedule.has_newer_build(ticket):
                    self._add_build(ticket.request, ticket.key)
        if completion is not None:
            self._answer(ticket, completion)
            ticket.finish()
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
            waiting = self._schedule.clear()
        for ticket in waiting:
            self._retire(ticket, "cancel")
        self._saving.end(self.cache)

    def save_soon(self) -> None:
        """Have the states that `close` would save written once nothing else is to do."""
        with self._wake:
            self._saving.ask()
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

    def _add_build(self, request: CompletionRequest, key: str) -> None:
        """Queue the reading of a request's exact prompt. To be called under the condition."""
        build = Ticket(request=request, key=key, submitted=self._clock(), is_build=True)
        self._schedule.add_build(build)

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
            for checkpoint in self._saving.load(self.model):
                self.cache.add(checkpoint)
        except Exception:
            log.exception("saved states were not taken up")
        while not self._closed:
            try:
                self._serve()
            except Exception:
                log.exception("the engine failed; it starts again with nothing kept")
                try:
                    self._restart()
                except Exception:
                    # As after an error of a GPU, which no call survives.
                    log.exception("the engine cannot start again: nothing is completed any more")
                    self._give_up()

    def _serve(self) -> None:
        """Step until closed."""
        while not self._closed:
            if self.step():
                continue
            with self._wake:
                if self._is_idle() and not self._saving.is_due:
                    self._wake.wait()
            if self._saving.is_due and self._is_idle():
                try:
                    self._saving.save_while(self._is_idle, self.cache)
                except Exception:
                    log.exception("states were not saved")

    def _is_idle(self) -> bool:
        """Tell whether there is nothing to do but to save."""
        with self._wake:
            return not (self._schedule.has_work() or self._forgotten or self._closed)

    def _restart(self) -> None:
        """Answer everything that waits "error", and forget all states: any may be wrong."""
        self._fail_all()
        chunk_tokens = self.decoder.chunk_tokens
        # The slots are used again: there may be no room for as many more.
        for tier in self.cache.tiers:
            tier.clear()
        self._begin(self.cache.tiers)
        self.decoder.chunk_tokens = chunk_tokens

    def _give_up(self) -> None:
        """Be closed, as far as anybody asks; what has come meanwhile is answered "error"."""
        with self._wake:
            self._closed = True
        self._fail_all()

    def _fail_all(self) -> None:
        """Answer everything that waits "error"."""
        with self._wake:
            waiting = self._schedule.clear()
            # What was begun for them is let go of with the states it stands on.
            self._schedule.take_dropped()
        for ticket in waiting:
            self._retire(ticket, "error")

    def _advance(self, ticket: Ticket) -> Completion | None:
        """Run one pass of a ticket's work; give its answer when that was the last."""
        n_tokens, n_passes = ticket.cost.n_recomputed, ticket.cost.n_passes
        completion = ticket.advance(self._completer, self._clock)
        if ticket.is_build:
            self._n_background_tokens += ticket.cost.n_recomputed - n_tokens
            self._n_background_passes += ticket.cost.n_passes - n_passes
        return completion

    def _retire(self, ticket: Ticket, stop: str) -> None:
        """Answer a ticket that left its queue; its work may be running: leave that alone."""
        self._answer(ticket, ticket.empty(ticket.interrupt(stop)))

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
    if ticket.is_build:
        return False
    return completion.kind != "epoch" or (
        completion.stop == "deadline" and not completion.token_ids
    )
