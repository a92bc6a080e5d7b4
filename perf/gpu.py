"""Checks and measures everything that runs on a GPU, from a source tree, in under ten minutes.

`python -m perf.gpu` needs torch and Triton, and the small packages that loading a model needs; the
server's own are not. Kernels are held against float64 and timed against what the device can do at
most; a model of Codestral's shape with random weights decodes, reads keystrokes and long prompts,
and has its states kept. It prints a table; `--out OUT.json` keeps the figures and draws OUT.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from perf import gpu_kernels, gpu_model, gpu_peer
from perf.gpu_device import Floors, describe
from perf.gpu_report import roofline, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.config import Mamba2Config

# Besides the weights: states, logits, activations of a prefill, inputs that take turns.
SPARE_BYTES = 12 * 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a kernel is wrong, 0 too where there is no device."""
    parser = argparse.ArgumentParser(prog="python -m perf.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="write OUT.json, and OUT.svg beside it")
    parser.add_argument("--layers", type=int, default=gpu_model.CODESTRAL.n_layers)
    parser.add_argument("--kernels-only", action="store_true", help="measure no model")
    parser.add_argument(
        "--mamba-ssm", type=Path, help="a folder with mamba_ssm/ in it, to measure against"
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing to measure")
        return 0
    device = torch.device("cuda")
    config = replace(gpu_model.CODESTRAL, n_layers=_layers_that_fit(options.layers, device))
    report = measure(
        config, device, with_model=not options.kernels_only, mamba_ssm=options.mamba_ssm
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        out = options.out.with_suffix(".json")
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".svg").write_text(roofline(report), encoding="utf-8")
    print(table(report))
    return 0 if all(row["ok"] for row in report["checks"]) else 1


def measure(
    config: Mamba2Config,
    device: torch.device,
    *,
    floors: Floors | None = None,
    prefill_tokens: int = 4096,
    long_tokens: int = 2**18,
    repeats: int = 30,
    with_model: bool = True,
    mamba_ssm: Path | None = None,
) -> dict[str, Any]:
    """Give all figures, for JSON; says on the way what it is doing."""
    started = time.perf_counter()
    report: dict[str, Any] = {**describe(device), "date": date.today().isoformat()}
    with torch.inference_mode():
        _say("measuring the floors")
        floors = floors or Floors.measure(device)
        report["floors"] = asdict(floors)
        one_layer = replace(config, n_layers=1)
        _say("checking kernels against float64")
        report["checks"] = gpu_kernels.check(one_layer, device)
        _say("timing kernels")
        report["kernels"] = gpu_kernels.measure(
            config, device, floors, prefill_tokens=prefill_tokens
        )
        if mamba_ssm is not None:
            _say("timing mamba-ssm's operators")
            try:
                report["mamba_ssm"] = gpu_peer.compare(
                    mamba_ssm, config, device, prefill_tokens=prefill_tokens
                )
            except gpu_peer.PeerError as error:
                report["mamba_ssm_error"] = str(error)
        if with_model:
            _say(f"measuring a model of {config.n_layers} layers")
            report["model"] = gpu_model.measure(
                config,
                device,
                floors,
                prefill_tokens=prefill_tokens,
                long_tokens=long_tokens,
                repeats=repeats,
            )
    report["seconds"] = time.perf_counter() - started
    return report


def _layers_that_fit(n_layers: int, device: torch.device) -> int:
    """Give how many of the layers the free memory holds in bfloat16."""
    free, _ = torch.cuda.mem_get_info(device)
    c = gpu_model.CODESTRAL
    layer_bytes = 2 * (c.d_in_proj + c.d_inner) * c.d_model
    layer_bytes += 8 * 4 * c.d_inner * c.d_state  # some states
    return max(1, min(n_layers, (free - SPARE_BYTES) // layer_bytes))


def _say(what: str) -> None:
    print(f"{what} …", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
