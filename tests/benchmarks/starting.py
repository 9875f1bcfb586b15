"""Measure the start of a cell without its work: a backbone that does nothing, measured as in a sweep.

Run it by hand: `python tests/benchmarks/starting.py [CELLS]`. Goal: at most 0.15 s per cell. For comparison,
it also measures a process of the fork server that does nothing at all.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from vlmprof.execution.machine import describe_machine
from vlmprof.execution.processes import call_in_process
from vlmprof.execution.supervisor import measure_cell
from vlmprof.plan import make_plan
from vlmprof.records import Status
from vlmprof.spec import load_spec

BACKBONE = """
import torch
from vlmprof.backbones import backbone


class Nothing(torch.nn.Module):
    def forward(self, images):
        return images.new_empty(images.shape[0], 1, 8)


@backbone(embed_dim=8, stride=32, family="Nothing", size="0")
def nothing():
    return Nothing()
"""
SWEEP = """
[axes]
backbone = "idle:nothing"
resolution = 32
llm = "llama-23m"
connector = "mlp2"

[fixed]
stages = ["vision"]
warm_up = 1
iterations = 1
"""


def processor_s() -> float:
    """What this process and all that began below it have used, the fork server's children included."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children()))


def medians(start: Callable[[], object], times: int) -> tuple[float, float]:
    """Wall-clock and processor seconds of a start."""
    waited_s, used_s = [], []
    for _ in range(times):
        used, begun_s = processor_s(), time.perf_counter()
        start()
        waited_s.append(time.perf_counter() - begun_s)
        used_s.append(processor_s() - used)
    return statistics.median(waited_s), statistics.median(used_s)


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("idle.py").write_text(BACKBONE)
        Path("idle.toml").write_text(SWEEP)
        spec = load_spec("idle.toml")
        (cell,) = make_plan(spec)
        machine = describe_machine("cpu")
        settings = replace(spec.settings, device=machine.device)

        def start_cell() -> None:
            row, _ = measure_cell(cell, settings, machine, Path("cell.log"))
            assert row.status is Status.OK, row.message

        for name, start in (
            ("a process that does nothing", lambda: call_in_process("time:time", ())),
            ("a cell that does nothing", start_cell),
        ):
            start()
            wall_s, used_s = medians(start, times)
            print(f"{name}: {wall_s:.3f} s, of which {used_s:.3f} s on a processor (medians of {times})")


if __name__ == "__main__":
    main()
