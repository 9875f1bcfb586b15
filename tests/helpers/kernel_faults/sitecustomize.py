"""Kernels that fail in every way, in each Python process that has this folder on its path.

KERNEL_FAULTS is a JSON object that maps an operation, or `operation/case`, to a function in this file.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec

    import torch
    from torch import Tensor

    from vlmprof.kernels.tools.bench_encoder import Encoder, EncoderLatency
    from vlmprof.kernels.tools.bench_ops import BenchRow, Workload
    from vlmprof.kernels.tools.case import Case
    from vlmprof.kernels.tools.verify import Verdict

WANTED = json.loads(os.environ.get("KERNEL_FAULTS", "{}"))
lost = False


def hang() -> None:
    time.sleep(600)


def crash() -> None:
    ctypes.string_at(0)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def quit_early() -> None:
    os._exit(3)


def error() -> None:
    raise ValueError("no such layout\nand more")


def device_oom() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def aborted_oom() -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def poisoned() -> None:
    """An error after which every later call in this process fails too, as after an illegal access."""
    global lost
    lost = True
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")


def strike(*names: str) -> None:
    for name in names:
        if name in WANTED:
            globals()[WANTED[name]]()
    if lost:
        poisoned()


def patch_verify(module: ModuleType) -> None:
    real: Callable[..., Verdict] = module.verify_case

    def verify_case(case: Case, dtype: torch.dtype, backend: str, twice: bool = True) -> Verdict:
        strike(case.op, f"{case.op}/{case.name}")
        return real(case, dtype, backend, twice)

    vars(module).update(verify_case=verify_case)


def patch_bench(module: ModuleType) -> None:
    real: Callable[..., BenchRow] = module.measure

    def measure(workload: Workload, backend: str, *rest: object) -> BenchRow:
        strike(workload.op, f"{workload.op}/{backend}")
        return real(workload, backend, *rest)

    vars(module).update(measure=measure)


def patch_whole(module: ModuleType) -> None:
    real: Callable[..., EncoderLatency] = module.encoder_latency

    def encoder_latency(
        build: Callable[[str], Encoder], images: Tensor, mode: str, seconds: float = 0.5
    ) -> EncoderLatency:
        strike(mode)
        return real(build, images, mode, seconds)

    vars(module).update(encoder_latency=encoder_latency)


def patch_worker(module: ModuleType) -> None:
    vars(module).update(_still_works=lambda device: not lost)


PATCHES = {
    "vlmprof.kernels.tools.verify": patch_verify,
    "vlmprof.kernels.tools.bench_ops": patch_bench,
    "vlmprof.kernels.tools.bench_encoder": patch_whole,
    "vlmprof.execution.kernel_worker": patch_worker,
}


class Patching:
    """Finds the modules of `PATCHES` as others do, and patches them when they have run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in PATCHES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            PATCHES[name](module)

        vars(spec.loader).update(exec_module=run_and_patch)
        return spec


if WANTED:
    sys.meta_path.insert(0, Patching())
