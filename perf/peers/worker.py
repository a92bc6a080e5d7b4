"""An engine, or transformers' model, as a process: JSON lines in, JSON lines out.

`python -m perf.peers.worker keystate` is asked as a server is, by changes and a cursor, and keeps
the document; it has no window and knows nothing of LSP. `transformers` is given a prompt's ids.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from pathlib import Path

    from engine.request import Completion
    from lsp_server.documents import Document

# One token, or the line with all that the engine would write of it.
ONE, LINE = "one", "line"
MAX_LINE_TOKENS = 24


class Answerer(Protocol):
    """Answers commands, each by its name with its fields."""

    def __call__(self, command: str, fields: dict[str, Any]) -> dict[str, Any]: ...


class KeystateWorker:
    """An engine and one document."""

    _document: Document

    def __init__(
        self, model: str | None, n_threads: int, *, cached: bool, quantize: str | None
    ) -> None:
        """Load and warm up; without a cache every prompt is read from its first token."""
        from engine.budget import CPU_BYTES
        from engine.engine import Engine

        loaded = Engine.load(model, device="cpu", n_threads=n_threads, quantize=quantize)
        # Without copying, so that all peers choose by the same probabilities.
        self._engine = Engine(
            loaded.model,
            loaded.tokenizer,
            n_threads=n_threads,
            budget_bytes=CPU_BYTES if cached else 0,
        )
        self._engine.start()
        self._last: Completion | None = None

    def __call__(self, command: str, fields: dict[str, Any]) -> dict[str, Any]:
        if command == "open":
            return self._open(**fields)
        return self._ask(**fields) if command == "ask" else self._prompt()

    def _open(self, path: str, language_id: str, text: str) -> dict[str, Any]:
        from lsp_server.documents import Document

        self._document = Document(f"file:///{path}", language_id, 0, text, path=path)
        return {}

    def _ask(
        self, changes: list[list[Any]], cursor: list[int], want: str | None, exact: bool
    ) -> dict[str, Any]:
        """Apply changes; unless nothing is wanted, give the ids that follow the text so far."""
        from engine.request import CompletionRequest
        from lsp_server.context import header_of
        from lsp_server.documents import Change, Position

        document = self._document
        for start, end, text in changes:
            document.apply(Change(text=text, range=(Position(*start), Position(*end))))
        if want is None:
            return {}
        offset = document.offset_at(Position(*cursor))
        header = header_of(document)
        completion = self._complete(
            CompletionRequest(
                document=document.uri,
                header=header,
                trunk_header=header,
                prefix=document.slice(0, offset),
                suffix=document.slice(offset, document.n_chars),
                max_tokens=1 if want == ONE else MAX_LINE_TOKENS,
                deadline_ms=None,
                explicit=exact,
                raw=exact and want == ONE,
            )
        )
        self._last = completion
        return {
            "ids": completion.token_ids[self._n_covering(completion) :],
            "kind": completion.kind,
            "stop": completion.stop,
            "recomputed": completion.n_recomputed,
            "passes": completion.n_passes + completion.n_healing_passes,
            "timings_ms": completion.timings_ms,
        }

    def _prompt(self) -> dict[str, Any]:
        """Give the last answer's prompt, and the tokens that spell its held-back text."""
        while self._engine.is_preparing(self._document.uri):
            time.sleep(0.002)
        assert self._last is not None, "asked before"
        n_covering = self._n_covering(self._last)
        return {"prompt": self._last.prompt_ids, "covering": self._last.token_ids[:n_covering]}

    def _n_covering(self, completion: Completion) -> int:
        return len(completion.token_ids) - completion.n_generated

    def _complete(self, request: Any) -> Completion:
        done, answers = threading.Event(), []

        def on_done(completion: Completion) -> None:
            answers.append(completion)
            done.set()

        self._engine.submit(request, on_done)
        done.wait()
        completion: Completion = answers[0]
        if completion.stop == "error":
            raise RuntimeError("the engine failed: its log says why")
        return completion


class TransformersWorker:
    """transformers' Mamba-2, which reads each prompt from its first token."""

    def __init__(self, directory: Path, n_threads: int) -> None:
        """Load in float32."""
        import torch
        from transformers import Mamba2ForCausalLM

        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(True)
        self._model = Mamba2ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def __call__(self, command: str, fields: dict[str, Any]) -> dict[str, Any]:
        import torch

        assert command == "ask", command
        prompt = torch.tensor([fields["prompt"]])
        with torch.inference_mode():
            if fields["n"] == 1:
                logits = self._model(prompt, use_cache=False, logits_to_keep=1).logits
                return {"ids": [int(logits[0, -1].argmax())]}
            written = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=fields["n"],
                do_sample=False,
                pad_token_id=0,
                eos_token_id=fields["eos"],
            )
        ids = written[0, prompt.shape[1] :].tolist()
        return {"ids": [token_id for token_id in ids if token_id != fields["eos"]]}


@click.command()
@click.argument("kind", type=click.Choice(["keystate", "uncached", "transformers"]))
@click.option("--model", default=None)
@click.option("--threads", default=2)
@click.option("--quantize", default=None)
def main(kind: str, model: str | None, threads: int, quantize: str | None) -> None:
    """Answer until stdin ends."""
    # As the server's command sets it, before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from engine.checkpoint import resolve_model

    answer: Answerer
    if kind == "transformers":
        answer = TransformersWorker(resolve_model(model), threads)
    else:
        answer = KeystateWorker(model, threads, cached=kind == "keystate", quantize=quantize)
    _say({"ready": True})
    for line in sys.stdin:
        fields = json.loads(line)
        _say(answer(fields.pop("command"), fields))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
