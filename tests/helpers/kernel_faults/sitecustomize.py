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


def strike(*names) -> None:
    for name in names:
        if name in WANTED:
            globals()[WANTED[name]]()
    if lost:
        poisoned()


def patch_verify(module) -> None:
    real = module.verify_case

    def verify_case(case, dtype, backend, twice=True):
        strike(case.op, f"{case.op}/{case.name}")
        return real(case, dtype, backend, twice)

    module.verify_case = verify_case


def patch_bench(module) -> None:
    real = module.measure

    def measure(workload, backend, *rest):
        strike(workload.op, f"{workload.op}/{backend}")
        return real(workload, backend, *rest)

    module.measure = measure


def patch_whole(module) -> None:
    real = module.encoder_latency

    def encoder_latency(build, images, mode, seconds=0.5):
        strike(mode)
        return real(build, images, mode, seconds)

    module.encoder_latency = encoder_latency


def patch_worker(module) -> None:
    module._still_works = lambda device: not lost


PATCHES = {
    "vlmprof.kernels.tools.verify": patch_verify,
    "vlmprof.kernels.tools.bench_ops": patch_bench,
    "vlmprof.kernels.tools.bench_encoder": patch_whole,
    "vlmprof.execution.kernel_worker": patch_worker,
}


class Patching:
    """Finds the modules of `PATCHES` as others do, and patches them when they have run."""

    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        run = spec.loader.exec_module

        def run_and_patch(module) -> None:
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = run_and_patch
        return spec


if WANTED:
    sys.meta_path.insert(0, Patching())
