"""Repeated launches: what is cached and what is computed again, on a GPU emulated by the CPU."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import triton
import triton.language as tl
from triton import knobs
from triton.runtime import driver

from tests.kernels.ptx.emulated_gpu import EmulatedGpu, remember_ptx
from vlmprof.kernels.common.launcher import Launcher

BLOCK = 32
OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}


@triton.jit(do_not_specialize=["count"])
def scale_kernel(x_ptr, y_ptr, count, factor, BLOCK: tl.constexpr, SHIFT: tl.constexpr):
    """y = factor · x + SHIFT."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < count, other=0.0)
    tl.store(y_ptr + at, (x.to(tl.float32) * factor + SHIFT).to(y_ptr.dtype.element_ty), mask=at < count)


@triton.jit
def careless_kernel(x_ptr, count, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK), 0.0, mask=tl.arange(0, BLOCK) < count)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An emulated GPU; one entry for each launch for which Triton was asked."""
    monkeypatch.setattr(driver, "_active", EmulatedGpu())
    monkeypatch.setattr(knobs.runtime, "kernel_load_end_hook", remember_ptx)
    launches: list[str] = []
    run = scale_kernel.run

    def counted(*arguments: object, **options: object) -> object:
        launches.append("asked")
        return run(*arguments, **options)

    monkeypatch.setattr(scale_kernel, "run", counted)
    return launches


def launch(
    launcher: Launcher, x: torch.Tensor, factor: float = 2.0, count: int | None = None
) -> torch.Tensor:
    y = torch.full_like(x, -1.0)
    launcher((-(-len(x) // BLOCK), 1, 1), x, y, len(x) if count is None else count, factor)
    return y


def test_the_same_kind_of_arguments_is_asked_about_once(asked: list[str]) -> None:
    launcher = Launcher(scale_kernel, {"BLOCK": BLOCK, "SHIFT": 1}, OPTIONS)
    for length, factor in ((40, 2.0), (64, 3.0), (1, -1.0), (33, 0.5)):
        x = torch.arange(float(length))
        assert torch.equal(launch(launcher, x, factor), factor * x + 1)
    assert len(asked) == 1


@pytest.mark.parametrize("offset", [1, 3, 4])
def test_another_alignment_is_another_kernel(offset: int, asked: list[str]) -> None:
    launcher = Launcher(scale_kernel, {"BLOCK": BLOCK, "SHIFT": 0}, OPTIONS)
    x = torch.arange(48.0)
    for _ in range(2):
        assert torch.equal(launch(launcher, x), 2 * x)
        assert torch.equal(launch(launcher, x[offset:]), 2 * x[offset:])
    assert len(asked) == (1 if offset == 4 else 3)


def test_other_dtypes_devices_and_wide_integers_are_asked_about(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Launcher(scale_kernel, {"BLOCK": BLOCK, "SHIFT": 0}, OPTIONS)
    x = torch.arange(40.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float32, torch.bfloat16):
        assert torch.equal(launch(launcher, x.to(dtype)), (2 * x).to(dtype))
    assert len(asked) == 2
    # as a 32-bit integer it would be negative and mask everything
    for _ in range(2):
        assert torch.equal(launch(launcher, x[:32], count=1 << 31), 2 * x[:32])
    assert len(asked) == 4
    monkeypatch.setattr(driver, "_active", EmulatedGpu(80))
    assert torch.equal(launch(launcher, x), 2 * x)
    assert len(asked) == 5


def test_what_a_launcher_cannot_tell_apart_is_refused(asked: list[str]) -> None:
    with pytest.raises(ValueError, match="last parameters"):
        Launcher(scale_kernel, {"BLOCK": BLOCK, "count": 3}, {})
    with pytest.raises(ValueError, match="do_not_specialize"):
        Launcher(careless_kernel, {"BLOCK": BLOCK}, {})((1, 1, 1), torch.zeros(16), 16)
    with pytest.raises(ValueError, match="tensors, then numbers"):
        Launcher(scale_kernel, {"BLOCK": BLOCK, "SHIFT": 0}, {})((1, 1, 1), 16, torch.zeros(16))
