"""Backbones that fail in every way a cell can, for sweeps that must continue."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vlmprof.backbones import backbone


class Tiny(nn.Module):
    """One token per 16 × 16 pixels, and a fault before it answers."""

    def __init__(self, fault: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.fault = fault

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patches(images).flatten(2).transpose(1, 2)
        self.fault()
        return tokens


def faulty(fault: Callable[[], object]) -> Callable[..., nn.Module]:
    """A factory whose backbone does `fault()` in its forward pass."""

    def factory() -> nn.Module:
        return Tiny(fault)

    factory.__name__ = fault.__name__
    return backbone(embed_dim=8, stride=16)(factory)


@backbone(embed_dim=8, stride=16)
def fine() -> nn.Module:
    return Tiny()


@faulty
def error() -> None:
    raise ValueError("the weights\nare haunted")


@faulty
def hang() -> None:
    time.sleep(600)


@faulty
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@faulty
def crash() -> None:
    ctypes.string_at(0)


@faulty
def quit_early() -> None:
    os._exit(3)


@faulty
def device_oom() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@faulty
def launch_oom() -> None:
    raise RuntimeError("CUDA error: out of memory")


@faulty
def library_oom() -> None:
    raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@faulty
def poisoned() -> None:
    """On a GPU a real error that leaves the context unusable; elsewhere one in the same words."""
    if not torch.cuda.is_available():
        raise RuntimeError(
            "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
        )
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]
    torch.cuda.synchronize()


@faulty
def host_oom() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


@faulty
def python_oom() -> None:
    bytearray(1 << 60)


@faulty
def aborted_oom() -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


@backbone(embed_dim=8, stride=16)
def build_oom() -> nn.Module:
    torch.empty(1 << 60, dtype=torch.uint8)
    return Tiny()


@backbone(embed_dim=8, stride=16)
def build_error() -> nn.Module:
    raise RuntimeError("no such layer")


class NotANumber(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * float("nan")


@backbone(embed_dim=8, stride=16)
def not_a_number() -> nn.Module:
    return NotANumber()


class Slow(Tiny):
    """Leaves a mark that it runs, so that a test knows when to strike."""

    def forward(self, images: Tensor) -> Tensor:
        if "SLOW_MARK" in os.environ:
            Path(os.environ["SLOW_MARK"]).touch()
        chosen = Path("slow_s")
        time.sleep(float(chosen.read_text() if chosen.exists() else os.environ.get("SLOW_S", "0.5")))
        return super().forward(images)


@backbone(embed_dim=8, stride=16)
def slow() -> nn.Module:
    return Slow()


@backbone(embed_dim=8, stride=16)
def restless() -> nn.Module:
    return Restless()


class Restless(Tiny):
    """Each call takes half as long again as the one before, so it never settles."""

    lasts_s = 0.01

    def forward(self, images: Tensor) -> Tensor:
        type(self).lasts_s *= 1.5
        time.sleep(self.lasts_s)
        return super().forward(images)


class Late(Tiny):
    """Fails in its fourth call: after one to warm up and two that are measured, in the pass for memory."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        type(self).calls += images.device.type != "meta"  # where costs are only counted
        if self.calls > 3 and images.device.type != "meta":
            self.fault()
        tokens: Tensor = self.patches(images).flatten(2).transpose(1, 2)
        return tokens


def late(fault: Callable[[], object]) -> Callable[..., nn.Module]:
    """A factory whose backbone does `fault()` once it has been measured."""

    def factory() -> nn.Module:
        return Late(fault)

    factory.__name__ = f"late_{fault.__name__}"
    return backbone(embed_dim=8, stride=16)(factory)


def raise_error() -> None:
    raise ValueError("the weights\nare haunted")


def raise_device_oom() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


late_error = late(raise_error)
late_device_oom = late(raise_device_oom)
late_crash = late(lambda: ctypes.string_at(0))
late_hang = late(lambda: time.sleep(600))
