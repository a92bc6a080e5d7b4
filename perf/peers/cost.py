"""What typing costs a whole server: its own share of an answer, processor time, memory, start."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from perf.client import INVOKED, Client
from perf.peers.peer_run import KEYSTATE, KEYSTATE_INT8, LLAMA_F32, LLAMA_Q8_0
from perf.peers.scenario import COLD, LANGUAGE_ID, typing_scenario
from perf.peers.worker import LINE
from perf.peers.worker_process import KeystatePeer
from perf.process_usage import Usage

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer
    from lsp_server.documents import Change
    from perf.peers.peer_run import PeerSetup
    from perf.peers.scenario import Scenario
    from perf.peers.worker_process import Reply

SERVER = "keystate serve"
URI = "file:///project/module.py"
# What the engine says of its part of an answer; the rest is the language server's.
ENGINE_STAGES = frozenset({"queue", "tokenize", "prefill", "heal", "decode", "alternatives"})
START_TOKENS = 2_000


async def server_run(scenario: Scenario, setup: PeerSetup) -> dict[str, Any]:
    """Type a scenario into `keystate serve` as it comes, asking at each keystroke.

    Gives the ms of each answer that are not the engine's, and what typing cost.
    """
    shares: list[float] = []
    async with await Client.start() as client:
        await client.initialize(options=_options(setup))
        client.open(URI, LANGUAGE_ID, scenario.text)
        cold = scenario.steps[0]
        await client.ask(URI, *cold.cursor, INVOKED)
        before = Usage.of(client.pid)
        for step in scenario.steps[1:]:
            client.change(URI, list(map(_as_json, step.changes)))
            if step.kind is None:
                continue
            await client.last_timings()
            answer = await client.ask(URI, *step.cursor)
            for timings in await client.last_timings():
                stages = timings["timings_ms"]
                if timings.get("prompt_kind") in (None, "typed", "none"):
                    # The engine was not asked.
                    continue
                in_engine = sum(ms for name, ms in stages.items() if name in ENGINE_STAGES)
                shares.append(answer.latency_ms - in_engine)
        after = Usage.of(client.pid)
        await client.shutdown()
    return {
        "share_ms": statistics.median(shares) if shares else None,
        **_spent(before, after, scenario),
    }


def typing_cost(tokenizer: Tokenizer, setup: PeerSetup, n_tokens: int, n_typed: int) -> Any:
    """Give what typing so many characters costs each server, a line asked for at each of them."""
    scenario = typing_scenario(tokenizer, n_tokens, n_typed)
    costs: dict[str, Any] = {SERVER: asyncio.run(server_run(scenario, setup))}
    prompts: list[Reply] = []
    for peer, options in ((KEYSTATE, ()), (KEYSTATE_INT8, ("--quantize", "int8"))):
        if peer not in setup.peers:
            continue
        with setup.worker("keystate", *options) as worker:
            keystate = KeystatePeer(worker, scenario)
            replies = [keystate.ask(scenario.steps[0], LINE)]
            before = worker.usage()
            replies += [
                keystate.ask(step, LINE if step.kind else None) for step in scenario.steps[1:]
            ]
            costs[peer] = _spent(before, worker.usage(), scenario)
        prompts = prompts or [reply for reply in replies if reply.prompt]
    for peer in (LLAMA_Q8_0, LLAMA_F32):
        if setup.llama_server is None or peer not in setup.peers:
            continue
        with setup.llama(peer, n_tokens) as server:
            server.ask(prompts[0].prompt, 1)
            before = server.usage()
            for reply in prompts[1:]:
                server.ask(reply.prompt, max(1, len(reply.ids)))
            costs[peer] = _spent(before, server.usage(), scenario)
    return {"tokens": n_tokens, "typed": n_typed, "peers": costs}


def start_times(tokenizer: Tokenizer, setup: PeerSetup) -> dict[str, float]:
    """Give the seconds from a process's start to its first suggestion in a document."""
    scenario = typing_scenario(tokenizer, START_TOKENS, 1)
    step = scenario.steps[0]
    assert step.kind == COLD
    seconds = {SERVER: asyncio.run(_server_start(scenario, setup))}
    if setup.llama_server is None:
        return seconds
    with setup.worker("keystate") as worker:
        reply = KeystatePeer(worker, scenario).ask(step, LINE)
    for peer in (LLAMA_Q8_0, LLAMA_F32):
        if peer in setup.peers:
            with setup.llama(peer, START_TOKENS) as server:
                server.ask(reply.prompt, max(1, len(reply.ids)))
                seconds[peer] = time.perf_counter() - server.started_s
    return seconds


async def _server_start(scenario: Scenario, setup: PeerSetup) -> float:
    async with await Client.start() as client:
        await client.initialize(options=_options(setup))
        client.open(URI, LANGUAGE_ID, scenario.text)
        await client.ask(URI, *scenario.steps[0].cursor, INVOKED)
        seconds = time.perf_counter() - client.started_s
        await client.shutdown()
    return seconds


def _options(setup: PeerSetup) -> dict[str, Any]:
    options: dict[str, Any] = {
        "threads": setup.n_threads,
        "statistics": False,
        "deadlineMs": 60_000,
        "invokedDeadlineMs": 60_000,
    }
    return options if setup.model is None else {**options, "model": setup.model}


def _spent(before: Usage, after: Usage, scenario: Scenario) -> dict[str, Any]:
    n_typed = sum(
        len(change.text) for step in scenario.steps if step.kind for change in step.changes
    )
    spent = None
    if before.cpu_s is not None and after.cpu_s is not None:
        spent = 1000 * (after.cpu_s - before.cpu_s) / n_typed
    return {"cpu_s_per_1000_chars": spent, "rss_bytes": after.rss_bytes}


def _as_json(change: Change) -> dict[str, Any]:
    assert change.range is not None, "scenarios change parts"
    start, end = (at._asdict() for at in change.range)
    return {"range": {"start": start, "end": end}, "text": change.text}
