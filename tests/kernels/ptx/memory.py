"""A byte-addressed memory for emulated kernels that raises on out-of-bounds accesses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]
"""One register of every lane, as raw bits whatever its width."""

Bools = npt.NDArray[np.bool_]

_GUARD_BYTES = 256


class Memory:
    """Arrays at addresses, with bytes between them that belong to none."""

    def __init__(self) -> None:
        self._data = np.zeros(0, np.uint8)
        self._owned = np.zeros(0, bool)
        self._arrays: list[tuple[int, npt.NDArray[np.uint8]]] = []

    def place(self, array: npt.NDArray[np.uint8], alignment: int = _GUARD_BYTES) -> int:
        """Put a copy of the bytes at a multiple of `alignment` and return that address."""
        start = -(-(self._data.size + _GUARD_BYTES) // alignment) * alignment
        size = start + array.size + _GUARD_BYTES
        data, owned = np.zeros(size, np.uint8), np.zeros(size, bool)
        data[: self._data.size], owned[: self._owned.size] = self._data, self._owned
        data[start : start + array.size], owned[start : start + array.size] = array, True
        self._data, self._owned = data, owned
        self._arrays.append((start, array))
        return start

    def write_back(self) -> None:
        """Copy what was stored into the arrays that were placed."""
        for start, array in self._arrays:
            array[:] = self._data[start : start + array.size]

    def load(self, addresses: Bits, size: int, active: Bools) -> Bits:
        """`size` bytes at each active lane's address, little-endian; 0 for the others."""
        at = self._checked(addresses, size, active)
        values = np.zeros(addresses.size, np.uint64)
        for byte in range(size):
            values[active] |= self._data[at + byte].astype(np.uint64) << np.uint64(8 * byte)
        return values

    def store(self, addresses: Bits, values: Bits, size: int, active: Bools) -> None:
        """Store `size` bytes for each active lane; of lanes that meet, the last one stays."""
        at = self._checked(addresses, size, active)
        for byte in range(size):
            self._data[at + byte] = (values[active] >> np.uint64(8 * byte)).astype(np.uint8)

    def _checked(self, addresses: Bits, size: int, active: Bools) -> npt.NDArray[np.int64]:
        at = addresses[active].view(np.int64)
        if (at % size).any():
            raise ValueError(f"an access of {size} bytes that is not aligned")
        inside = (at >= 0) & (at + size <= self._data.size)
        if not inside.all() or not (self._owned[at] & self._owned[at + size - 1]).all():
            raise ValueError(f"an access of {size} bytes outside every array")
        return at
