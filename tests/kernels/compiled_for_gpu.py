"""Compiles every Triton kernel for a GPU that need not be there, at the sizes of a real model.

`python -m tests.kernels.compiled_for_gpu bfloat16 90` for a dtype and a compute capability. The
interpreter accepts what the compiler does not; this launches nothing. Prints what was compiled.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kernels.choice import triton_forced
from perf.gpu_kernels import Maker
from perf.gpu_model import CODESTRAL


class NoDriver:
    """A driver for a device that is only compiled for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main(dtype: str, capability: str) -> None:
    names: list[str] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        assert "cubin" in kernel.asm
        names.append(self.__name__)
        return kernel

    driver.set_active(NoDriver(int(capability)))
    JITFunction.run = compile_only
    # Heads of a real model's size, but few of them: nothing is computed.
    config = replace(CODESTRAL, d_model=256, n_layers=1, vocab_size=256)
    maker = Maker(config, getattr(torch, dtype), torch.device("cpu"))
    cases = [
        maker.convolution(16),
        maker.convolution(130),
        maker.mixer(1),
        maker.mixer(5),
        maker.recurrence(1),
        maker.commit(5, n_layers=2),
        maker.scan(200),
        maker.gated(7),
        maker.add_norm(7),
        maker.linear(1, 512, 256, 8),
        maker.linear(16, 512, 256, 4),
    ]
    with triton_forced():
        for case in cases:
            case.run(*case.make())
    print(*sorted(set(names)))


if __name__ == "__main__":
    main(*sys.argv[1:])
