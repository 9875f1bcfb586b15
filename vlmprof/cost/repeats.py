"""Reuse of counts: the first of 32 equal layers is counted, and the result repeated for the others.

On `meta`, an operation depends only on its scalars and on the sizes, strides, dtypes and shared storages of
its tensors. These make up the key of a `Call`. The `Outcome` of the first call with a key is stored and
repeated for later ones: the same costs in the same order, growth of memory and layouts of results. Operations
on the host, such as ViTDet's indices of relative positions, are computed each time, and only their costs are
reused. A call that may depend on anything else has no key and is always counted in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vlmprof.cost.costs import OpCost
from vlmprof.cost.liveness import LiveMemory, in_blocks

_PLAIN = frozenset((Tensor, nn.Parameter, nn.Buffer))
_SCALARS = frozenset(
    (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
)
MOST_OUTCOMES = 20_000
"""Largest number of stored outcomes of about 2 kB each; the 140 cells of kuo2026-fig4 have 6,000."""
_META = torch.device("meta")
_GATHER = torch.ops.aten.index.Tensor


class Call:
    """A call of an operator, before it is executed."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], memory: LiveMemory) -> None:
        self.tensors: list[Tensor] = []
        """The distinct tensors among its arguments."""
        self._storages: list[int] = []
        self._seen: list[tuple[Any, ...]] = []
        self._memory = memory
        self._host_tensors = 0
        parts: list[Any] = [func]
        known = self._add_all(args, parts) and (not kwargs or self._add_all(kwargs.items(), parts))
        host = kwargs.get("device")
        self.on_host = self._host_tensors == len(self.tensors) and (
            bool(self.tensors) or (host is not None and host.type == "cpu")
        )
        """Whether it runs on the host: all its tensors are there."""
        self.key: tuple[Any, ...] | None = tuple(parts) if known and self._is_repeatable(func) else None

    def _is_repeatable(self, func: Any) -> bool:
        if not self._host_tensors:
            # without tensors, the result is on torch's default device
            return bool(self.tensors) or self.on_host
        if self.on_host:
            return not func._schema.is_mutable
        # the size of a gather does not depend on the values of integer indices, but on those of booleans
        return func is _GATHER and all(t.is_meta or t.dtype == torch.int64 for t in self.tensors)

    def _add_all(self, values: Iterable[Any], parts: list[Any]) -> bool:
        """Append the values to the key. Returns False if they cannot be described completely."""
        for value in values:
            kind = type(value)
            if kind in _PLAIN:
                if not self._add_tensor(value, parts):
                    return False
                continue
            parts.append(kind)  # 1, 1.0 and True are equal
            if kind in _SCALARS:
                parts.append(value)
            elif kind is tuple or kind is list:
                parts.append(len(value))
                if not self._add_all(value, parts):
                    return False
            else:
                return False
        return True

    def _add_tensor(self, tensor: Tensor, parts: list[Any]) -> bool:
        for i, known in enumerate(self.tensors):
            if known is tensor:
                parts.append(i)
                return True
        storage = tensor.untyped_storage()
        is_meta = tensor.is_meta
        if not (is_meta or tensor.is_cpu) or tensor.dtype.is_complex or not self._memory.holds(storage):
            return False
        self._host_tensors += not is_meta
        address = storage._cdata
        shared = self._storages.index(address) if address in self._storages else None
        seen = _seen(tensor)
        parts += (*seen, shared, is_meta)
        self.tensors.append(tensor)
        self._seen.append(seen)
        self._storages.append(address)
        return True

    def layouts_unchanged(self) -> bool:
        """Return whether all tensors still have the layout that they had before the call."""
        return [_seen(tensor) for tensor in self.tensors] == self._seen

    def origin(self, tensor: Tensor) -> tuple[int | None, bool]:
        """Return which argument shares the storage of a result, if any, and whether it is the same tensor."""
        for i, given in enumerate(self.tensors):
            if given is tensor:
                return i, True
        address = tensor.untyped_storage()._cdata
        return (self._storages.index(address) if address in self._storages else None), False


@dataclass(frozen=True)
class Result:
    """The layout of a returned tensor."""

    argument: int | None
    """Index of the argument that shares its storage; None for a new storage."""
    is_argument: bool
    """Whether it is that argument itself, not a view."""
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    def make(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a tensor with this layout for other arguments."""
        if self.argument is None:
            return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=_META)
        argument = tensors[self.argument]
        return argument if self.is_argument else argument.as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True)
class Outcome:
    """The effect of a call."""

    costs: Sequence[OpCost]
    """Costs of its operations, in order."""
    growth_bytes: int
    """Growth of the peak of live bytes during the call."""
    container: type | None
    """`tuple` or `list`; None for a single tensor."""
    results: Sequence[Result]

    def repeat(self, call: Call, memory: LiveMemory) -> Any:
        """Update the memory and return the results for another call with the same key."""
        memory.reach(self.growth_bytes)
        made = [result.make(call.tensors) for result in self.results]
        memory.hold(made)
        return made[0] if self.container is None else self.container(made)

    def repeat_on_host(self, output: Any, memory: LiveMemory) -> bool:
        """Update the memory for another call on the host, which returned `output`. Returns False if the
        layout differs from that of the first call, because it depends on values."""
        made = [output] if self.container is None else output
        if [_layout(t) for t in made] != [(r.size, r.stride, r.offset, r.dtype) for r in self.results]:
            return False
        memory.reach(self.growth_bytes)
        memory.hold(made)
        return True


@lru_cache(maxsize=16)
def known_outcomes(*conditions: object) -> dict[tuple[Any, ...], Outcome]:
    """Return the stored outcomes by key under these conditions, for the caller to extend."""
    return {}


def outcome(
    call: Call, output: Any, costs: Sequence[OpCost], growth_bytes: int, new_bytes: int
) -> Outcome | None:
    """Return the outcome of a call that returned `output`; None if repeating it would not be equivalent.

    `growth_bytes` is that of `Outcome`, and `new_bytes` the increase of live bytes after the call.
    """
    container = None if isinstance(output, Tensor) else type(output)
    tensors = [output] if container is None else output
    if container not in (None, tuple, list) or not all(
        type(t) in _PLAIN and (t.is_cpu if call.on_host else t.is_meta) for t in tensors
    ):
        return None
    results = [Result(*call.origin(tensor), *_layout(tensor)) for tensor in tensors]
    if not call.layouts_unchanged():
        return None
    if not call.on_host and [_seen(result.make(call.tensors)) for result in results] != [
        _seen(tensor) for tensor in tensors
    ]:
        return None
    own = [t.untyped_storage() for t, result in zip(tensors, results, strict=True) if result.argument is None]
    # two results share a storage, or something else was kept alive
    if new_bytes != sum(in_blocks(storage.nbytes()) for storage in own):
        return None
    return Outcome(costs, growth_bytes, container, results)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _seen(tensor: Tensor) -> tuple[Any, ...]:
    return (*_layout(tensor), tensor.untyped_storage().nbytes())
