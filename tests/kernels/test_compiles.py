"""Triton's own compiler accepts every kernel: the interpreter, which tests run in, is lenient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.versions import needs_triton

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_kernel_compiles(dtype: str, tmp_path: Path) -> None:
    """In a process of its own: this one's kernels are interpreted."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiled_for_gpu", dtype, "90"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = set(done.stdout.split())
    assert compiled >= {
        "_add_norm_kernel",
        "_commit_kernel",
        "_conv_kernel",
        "_gated_kernel",
        "_mixer_kernel",
        "_pass_kernel",
        "_scan_kernel",
        "_multiply_4",
        "_multiply_8",
    }
