"""The measuring loop: which clocks are read when in an iteration.

host    |sync|t0  [e0|h.. stage 0 ..h|e1]  [e0|h.. stage 1 ..h|e1]  …  |sync|t1
device       |     e0=====work=====e1       e0=======work=======e1      |
             |<------------------ end-to-end: t1 - t0 ----------------->|

host latency  h to h    perf_counter_ns around the call, without synchronization in between
GPU latency   e0 to e1  events in the device's queue before and after the stage's work
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from vlmprof.measure.clocks import DeviceClock
from vlmprof.measure.samples import Samples
from vlmprof.measure.stopping import StoppingRule


@dataclass(frozen=True)
class Stage:
    """A timed unit. `run` receives the output of the previous stage."""

    name: str
    run: Callable[[Any], Any]


Mark = Callable[[str], None]


@dataclass(frozen=True)
class StageGroup:
    """Several stages inside one call.

    `run(value, begin, end)` calls `begin(name)` and `end(name)` around each stage. Work between stages counts
    only towards the end-to-end latency.
    """

    names: tuple[str, ...]
    run: Callable[[Any, Mark, Mark], Any]


def stage_names(stages: Sequence[Stage | StageGroup]) -> list[str]:
    """Return the names of all stages in running order.

    Raises ValueError if there are none or two have the same name, and TypeError for anything but a stage.
    """
    names: list[str] = []
    for stage in stages:
        if not isinstance(stage, Stage | StageGroup):
            raise TypeError(f"a pipeline is a dict of callables by name or a list of stages, got {stage!r}")
        names += (stage.name,) if isinstance(stage, Stage) else stage.names
    if not names:
        raise ValueError("a pipeline needs at least one stage")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"stages need distinct names, but several are called {', '.join(map(repr, twice))}")
    return names


class Timeline:
    """Runs iterations of a pipeline of stages and reads the clocks."""

    def __init__(
        self,
        stages: Sequence[Stage | StageGroup],
        clock: DeviceClock,
        first_input: Any = None,
        on_stage: Callable[[int], None] = lambda i: None,
        before_iteration: Callable[[], None] = lambda: None,
        keep_output: bool = False,
    ) -> None:
        """Join stages, each of which receives the output of the previous one.

        Args:
            clock: The device's clock, for all of the stages.
            first_input: Argument of the first stage in every iteration.
            on_stage: Called with `i` before stage `i`, outside its host latency but inside end-to-end
                latency, so its cost must be negligible.
            before_iteration: Called before the clocks start, to flush caches.
            keep_output: Whether to keep the output of an iteration alive until the end of the next one.
        """
        calls = [single_stage(stage) if isinstance(stage, Stage) else stage for stage in stages]
        self._calls = [call.run for call in calls]
        self._names = stage_names(stages)
        self._number = {name: i for i, name in enumerate(self._names)}
        self._clock = clock
        self._first_input = first_input
        self._on_stage = on_stage
        self._before_iteration = before_iteration
        self._keep_output = keep_output
        self._kept: Any = None
        self._host_ns = [0] * len(self._names)
        self._begun_ns = 0

    def iterate(self) -> tuple[float, Any]:
        """Run one iteration; return its end-to-end latency in seconds and the output of the last stage."""
        clock, begin_stage, end_stage = self._clock, self._begin, self._end
        value = self._first_input
        self._before_iteration()
        clock.synchronize()
        begin = perf_counter_ns()
        for run in self._calls:
            value = run(value, begin_stage, end_stage)
        clock.synchronize()
        elapsed_s = (perf_counter_ns() - begin) * 1e-9
        if self._keep_output:
            self._kept = value
        return elapsed_s, value

    def sample(self, rule: StoppingRule, on_iteration: Callable[[int], None] = lambda n: None) -> Samples:
        """Measure at least one iteration, until `rule` has enough samples; return all of them.

        The cyclic garbage collector is off while the clocks run: its pauses depend on the history of the
        process, not on the stage in which they occur. It collects the youngest objects between iterations,
        so that outputs in reference cycles do not add up.
        """
        samples = Samples({f"host_{name}_s": [] for name in self._names}, end_to_end_s=[])
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            while not samples.end_to_end_s or not rule.enough(samples):
                on_iteration(len(samples.end_to_end_s))
                end_to_end_s, output = self.iterate()
                del output
                gc.collect(0)
                samples.end_to_end_s.append(end_to_end_s)
                for i, name in enumerate(self._names):
                    samples[f"host_{name}_s"].append(self._host_ns[i] * 1e-9)
                    elapsed_s = self._clock.elapsed_s(i)
                    if elapsed_s is not None:
                        samples.setdefault(f"gpu_{name}_s", []).append(elapsed_s)
        finally:
            if collecting:
                gc.enable()
        return samples

    def each_stage(self, around: Callable[[str], AbstractContextManager[object]]) -> None:
        """Run one iteration without clocks, with each stage in `around(stage)` until the device is done."""
        value = self._first_input
        with ExitStack() as opened:

            def begin(name: str) -> None:
                self._on_stage(self._number[name])
                opened.enter_context(around(name))

            def end(name: str) -> None:
                self._clock.synchronize()
                opened.close()

            for run in self._calls:
                value = run(value, begin, end)

    def _begin(self, name: str) -> None:
        i = self._number[name]
        self._on_stage(i)
        self._clock.start(i)
        self._begun_ns = perf_counter_ns()

    def _end(self, name: str) -> None:
        ended_ns = perf_counter_ns()
        i = self._number[name]
        self._host_ns[i] = ended_ns - self._begun_ns
        self._clock.stop(i)


def single_stage(stage: Stage) -> StageGroup:
    """Wrap a single stage in a group."""
    name, work = stage.name, stage.run

    def run(value: Any, begin: Mark, end: Mark) -> Any:
        begin(name)
        value = work(value)
        end(name)
        return value

    return StageGroup((name,), run)
