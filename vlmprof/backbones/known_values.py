"""Values of tensors on `meta` that follow from what the host knows: ids, masks, grids of patches.

Models of transformers read how many tokens an image has and where they are. `KnownValues` keeps a copy on the
host of every small tensor that is computed from such tensors alone, and reads from the copy:

    ids (known) ──== image id──▶ mask (known) ──.nonzero()──▶ positions (known, as many as there are)
    pixels ──encoder──▶ features (shape alone) ──[positions]──▶ rows (shape alone)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
LARGEST = 1 << 26
"""Bytes of the largest tensor that values are computed from."""
_META = torch.device("meta")
_UNFILLED = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
_REPEAT = aten.repeat_interleave.self_Tensor
_SIZED_BY_VALUES = (
    aten.nonzero.default, aten.nonzero_numpy.default, aten.where.default, aten.argwhere.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.bincount.default, aten.repeat_interleave.Tensor, _REPEAT,
)  # fmt: skip
_INDEX = aten.index.Tensor
_INDEXED = (_INDEX, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor)
_SHAPED_LIKE = (
    aten.expand_as.default, aten.view_as.default, aten.reshape_as.default, aten.type_as.default,
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.new_zeros.default,
    aten.new_ones.default, aten.new_full.default,
)  # fmt: skip
"""Operators that use only the shape and dtype of their last tensor."""
_READS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)
_COMPARED = (aten.eq.Scalar, aten.ne.Scalar)
_ASSUMED = {aten.eq.Scalar: False, aten.ne.Scalar: True, aten.argmin.default: 0, aten.argmax.default: 0}
"""Assumed of pixels and activations: they equal no given number, and a quantizer chooses its first code."""
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
_TO_DATA: tuple[Any, ...] = (Tensor.tolist, Tensor.numpy, Tensor.__array__)


class KnownValues(TorchDispatchMode):
    """While active, keep the values of small tensors on `meta` that do not depend on weights or pixels.

    Use one object for a model from its construction on, so that its buffers have values too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: Any = WeakTensorKeyDictionary()
        self._data = _HostData(self)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Any:
        self._data.__enter__()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self._data.__exit__(*problem)

    def put_on_meta(self, value: Tensor) -> Tensor:
        """Return a tensor on `meta` that has this value."""
        made = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=_META)
        self._known[made] = value
        return made

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a tensor, if they are known."""
        if not tensor.is_meta:
            return tensor if tensor.is_cpu else None
        found: Tensor | None = self._known.get(tensor)
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        if not any(tensor.is_meta for tensor in tensors) and _target((args, kwargs)) != "meta":
            return func(*args, **kwargs)
        values = self._values(func, tensors, args, kwargs)
        if values is None:
            return self._unknown(func, args, kwargs)
        told = _tensors(values)
        if not told or _target((args, kwargs), tensors) == "cpu":
            return values
        if func in _SIZED_BY_VALUES or (func is _INDEX and any(map(_is_mask, args[1]))):
            return tree_map_only(Tensor, self.put_on_meta, values)
        if func in _INDEXED:
            args = self._with_positions(args)
        output = func(*args, **kwargs)
        for tensor, value in zip(_tensors(output), told, strict=True):
            if tensor.is_meta and tensor.shape == value.shape:
                self._known[tensor] = value
        return output

    def _unknown(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call whose result is unknown or only assumed."""
        if func in _READS and args[0].dtype == torch.bool:
            return True
        if func in _INDEXED:
            args = self._with_positions(args)
        if func is _REPEAT and (repeats := self.of(args[1])) is not None:
            dim = args[2] if len(args) > 2 else kwargs.get("dim")
            source, along = (args[0].flatten(), 0) if dim is None else (args[0], dim)
            return source.index_select(along, self.put_on_meta(torch.repeat_interleave(repeats)))
        output = func(*args, **kwargs)
        if func in _ASSUMED and (func not in _COMPARED or args[0].is_floating_point()):
            self._known[output] = torch.tensor(_ASSUMED[func]).expand(output.shape)
        self._forget_written(func, args)
        return output

    def _values(self, func: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """Return the result of a call on the host, or None if it is unknown."""
        if func.overloadpacket.__name__ in _UNFILLED or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        by_id = {id(tensor): self.of(tensor) for tensor in tensors}
        if func in _SHAPED_LIKE and tensors[-1].nbytes <= LARGEST:
            by_id[id(tensors[-1])] = torch.zeros((), dtype=tensors[-1].dtype).expand(tensors[-1].shape)
        if any(value is None or value.untyped_storage().nbytes() > LARGEST for value in by_id.values()):
            return None
        if not tensors and _elements(args) > LARGEST:
            return None
        args, kwargs = tree_map_only(Tensor, lambda tensor: by_id[id(tensor)], (args, kwargs))
        args, kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), (args, kwargs))
        with _disable_current_modes(), torch.inference_mode():
            return func(*args, **kwargs)

    def _with_positions(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of an indexing call with positions in place of masks.

        A mask with unknown values, such as that of padded pictures, is assumed to be all true.
        """
        source, indices, *rest = args
        if not any(map(_is_mask, indices)):
            return args
        masks = [self._mask(index) if _is_mask(index) else None for index in indices]
        if not rest and len(masks) == 1 and masks[0] is not None:
            # as many rows as are true, whichever they are
            count = int(masks[0].count_nonzero())
            with self:
                rows = source.flatten(0, masks[0].ndim - 1)
            return rows, [self.put_on_meta(torch.arange(count))]
        found: list[Tensor | None] = []
        for index, mask in zip(indices, masks, strict=True):
            found += [index] if mask is None else map(self.put_on_meta, mask.nonzero(as_tuple=True))
        return source, found, *rest

    def _mask(self, index: Tensor) -> Tensor:
        known = self.of(index)
        return torch.tensor(True).expand(index.shape) if known is None else known

    def _forget_written(self, func: Any, args: Sequence[Any]) -> None:
        """Forget the values of tensors that a call with an unknown result writes to."""
        if not func._schema.is_mutable:
            return
        written = {
            value.untyped_storage().data_ptr()
            for argument, given in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in _tensors(given)
            if tensor.is_meta and (value := self._known.get(tensor)) is not None
        }
        if written:
            for tensor, value in list(self._known.items()):
                if value.untyped_storage().data_ptr() in written:
                    del self._known[tensor]


class _HostData(TorchFunctionMode):
    """Convert between Python numbers and tensors on `meta`, which torch does not dispatch."""

    def __init__(self, values: KnownValues) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        on_meta = func in _FROM_DATA and torch.device(kwargs.get("device") or "cpu").type == "meta"
        if on_meta and not isinstance(args[0], Tensor):
            data = tree_map_only(Tensor, lambda tensor: self._values.of(tensor), args[0])
            return func(data, *args[1:], **{**kwargs, "device": "cpu"}).to(_META)
        if func is Tensor.__getitem__ and isinstance(args[1], tuple):
            args = args[0], tuple(torch.tensor(i) if isinstance(i, list) else i for i in args[1])
        if func in _TO_DATA and args[0].is_meta and (value := self._values.of(args[0])) is not None:
            return func(value, *args[1:], **kwargs)
        return func(*args, **kwargs)


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _target(args: Any, tensors: Sequence[Tensor] = ()) -> str | None:
    """Return the type of the device of a call's result."""
    named = [leaf for leaf in tree_flatten(args)[0] if isinstance(leaf, torch.device)]
    if named:
        return named[0].type
    return tensors[0].device.type if tensors else None


def _elements(args: Sequence[Any]) -> int:
    sizes = [size for size in args if isinstance(size, list | tuple)]
    return math.prod(sizes[0]) if sizes and all(isinstance(n, int) for n in sizes[0]) else 0


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
