"""One case of a verification: an operation and how to draw its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The arguments in the dtype under test, and the options."""

Draw = Callable[..., Tensor]
"""Returns normal numbers, float32, of a shape."""

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Case:
    """One operation and its inputs, which are drawn when they are first read."""

    op: str
    name: str
    function: Callable[..., Tensor]
    draw: Callable[[], Inputs]

    @cached_property
    def _inputs(self) -> Inputs:
        return self.draw()

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments, in the dtype under test."""
        return self._inputs[0]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options."""
        return self._inputs[1]

    def run(self, backend: str) -> Tensor:
        """Return the result on a backend."""
        return self.function(*self.arguments, **self.options, backend=backend)

    def on(self, device: torch.device) -> Case:
        """Return the same case with its tensors on `device`."""
        # `to` would make views contiguous
        return self.mapped(
            lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device).copy_(t)
        )

    def cast(self, dtype: torch.dtype) -> Case:
        """Return the same case with all tensors in a dtype."""
        return self.mapped(lambda tensor: tensor.to(dtype))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Case:
        """Return the same case with all tensors among its arguments and options changed."""

        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        def draw() -> Inputs:
            return tuple(map(changed, self.arguments)), {k: changed(v) for k, v in self.options.items()}

        return replace(self, draw=draw)


Drawn = Callable[Concatenate[Draw, torch.dtype, Parameters], Inputs]
Named = Callable[Concatenate[str, torch.dtype, torch.device, Parameters], Case]


def case_of(function: Callable[..., Tensor]) -> Callable[[Drawn[Parameters]], Named[Parameters]]:
    """Make cases of `function` from one that draws its inputs in a dtype.

    The first arguments of what is returned are a case's name, its dtype and its device.
    """

    def decorated(draw: Drawn[Parameters]) -> Named[Parameters]:
        @wraps(draw)
        def case(
            name: str, dtype: torch.dtype, device: torch.device, /,
            *args: Parameters.args, **kwargs: Parameters.kwargs,
        ) -> Case:  # fmt: skip
            def inputs() -> Inputs:
                return draw(drawing(name, device), dtype, *args, **kwargs)

            return Case(function.__name__, name, function, inputs)

        return case

    return decorated


def strided(case: Case) -> Case:
    """Return the same case with vectors whose elements are not adjacent in memory."""

    def spread(tensor: Tensor) -> Tensor:
        return torch.stack((tensor, -tensor), -1)[:, 0] if tensor.dim() == 1 else tensor

    return replace(case.mapped(spread), name=f"{case.name}, strided vectors")


def drawing(name: str, device: torch.device) -> Draw:
    """Return a source of normal numbers that depend only on the name and the type of the device."""
    generator = torch.Generator(device).manual_seed(sum(name.encode()))
    return lambda *shape: torch.randn(*shape, generator=generator, device=device)
