"""CUDA graphs for launch-bound sizes: a callable captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output")

WARM_UP_CALLS = 3
"""Calls before the capture: they compile kernels, pack parameters and let libraries choose algorithms."""


def warm_up(function: Callable[..., object], *inputs: Tensor) -> None:
    """Call it as often as a capture needs, on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)


def capture(function: Callable[..., Output], *inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, Output]:
    """One call as a graph, and what it returned: memory that each replay overwrites.

    The graph reads the memory of `inputs`. Raises RuntimeError when the call cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*inputs)
    return graph, output


class Graphed:
    """A function of tensors replayed as one CUDA graph, for inputs of the captured shapes and dtypes.

    The output is the graph's own memory, overwritten by the next call: clone what must outlive it.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor) -> None:
        """Warm up on a side stream and capture. Raises RuntimeError for inputs that are not on a GPU."""
        if not inputs or any(t.device.type != "cuda" for t in inputs):
            raise RuntimeError("CUDA graphs need inputs on a CUDA device; call the function itself elsewhere")
        self.inputs = tuple(t.clone() for t in inputs)
        with torch.inference_mode():
            warm_up(function, *self.inputs)
            self.graph, self.output = capture(function, *self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Copy the inputs in and replay. Raises ValueError when a shape or dtype is not the captured one."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the graph was captured with {len(self.inputs)} inputs, got {len(inputs)}")
        for captured, given in zip(self.inputs, inputs, strict=True):
            if captured.shape != given.shape or captured.dtype != given.dtype:
                raise ValueError(
                    f"the graph was captured for {tuple(captured.shape)} {captured.dtype}, "
                    f"got {tuple(given.shape)} {given.dtype}"
                )
            captured.copy_(given)
        self.graph.replay()
        return self.output
