"""One scenario through one peer after another, each answer held against keystate's."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING, Any

import torch

from perf.peers.llama_cpp import LlamaServer
from perf.peers.scenario import APPEND, COLD, NEW_PLACE
from perf.peers.worker import LINE, ONE
from perf.peers.worker_process import KeystatePeer, Reply, TransformersPeer, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from engine.mamba2 import Mamba2
    from perf.peers.scenario import Scenario, Step

log = getLogger(__name__)

KEYSTATE, KEYSTATE_INT8 = "keystate", "keystate int8"
UNASKED, UNCACHED = "keystate, unasked", "keystate without cache"
LLAMA_Q8_0, LLAMA_F32 = "llama.cpp Q8_0", "llama.cpp F32"
# As its editor plugins ask. It builds the prompt itself: suffix-first on request, but always with
# the token for the middle at its end, and with a window of 2,048 tokens.
LLAMA_INFILL = "llama.cpp Q8_0, /infill"
TRANSFORMERS = "transformers"
PEERS = (
    *(KEYSTATE, KEYSTATE_INT8, LLAMA_Q8_0, LLAMA_F32, LLAMA_INFILL),
    *(UNCACHED, TRANSFORMERS, UNASKED),
)
LLAMAS = frozenset({LLAMA_Q8_0, LLAMA_F32, LLAMA_INFILL})
# Their prompts are not keystate's, so that their answers are not compared.
OTHER_PROMPTS = frozenset({UNASKED, LLAMA_INFILL})
# These compute with other weights than the reference: what they choose may differ.
ROUNDED = frozenset({KEYSTATE_INT8, LLAMA_Q8_0})
# Read every prompt from its first token: one keystroke of a kind tells the others'.
WHOLE_PROMPTS = frozenset({UNCACHED, TRANSFORMERS})
SAMPLED = (APPEND, NEW_PLACE)
# transformers' recurrence in plain torch needs memory that grows with the prompt.
MAX_TRANSFORMERS_TOKENS = 8_000
# Two tokens whose logits are closer than this may be taken for one another: chunks are cut in
# other places, and float32 sums come out otherwise.
TIE = 1e-3


@dataclass(frozen=True, kw_only=True)
class PeerSetup:
    """What is compared, and what is installed for it."""

    model: str | None
    n_threads: int
    llama_server: str | None
    """llama.cpp's program; None where it is not installed."""
    gguf: Mapping[str, Path]
    """The exported weights, by the peer that reads them."""
    peers: Sequence[str] = PEERS

    def worker(self, kind: str, *options: str) -> WorkerProcess:
        """Start a worker on the model."""
        model = () if self.model is None else ("--model", self.model)
        return WorkerProcess([kind, "--threads", str(self.n_threads), *model, *options])

    def llama(self, peer: str, n_tokens: int) -> LlamaServer:
        """Start llama.cpp's server with room for prompts of about so many tokens."""
        assert self.llama_server is not None, "it is installed"
        return LlamaServer(
            self.llama_server,
            self.gguf[peer],
            n_threads=self.n_threads,
            n_context=n_tokens + n_tokens // 8 + 1024,
            options=("--spm-infill",) if peer == LLAMA_INFILL else (),
        )


@dataclass(kw_only=True)
class PeerRun:
    """What one peer answered along a scenario."""

    replies: dict[int, Reply] = field(default_factory=dict)
    """By the number of the step; not every step is asked of every peer."""
    rss_bytes: int | None = None

    def summary(self, scenario: Scenario, agreement: dict[str, int]) -> dict[str, Any]:
        """Give medians by kind, and how the answers compared."""
        by_kind: dict[str, list[Reply]] = {}
        for number, reply in self.replies.items():
            kind = scenario.steps[number].kind
            assert kind is not None, "only steps with a kind are asked"
            by_kind.setdefault(kind, []).append(reply)
        return {
            "kinds": {kind: of_replies(replies) for kind, replies in by_kind.items()},
            "agreement": agreement,
            "rss_bytes": self.rss_bytes,
        }


def of_replies(replies: Sequence[Reply]) -> dict[str, Any]:
    """Give the medians of answers of one kind, and the longest wait for a first token."""
    inner = [reply.inner_ms for reply in replies if reply.inner_ms is not None]
    return {
        "n": len(replies),
        "first_ms": statistics.median(reply.first_ms for reply in replies),
        "first_ms_max": max(reply.first_ms for reply in replies),
        "ms": statistics.median(reply.ms for reply in replies),
        "inner_ms": statistics.median(inner) if inner else None,
        "recomputed": statistics.median(reply.n_recomputed for reply in replies),
        "tokens": statistics.median(len(reply.ids) for reply in replies),
        "prompt_kinds": sorted({reply.kind for reply in replies}),
    }


def run_peers(
    scenario: Scenario,
    want: str,
    setup: PeerSetup,
    reference: Mamba2,
    eos_id: int,
    on_peer: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Take a scenario through all peers; give each one's summary.

    Every peer but keystate itself gets the prompts that keystate answered from, the tokens that
    spell its held-back text included, or the texts around the cursor if it builds prompts itself;
    and is asked for as many tokens. `on_peer` hears who is next.
    """
    runs: dict[str, PeerRun] = {}
    summaries = {}
    for peer in (KEYSTATE, *(name for name in setup.peers if name != KEYSTATE)):
        if peer in LLAMAS and setup.llama_server is None:
            continue
        if peer == TRANSFORMERS and scenario.n_tokens > MAX_TRANSFORMERS_TOKENS:
            continue
        on_peer(peer)
        if peer in LLAMAS:
            with setup.llama(peer, scenario.n_tokens) as server:
                if peer == LLAMA_INFILL:
                    run = _given_documents(scenario, server.infill, runs[KEYSTATE])
                else:
                    run = _given_prompts(scenario, server.ask, runs[KEYSTATE], peer)
                run.rss_bytes = server.usage().rss_bytes
        elif peer == TRANSFORMERS:
            with setup.worker("transformers") as worker:
                ask = TransformersPeer(worker, eos_id).ask
                run = _given_prompts(scenario, ask, runs[KEYSTATE], peer)
                run.rss_bytes = worker.usage().rss_bytes
        else:
            options = ("--quantize", "int8") if peer == KEYSTATE_INT8 else ()
            kind = "uncached" if peer == UNCACHED else "keystate"
            with setup.worker(kind, *options) as worker:
                run = _along(scenario, worker, want, peer)
                run.rss_bytes = worker.usage().rss_bytes
        runs[peer] = run
        agreement = {}
        if peer not in OTHER_PROMPTS:
            agreement = agree(run, runs[KEYSTATE], reference, eos_id, is_rounded=peer in ROUNDED)
        summaries[peer] = run.summary(scenario, agreement)
    return summaries


def agree(
    run: PeerRun, exact: PeerRun, reference: Mamba2, eos_id: int, *, is_rounded: bool
) -> dict[str, int]:
    """Count the answers that are keystate's token for token, ties, and others.

    Some peers give the token that ends the sequence, others do not. What rounded weights choose is
    not looked into.
    """
    counts = {"asked": len(run.replies), "equal": 0, "ties": 0, "different": 0}
    for number, reply in run.replies.items():
        wanted = exact.replies[number]
        ids = tuple(token_id for token_id in reply.ids if token_id != eos_id)
        same_prompt = not reply.prompt or reply.prompt == wanted.prompt
        if same_prompt and ids == wanted.ids:
            counts["equal"] += 1
        elif not is_rounded and same_prompt and is_tie(reference, wanted, ids):
            counts["ties"] += 1
        else:
            counts["different"] += 1
            log.info("step %d: %s, not %s", number, ids, wanted.ids)
    return counts


def is_tie(reference: Mamba2, wanted: Reply, ids: Sequence[int]) -> bool:
    """Tell whether the first token that differs is as good as the one it stands for."""
    pairs = list(zip(wanted.ids, ids, strict=False))
    n_equal = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    if n_equal is None:
        return False
    tokens = torch.tensor([[*wanted.prompt, *wanted.ids[:n_equal]]])
    with torch.inference_mode():
        logits = reference.logits(reference.prefill(tokens)[0][0, -1])
    one, other = pairs[n_equal]
    return bool((logits[one] - logits[other]).abs() < TIE)


def _along(scenario: Scenario, worker: WorkerProcess, want: str, peer: str) -> PeerRun:
    """Edit a document of keystate's own."""
    asked = _asked(scenario.steps, peer)
    run = PeerRun()
    keystate = KeystatePeer(worker, scenario, exact=peer != UNASKED)
    for number, step in enumerate(scenario.steps):
        reply = keystate.ask(step, want if number in asked else None)
        if number in asked:
            run.replies[number] = reply
    return run


def _given_prompts(
    scenario: Scenario,
    ask: Callable[[Sequence[int], int], Reply],
    exact: PeerRun,
    peer: str,
) -> PeerRun:
    """Send the prompts that keystate answered from."""
    run = PeerRun()
    for number in sorted(_asked(scenario.steps, peer)):
        wanted = exact.replies[number]
        run.replies[number] = ask(wanted.prompt, max(1, len(wanted.ids)))
    return run


def _given_documents(
    scenario: Scenario, infill: Callable[[str, str, int], Reply], exact: PeerRun
) -> PeerRun:
    """Send the texts before and after the cursor, and ask for as many tokens as keystate gave."""
    run, document = PeerRun(), scenario.open()
    for number, step in enumerate(scenario.steps):
        for change in step.changes:
            document.apply(change)
        if step.kind is not None:
            cursor = document.offset_at(step.cursor)
            n_tokens = max(1, len(exact.replies[number].ids))
            run.replies[number] = infill(document.text[:cursor], document.text[cursor:], n_tokens)
    return run


def _asked(steps: Sequence[Step], peer: str) -> set[int]:
    """Give the numbers of the steps that a peer is asked at."""
    with_kind = {number for number, step in enumerate(steps) if step.kind is not None}
    if peer not in WHOLE_PROMPTS:
        return with_kind
    kinds = [step.kind for step in steps]
    return {kinds.index(kind) for kind in (COLD, *SAMPLED) if kind in kinds}


__all__ = ["LINE", "ONE", "PEERS", "PeerRun", "PeerSetup", "agree", "is_tie", "run_peers"]
