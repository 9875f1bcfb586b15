"""Cold iterations: the flush happens before every iteration, outside the clocks, and is large enough."""

from __future__ import annotations

import torch

from vlmprof.measure.cache import CacheFlush, last_level_cache_bytes
from vlmprof.measure.clocks import DeviceClock, device_clock
from vlmprof.measure.stopping import FixedCount
from vlmprof.measure.timeline import Stage, Timeline

CPU = torch.device("cpu")


def test_the_cache_has_a_plausible_size() -> None:
    assert 2**20 <= last_level_cache_bytes(CPU) <= 2**31


def test_a_flush_writes_more_than_the_cache_holds() -> None:
    flush = CacheFlush(CPU)
    flush.filler.fill_(7)
    flush()
    assert flush.filler.nbytes >= 2 * last_level_cache_bytes(CPU)
    assert not flush.filler.any()


def test_every_iteration_is_flushed_before_its_clocks_start() -> None:
    order = []

    class Clock(DeviceClock):
        def synchronize(self) -> None:
            order.append("sync")

        def start(self, i: int) -> None:
            order.append("start")

        def stop(self, i: int) -> None:
            order.append("stop")

    line = Timeline(
        [Stage("vision", lambda _: None)], Clock(), before_iteration=lambda: order.append("flush")
    )
    line.sample(FixedCount(2))
    assert order == ["flush", "sync", "start", "stop", "sync"] * 2


def test_nothing_is_flushed_when_hot() -> None:
    line = Timeline([Stage("vision", lambda value: value)], device_clock(CPU, 1), 3)
    assert line.iterate()[1] == 3
