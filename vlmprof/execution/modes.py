"""How a stage's call runs: as written, compiled, or replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vlmprof.errors import UserError
from vlmprof.execution.oom import is_out_of_memory
from vlmprof.execution.processes import first_line
from vlmprof.kernels.common.graph import Graphed

Call = Callable[[Tensor], Tensor]


def _eager(device: torch.device) -> Callable[[Call], Call]:
    return lambda call: call


def _compiled(device: torch.device) -> Callable[[Call], Call]:
    # a cell has one shape, so there is nothing to generalise over
    return lambda call: torch.compile(call, dynamic=False)


def _graphed(device: torch.device) -> Callable[[Call], Call]:
    if device.type != "cuda":
        raise UserError(f"mode graphs needs a CUDA device; on {device.type} use eager or compile")
    return StageGraph


MODES: dict[str, Callable[[torch.device], Callable[[Call], Call]]] = {
    "eager": _eager,
    "compile": _compiled,
    "graphs": _graphed,
}
"""By name: from a device to what wraps a call."""


def quiet_autograd(mode: str) -> AbstractContextManager[object]:
    """The context that spares autograd's bookkeeping. The compiler cannot trace in inference mode."""
    return torch.no_grad() if mode == "compile" else torch.inference_mode()


class CompileTime:
    """While open, adds up the wall time that torch.compile spends compiling, where `mode` compiles."""

    def __init__(self, mode: str) -> None:
        self.total_s: float | None = 0.0 if mode == "compile" else None
        self._begun_s = 0.0

    def __enter__(self) -> CompileTime:
        if self.total_s is not None:
            self._handler().register_start_callback(self._begin)
            self._handler().register_end_callback(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.total_s is not None:
            self._handler().remove_start_callback(self._begin)
            self._handler().remove_end_callback(self._end)

    def _handler(self) -> Any:
        # importing the compiler takes a second, which no other mode should pay
        from torch._dynamo.callback import callback_handler

        return callback_handler

    def _begin(self, _: object) -> None:
        self._begun_s = perf_counter()

    def _end(self, _: object) -> None:
        self.total_s = (self.total_s or 0.0) + perf_counter() - self._begun_s


class StageGraph(Graphed):
    """A stage as a CUDA graph. One graph's output is the next one's input, so nothing is copied between."""

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        try:
            super()._capture(inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            said = f"a CUDA graph cannot hold this stage: {first_line(str(error))}"
            raise RuntimeError(said) from error
