"""How many people one engine serves: windows on the shared host, typing all at once.

`python -m perf.load` starts a host and, for more and more people, a window's process each
(`keystate serve --shared`, as an editor starts it), and has them all type at human speed (see
`keyboard.py`), each going to and fro between five documents. So eight of them have forty documents
open. Every key asks, with no rest before it: the hardest that an editor can do. It goes on until
the 95th percentile has been over the bound twice, and takes less than eight minutes.

Latency is from the change written to the answer read, of requests that no newer key overtook.
Writes OUT.json, OUT.md and OUT.svg anew after each number of people, so that a run that is cut off
leaves what it had found.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lsp_server.commands.options import FiniteRange
from lsp_server.shared_address import HostAddress
from perf.client import INVOKED, SERVER_COMMAND, Client
from perf.load_figures import figures, holds, picture, table
from perf.process_usage import Usage
from perf.profile_player import Player
from perf.profile_run import OPTIONS
from perf.profile_sample import Run
from perf.profile_speed import Speed
from perf.profile_summary import machine_of_times
from perf.trace_format import Done, Opened
from perf.typists import typist
from perf.whole_file import ENDINGS, check_place, with_ending, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf.trace_format import Session

OUT = Path(__file__).parent / "results" / "load"
LEVELS = (1, 2, 4, 8, 12, 16, 24, 32, 48)
SECONDS = 30.0
# A person notices more than this; it is the 95th percentile's bound.
BOUND_MS = 100.0
N_OVER = 2
# The host ends soon after its last window.
COMMAND = (*SERVER_COMMAND, "--shared", "--idle-s", "3")
TIMEOUT_S, START_S = 10.0, 120.0


class Load:
    """Windows on one host, more of them as they are needed. Use inside `private_host`."""

    def __init__(self, root: Path, threads: int, stack: AsyncExitStack) -> None:
        """Windows end with the stack."""
        self._root, self._stack = root, stack
        self._options = {**OPTIONS, "threads": threads}
        self._windows: list[Client] = []

    async def measure(self, sessions: Sequence[Session]) -> dict[str, Any]:
        """Play sessions in a window each, all at once; their files have been read before.

        Gives `load_figures.figures`.
        """
        while len(self._windows) < len(sessions):
            client = await self._stack.enter_async_context(await Client.start(COMMAND))
            await asyncio.wait_for(client.initialize(self._root, self._options), START_S)
            self._windows.append(client)
        windows = self._windows[: len(sessions)]
        pairs = list(zip(windows, sessions, strict=True))
        await asyncio.wait_for(asyncio.gather(*(self._read(*pair) for pair in pairs)), START_S)
        runs = [Run(command=" ".join(COMMAND), speed="recorded") for _ in sessions]
        host = host_pid()
        before, loop = Usage.of(host), asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.gather(
            *(
                self._player(client, run).play(session)
                for (client, session), run in zip(pairs, runs, strict=True)
            )
        )
        after = Usage.of(host)
        # The window that started the host has it below itself.
        held = [Usage.of(client.pid).rss_bytes for client in self._windows]
        return figures(
            runs,
            seconds=loop.time() - began_s,
            cpu_s=(after.cpu_s or 0.0) - (before.cpu_s or 0.0),
            rss_bytes=sum(n_bytes or 0 for n_bytes in held),
            host_rss_bytes=after.rss_bytes or 0,
        )

    async def close(self) -> None:
        """Have all windows end as an editor does."""
        await asyncio.wait_for(
            asyncio.gather(*(client.shutdown() for client in self._windows)), START_S
        )

    def _player(self, client: Client, run: Run) -> Player:
        return Player(
            client,
            run,
            root=self._root,
            speed=Speed(factor=1.0),
            timeout_s=TIMEOUT_S,
            delay_s=0.0,
            is_ours=True,
            sends_whole_texts=False,
            on_event=lambda _: None,
        )

    async def _read(self, client: Client, session: Session) -> None:
        """Open a session's files and have each read once, as they were before."""
        cursors = {
            step.path: step.event.cursor
            for step in reversed(session.steps)
            if isinstance(step, Done)
        }
        for step in session.steps:
            if not isinstance(step, Opened):
                continue
            uri = (self._root / step.path).as_uri()
            client.open(uri, step.language_id, step.text)
            stops = ["loading"]
            while stops[-1:] == ["loading"]:
                await client.ask(uri, *cursors.get(step.path, (0, 0)), INVOKED)
                stops = [answer["stop"] for answer in await client.last_timings()]
            client.close(uri)


@contextmanager
def private_host() -> Iterator[Path]:
    """A folder for a host of our own, whatever others run; give one for its windows' files."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    # Addresses of Unix sockets are short.
    with tempfile.TemporaryDirectory(prefix="ks") as folder, tempfile.TemporaryDirectory() as root:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            yield Path(root).resolve()
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before


def host_pid() -> int:
    """The process that holds the engine."""
    return int(HostAddress.of(None, "auto").lock_path.read_text("ascii"))


async def measure(
    levels: Sequence[int],
    seconds: float,
    threads: int,
    bound_ms: float,
    on_level: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Take the figures of each number of people, up to the second one over the bound.

    `on_level` is given all that there are so far whenever there is one more.
    """
    found: list[dict[str, Any]] = []
    with private_host() as root:
        async with AsyncExitStack() as stack:
            load = Load(root, threads, stack)
            n_over = n_before = 0
            for n_typists in levels:
                # Nobody types a second time what the engine has read already.
                people = range(n_before, n_before + n_typists)
                n_before += n_typists
                level = await load.measure([typist(n, seconds) for n in people])
                found.append(level)
                on_level(found)
                p95 = level["latency_ms"]["p95"]
                click.echo(f"{n_typists} typists: {p95:.1f} ms at the 95th percentile", err=True)
                n_over += p95 > bound_ms
                if n_over == N_OVER:
                    break
            await load.close()


def write_report(
    found: Sequence[dict[str, Any]], *, threads: int, bound_ms: float, out: Path
) -> None:
    """Write OUT.json, OUT.md and OUT.svg of one level or more, each whole or not at all."""
    report = {
        "machine": machine_of_times(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "threads": threads,
        "bound_ms": bound_ms,
        "holds": holds(found, bound_ms),
        "levels": found,
    }
    texts = (json.dumps(report, indent=1) + "\n", table(report), picture(report))
    for suffix, text in zip(ENDINGS, texts, strict=True):
        write_whole(with_ending(out, suffix), text)


@click.command()
@click.option("--typists", "levels", type=click.IntRange(min=1), multiple=True, default=LEVELS)
@click.option("--seconds", type=FiniteRange(min=1), default=SECONDS, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--bound-ms", type=FiniteRange(min=0.0), default=BOUND_MS, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=OUT, help="Write OUT.json, .md and .svg."
)
def main(levels: tuple[int, ...], seconds: float, threads: int, bound_ms: float, out: Path) -> None:
    """Have more and more people type at one engine until answers come too late."""
    for suffix in ENDINGS:
        check_place(with_ending(out, suffix))
    write = partial(write_report, threads=threads, bound_ms=bound_ms, out=out)
    asyncio.run(measure(levels, seconds, threads, bound_ms, write))
    click.echo(with_ending(out, ".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
