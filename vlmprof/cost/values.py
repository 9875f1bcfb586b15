"""What a model asks of the values of its tensors, where they have none.

Yes or no is assumed. A loop over the experts that were chosen, as models without a grouped product have it,
needs to know which: the choices are then made on the host, as `vlmprof.cost.experts` says, and what follows from
them is computed there for as long as it meets no tensor without data.
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


class ReadsValues(UserError):
    """A model asks for values that decide what it does next."""

    def __init__(self) -> None:
        super().__init__("this model reads values from its tensors as it runs; its cost cannot be counted")


def is_read(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call asks for values that its tensor does not have."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return False
    if func is _COPY:
        target = kwargs.get("device")
        return target is not None and torch.device(target).type != "meta"
    return func is READ_VALUE or func in _SIZED_BY_VALUES


def assumed_values(func: Any, asked: Tensor, routings: Sequence[Routing]) -> bool | Tensor:
    """What is assumed of values that are not there. Raises `ReadsValues` where nothing is.

    transformers asks `(positions == 0).all()` and `mask.all()` to find that no mask is needed, which is so
    for one unpadded sequence. JetMoE asks how many tokens each expert has.
    """
    if func is READ_VALUE and asked.dtype == torch.bool:
        return True
    if (
        func is _COPY
        and routings
        and asked.shape == (routings[-1].experts,)
        and not asked.is_floating_point()
    ):
        return routings[-1].tokens_per_expert().to(asked.dtype)
    raise ReadsValues


def together(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call without the values of those on the host, if others have no data.

    Choosing rows by indices from the host is left alone.
    """
    tensors = tensors_in((args, kwargs))
    if len({tensor.is_meta for tensor in tensors}) < 2 or (func is _GATHER and args[0].is_meta):
        return args, kwargs
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))  # type: ignore[no-any-return]
