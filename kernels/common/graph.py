"""CUDA graphs for launch-bound sizes: capture a callable once and replay it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Calls before the capture: they compile kernels, pack parameters and let libraries choose algorithms."""


class Graphed:
    """A function of tensors, captured as a CUDA graph in the first call and replayed in every call.

    The graph reads the memory of the first call's inputs. Later inputs are copied there, unless they share
    that memory, such as another graph's output. The output is memory of the graph and overwritten by the next
    call: clone it to keep it longer.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the function's result for `inputs`.

        Raises RuntimeError if the call cannot be captured, such as for inputs that are not on a GPU, and
        ValueError if shapes or dtypes differ from the captured ones.
        """
        if self._graph is None:
            self._capture(inputs)
        else:
            self._copy(inputs)
        assert self._graph is not None
        self._graph.replay()
        return self._output

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        if not inputs or any(t.device.type != "cuda" for t in inputs):
            raise RuntimeError("CUDA graphs need inputs on a CUDA device; call the function itself elsewhere")
        self._inputs = inputs
        stream = torch.cuda.Stream()  # before a capture, torch requires warm-up on a side stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self._function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self._function(*inputs)
        self._graph = graph

    def _copy(self, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs) != len(self._inputs):
            raise ValueError(f"the graph was captured with {len(self._inputs)} inputs, got {len(inputs)}")
        for captured, given in zip(self._inputs, inputs, strict=True):
            if captured.shape != given.shape or captured.dtype != given.dtype:
                raise ValueError(
                    f"the graph was captured for {tuple(captured.shape)} {captured.dtype}, "
                    f"got {tuple(given.shape)} {given.dtype}"
                )
            if captured.data_ptr() != given.data_ptr():
                captured.copy_(given)
