"""One run of the profiler: a server is started, warmed up, typed into, watched and ended."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Document, Position
from perf.client import INVOKED, SERVER_COMMAND, Client, ResponseError, ServerGone
from perf.inline_items import first_text
from perf.json_objects import field
from perf.process_usage import Usage
from perf.profile_player import Player
from perf.profile_sample import Run
from perf.trace_format import Done, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf.profile_sample import Sample
    from perf.profile_speed import Speed
    from perf.trace_format import Session

LOOK_AT_MEMORY_S = 0.25
# How long a server may take to end before it is ended.
END_S = 10.0
# What is asked until a model is loaded is answered late, if at all.
OPTIONS = {"statistics": False}
CAPABILITIES = {
    "general": {"positionEncodings": ["utf-16"]},
    "textDocument": {
        "synchronization": {"dynamicRegistration": False},
        "inlineCompletion": {"dynamicRegistration": False},
    },
    "workspace": {"workspaceFolders": True},
    # Our own server tells model and device.
    "experimental": {"keystateStatus": True},
}
FULL_SYNC = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run, and how."""

    sessions: Sequence[Session]
    speed: Speed
    speed_name: str
    command: Sequence[str] = SERVER_COMMAND
    options: dict[str, Any] | None = None
    """`initializationOptions`; None: what suits a measurement of our own server."""
    timeout_s: float = 10.0
    """For an answer."""
    start_timeout_s: float = 300.0
    """For the server to start and its model to be loaded."""
    delay_s: float = 0.0
    """From an event to its request, as editors have one."""


async def profile(
    plan: Plan,
    *,
    on_loading: Callable[[float], None] = lambda _: None,
    on_event: Callable[[Sample | None], None] = lambda _: None,
) -> Run:
    """Replay sessions into a server of their own and give what was measured.

    `on_loading` hears how many seconds have gone by while the server is not ready. Raises
    ValueError, with the server's last words, if it does not come to a first request; if it goes
    or falls silent later, that is the run's `problem`.
    """
    run = Run(command=" ".join(plan.command), speed=plan.speed_name)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        root = Path(folder).resolve()
        _write_files(plan.sessions, root)
        try:
            async with await Client.start(plan.command, stderr=log) as client:
                await _measured(plan, client, run, root, on_loading, on_event)
        except (ServerGone, ResponseError, TimeoutError) as error:
            log.seek(0)
            words = log.read().decode(errors="replace").strip().splitlines()
            said = f"; its last words: {words[-1]}" if words else ""
            what = str(error) or "the server does not start in time"
            if isinstance(error, ResponseError):
                what = f"the server answers with an error: {what}"
            run.problem = f"{what}{said}"
            if not run.samples:
                raise ValueError(run.problem) from error
    return run


async def _measured(
    plan: Plan,
    client: Client,
    run: Run,
    root: Path,
    on_loading: Callable[[float], None],
    on_event: Callable[[Sample | None], None],
) -> None:
    loading = asyncio.ensure_future(_tick(client, on_loading))
    try:
        ready = _get_ready(plan, client, run, root)
        is_ours, whole_texts = await asyncio.wait_for(ready, plan.start_timeout_s)
    finally:
        loading.cancel()
    player = Player(
        client,
        run,
        root=root,
        speed=plan.speed,
        timeout_s=plan.timeout_s,
        delay_s=plan.delay_s,
        is_ours=is_ours,
        sends_whole_texts=whole_texts,
        on_event=on_event,
    )
    counters = await _counters(client) if is_ours else {}
    before = Usage.of(client.pid)
    began_s = time.perf_counter()
    watch = asyncio.ensure_future(_watch_memory(client, run, began_s))
    try:
        for session in plan.sessions:
            await player.play(session)
    finally:
        watch.cancel()
        run.seconds = time.perf_counter() - began_s
    after = Usage.of(client.pid)
    if before.cpu_s is not None and after.cpu_s is not None:
        run.cpu_s = after.cpu_s - before.cpu_s
    if is_ours:
        grown = await _counters(client)
        run.counters = {name: n - counters.get(name, 0) for name, n in grown.items()}
    # However it ends: it was measured, and whoever started it ends it.
    with suppress(TimeoutError, ResponseError, ServerGone):
        await asyncio.wait_for(client.shutdown(), END_S)


async def _get_ready(plan: Plan, client: Client, run: Run, root: Path) -> tuple[bool, bool]:
    """Shake hands and wait for a first answer; whether it is our server, and wants whole texts."""
    options = OPTIONS if plan.options is None else plan.options
    result = await client.initialize(root, options, CAPABILITIES)
    try:
        server = field(result, "serverInfo", dict, {})
        name, version = (field(server, key, str, "") for key in ("name", "version"))
        sync = field(result, "capabilities", dict).get("textDocumentSync")
    except ValueError as error:
        raise ValueError(
            f"the answer to initialize is not in the protocol's shape: {error}"
        ) from error
    run.server = " ".join(filter(None, (name, version))) or None
    kind = sync.get("change") if isinstance(sync, dict) else sync
    is_ours = name == "keystate"
    opened, cursor = _first_place(plan.sessions)
    uri = (root / opened.path).as_uri()
    client.open(uri, opened.language_id, opened.text)
    while True:
        try:
            answer = await client.ask(uri, *cursor, INVOKED)
            has_text = bool(first_text(answer.result, _as_document(opened, uri), cursor))
        except ResponseError:
            # Counted where it is measured.
            has_text = False
        except ValueError as error:
            raise ValueError(f"the answer is not in the protocol's shape: {error}") from error
        if has_text and run.start_to_suggestion_s is None:
            run.start_to_suggestion_s = time.perf_counter() - client.started_s
        if not is_ours:
            break
        stops = [one["stop"] for one in await client.last_timings()]
        status = (await client.send("keystate/status", None)).result
        if status["kind"] == "error":
            raise ValueError(status["message"])
        if stops and stops[-1] != "loading":
            run.model, run.device = status["model"], status["device"]
            break
    client.close(uri)
    run.start_to_ready_s = time.perf_counter() - client.started_s
    return is_ours, kind == FULL_SYNC


def _first_place(sessions: Sequence[Session]) -> tuple[Opened, Position]:
    """A document, and a place in it where something is going to be asked."""
    steps = [step for session in sessions for step in session.steps]
    opened = next((step for step in steps if isinstance(step, Opened)), None)
    if opened is None:
        raise ValueError("there is nothing to replay")
    cursor = next((step.event.cursor for step in steps if isinstance(step, Done)), Position(0, 0))
    document = _as_document(opened, "")
    return opened, document.position_at(document.offset_at(cursor))


def _as_document(opened: Opened, uri: str) -> Document:
    return Document(uri, opened.language_id, 0, opened.text)


async def _counters(client: Client) -> dict[str, int]:
    answer = await client.send("keystate/counters", None)
    return {name: n for name, n in answer.result.items() if isinstance(n, int)}


async def _watch_memory(client: Client, run: Run, began_s: float) -> None:
    while True:
        usage, at_s = Usage.of(client.pid), time.perf_counter() - began_s
        if usage.rss_bytes is not None:
            run.memory.append((at_s, usage.rss_bytes))
        if usage.cpu_s is not None:
            run.processor.append((at_s, usage.cpu_s))
        await asyncio.sleep(LOOK_AT_MEMORY_S)


async def _tick(client: Client, on_loading: Callable[[float], None]) -> None:
    while True:
        on_loading(time.perf_counter() - client.started_s)
        await asyncio.sleep(0.1)


def _write_files(sessions: Sequence[Session], root: Path) -> None:
    """Put the files where they are said to be: some servers look there.

    Raises ValueError for a path that leads out of the folder.
    """
    for session in sessions:
        for step in session.steps:
            if isinstance(step, Opened):
                path = (root / step.path).resolve()
                if not path.is_relative_to(root) or path == root:
                    raise ValueError(f"{session.name}: the path {step.path!r} leads elsewhere")
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(step.text, encoding="utf-8", newline="")
                except OSError as error:
                    found = f"the path {step.path!r} cannot be written: {error.strerror}"
                    raise ValueError(f"{session.name}: {found}") from error
