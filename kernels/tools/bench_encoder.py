"""The latency of an encoder in each mode: the modes of a sweep, and the same with other kernels.

    eager          the plain PyTorch module
    compile        the same under torch.compile
    graphs         the same as a CUDA graph, without launch overhead
    fused          the module with the Triton kernels
    fused graphs   the same as a CUDA graph
    public         the module of the public code, if there is a checkout
    public graphs  the same as a CUDA graph

Encoders are callables here; the caller builds them.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import why_not_triton
from vlmprof.kernels.common.compiled import compiled_here
from vlmprof.kernels.common.graph import Graphed
from vlmprof.kernels.tools.timing import samples_of

MODES = ("eager", "compile", "graphs", "fused", "fused graphs")
PUBLIC_MODES = ("public", "public graphs")

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EncoderLatency:
    """One encoder at one resolution in one mode; numbers are None unless `status` is `ok`."""

    mode: str
    status: str
    """`ok` or `skipped`."""
    message: str = ""
    median_s: float | None = None
    quartile_low_s: float | None = None
    quartile_high_s: float | None = None
    samples: int = 0
    peak_allocated_bytes: int | None = None
    """Peak of the caching allocator in one call or capture, including weights; None on a CPU."""


def why_skipped(mode: str, device: torch.device) -> str | None:
    """Return why `mode` cannot run on `device`, or None if it can."""
    if "graphs" in mode and device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    return why_not_triton(device) if "fused" in mode else None


def encoder_latency(
    build: Callable[[str], Encoder], images: Tensor, mode: str, seconds: float = 0.5
) -> EncoderLatency:
    """Time an encoder on `images` (batch, 3, height, width) in one mode, for about `seconds`.

    `build` creates the encoder with the `torch` or `triton` kernels, or from the `public` code. Errors of the
    encoder, the compiler or a capture propagate.
    """
    device = images.device
    reason = why_skipped(mode, device)
    if reason is not None:
        return EncoderLatency(mode, "skipped", reason)
    try:
        kernels = "public" if mode in PUBLIC_MODES else "triton" if "fused" in mode else "torch"
        return _timed(mode, build(kernels), images, seconds)
    finally:
        if mode == "compile":
            torch.compiler.reset()  # it caches the weights of compiled modules
        gc.collect()
        if device.type == "cuda":
            torch._C._cuda_clearCublasWorkspaces()  # one per stream used by a capture


def _timed(mode: str, encoder: Encoder, images: Tensor, seconds: float) -> EncoderLatency:
    with torch.inference_mode():
        if mode == "compile":
            encoder = compiled_here(encoder)
        encoder(images)
        peak_bytes = None
        if images.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(images.device)
            # a graph allocates during capture and not during replay
            encoder = Graphed(encoder) if "graphs" in mode else encoder
            encoder(images)
            peak_bytes = torch.cuda.max_memory_allocated(images.device)
        durations = samples_of(lambda: encoder(images), images.device, seconds)
    low, median, high = statistics.quantiles(durations, n=4)
    return EncoderLatency(mode, "ok", "", median, low, high, len(durations), peak_bytes)
