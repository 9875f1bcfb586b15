"""Execution modes of a stage (eager, compiled, or replayed from a CUDA graph) and attention backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmprof.errors import UserError, message_of
from vlmprof.kernels.common.graph import Graphed
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.settings import Axes, Mode

Call = Callable[[Tensor], Tensor]

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}

NO_ATTENTION = ("No available kernel", "No viable backend for scaled_dot_product_attention")
"""torch's errors on a GPU and on a CPU if no permitted backend supports the tensors."""


FOR_QUANTIZED = {"coordinate_descent_tuning": True, "force_fuse_int_mm_with_mul": True}
"""Options of torch.compile that torchao recommends for quantized models."""


def wrapper_of(mode: Mode, device: torch.device, quantized: bool = False) -> Callable[[Call], Call]:
    """Return the wrapper of stages in this mode, `quantized` by torchao or not.

    Raises `UserError` if the device does not support it.
    """
    if mode == "graphs":
        if device.type != "cuda":
            raise UserError(f"mode graphs needs a CUDA device; on {device.type} use eager or compile")
        return StageGraph
    # a cell has a single shape, so dynamic shapes are not needed
    compiled = partial(torch.compile, dynamic=False, options=FOR_QUANTIZED if quantized else None)
    return compiled if mode == "compile" else lambda call: call


@contextmanager
def attention_backend(axes: Axes, device: torch.device | str) -> Iterator[None]:
    """Use the cell's backend for scaled-dot-product attention in this context; with `auto`, torch chooses.

    Raises `UserError` if the backend does not support the model's tensors; torch warns with the reasons.
    """
    name = axes.attention
    try:
        with nullcontext() if name == "auto" else sdpa_kernel(ATTENTION[name]):
            yield
    except RuntimeError as error:
        if name == "auto" or not any(words in str(error) for words in NO_ATTENTION):
            raise
        raise UserError(
            f"attention {name} does not support this model's tensors in {axes.dtype} on {device}; "
            "use auto for a backend that does"
        ) from error


def quiet_autograd(mode: Mode) -> AbstractContextManager[object]:
    """Return a context without autograd overhead. The compiler cannot trace in inference mode."""
    return torch.no_grad() if mode == "compile" else torch.inference_mode()


class CompileTime:
    """Sums the wall time that torch.compile spends compiling within the context, if `mode` compiles."""

    def __init__(self, mode: Mode) -> None:
        self.total_s: float | None = 0.0 if mode == "compile" else None
        self._begun_s = 0.0

    def __enter__(self) -> CompileTime:
        if self.total_s is not None:
            self._handler().register_start_callback(self._begin)
            self._handler().register_end_callback(self._end)
        return self

    def __exit__(self, *ended: object) -> None:
        if self.total_s is not None:
            self._handler().remove_start_callback(self._begin)
            self._handler().remove_end_callback(self._end)

    def _handler(self) -> Any:
        # importing the compiler takes a second, so other modes skip it
        from torch._dynamo.callback import callback_handler

        return callback_handler

    def _begin(self, _: object) -> None:
        self._begun_s = perf_counter()

    def _end(self, _: object) -> None:
        self.total_s = (self.total_s or 0.0) + perf_counter() - self._begun_s


class StageGraph(Graphed):
    """A stage as a CUDA graph. Its output is the input of the next graph, so nothing is copied in between."""

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        try:
            super()._capture(inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            message = f"this stage cannot be captured in a CUDA graph: {message_of(error)}"
            raise RuntimeError(message) from error
