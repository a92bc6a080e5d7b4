"""`keystate doctor`: what is installed, and does it work here."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from lsp_server.commands.options import device_option, json_option, model_option
from lsp_server.documents import Document, Position
from lsp_server.settings import Settings
from lsp_server.syntax import SYNTAXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.engine import Engine
    from engine.tokenizer import Tokenizer
    from lsp_server.suggestions import Suggester

PACKAGES = (
    "keystate",
    "pygls",
    "lsprotocol",
    "torch",
    "numpy",
    "safetensors",
    "sentencepiece",
    "huggingface_hub",
    "tree-sitter",
)
MIN_PYTHON = (3, 11)
# What the published weights of Codestral Mamba go on with; Hugging Face's own integration test.
GOLDEN_QUESTION = "Write a hello world program in C++."
GOLDEN_ANSWER = ' Sure, here is a simple "Hello, World!" program in C++:'
CODESTRAL_PARAMETERS = 7_285_403_648
# Mistral's instruction pieces, at the same ids in every v3 vocabulary.
INST, END_INST = 3, 4
SAMPLE = "import os\n\n\ndef main():\n    for i in range("


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at; `detail` is what was found, or what to do about it."""

    name: str
    ok: bool
    detail: str


@click.command("doctor")
@model_option
@device_option
@json_option
def command(model: str | None, device: str | None, as_json: bool) -> None:
    """Check the installation; exit code 1 if something is broken."""
    checks: list[Check] = []

    def check(name: str, look: Callable[[], str]) -> bool:
        try:
            checks.append(Check(name=name, ok=True, detail=look()))
        except Exception as error:
            # Whatever breaks is this command's finding.
            detail = " ".join(str(error).split()) or type(error).__name__
            checks.append(Check(name=name, ok=False, detail=detail))
        if not as_json:
            mark = click.style("ok", "green") if checks[-1].ok else click.style("broken", "red")
            click.echo(f"{mark:<6}  {name}: {checks[-1].detail}")
        return checks[-1].ok

    check("python", _python)
    for package in PACKAGES:
        check(package, lambda package=package: version_of(package))  # type: ignore[misc]
    check("grammars", _grammars)
    if check("device", lambda: _device(device)):
        loaded: list[Suggester] = []
        if check("model", lambda: _load(model, device, loaded)):
            check("completion", lambda: _complete(loaded[0]))
            if is_codestral(loaded[0].engine):
                check("golden text", lambda: _golden(loaded[0].engine))
            loaded[0].close()
    broken = [check.name for check in checks if not check.ok]
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in checks]}))
    elif broken:
        click.echo(f"broken: {', '.join(broken)}")
    if broken:
        raise click.exceptions.Exit(1)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "keystate":
            return "not installed, runs from a checkout"
        raise ValueError(f"not installed; install it with `pip install {package}`") from None


def _python() -> str:
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        raise ValueError(f"{platform.python_version()}, expected {wanted} or newer")
    return f"{platform.python_version()} ({sys.executable})"


def _grammars() -> str:
    def loads(language_id: str) -> bool:
        return Document("", language_id, 0, "x").tree is not None

    missing = [language_id for language_id in SYNTAXES if not loads(language_id)]
    if missing:
        packages = sorted({SYNTAXES[language_id].package for language_id in missing})
        raise ValueError(
            f"none for {', '.join(missing)}, which complete by lines;"
            f" install {' '.join(package.replace('_', '-') for package in packages)}"
        )
    return ", ".join(SYNTAXES)


def _device(name: str | None) -> str:
    import torch

    from lsp_server.suggestions import usable_device

    chosen = usable_device(name or Settings.device)
    chosen = chosen or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda"):
        return f"{chosen}: {torch.cuda.get_device_name(chosen)}"
    return f"{chosen}, {torch.get_num_threads()} threads"


def _load(model: str | None, device: str | None, loaded: list[Suggester]) -> str:
    from lsp_server.suggestions import Suggester

    started = time.perf_counter()
    suggester = Suggester.load(
        Settings(model=model, device=device or Settings.device, save_states=False)
    )
    loaded.append(suggester)
    n_parameters = sum(p.numel() for p in suggester.engine.model.parameters())
    took_s = time.perf_counter() - started
    return f"{suggester.name}, {n_parameters:,} parameters, loaded in {took_s:.1f} s"


def _complete(suggester: Suggester) -> str:
    check_numbers(suggester.engine)
    document = Document("doctor:sample.py", "python", 0, SAMPLE, "sample.py")
    end: Position = document.position_at(document.n_chars)
    work = suggester.suggest(document, end, explicit=True, deadline_ms=60_000)
    suggestion = asyncio.run(work)
    completion = suggestion.completion
    if completion.stop in ("error", "deadline"):
        raise ValueError(f"ended by {completion.stop!r}; the log above may say why")
    text = suggestion.items[0].insert_text if suggestion.items else ""
    return (
        f"{suggestion.timings_ms['total']:.0f} ms for {completion.n_generated} tokens after"
        f" {completion.n_prompt}: {SAMPLE.splitlines()[-1].strip()}▏{text}"
    )


def check_numbers(engine: Engine) -> None:
    """Raise ValueError for weights of which nothing follows, and so no suggestion either."""
    import torch

    tokens = torch.tensor([engine.tokenizer.encode_start(SAMPLE)], device=engine.model.device)
    with torch.inference_mode():
        hidden, _ = engine.model.prefill(tokens)
        if not engine.model.logits(hidden).isfinite().all():
            raise ValueError(
                "the model computes what are no numbers: its weights are damaged; fetch them again"
            )


def is_codestral(engine: Engine) -> bool:
    """Whether these are Codestral Mamba's weights, by their shape and vocabulary."""
    n_parameters = sum(parameter.numel() for parameter in engine.model.parameters())
    return n_parameters == CODESTRAL_PARAMETERS and engine.tokenizer.is_control("[INST]")


def golden_prompt(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos_id, INST, *tokenizer.encode_start(GOLDEN_QUESTION), END_INST]


def greedy(engine: Engine, prompt: list[int], n_tokens: int) -> list[int]:
    """The most probable token after a prompt, and after each other, without the engine's cache."""
    import torch

    model = engine.model
    ids: list[int] = []
    with torch.inference_mode():
        tokens = torch.tensor([prompt], device=model.device)
        hidden, state = model.prefill(tokens)
        logits = model.logits(hidden[0, -1])
        while True:
            ids.append(int(logits.argmax()))
            if len(ids) == n_tokens:
                return ids
            result = model(torch.tensor(ids[-1:], device=model.device), state)
            state, logits = result.commit(1), result.logits[-1]


def _golden(engine: Engine) -> str:
    n_tokens = len(engine.tokenizer.encode(GOLDEN_ANSWER))
    ids = greedy(engine, golden_prompt(engine.tokenizer), n_tokens)
    text = engine.tokenizer.decode(ids)
    if text != GOLDEN_ANSWER:
        raise ValueError(f"the weights answer {text!r}, expected {GOLDEN_ANSWER!r}")
    return text.strip()
