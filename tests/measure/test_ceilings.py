"""Ceilings of rows: measured long enough, and after the clocks have risen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vlmprof.measure import ceilings


class Device:
    """A clock that only work moves. Calls last 4 ms at first and `falling(t)` of that at time t."""

    def __init__(self, falling: Callable[[float], float]) -> None:
        self.now_s = 0.0
        self.calls: list[tuple[float, float]] = []
        self._falling = falling

    def work(self) -> None:
        lasted_s = 0.004 * self._falling(self.now_s)
        self.calls.append((self.now_s, lasted_s))
        self.now_s += lasted_s


def measured(device: Device, settle: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(ceilings, "perf_counter", lambda: device.now_s)
    return ceilings.sustained_s(device.work, settle)


def test_an_idle_accelerator_raises_its_clocks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rising = Device(lambda t: 1.0 if t < 0.25 else 0.5)
    assert measured(rising, True, monkeypatch) == pytest.approx(0.002)
    settled_s = sum(lasted for begun, lasted in rising.calls if begun > 0.25)
    assert settled_s >= ceilings.SETTLE_S / 2 + ceilings.MEASURE_S
    # one that speeds up for a second is waited for, and one that never settles is not
    slow = Device(lambda t: max(0.5, 1 - t / 2))
    assert measured(slow, True, monkeypatch) == pytest.approx(0.002)
    restless = Device(lambda t: 1.0 + t)
    measured(restless, True, monkeypatch)
    assert restless.now_s < ceilings.LONGEST_SETTLE_S + 2 * ceilings.MEASURE_S


def test_a_cpu_is_measured_at_once_and_a_slow_call_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = Device(lambda t: 1.0)
    measured(steady, False, monkeypatch)
    assert ceilings.MEASURE_S < steady.now_s < ceilings.MEASURE_S + 0.02
    slow = Device(lambda t: 500.0)
    assert measured(slow, False, monkeypatch) == pytest.approx(2.0)
    assert len(slow.calls) == 2


def test_load_that_comes_and_goes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # another process for 0.45 s, a short pause in which one call is fast, and again until 0.8 s
    loaded = Device(lambda t: 1.0 if 0.45 < t < 0.47 or t > 0.8 else 2.0 + t)
    assert measured(loaded, False, monkeypatch) == pytest.approx(0.004)
    assert loaded.now_s > 0.8
    restless = Device(lambda t: 1.0 + t)
    measured(restless, False, monkeypatch)
    assert restless.now_s < ceilings.LONGEST_SETTLE_S + ceilings.MEASURE_S
