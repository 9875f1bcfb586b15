"""Counting of live bytes by storage, on any device including `meta`."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import KeyedRef

from torch import Tensor, UntypedStorage, nn

BLOCK_BYTES = 512
"""Block size of the CUDA caching allocator (`kMinBlockSize` in CUDACachingAllocator.cpp)."""


class LiveMemory:
    """Live and peak bytes. Each storage counts once, from `hold` until its last tensor is deleted."""

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self._held: dict[int, tuple[int, KeyedRef[int, UntypedStorage]]] = {}
        """Size in bytes and weak reference of each storage, by address."""

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Start to count the storages of these tensors, except those that are counted already."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage._cdata
            if address in self._held:
                continue
            size = in_blocks(storage.nbytes())
            self._held[address] = size, KeyedRef(storage, self._release, address)
            self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def holds(self, storage: UntypedStorage) -> bool:
        """Return whether this storage is counted."""
        return storage._cdata in self._held

    def reach(self, extra_bytes: int) -> None:
        """Update the peak for a temporary allocation of `extra_bytes`."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + extra_bytes)

    def _release(self, ended: KeyedRef[int, UntypedStorage]) -> None:
        self.live_bytes -= self._held.pop(ended.key)[0]


def in_blocks(size_bytes: int) -> int:
    """Round a size up to whole blocks of the allocator."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def module_tensors(module: nn.Module) -> list[Tensor]:
    """Return parameters, buffers and plain attributes that are tensors, such as prepared positions."""
    tensors: list[Tensor] = []
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, dict):  # such as `_parameters` and `_buffers`
                tensors += [kept for kept in value.values() if isinstance(kept, Tensor)] if value else ()
            elif isinstance(value, Tensor):
                tensors.append(value)
    return tensors
