"""A worker's process, asked over its pipes and timed from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perf.peers.peer_process import PeerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.peers.scenario import Scenario, Step


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a peer answered, and how long that took, seen from outside."""

    ids: tuple[int, ...]
    ms: float
    """Until the last of `ids` was there."""
    first_ms: float
    """Until the first was."""
    n_recomputed: int
    """Tokens of the prompt that were read for it."""
    inner_ms: float | None = None
    """What the peer itself says it computed for."""
    kind: str = "epoch"
    """What kind of prompt it was answered from."""
    prompt: tuple[int, ...] = field(default=(), repr=False)
    """All that the model had read before the first of `ids`."""


class WorkerProcess(PeerProcess):
    """A worker. Use as `with WorkerProcess(…) as worker`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start it; entering waits until it has loaded."""
        super().__init__(
            (sys.executable, "-m", "perf.peers.worker", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Started from anywhere, it finds what this process would.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def _wait_until_ready(self) -> None:
        self._read()

    def send(self, command: str, **fields: Any) -> tuple[dict[str, Any], float]:
        """Give the answer to a command, and the ms from the bytes written to the bytes read."""
        assert self._process.stdin is not None, "stdin is a pipe"
        line = (json.dumps({"command": command, **fields}) + "\n").encode()
        written_s = time.perf_counter()
        self._process.stdin.write(line)
        self._process.stdin.flush()
        answer = self._read()
        return answer, 1e3 * (time.perf_counter() - written_s)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()}: see its stderr")
        answer: dict[str, Any] = json.loads(line)
        return answer


class KeystatePeer:
    """keystate's engine, told the document and then its changes."""

    def __init__(self, worker: WorkerProcess, scenario: Scenario, *, exact: bool = True) -> None:
        """Open the scenario's document; answers are `exact`, or as unasked ones are."""
        document = scenario.open()
        self._worker, self._exact = worker, exact
        worker.send(
            "open", path=document.path, language_id=document.language_id, text=document.text
        )

    def ask(self, step: Step, want: str | None) -> Reply:
        """Go a step; give what is answered there, nothing where nothing is wanted."""
        changes = [
            [*(list(at) for at in change.range or ()), change.text] for change in step.changes
        ]
        answer, ms = self._worker.send(
            "ask", changes=changes, cursor=list(step.cursor), want=want, exact=self._exact
        )
        if want is None:
            return Reply(ids=(), ms=ms, first_ms=ms, n_recomputed=0)
        prompt, _ = self._worker.send("prompt")
        return Reply(
            ids=tuple(answer["ids"]),
            ms=ms,
            first_ms=ms,
            n_recomputed=answer["recomputed"],
            inner_ms=sum(answer["timings_ms"].values()),
            kind=answer["kind"],
            prompt=(*prompt["prompt"], *prompt["covering"]),
        )


class TransformersPeer:
    """transformers, given each prompt whole."""

    def __init__(self, worker: WorkerProcess, eos_id: int) -> None:
        self._worker, self._eos_id = worker, eos_id

    def ask(self, prompt: Sequence[int], n_tokens: int) -> Reply:
        """Give the `n_tokens` that follow a prompt, fewer where the sequence ends."""
        answer, ms = self._worker.send("ask", prompt=list(prompt), n=n_tokens, eos=self._eos_id)
        return Reply(ids=tuple(answer["ids"]), ms=ms, first_ms=ms, n_recomputed=len(prompt))
