"""High-water marks against allocations of known size."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.checks import known
from vlmprof.execution.limits import limit_memory
from vlmprof.measure.memory import MemoryMeter, Peaks

MIB = 2**20


def test_peaks_join_to_the_higher_of_each() -> None:
    assert Peaks(1, None, 5) | Peaks(3, 2, None) == Peaks(3, 2, 5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_resident_peak_follows_an_allocation_and_falls_back_after_a_reset() -> None:
    meter = MemoryMeter(torch.device("cpu"))
    if not meter.resets_between_stages:
        pytest.skip("this system does not let the mark be lowered")
    meter.reset()
    before = known(meter.peaks().peak_rss_bytes)
    block = torch.ones(64 * MIB, dtype=torch.uint8)
    during = known(meter.peaks().peak_rss_bytes)
    del block
    after = known(meter.peaks().peak_rss_bytes)
    meter.reset()
    lowered = known(meter.peaks().peak_rss_bytes)
    assert 60 * MIB < during - before < 80 * MIB
    # the kernel batches its counting per thread, so figures are a little late
    assert abs(after - during) < MIB
    assert lowered - before < 8 * MIB
    assert meter.peaks().peak_allocated_bytes is None


LIMITED = """
import sys, torch
from vlmprof.execution.limits import limit_memory
limit_memory(256 * 2**20, torch.device("cpu"))
kept = [torch.ones(64 * 2**20, dtype=torch.uint8) for _ in range(3)]
try:
    kept += [torch.ones(64 * 2**20, dtype=torch.uint8) for _ in range(2)]
except RuntimeError as error:
    from vlmprof.measure.oom import is_out_of_memory
    print("refused" if is_out_of_memory(error) else error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts mappings on Linux alone")
def test_a_memory_limit_counts_from_the_bare_libraries() -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "refused"


@pytest.mark.parametrize(("device", "index"), [("cuda", 3), ("cuda:1", 1)])
def test_a_gpus_limit_is_a_share_of_that_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, index: int
) -> None:
    """torch's own checks of its arguments run; only what needs a GPU stands in."""
    shares = {}
    total = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: total)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda share, at: shares.update({at: share}), raising=False
    )
    limit_memory(2**30, torch.device(device))
    assert shares == {index: 0.125}


@pytest.mark.gpu
def test_the_allocators_peaks_match_an_allocation() -> None:
    torch.zeros(1, device="cuda")
    meter = MemoryMeter(torch.device("cuda"))
    meter.reset()
    before = meter.peaks()
    block = torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    after = meter.peaks()
    assert known(after.peak_allocated_bytes) - known(before.peak_allocated_bytes) == block.numel()
    assert known(after.peak_reserved_bytes) >= known(after.peak_allocated_bytes)
