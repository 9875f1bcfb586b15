"""Operations counted before: what the thirty-second equal layer does is known from the first.

On `meta` what an operation does follows from its scalars and from the sizes, strides, dtypes and sharing of
its tensors. Those are the key of a `Call`. What the first call of a key did is kept as an `Outcome` and done
again for later ones: the same costs in the same order, the same growth of memory, results of the same layout.
What a model computes on the host (ViTDet its indices of relative positions) is really computed each time, and
only its costs are looked up. A call that may depend on more has no key and is counted in full every time.
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
"""Kept under the same conditions, some two kilobytes each: the study's 140 cells leave 6,000."""
_META = torch.device("meta")
_GATHER = torch.ops.aten.index.Tensor


class Call:
    """One call of an operator, before it is made."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], memory: LiveMemory) -> None:
        self.tensors: list[Tensor] = []
        """Those that were given, each once."""
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
        """Whether it computes values, from tensors on the host alone."""
        self.key: tuple[Any, ...] | None = tuple(parts) if known and self._is_repeatable(func) else None

    def _is_repeatable(self, func: Any) -> bool:
        if not self._host_tensors:
            # without a tensor the result is made on whatever device torch defaults to
            return bool(self.tensors) or self.on_host
        if self.on_host:
            return not func._schema.is_mutable
        # of integers it takes as many as there are, whichever they are; of booleans, those that are true
        return func is _GATHER and all(t.is_meta or t.dtype == torch.int64 for t in self.tensors)

    def _add_all(self, values: Iterable[Any], parts: list[Any]) -> bool:
        """Append to the key all that can be seen of these values; False if that is not all there is."""
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

    def left_as_given(self) -> bool:
        """Whether no tensor has another layout now than when it was given."""
        return [_seen(tensor) for tensor in self.tensors] == self._seen

    def origin(self, tensor: Tensor) -> tuple[int | None, bool]:
        """Which given tensor has the storage of one that was returned, if any, and whether it is itself."""
        for i, given in enumerate(self.tensors):
            if given is tensor:
                return i, True
        address = tensor.untyped_storage()._cdata
        return (self._storages.index(address) if address in self._storages else None), False


@dataclass(frozen=True)
class Result:
    """One tensor that was returned."""

    given: int | None
    """The given tensor whose storage it has; None for a storage of its own."""
    itself: bool
    """Whether it is that tensor, not another view."""
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    def make(self, tensors: Sequence[Tensor]) -> Tensor:
        """The same of other given tensors."""
        if self.given is None:
            return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=_META)
        given = tensors[self.given]
        return given if self.itself else given.as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True)
class Outcome:
    """What a call did."""

    costs: Sequence[OpCost]
    """In order."""
    growth_bytes: int
    """Most bytes alive at once beyond those before."""
    container: type | None
    """`tuple` or `list`; None when one tensor was returned."""
    results: Sequence[Result]

    def repeat(self, call: Call, memory: LiveMemory) -> Any:
        """What another call of that key returns, and does to the memory."""
        memory.reach(self.growth_bytes)
        made = [result.make(call.tensors) for result in self.results]
        memory.hold(made)
        return made[0] if self.container is None else self.container(made)

    def computed(self, output: Any, memory: LiveMemory) -> bool:
        """Do to the memory what a call of that key on the host did that returned `output`; False if that is
        not laid out like the first one's, as where its size depends on values."""
        made = [output] if self.container is None else output
        if [_layout(t) for t in made] != [(r.size, r.stride, r.offset, r.dtype) for r in self.results]:
            return False
        memory.reach(self.growth_bytes)
        memory.hold(made)
        return True


@lru_cache(maxsize=16)
def known_outcomes(*conditions: object) -> dict[tuple[Any, ...], Outcome]:
    """Outcomes by key under these conditions, for calls to look up and add to."""
    return {}


def outcome(
    call: Call, output: Any, costs: Sequence[OpCost], growth_bytes: int, new_bytes: int
) -> Outcome | None:
    """What a call that returned `output` did; None if doing so again would not be the same in all.

    `growth_bytes` as in `Outcome`; `new_bytes` is how much more is alive now than before the call.
    """
    container = None if isinstance(output, Tensor) else type(output)
    tensors = [output] if container is None else output
    if container not in (None, tuple, list) or not all(
        type(t) in _PLAIN and (t.is_cpu if call.on_host else t.is_meta) for t in tensors
    ):
        return None
    results = [Result(*call.origin(tensor), *_layout(tensor)) for tensor in tensors]
    if not call.left_as_given():
        return None
    if not call.on_host and [_seen(result.make(call.tensors)) for result in results] != [
        _seen(tensor) for tensor in tensors
    ]:
        return None
    own = [t.untyped_storage() for t, result in zip(tensors, results, strict=True) if result.given is None]
    # one storage under two results, or something kept alive by another road
    if new_bytes != sum(in_blocks(storage.nbytes()) for storage in own):
        return None
    return Outcome(costs, growth_bytes, container, results)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _seen(tensor: Tensor) -> tuple[Any, ...]:
    return (*_layout(tensor), tensor.untyped_storage().nbytes())
