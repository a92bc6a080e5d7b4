"""llama.cpp's server on a GGUF file, asked over HTTP on the loopback and timed from outside."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from perf.peers.peer_process import PeerProcess
from perf.peers.worker_process import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = "llama-server"
START_TIMEOUT_S = 60.0
# Between two looks at whether it listens.
POLL_S = 0.01
HEADERS = {"Content-Type": "application/json"}


def find_llama_server(named: str | None) -> str | None:
    """Give the program: the one named, else the one on PATH, else None.

    Raises ValueError for one that was named and is not there.
    """
    found = shutil.which(named or PROGRAM)
    if named is not None and found is None:
        raise ValueError(f"--llama-server is {named}, expected a program that can be run")
    return found


def llama_version(program: str) -> str:
    """Give the version that a llama-server says it is."""
    said = subprocess.run((program, "--version"), capture_output=True, text=True)
    lines = (said.stdout + said.stderr).splitlines()
    return next((line for line in lines if line.startswith("version")), "unknown")


class LlamaServer(PeerProcess):
    """A llama-server with one slot and its prompt cache on. Use in a `with` statement."""

    def __init__(
        self,
        program: str,
        gguf: Path,
        *,
        n_threads: int,
        n_context: int,
        options: Sequence[str] = (),
    ) -> None:
        """Start it, with more of its own `options`; entering waits until it listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = (program, "-m", str(gguf), "--port", str(self._port), "-c", str(n_context))
        common = ("-np", "1", "-t", str(n_threads), "--cache-prompt", "--no-ui")
        super().__init__(
            (*command, *common, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._connection = HTTPConnection("127.0.0.1", self._port)

    def _wait_until_ready(self) -> None:
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {self._process.returncode}")
            if time.perf_counter() - self.started_s > START_TIMEOUT_S:
                raise RuntimeError(f"llama-server did not listen after {START_TIMEOUT_S:.0f} s")
            try:
                self._connection.request("GET", "/health")
                response = self._connection.getresponse()
                response.read()
                if response.status == 200:
                    return
            except OSError:
                self._connection.close()
            time.sleep(POLL_S)

    def _end(self) -> None:
        self._connection.close()
        super()._end()

    def tokenize(self, text: str) -> list[int]:
        """Give the ids of a text, control pieces spelled out in it being text."""
        body = {"content": text, "add_special": False, "parse_special": False}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def log_probs(self, prompt: Sequence[int], n_best: int) -> dict[int, float]:
        """Give the most probable next tokens; none where the first is cut inside a character."""
        body = {"prompt": list(prompt), "n_predict": 1, "n_probs": n_best, "cache_prompt": False}
        found = self._post("/completion", body).get("completion_probabilities", [])
        return {best["id"]: best["logprob"] for one in found for best in one["top_logprobs"]}

    def ask(self, prompt: Sequence[int], n_tokens: int) -> Reply:
        """Give the `n_tokens` that follow a prompt, fewer where the sequence ends."""
        return self._streamed("/completion", {"prompt": list(prompt)}, n_tokens)

    def infill(self, prefix: str, suffix: str, n_tokens: int) -> Reply:
        """Give the `n_tokens` that it puts between two texts, from a prompt that it builds."""
        return self._streamed("/infill", {"input_prefix": prefix, "input_suffix": suffix}, n_tokens)

    def _streamed(self, path: str, asked: dict[str, Any], n_tokens: int) -> Reply:
        body = asked | {
            "n_predict": n_tokens,
            # The most probable token, whatever else it would do by default.
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": True,
            "return_tokens": True,
            "stream": True,
        }
        data = json.dumps(body).encode()
        ids: list[int] = []
        first_ms = None
        last: dict[str, Any] = {}
        self._connect()
        written_s = time.perf_counter()
        self._connection.request("POST", path, data, HEADERS)
        response = self._connection.getresponse()
        while not last.get("stop"):
            line = response.readline()
            if not line:
                raise RuntimeError("llama-server broke off its answer")
            if not line.startswith(b"data: "):
                continue
            last = json.loads(line.removeprefix(b"data: "))
            if "error" in last:
                raise RuntimeError(f"llama-server: {last['error']}")
            ids += last["tokens"]
            if first_ms is None:
                first_ms = 1e3 * (time.perf_counter() - written_s)
        ms = 1e3 * (time.perf_counter() - written_s)
        response.read()
        timings = last["timings"]
        return Reply(
            ids=tuple(ids),
            ms=ms,
            first_ms=ms if first_ms is None else first_ms,
            n_recomputed=timings["prompt_n"],
            inner_ms=timings["prompt_ms"] + timings["predicted_ms"],
        )

    def _connect(self) -> None:
        """Begin a connection: the server ends one behind a streamed answer, and the 100th."""
        self._connection.close()
        self._connection.connect()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._connect()
        self._connection.request("POST", path, json.dumps(body).encode(), HEADERS)
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"llama-server: {answer}")
        return answer
