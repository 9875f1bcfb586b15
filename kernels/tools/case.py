"""One case of a verification: an operation and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One operation and its inputs: `arguments` in the dtype under test, `options` unchanged."""

    op: str
    name: str
    function: Callable[..., Tensor]
    arguments: tuple[Tensor | None, ...]
    options: dict[str, object]

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
        arguments = tuple(change(argument) for argument in self.arguments)
        return replace(self, arguments=arguments, options={k: change(v) for k, v in self.options.items()})


def strided(case: Case) -> Case:
    """Return the same case with vectors whose elements are not adjacent in memory."""

    def spread(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 1:
            return torch.stack((value, -value), -1)[:, 0]
        return value

    return replace(case.mapped(spread), name=f"{case.name}, strided vectors")


def drawing(name: str, device: torch.device) -> Callable[..., Tensor]:
    """Return a source of normal numbers that depends only on the name, on every device."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)
