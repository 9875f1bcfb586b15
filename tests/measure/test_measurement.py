"""Measuring any callables in one call, without a model or a sweep."""

from __future__ import annotations

import doctest
import logging
import re
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from tests.helpers.checks import known
from vlmprof.measure import measurement as module
from vlmprof.measure import timeline
from vlmprof.measure.measurement import Callables, MeasurementProtocol, measure, measure_in_steps
from vlmprof.measure.observer import Observer, Phase
from vlmprof.measure.stopping import Adaptive, FixedCount, Settling
from vlmprof.measure.timeline import Stage, StageGroup

FIXED = MeasurementProtocol(warm_up=1, stopping=FixedCount(3))
CPU = torch.device("cpu")


class Diary(Observer):
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        self.told.append((phase, place, iterations))

    def count(self, iteration: int) -> None:
        self.told.append(iteration)

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        return lambda i: self.told.append(stages[i])


def test_the_example_holds() -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 3


def test_calls_by_name_are_run_one_after_another_and_timed_apart() -> None:
    seen: list[int] = []

    def short(x: int) -> int:
        time.sleep(0.005)
        return x + 1

    def long(x: int) -> None:
        time.sleep(0.02)
        seen.append(x)

    found = measure(
        {"short": short, "long": long}, MeasurementProtocol(warm_up=2, stopping=FixedCount(4)), first_input=6
    )
    # two to warm up, four measured, and one for each stage's memory where the system can tell
    assert set(seen) == {7}
    assert len(seen) in (6, 7)
    assert (found.warm_up_iterations, found.iterations) == (2, 4)
    assert min(found.samples.host_s["short"]) >= 0.005
    assert min(found.samples.host_s["long"]) >= 0.02
    assert found.samples.gpu_s == {}
    parts = zip(*found.samples.host_s.values(), strict=True)
    assert all(sum(part) <= whole for part, whole in zip(parts, found.samples.end_to_end_s, strict=True))
    assert known(found.first_iteration_s) >= 0.025
    assert known(found.peaks.peak_rss_bytes) > 2**20
    assert found.warnings == ()


def test_a_group_of_stages_is_measured_like_stages_of_their_own() -> None:
    def both(value: int, begin: Callable[[str], None], end: Callable[[str], None]) -> None:
        begin("vision")
        time.sleep(0.002)
        end("vision")
        begin("prefill")
        time.sleep(0.004)
        end("prefill")

    found = measure([Stage("preprocess", lambda _: 1), StageGroup(("vision", "prefill"), both)], FIXED)
    assert list(found.samples.host_s) == ["preprocess", "vision", "prefill"]
    assert min(found.samples.host_s["vision"]) >= 0.002
    assert min(found.samples.host_s["prefill"]) >= 0.004


def test_without_a_protocol_it_warms_up_and_samples_until_the_median_is_known() -> None:
    found = measure({"wait": lambda _: time.sleep(0.02)})
    assert found.warm_up_iterations >= 6
    assert sum(found.samples.end_to_end_s) >= 0.5


def test_what_does_not_settle_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ns, lasts_ns = [0], [1_000_000]
    monkeypatch.setattr(timeline, "perf_counter_ns", lambda: clock_ns[0])

    def restless(_: object) -> None:
        lasts_ns[0] += lasts_ns[0] // 2
        clock_ns[0] += lasts_ns[0]

    protocol = MeasurementProtocol(warm_up=Settling(budget_s=0.1), stopping=FixedCount(1))
    found = measure({"wait": restless}, protocol)
    # 1.5 ms to compile, then 2.25, 3.375 and so on: 100 ms are spent with the ninth
    assert found.warnings == ("still not settled after 9 warm-up iterations in 0.111 s",)


def test_the_measurement_is_there_before_a_pass_that_adds_to_it_and_an_error_there_is_a_warning() -> None:
    calls: list[None] = []

    def fails_late(_: object) -> None:
        calls.append(None)
        if len(calls) > 4:
            raise MemoryError("no more")

    steps = measure_in_steps({"vision": fails_late}, FIXED, first_input=None, device=CPU)
    first = next(steps)
    assert len(calls) == 4
    assert (first.iterations, first.stage_peaks, first.warnings) == (3, {}, ())
    rest = list(steps)
    if not rest:
        pytest.skip("this system cannot tell the memory of stages apart, so there is no such pass")
    (last,) = rest
    assert last.samples is first.samples
    assert last.warnings == ("measured, but the pass for each stage's memory ran out of memory: no more",)


def test_what_a_call_raises_while_it_is_measured_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        measure({"divide": lambda x: 1 / x}, FIXED, first_input=0)


def test_an_observer_hears_of_phases_iterations_and_stages_in_order() -> None:
    diary = Diary()
    protocol = MeasurementProtocol(warm_up=1, stopping=FixedCount(2), stage_memory=False, profile=False)
    (found,) = measure_in_steps(
        {"a": lambda x: x, "b": lambda x: x * 2}, protocol,
        first_input=21, device=CPU, observer=diary, inspect=lambda output: output,
    )  # fmt: skip
    assert found.first_output == 42
    assert diary.told == [
        (Phase.WARMING_UP, "a", 1), 0, "a", "b", (Phase.MEASURING, "a", 2), 0, "a", "b", 1, "a", "b",
    ]  # fmt: skip


@pytest.mark.slow
def test_nothing_is_logged_unless_the_program_asks(caplog: pytest.LogCaptureFixture) -> None:
    code = (
        "from vlmprof.measure.measurement import Callables, MeasurementProtocol, measure\n"
        "from vlmprof.measure.stopping import FixedCount\n"
        "def fails_late(_, calls=[]):\n"
        "    calls.append(1)\n"
        "    assert len(calls) < 3, 'a pass fails'\n"
        "measure({'a': fails_late}, MeasurementProtocol(warm_up=1, stopping=FixedCount(1)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    with caplog.at_level(logging.INFO, logger="vlmprof"):
        measure({"a": lambda x: x}, FIXED)
    assert [record.name for record in caplog.records] == ["vlmprof.measure.measurement"] * 2
    assert "warmed up in 1 iterations" in caplog.text
    assert "measured 3 iterations" in caplog.text


@pytest.mark.parametrize(
    ("pipeline", "protocol", "words"),
    [
        ({}, FIXED, "at least one stage"),
        ([Stage("a", len), Stage("b", len), Stage("a", len)], FIXED, "several are called 'a'"),
        ([len], FIXED, "dict of callables by name or a list of stages, got <built-in function len>"),
        ({"a": len}, replace(FIXED, judged=("gpu_a_s",)), "its columns are host_a_s, end_to_end_s"),
        ({"a": len}, MeasurementProtocol(stopping=Adaptive(watched=("a",))), "no column 'a' on cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_runs(
    pipeline: Callables, protocol: MeasurementProtocol, words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        measure(pipeline, protocol, first_input=3)  # len(3) would fail


def test_outputs_in_reference_cycles_do_not_add_up() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def cyclic(_: object) -> object:
        tensor = torch.zeros(10)
        alive.append(weakref.ref(tensor))
        output: list[object] = [tensor]
        output.append(output)
        return output

    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, sum(each() is not None for each in alive))

    measure({"cyclic": cyclic, "count": count}, replace(FIXED, stopping=FixedCount(50)))
    assert most <= 3
