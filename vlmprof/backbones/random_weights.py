"""Random weights, created on the target device in the target dtype, with little memory beyond their own.

Modules are built with their own initialisation switched off (`uninitialised`), then every parameter is
filled (`fill`) from one short pool of normal values. What a parameter holds depends on the seed, its own
name and its shape, so a backbone cut at a level has the weights of the whole one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

POOL_SIZE = 1_048_573
"""Prime, so that repeats of the pool fall on different columns of every matrix."""

_IN_PLACE = ("uniform_", "normal_", "erfinv_", "mul_", "add_", "div_", "clamp_", "fill_", "zero_", "copy_")
_INITIALISERS = frozenset(_IN_PLACE) | {name for name in vars(nn.init) if name.endswith("_")}


class _SkipInitialisers(TorchFunctionMode):
    """Skip the in-place initialisation of parameters in constructors."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in _INITIALISERS:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return func(*args, **(kwargs or {}))


@contextmanager
def uninitialised(device: torch.device | str, dtype: torch.dtype) -> Iterator[None]:
    """Create modules on `device` in `dtype` without initialising their parameters."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), _SkipInitialisers(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(previous)


@torch.no_grad()
def fill(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter of `module` its random value, and freeze it; returns `module` in eval mode.

    Matrices and filters are normal with variance 1/fan-in, norms are the identity, biases zero; the
    parameters of state-space layers follow Mamba's own initialisation (arXiv 2312.00752, section 3.6).
    """
    values = RandomValues(seed)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(False)
        if not parameter.is_meta:
            values.fill(name, parameter)
    return module.eval()


class RandomValues:
    """The random values of every parameter, by its full name."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pools: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @torch.no_grad()
    def fill(self, name: str, parameter: Tensor) -> Tensor:
        """Give a parameter its value; returns it."""
        special = _SPECIAL.get(name.rsplit(".", 1)[-1]) or _SPECIAL.get(".".join(name.rsplit(".", 2)[-2:]))
        if special is not None:
            special(parameter)
        elif not parameter.is_floating_point() or not parameter.numel():
            parameter.zero_()
        elif parameter.ndim <= 1:
            parameter.fill_(0.0 if "bias" in name.rsplit(".", 1)[-1] else 1.0)
        else:
            key = parameter.device, parameter.dtype
            if key not in self._pools:
                self._pools[key] = _pool(*key, self._seed)
            _tile(parameter, self._pools[key], zlib.crc32(name.encode()) % POOL_SIZE)
        return parameter


def _pool(device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    """Return the pool twice in a row, so that a slice of its length can start anywhere."""
    generator = torch.Generator(device).manual_seed(seed)
    once = torch.randn(POOL_SIZE, generator=generator, device=device, dtype=dtype)
    return torch.cat((once, once))


def _tile(parameter: Tensor, pool: Tensor, start: int) -> None:
    """Fill with the pool from `start` on, repeated as often as needed, scaled by 1/√fan-in."""
    is_table = parameter.ndim >= 2 and parameter.shape[0] == 1
    scale = 0.02 if is_table else 1 / math.sqrt(parameter[0].numel())
    count = parameter.numel()
    flat = parameter.view(-1)
    if count <= POOL_SIZE:
        torch.mul(pool[start : start + count], scale, out=flat)
        return
    piece = pool[start : start + POOL_SIZE] * scale
    whole = count // POOL_SIZE
    flat[: whole * POOL_SIZE].view(whole, POOL_SIZE).copy_(piece)
    flat[whole * POOL_SIZE :].copy_(piece[: count - whole * POOL_SIZE])


def _log_of_state_index(parameter: Tensor) -> None:
    """A = −(1 … d_state) for every channel, kept as its logarithm."""
    states = torch.arange(1, parameter.shape[-1] + 1, device=parameter.device, dtype=torch.float32)
    parameter.copy_(states.log().expand_as(parameter))


def _step_sizes(parameter: Tensor) -> None:
    """Biases whose softplus runs from 0.001 to 0.1, evenly in the logarithm over the channels."""
    steps = torch.logspace(-3, -1, parameter.shape[-1], device=parameter.device, dtype=torch.float32)
    parameter.copy_((steps + torch.log(-torch.expm1(-steps))).expand_as(parameter))


def _ones(parameter: Tensor) -> None:
    parameter.fill_(1.0)


_SPECIAL: dict[str, Callable[[Tensor], None]] = {
    "A_logs": _log_of_state_index,
    "A_log": _log_of_state_index,
    "dt_projs_bias": _step_sizes,
    "dt_proj.bias": _step_sizes,
    "Ds": _ones,
    "D": _ones,
}
