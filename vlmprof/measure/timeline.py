"""The measuring loop: what is read when in one iteration.

host    |sync|t0  [e0|h.. stage 0 ..h|e1]  [e0|h.. stage 1 ..h|e1]  …  |sync|t1
device       |     e0=====work=====e1       e0=======work=======e1      |
             |<------------------ end-to-end: t1 - t0 ----------------->|

host latency  h to h    perf_counter_ns around the call, nothing in between waits for the device
GPU latency   e0 to e1  events in the device's queue before and after the stage's work
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from vlmprof.measure.clocks import DeviceClock
from vlmprof.measure.stopping import StoppingRule


@dataclass(frozen=True)
class Stage:
    """A timed unit: `run` gets what the stage before it returned."""

    name: str
    run: Callable[[Any], Any]


Mark = Callable[[str], None]


@dataclass(frozen=True)
class Together:
    """Several stages inside one call: `run(value, begin, end)` calls `begin(name)` and `end(name)` around
    each. What it does between them belongs to the end-to-end latency alone."""

    names: tuple[str, ...]
    run: Callable[[Any, Mark, Mark], Any]


@dataclass
class Samples:
    """Raw values, one per measured iteration, by stage. GPU lists stay empty without a device clock."""

    host_s: dict[str, list[float]] = field(default_factory=dict)
    gpu_s: dict[str, list[float]] = field(default_factory=dict)
    end_to_end_s: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, list[float]]:
        """The samples by row column: `host_vision_s`, `gpu_vision_s`, …, `end_to_end_s`."""
        columns = {f"host_{stage}_s": values for stage, values in self.host_s.items()}
        columns |= {f"gpu_{stage}_s": values for stage, values in self.gpu_s.items() if values}
        return columns | {"end_to_end_s": self.end_to_end_s}


class Timeline:
    """Runs iterations of a chain of stages and reads the clocks."""

    def __init__(
        self,
        stages: Sequence[Stage | Together],
        clock: DeviceClock,
        first_input: Any = None,
        on_stage: Callable[[int], None] = lambda i: None,
        before_iteration: Callable[[], None] = lambda: None,
        keep_output: bool = False,
    ) -> None:
        """`first_input` goes into the first stage of every iteration; `on_stage(i)` is called before
        stage `i`, outside its host latency but inside end-to-end, so it must cost next to nothing;
        `before_iteration()` is called before the clocks start, to flush caches; `keep_output` lets what
        an iteration returned live until the end of the next one."""
        calls = [_on_its_own(stage) if isinstance(stage, Stage) else stage for stage in stages]
        self._calls = [call.run for call in calls]
        self._names = [name for call in calls for name in call.names]
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
        """One iteration: its end-to-end latency in seconds, and what the last stage returned."""
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
        """Measured iterations until `rule` has enough, all kept; at least one.

        The cyclic garbage collector rests while the clocks run: its pauses belong to the process's
        history, not to the stage that they happen to hit.
        """
        samples = Samples(
            host_s={name: [] for name in self._names},
            gpu_s={name: [] for name in self._names},
        )
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            while not samples.end_to_end_s or not rule.enough(samples.columns()):
                on_iteration(len(samples.end_to_end_s))
                end_to_end_s, output = self.iterate()
                del output
                samples.end_to_end_s.append(end_to_end_s)
                for i, name in enumerate(self._names):
                    samples.host_s[name].append(self._host_ns[i] * 1e-9)
                    elapsed_s = self._clock.elapsed_s(i)
                    if elapsed_s is not None:
                        samples.gpu_s[name].append(elapsed_s)
        finally:
            if collecting:
                gc.enable()
        return samples

    def each_stage(self, around: Callable[[str], AbstractContextManager[object]]) -> None:
        """One iteration outside the clocks, each stage inside `around(name)` until the device is done
        with it: a pass for memory, never for latency."""
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


def _on_its_own(stage: Stage) -> Together:
    name, work = stage.name, stage.run

    def run(value: Any, begin: Mark, end: Mark) -> Any:
        begin(name)
        value = work(value)
        end(name)
        return value

    return Together((name,), run)
