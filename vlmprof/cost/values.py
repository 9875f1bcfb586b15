"""Handling of models that read values of their tensors, which `meta` tensors do not have.

Booleans are assumed to be true. Models without a grouped product loop over the chosen experts and read their
indices: these are made on the host, see `vlmprof.cost.experts`, and operations on them are computed there
until they involve a tensor on `meta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vlmprof.cost.experts import Routing
from vlmprof.cost.formulas import tensors_in
from vlmprof.errors import UserError

aten = torch.ops.aten
READ_VALUE = aten._local_scalar_dense.default
_COPY = aten._to_copy.default
_GATHER = aten.index.Tensor
_SIZED_BY_VALUES = (aten.nonzero.default, aten.masked_select.default, aten._unique2.default)


class ReadsValuesError(UserError):
    """A model reads values that its further operations depend on."""

    def __init__(self) -> None:
        super().__init__(
            "the cost of this model cannot be counted, because its operations depend on values of its tensors"
        )


def is_read(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Return whether a call reads values of a tensor on `meta`."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return False
    if func is _COPY:
        target = kwargs.get("device")
        return target is not None and torch.device(target).type != "meta"
    return func is READ_VALUE or func in _SIZED_BY_VALUES


def assumed_values(func: Any, read: Tensor, routings: Sequence[Routing]) -> bool | Tensor:
    """Return the assumed values of a tensor on `meta`. Raises `ReadsValuesError` if none are assumed.

    transformers evaluates `(positions == 0).all()` and `mask.all()` to skip a mask that is not needed, as for
    one unpadded sequence. JetMoE reads the number of tokens of each expert.
    """
    if func is READ_VALUE and read.dtype == torch.bool:
        return True
    if func is _COPY and routings and read.shape == (routings[-1].experts,) and not read.is_floating_point():
        return routings[-1].tokens_per_expert().to(read.dtype)
    raise ReadsValuesError


def on_one_device(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, with tensors on the host moved to `meta` if others are there already.

    Gathering rows by indices on the host stays as it is.
    """
    tensors = tensors_in((args, kwargs))
    if len({tensor.is_meta for tensor in tensors}) < 2 or (func is _GATHER and args[0].is_meta):
        return args, kwargs
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))  # type: ignore[no-any-return]
