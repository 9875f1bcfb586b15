"""Measure the overhead of the instrumentation, and of `vlmprof --help` compared with a bare interpreter.

Run it by hand: `python tests/benchmarks/instrumentation.py`. Goals: under 20 µs of host time per stage and
iteration; `--help` under 0.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

from vlmprof.execution.processes import status_board
from vlmprof.measure.clocks import device_clock
from vlmprof.measure.observer import Phase
from vlmprof.measure.stopping import FixedCount
from vlmprof.measure.timeline import Stage, Timeline

NAMES = ("preprocess", "vision", "connector", "prefill")


def per_stage(device: torch.device, iterations: int = 5_000) -> tuple[float, float]:
    """Microseconds per stage: of an iteration's end-to-end, and inside the stage's host latency."""
    shared = status_board()
    shared.enter(Phase.MEASURING, "vision", iterations)
    stages = [Stage(name, lambda value: value) for name in NAMES]
    line = Timeline(stages, device_clock(device, len(stages)), on_stage=shared.stage_marker(NAMES))
    line.sample(FixedCount(iterations // 10), shared.count)
    samples = line.sample(FixedCount(iterations), shared.count)
    whole = statistics.median(samples.end_to_end_s) / len(stages)
    inside = statistics.median(samples.host_s["vision"])
    return whole * 1e6, inside * 1e6


def loop_overhead(iterations: int = 5_000) -> float:
    """Microseconds per stage of the same calls in a bare Python loop."""

    def nothing(value: object) -> object:
        return value

    times = []
    for _ in range(iterations):
        begin = time.perf_counter_ns()
        value: object = None
        for _ in NAMES:
            value = nothing(value)
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / len(NAMES) * 1e-3


def command_s(*command: str, runs: int = 7) -> float:
    """Median seconds of a whole process."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    bare = loop_overhead()
    devices = ["cpu"] + (
        [str(torch.accelerator.current_accelerator())] if torch.accelerator.is_available() else []
    )
    for name in devices:
        whole, inside = per_stage(torch.device(name))
        print(
            f"{name}: {whole:.2f} µs per stage and iteration, {inside:.2f} µs of it inside the host latency"
        )
        print(f"{'':>{len(name)}}  a bare loop takes {bare:.2f} µs: ratio {whole / bare:.1f}")
    interpreter = command_s(sys.executable, "-c", "pass")
    shown = command_s(sys.executable, "-m", "vlmprof", "--help")
    ratio = shown / interpreter
    print(f"vlmprof --help: {shown:.3f} s; a bare interpreter: {interpreter:.3f} s; ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
