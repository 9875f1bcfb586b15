"""One case of a verification: an operation and how to draw its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

Inputs = tuple[tuple[Tensor | None, ...], Mapping[str, object]]
"""The arguments in the dtype under test, and the options."""

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
    def arguments(self) -> tuple[Tensor | None, ...]:
        """The arguments, in the dtype under test."""
        return self._inputs[0]

    @property
    def options(self) -> Mapping[str, object]:
        """The options."""
        return self._inputs[1]

    def on(self, device: torch.device) -> Case:
        """Return the same case with its tensors on `device`."""

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            there = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
            return there.copy_(value)  # `to` would make views contiguous

        return self.mapped(moved)

    def mapped(self, change: Callable[[Any], Any]) -> Case:
        """Return the same case with all arguments and options changed."""

        def changed() -> Inputs:
            return tuple(map(change, self.arguments)), {k: change(v) for k, v in self.options.items()}

        return replace(self, draw=changed)


def case_of(
    function: Callable[..., Tensor],
) -> Callable[[Callable[Concatenate[str, Parameters], Inputs]], Callable[Concatenate[str, Parameters], Case]]:
    """Make cases of `function` from a function that draws its inputs; the first argument names the case."""

    def decorated(
        draw: Callable[Concatenate[str, Parameters], Inputs],
    ) -> Callable[Concatenate[str, Parameters], Case]:
        @wraps(draw)
        def case(name: str, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Case:
            return Case(function.__name__, name, function, partial(draw, name, *args, **kwargs))

        return case

    return decorated


def strided(case: Case) -> Case:
    """Return the same case with vectors whose elements are not adjacent in memory."""

    def spread(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 1:
            return torch.stack((value, -value), -1)[:, 0]
        return value

    return replace(case.mapped(spread), name=f"{case.name}, strided vectors")


def drawing(name: str, device: torch.device) -> Callable[..., Tensor]:
    """Return a source of normal numbers that depend only on the name and the type of the device."""
    generator = torch.Generator(device).manual_seed(sum(name.encode()))
    return lambda *shape: torch.randn(*shape, generator=generator, device=device)
