"""The measuring loop against fake clocks and against torch's timer."""

from __future__ import annotations

import gc
import statistics
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch

from vlmprof.measure import timeline
from vlmprof.measure.clocks import DeviceClock, device_clock
from vlmprof.measure.stopping import FixedCount
from vlmprof.measure.timeline import Stage, Timeline


class World(DeviceClock):
    """A host and an asynchronous device with one hand-wound clock each, in nanoseconds."""

    def __init__(self) -> None:
        self.host_ns = 1_000
        self.device_ns = 1_000
        self.starts: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.log: list[str] = []

    def perf_counter_ns(self) -> int:
        return self.host_ns

    def launch(self, host_ns: int, device_ns: int) -> None:
        """Work that costs the host `host_ns` to launch and the device `device_ns` to do."""
        self.host_ns += host_ns
        self.device_ns = max(self.device_ns, self.host_ns) + device_ns

    def synchronize(self) -> None:
        self.log.append("sync")
        self.host_ns = self.device_ns = max(self.host_ns, self.device_ns)

    def start(self, i: int) -> None:
        self.log.append(f"start {i}")
        self.starts[i] = max(self.device_ns, self.host_ns)
        self.stops.pop(i, None)

    def stop(self, i: int) -> None:
        self.log.append(f"stop {i}")
        self.stops[i] = self.device_ns

    def elapsed_s(self, i: int) -> float:
        return (self.stops[i] - self.starts[i]) * 1e-9


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(timeline, "perf_counter_ns", world.perf_counter_ns)
    return world


def test_host_gpu_and_end_to_end_are_three_different_things(world: World) -> None:
    def stage(host_ns: int, device_ns: int) -> Callable[[str], str]:
        def run(value: str) -> str:
            world.launch(host_ns, device_ns)
            return value

        return run

    stages = [Stage("vision", stage(100, 5_000)), Stage("prefill", stage(200, 9_000))]
    samples = Timeline(stages, world, "image").sample(FixedCount(3))
    assert samples.host_s["vision"] == pytest.approx([100e-9] * 3)
    assert samples.host_s["prefill"] == pytest.approx([200e-9] * 3)
    assert samples.gpu_s["prefill"] == pytest.approx([9_000e-9] * 3)
    # launching the first stage is the only host time that the device cannot hide
    assert samples.end_to_end_s == pytest.approx([14_100e-9] * 3)


def test_nothing_waits_inside_an_iteration(world: World) -> None:
    stages = [Stage("vision", lambda value: value), Stage("prefill", lambda value: value)]
    Timeline(stages, world).iterate()
    assert world.log == ["sync", "start 0", "stop 0", "start 1", "stop 1", "sync"]


def test_each_stage_gets_what_the_one_before_returned() -> None:
    stages = [Stage("vision", lambda x: x + 1), Stage("connector", lambda x: x * 10)]
    _, value = Timeline(stages, device_clock(torch.device("cpu"), 2), 4).iterate()
    assert value == 50


def test_an_output_lives_through_the_next_iteration_only_where_it_is_kept() -> None:
    class Output:
        pass

    def alive_in_each(keep: bool) -> list[int]:
        made: list[weakref.ref[Output]] = []
        alive: list[int] = []

        def run(_: object) -> Output:
            alive.append(sum(ref() is not None for ref in made))
            output = Output()
            made.append(weakref.ref(output))
            return output

        clock = device_clock(torch.device("cpu"), 1)
        Timeline([Stage("vision", run)], clock, keep_output=keep).sample(FixedCount(4))
        return alive

    assert alive_in_each(keep=False) == [0, 0, 0, 0]
    assert alive_in_each(keep=True) == [0, 1, 1, 1]


def test_columns_are_the_rows_columns_and_a_cpu_has_no_gpu_column() -> None:
    stages = [Stage("vision", lambda x: x)]
    columns = Timeline(stages, device_clock(torch.device("cpu"), 1)).sample(FixedCount(4))
    assert set(columns) == {"host_vision_s", "end_to_end_s"}
    assert all(len(values) == 4 for values in columns.values())


def test_the_stage_is_marked_before_it_runs() -> None:
    seen: list[object] = []
    stages = [Stage("a", lambda _: seen.append("run a")), Stage("b", lambda _: seen.append("run b"))]
    Timeline(stages, device_clock(torch.device("cpu"), 2), on_stage=seen.append).iterate()
    assert seen == [0, "run a", 1, "run b"]


def test_the_garbage_collector_rests_and_is_woken_even_after_a_failure() -> None:
    states = []

    def fails(_: object) -> None:
        states.append(gc.isenabled())
        raise MemoryError

    with pytest.raises(MemoryError):
        Timeline([Stage("vision", fails)], device_clock(torch.device("cpu"), 1)).sample(FixedCount(1))
    assert states == [False]
    assert gc.isenabled()


def test_the_memory_pass_goes_around_each_stage_in_turn() -> None:
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def around(name: str) -> Iterator[None]:
        seen.append(f"before {name}")
        yield
        seen.append(f"after {name}")

    def first(_: object) -> int:
        seen.append("a")
        return 1

    stages = [Stage("a", first), Stage("b", lambda x: seen.append(f"b {x}"))]
    Timeline(stages, device_clock(torch.device("cpu"), 2)).each_stage(around)
    assert seen == ["before a", "a", "after a", "before b", "b 1", "after b"]


def test_a_known_wait_is_measured_as_long_as_it_is() -> None:
    stages = [Stage("vision", lambda _: time.sleep(0.02))]
    samples = Timeline(stages, device_clock(torch.device("cpu"), 1)).sample(FixedCount(5))
    assert min(samples.host_s["vision"]) >= 0.02
    assert min(e - h for e, h in zip(samples.end_to_end_s, samples.host_s["vision"], strict=True)) >= 0


@pytest.mark.gpu
def test_gpu_latency_agrees_with_torchs_own_timer() -> None:
    from torch.utils.benchmark import Timer

    # a millisecond or more: on an idle GPU, events also see the launch, tens of microseconds on slow hosts
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    line = Timeline([Stage("vision", lambda _: a @ a)], device_clock(torch.device("cuda"), 1))
    line.sample(FixedCount(20))
    ours = statistics.median(line.sample(FixedCount(50)).gpu_s["vision"])
    theirs = Timer("a @ a", globals={"a": a}).blocked_autorange(min_run_time=1).median
    assert ours == pytest.approx(theirs, rel=0.1)
