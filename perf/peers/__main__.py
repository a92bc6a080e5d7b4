"""`python -m perf.peers --out perf/results/peers`: keystate beside other programs, as a report.

Writes OUT/peers.json, peers.md and peers.svg. Needs the extra `peers`; llama.cpp and transformers
are run where they are installed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import click
import torch
from rich.console import Console

from engine.checkpoint import load_model, resolve_model
from engine.gguf_export import export_gguf
from engine.tokenizer import Tokenizer
from perf.former_report import former_report
from perf.machine import machine
from perf.peers.cost import server_run, start_times, typing_cost
from perf.peers.equality import equality
from perf.peers.llama_cpp import find_llama_server, llama_version
from perf.peers.peer_run import (
    LLAMA_F32,
    LLAMA_INFILL,
    LLAMA_Q8_0,
    LLAMAS,
    PEERS,
    TRANSFORMERS,
    PeerSetup,
    run_peers,
)
from perf.peers.peers_picture import picture
from perf.peers.peers_table import markdown
from perf.peers.scenario import make_scenario, typing_scenario
from perf.peers.worker import LINE, ONE

GGUF_TYPES = {LLAMA_F32: "f32", LLAMA_Q8_0: "q8_0", LLAMA_INFILL: "q8_0"}
# Characters typed into the whole server to learn its share of an answer.
N_SHARE = 40
# Where prompts take seconds to read, one round has to do.
LONG_TOKENS = 16_000
NO_LLAMA = (
    "llama.cpp is left out: no llama-server on PATH (Debian: apt-get install llama.cpp-tools;"
    " or --llama-server PATH)"
)
NO_TRANSFORMERS = "transformers is left out: it is not installed (pip install 'keystate[test]')"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--llama-server", default=None, help="llama.cpp's; found on PATH if left out.")
@click.option(
    "--gguf-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the exported weights go: a folder that llama-server can see.  [default: a new one]",
)
@click.option("--model", default=None, help="The embedded one if left out.")
@click.option("--threads", default=2, show_default=True, help="For every peer.")
@click.option("--lengths", default="500,2000,8000,32000", show_default=True, help="In tokens.")
@click.option("--rounds", default=3, show_default=True, help="One where documents are very long.")
@click.option("--typed", default=300, show_default=True, help="Characters typed for the costs.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(PEERS), default=PEERS)
@click.option("--want", "wants", multiple=True, type=click.Choice([ONE, LINE]), default=(ONE, LINE))
@click.option("--resume", is_flag=True, help="Measure only what OUT/peers.json has not.")
def main(
    out: Path,
    llama_server: str | None,
    gguf_folder: Path | None,
    model: str | None,
    threads: int,
    lengths: str,
    rounds: int,
    typed: int,
    peers: tuple[str, ...],
    wants: tuple[str, ...],
    resume: bool,
) -> None:
    """Compare keystate with its peers on the same weights and keystrokes."""
    console = Console(stderr=True, highlight=False)
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("perf.peers").setLevel(logging.INFO)
    program = find_llama_server(llama_server)
    skipped = skipped_lines(peers, program)
    for line in skipped:
        console.print(line)
    directory = resolve_model(model)
    tokenizer = Tokenizer.load(directory)
    reference = load_model(directory, dtype=torch.float32)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "peers.json"
    report = {"lengths": {}} | former_report(record, resume=resume)
    report |= {
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads": threads,
        "model": model or "embedded",
        "versions": versions(program),
        "skipped": skipped,
    }

    def keep(what: str) -> None:
        record.write_text(json.dumps(report, indent=1) + "\n")
        console.print(what)

    with tempfile.TemporaryDirectory() as temporary:
        folder = gguf_folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        gguf = {}
        for peer, kind in GGUF_TYPES.items():
            if program is not None and peer in peers:
                gguf[peer] = folder / f"{directory.name}-{kind}.gguf"
                export_gguf(directory, gguf[peer], type=kind)
        setup = PeerSetup(
            model=model,
            n_threads=threads,
            llama_server=program,
            gguf=gguf,
            peers=[peer for peer in peers if peer != TRANSFORMERS or find_spec("transformers")],
        )
        if LLAMA_F32 in gguf and "equality" not in report:
            with setup.llama(LLAMA_F32, 4_000) as server:
                report["equality"] = equality(server, tokenizer, reference)
            keep("token ids and logits compared")
        for n_tokens in map(int, lengths.split(",")):
            unit = report["lengths"].setdefault(str(n_tokens), {})
            if "server_share_ms" not in unit:
                run = server_run(typing_scenario(tokenizer, n_tokens, N_SHARE), setup)
                unit["server_share_ms"] = asyncio.run(run)["share_ms"]
            scenario = make_scenario(tokenizer, n_tokens, 1 if n_tokens > LONG_TOKENS else rounds)
            for want in wants:
                if want not in unit:
                    say = partial(console.print, f"{n_tokens:,} tokens, {want}:")
                    unit[want] = run_peers(scenario, want, setup, reference, tokenizer.eos_id, say)
                    keep(f"{n_tokens:,} tokens, {want}: done")
        if "typing" not in report and typed:
            n_tokens = sorted(map(int, lengths.split(",")))[-2:][0]
            report["typing"] = typing_cost(tokenizer, setup, n_tokens, typed)
            keep("the cost of typing measured")
        if "start_s" not in report and typed:
            report["start_s"] = start_times(tokenizer, setup)
            keep("the time to the first suggestion measured")
    (out / "peers.md").write_text(markdown(report))
    (out / "peers.svg").write_text(picture(report))
    click.echo(markdown(report))


def skipped_lines(peers: tuple[str, ...], program: str | None) -> list[str]:
    """Say what is left out because it is not installed."""
    lines = []
    if program is None and not LLAMAS.isdisjoint(peers):
        lines.append(NO_LLAMA)
    if TRANSFORMERS in peers and find_spec("transformers") is None:
        lines.append(NO_TRANSFORMERS)
    return lines


def versions(program: str | None) -> dict[str, str]:
    """Give the versions of what is compared."""
    found = {}
    for name in ("keystate", "torch", "numba", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found if program is None else {**found, "llama.cpp": llama_version(program)}


if __name__ == "__main__":
    main()
