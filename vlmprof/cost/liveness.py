"""How many bytes are alive, from the storages that tensors really share, on any device, `meta` included."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import KeyedRef

from torch import Tensor, UntypedStorage, nn

BLOCK_BYTES = 512
"""The CUDA caching allocator hands out multiples of this (`kMinBlockSize` of CUDACachingAllocator)."""


class LiveMemory:
    """Counts each storage once, from when it is first held until its last tensor is gone."""

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self._held: dict[int, tuple[int, KeyedRef[int, UntypedStorage]]] = {}
        """By a storage's address, its size in bytes and what notices its end."""

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these tensors from now on, unless they are counted already."""
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
        """Whether this storage is counted."""
        return storage._cdata in self._held

    def reach(self, extra_bytes: int) -> None:
        """So many bytes beside the live ones are in use for a moment."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + extra_bytes)

    def _release(self, ended: KeyedRef[int, UntypedStorage]) -> None:
        self.live_bytes -= self._held.pop(ended.key)[0]


def in_blocks(size_bytes: int) -> int:
    """Bytes that an allocation of this size takes."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def module_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and what modules keep in plain attributes, such as prepared positions."""
    tensors: list[Tensor] = []
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, dict):  # torch keeps a module's own parameters in one of them
                tensors += [kept for kept in value.values() if isinstance(kept, Tensor)] if value else ()
            elif isinstance(value, Tensor):
                tensors.append(value)
    return tensors
