"""GPU busy time: the union of kernel records, and on a GPU the launch-bound share of tiny kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vlmprof.measure.busy import BusyTimes, device_spans, union_length


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (5, 6)], 3),
        ([(5, 6), (1, 3)], 3),
        ([(1, 4), (2, 3)], 3),
        ([(1, 4), (3, 6), (6, 7)], 6),
        ([(1, 2), (1, 2), (1, 2)], 1),
    ],
)
def test_overlapping_records_count_once(spans: list[tuple[float, float]], length: int) -> None:
    assert union_length(spans) == length


def test_only_work_on_the_device_counts_not_the_regions_around_it() -> None:
    def event(start: int, end: int, kind: str = "CUDA", region: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            time_range=SimpleNamespace(start=start, end=end),
            device_type=SimpleNamespace(name=kind),
            is_user_annotation=region,
        )

    events = [event(1, 3), event(1, 90, region=True), event(0, 50, kind="CPU"), event(80, 90)]
    assert device_spans(events) == [(1, 3), (80, 90)]


def test_a_profiler_that_saw_nothing_says_nothing() -> None:
    assert BusyTimes({"vision": 0.0, "prefill": 0.0}).known() == {}
    assert BusyTimes({"preprocess": 0.0, "vision": 0.5}).known() == {"preprocess": 0.0, "vision": 0.5}


@pytest.mark.gpu
def test_a_large_product_is_busy_and_many_tiny_ones_are_not() -> None:
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    tiny = torch.ones(8, device="cuda")
    times = BusyTimes()
    begin, end = (torch.Event(device="cuda", enable_timing=True) for _ in range(2))
    for name, work in (("large", lambda: a @ a), ("tiny", lambda: [tiny + 1 for _ in range(200)])):
        work()
        torch.cuda.synchronize()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        latency_s = begin.elapsed_time(end) * 1e-3
        with times.around(name):
            work()
            torch.cuda.synchronize()
        share = times.busy_s[name] / latency_s
        assert share > 0.8 if name == "large" else share < 0.7
