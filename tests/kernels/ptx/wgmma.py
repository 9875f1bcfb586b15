"""Matrix products of four warps, `wgmma`, with operands in shared memory given by descriptors.

After NVIDIA's PTX ISA, sections "Asynchronous warpgroup level matrix instructions" and "Strides": a
descriptor contains the address and the stride between groups of eight rows, both without their low 4 bits,
and the swizzle of the bytes of a row. Rows run along k, except those of a transposed A.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.kernels.ptx.arithmetic import float_of, half_of
from tests.kernels.ptx.memory import Bits, Memory

ROWS = 64
"""Of a product: 16 for each of the four warps."""

ROW_BYTES = {1: 128, 2: 64, 3: 32}
"""By the descriptor's swizzle mode."""


def element(bits: Bits, kind: str, half: int = 0) -> np.ndarray:
    """A factor of a product: the tensor cores leave out the low 13 bits of a tf32."""
    if kind == "tf32":
        return float_of(bits & np.uint64(0xFFFFE000))
    return half_of(bits >> np.uint64(16 * half), kind)


def factor(shared: Memory, descriptor: int, rows: int, depth: int, kind: str) -> np.ndarray:
    """The matrix (rows, depth) that a descriptor stands for."""
    mode, offset = descriptor >> 62 & 3, descriptor >> 49 & 7
    if mode not in ROW_BYTES or offset:
        raise ValueError(f"a descriptor of swizzle mode {mode} and base offset {offset}")
    start, group_bytes = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    item = 4 if kind == "tf32" else 2
    row, k = np.meshgrid(np.arange(rows), np.arange(depth), indexing="ij")
    at = start + row // 8 * group_bytes + row % 8 * ROW_BYTES[mode] + k * item
    # sixteen bytes change places with those whose number differs by the row's
    at ^= (at >> 7 & (ROW_BYTES[mode] // 16 - 1)) << 4
    flat = at.ravel().astype(np.uint64)
    return element(shared.load(flat, item, np.ones(flat.size, bool)), kind).reshape(rows, depth)


def positions(lanes: int, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Warpgroup, row and column of each lane's i-th result."""
    lane = np.arange(lanes)
    warp, g, t = lane // 32, lane % 32 // 4, lane % 4
    return warp // 4, 16 * (warp % 4) + g + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * t + i % 2


class Pending:
    """Work that was begun and is done as late as the waits for it allow."""

    def __init__(self) -> None:
        self._open: list[Callable[[], None]] = []
        self._committed: list[list[Callable[[], None]]] = []

    def begin(self, work: Callable[[], None]) -> None:
        self._open.append(work)

    def commit(self) -> None:
        self._committed.append(self._open)
        self._open = []

    def wait(self, but: int) -> None:
        """Do all committed groups except the last `but`."""
        while len(self._committed) > but:
            for work in self._committed.pop(0):
                work()
