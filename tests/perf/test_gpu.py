"""The GPU command: every part of it that a CPU can run, on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import torch

from engine.config import Mamba2Config
from kernels.choice import triton_forced
from perf import gpu, gpu_kernels, gpu_model, gpu_peer
from perf.gpu_device import Floors, describe, measure_s, n_copies
from perf.gpu_report import roofline, table
from tests.kernels.versions import needs_triton

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

CPU = torch.device("cpu")
TINY = Mamba2Config(
    d_model=128,
    n_layers=2,
    vocab_size=64,
    d_state=8,
    headdim=128,
    ngroups=2,
    tie_embeddings=False,
)
FLOORS = Floors(bandwidth_bytes_s=1e9, bf16_flops_s=1e12)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """All of it, through torch."""
    return gpu.measure(TINY, CPU, floors=FLOORS, prefill_tokens=20, long_tokens=60, repeats=2)


def test_without_a_device_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "no CUDA device here: nothing to measure\n"


def test_every_check_passes_in_torch(report: dict[str, Any]) -> None:
    wrong = [row for row in report["checks"] if not row["ok"]]
    assert not wrong
    names = {row["name"] for row in report["checks"]}
    assert names >= {"causal_conv1d", "mixer_pass", "ssm_commit", "ssd_chunk_scan"}
    assert names >= {"gated_rmsnorm", "add_rmsnorm", "quantized_linear int4"}


def test_a_wrong_kernel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "add_rmsnorm", lambda r, u, w, eps: (r + u, r + 1.001 * u))
    rows = gpu_kernels.check(replace(TINY, n_layers=1), CPU)
    assert {row["name"] for row in rows if not row["ok"]} == {"add_rmsnorm"}


@pytest.mark.slow
@needs_triton
def test_every_check_passes_interpreted() -> None:
    with triton_forced(), torch.inference_mode():
        rows = [
            (case.name, case.detail, case.error())
            for dtype, case in gpu_kernels.correctness_cases(replace(TINY, n_layers=1), CPU)
            # The interpreter cuts off where a GPU rounds, so only float32 is exact in it.
            if dtype == "float32"
        ]
    assert rows
    assert all(error < 1e-5 for *_, error in rows), rows


def test_figures_of_the_model(report: dict[str, Any]) -> None:
    model = report["model"]
    assert model["kept_states"]["equal"]
    assert model["kept_states"]["unchanged_by_a_pass"]
    assert model["kept_states"]["from_tier"] == 1
    assert model["kept_states"]["logits_distance"] < 0.1
    assert max(model["agreement"].values()) < 1e-5
    assert set(model["decode"]) == {"bf16", "int8", "int4"}
    assert [row["tokens"] for row in model["keystrokes"]["bf16"]] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert model["long_prompt"]["tokens"] == 60


def test_bytes_of_a_token() -> None:
    """Weights once but for the embeddings, states there and back; less where quantized."""
    model = gpu_model.random_model(TINY, CPU)
    weights = sum(p.nbytes for p in model.parameters()) - 64 * 128 * 2
    assert gpu_model.token_bytes(model) == weights + 2 * model.initial_state().n_bytes
    kind = gpu_model.Quantization.named("int8")
    small = gpu_model.random_model(replace(TINY, quantization=kind), CPU)
    assert gpu_model.token_bytes(small) < gpu_model.token_bytes(model)


def test_table_and_picture(report: dict[str, Any]) -> None:
    peers = [{"name": "chunk scan", "us": 1.0, "mamba_ssm_us": 2.0, "ratio": 2.0, "distance": 0.0}]
    text = table({**report, "mamba_ssm": peers, "mamba_ssm_error": "no einops"})
    assert "mixer_pass" in text
    assert "chunk scan" in text
    assert "no einops" in text
    n = len(report["checks"])
    assert f"{n} of {n} kernel checks" in text
    wrong = [{**report["checks"][0], "ok": False, "error": 0.5}]
    assert "WRONG causal_conv1d" in table({**report, "checks": wrong})
    root = ElementTree.fromstring(roofline(report))
    circles = [part for part in root if part.tag.endswith("circle")]
    names = {row["name"] for row in report["kernels"]}
    assert len(circles) == len(report["kernels"]) + len(names)
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < 860
        assert 0 < float(circle.attrib["cy"]) < 460
    assert json.loads(json.dumps(report)) == report


def test_the_command_writes_what_it_found(
    report: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**37, 2**37))
    asked = []

    def measured(config: Mamba2Config, *_: Any, **options: Any) -> dict[str, Any]:
        asked.append((config.n_layers, options["with_model"], options["mamba_ssm"]))
        return report

    monkeypatch.setattr(gpu, "measure", measured)
    out = tmp_path / "new" / "card"
    assert gpu.main(["--out", str(out), "--layers", "5", "--kernels-only"]) == 0
    assert asked == [(5, False, None)]
    assert json.loads(out.with_suffix(".json").read_text()) == report
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    assert "kernel checks" in capsys.readouterr().out
    report_with_fault = {**report, "checks": [{**report["checks"][0], "ok": False}]}
    monkeypatch.setattr(gpu, "measure", lambda *_, **__: report_with_fault)
    assert gpu.main([]) == 1


def test_floors_and_times() -> None:
    floors = Floors.measure(CPU, copy_bytes=1000, width=8)
    assert floors.bandwidth_bytes_s > 0
    assert floors.bf16_flops_s > 0
    assert FLOORS.seconds(1e9, 1e9) == 1.0
    assert FLOORS.seconds(1e3, 1e12) == 1.0
    calls = []
    assert measure_s([lambda: calls.append(1), lambda: calls.append(2)], CPU) > 0
    assert calls[:4] == [1, 2, 1, 2]
    assert n_copies(2**40, CPU) == 2
    assert n_copies(1, CPU) == 32
    assert set(describe(CPU)) == {"device", "python", "torch", "triton"}


FAKE_UPDATE = """
import torch
def selective_state_update(state, x, dt, A, B, C, D, dt_bias):
    ratio = x.shape[1] // B.shape[1]
    B, C = (t.float().repeat_interleave(ratio, 1)[:, :, None] for t in (B, C))
    state.mul_(torch.exp(dt.float()[..., None] * A)).add_((dt * x.float())[..., None] * B)
    return ((state * C).sum(-1) + D * x.float()).to(x.dtype)
"""
FAKE_SCAN = """
import torch
from kernels.ssd_chunk_scan import ssd_chunk_scan
def mamba_chunk_scan_combined(x, dt, A, B, C, chunk, D, initial_states, return_final_states):
    return ssd_chunk_scan(x, dt, A, B, C, D, initial_states, chunk)[:2]
"""
FAKE_GATED = """
from kernels.gated_rmsnorm import gated_rmsnorm
def rmsnorm_fn(y, weight, bias, z, eps, group_size, norm_before_gate):
    return gated_rmsnorm(y, z, weight, eps, y.shape[-1] // group_size)
"""
FAKE_NORM = """
from kernels.add_rmsnorm import add_rmsnorm
def rms_norm_fn(x, weight, bias, residual, eps, prenorm, residual_in_fp32):
    return add_rmsnorm(residual, x, weight, eps)
"""


def test_the_other_package_is_used_from_its_folder(tmp_path: Path) -> None:
    """Without its `__init__`, which wants compiled extensions."""
    with pytest.raises(gpu_peer.PeerError, match="has no mamba_ssm/ops/triton"):
        gpu_peer.compare(tmp_path, TINY, CPU)
    folder = tmp_path / "mamba_ssm" / "ops" / "triton"
    folder.mkdir(parents=True)
    (tmp_path / "mamba_ssm" / "__init__.py").write_text("import selective_scan_cuda\n")
    with pytest.raises(gpu_peer.PeerError, match="selective_state_update cannot be imported"):
        gpu_peer.compare(tmp_path, TINY, CPU)
    (folder / "selective_state_update.py").write_text(FAKE_UPDATE)
    (folder / "ssd_combined.py").write_text(FAKE_SCAN)
    (folder / "layernorm_gated.py").write_text(FAKE_GATED)
    (folder / "layer_norm.py").write_text(FAKE_NORM)
    rows = gpu_peer.compare(tmp_path, TINY, CPU, tokens=(1, 2), prefill_tokens=6)
    assert len(rows) == 7
    for row in rows:
        assert row["distance"] < 1e-2, row
        assert row["ratio"] > 0
