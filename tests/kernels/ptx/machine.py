"""Programs of PTX on a CPU, in numpy: what a compiled kernel computes, without a GPU.

All lanes of a program run in lockstep, which is one of the orders that its barriers allow. Asynchronous
products run when the program waits for them. Copies run then too, which detects reads that do not wait, or,
with `eager_copies`, when they begin, which detects copies over what a product has yet to read. Only the
instructions that the kernels use are implemented, after NVIDIA's PTX ISA (fragments of `mma`, `ldmatrix` and
`stmatrix` as in its section on warp-level matrix instructions). Branches must be taken by all lanes or by
none. Unknown instructions raise an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from tests.helpers.checks import known
from tests.kernels.ptx import arithmetic
from tests.kernels.ptx.arithmetic import bits_of, float_of, round_half
from tests.kernels.ptx.memory import Bits, Bools, Memory
from tests.kernels.ptx.wgmma import ROWS, Pending, element, factor, positions

WARP = 32

SHARED_ALIGNMENT = 1024
"""What the swizzle of the widest rows counts on."""


class Machine:
    """A kernel's PTX, parsed once, to be run for each program of a grid."""

    def __init__(self, ptx: str, warps: int, shared_bytes: int, eager_copies: bool = False) -> None:
        self._eager_copies = eager_copies
        self._lanes = np.arange(WARP * warps, dtype=np.uint64)
        self._every = np.ones(WARP * warps, bool)
        self._shared_bytes = max(shared_bytes, 16)
        self._code: list[tuple[str, list[str], list[str]]] = []
        self._labels: dict[str, int] = {}
        self._parse(ptx)

    def run(self, parameters: Sequence[int], memory: Memory, program: tuple[int, int, int]) -> None:
        """Run one program; parameters in the kernel's order, pointers as addresses in `memory`."""
        self._registers: dict[str, Bits] = {"%tid.x": self._lanes}
        for axis, index in zip("xyz", program, strict=True):
            self._registers[f"%ctaid.{axis}"] = np.full_like(self._lanes, index)
        self._parameters, self._memory, self._shared = parameters, memory, Memory()
        self._copies, self._products = Pending(), Pending()
        self._registers["global_smem"] = np.full_like(
            self._lanes, self._shared.place(np.zeros(self._shared_bytes, np.uint8), SHARED_ALIGNMENT)
        )
        at: int | None = 0
        while at is not None:
            at = self._step(at)

    def _step(self, at: int) -> int | None:
        guard, parts, operands = self._code[at]
        active = self._active(guard)
        if parts[0] == "ret":
            return None
        if parts[0] == "bra":
            if active.any() != active.all():
                raise ValueError("a branch that some lanes take and others do not")
            return self._labels[operands[0]] if active.all() else at + 1
        if parts[0] == "brx":
            index = set(self._read(operands[0]).tolist())
            if len(index) != 1:
                raise ValueError("a branch that lanes take to different places")
            return self._labels[self._tables[operands[1]][index.pop()]]
        try:
            self._execute(parts, operands, active)
        except ValueError as error:
            raise ValueError(f"{'.'.join(parts)} {', '.join(operands)}: {error}") from None
        return at + 1

    def _parse(self, ptx: str) -> None:
        body = re.sub(r"//[^\n]*", "", ptx[ptx.index("{", ptx.index(".entry")) + 1 :]).split(".section")[0]
        table = r"([\w$]+):\s*\.branchtargets([^;]*);"
        self._tables = {name: re.findall(r"\$[\w$]+", targets) for name, targets in re.findall(table, body)}
        for line in map(str.strip, re.sub(table, "", body).split("\n")):
            if label := re.match(r"(\$?[\w$]+):", line):
                self._labels[label.group(1)] = len(self._code)
                line = line[label.end() :].strip()
            if line.startswith((".loc", ".reg", ".pragma", ".file")) or line in ("", "{", "}"):
                continue
            for statement in filter(None, map(str.strip, line.split(";"))):
                found = re.fullmatch(r"(?:@(!?%\w+)\s+)?(\S+)\s*(.*)", statement, re.S)
                assert found, statement
                operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s{}\[\]]+", found[3])
                self._code.append((found[1] or "", found[2].split("."), operands))

    def _active(self, guard: str) -> Bools:
        if not guard:
            return self._every
        holds = self._registers[guard.lstrip("!")].astype(bool)
        return ~holds if guard.startswith("!") else holds

    def _read(self, operand: str) -> Bits:
        if operand in self._registers:
            return self._registers[operand]
        if operand.startswith("%"):
            raise ValueError(f"{operand} was never written")
        value = int(operand[2:], 16) if operand.startswith("0f") else int(operand.rstrip("U"), 0)
        return np.full_like(self._lanes, value & (2**64 - 1))

    def _write(self, register: str, bits: Bits, width: int, active: Bools) -> None:
        new = bits & np.uint64(2**width - 1)
        if not active.all():
            new = np.where(active, new, self._registers.get(register, np.zeros_like(self._lanes)))
        self._registers[register] = new

    def _execute(self, parts: list[str], operands: list[str], active: Bools) -> None:
        name = parts[0]
        if name in ("bar", "fence") or parts[:2] == ["wgmma", "fence"]:
            return
        if "commit_group" in parts:
            self._waiting(name).commit()
        elif "wait_group" in parts:
            self._waiting(name).wait(int(operands[0]))
        elif name in ("ld", "st"):
            self._access(parts, operands, active)
        elif name == "cp":
            copy = self._copy(operands, active)
            if self._eager_copies:
                copy()
            else:
                self._copies.begin(copy)
        elif name == "wgmma":
            self._products.begin(self._group_product(parts, operands))
        elif name in ("ldmatrix", "stmatrix"):
            self._matrix(parts, operands)
        elif name == "mma":
            self._product(parts, operands)
        elif name == "shfl":
            self._shuffle(parts, operands)
        elif name == "mov":
            self._move(parts, operands, active)
        elif name == "cvt" and parts[-2].endswith("x2"):
            high, low = (round_half(float_of(self._read(o)), parts[-2][:-2]) for o in operands[1:])
            self._write(operands[0], high << np.uint64(16) | low, 32, active)
        else:
            bits, width = arithmetic.evaluate(parts, [self._read(operand) for operand in operands[1:]])
            self._write(operands[0], bits, width, active)

    def _address(self, operand: str) -> Bits:
        base, _, offset = operand.strip("[]").partition("+")
        return self._read(base.strip()) + np.uint64(int(offset or "0", 0) & (2**64 - 1))

    def _access(self, parts: list[str], operands: list[str], active: Bools) -> None:
        width, load = int(parts[-1][1:]), parts[0] == "ld"
        if parts[1] == "param":
            index = int(operands[1].strip("[]").rsplit("_", 1)[1])
            value = np.full_like(self._lanes, self._parameters[index] % 2**64)
            return self._write(operands[0], value, width, active)
        memory = {"global": self._memory, "shared": self._shared}[parts[1].removesuffix("::cta")]
        registers = _names(operands[0] if load else operands[1])
        base = self._address(operands[1] if load else operands[0])
        if (base[active] % np.uint64(len(registers) * width // 8)).any():
            raise ValueError("not aligned to all that it moves")
        for i, register in enumerate(registers):
            at = base + np.uint64(i * width // 8)
            if load:
                self._write(register, memory.load(at, width // 8, active), width, active)
            else:
                memory.store(at, self._read(register), width // 8, active)
        return None

    def _waiting(self, name: str) -> Pending:
        return self._copies if name == "cp" else self._products

    def _copy(self, operands: list[str], active: Bools) -> Callable[[], None]:
        """`cp.async`: so many bytes from global to shared memory, zeros after the first few."""
        to, source, size = self._address(operands[0]), self._address(operands[1]), int(operands[2], 0)
        present = self._read(operands[3]) if len(operands) > 3 else np.full_like(self._lanes, size)

        def copy() -> None:
            for at in range(0, size, 4):
                offset = np.uint64(at)
                word = self._memory.load(source + offset, 4, active & (offset < present))
                self._shared.store(to + offset, word, 4, active)

        return copy

    def _matrix(self, parts: list[str], operands: list[str]) -> None:
        """Matrices of 8 rows of 16 bytes; lane 8 i + r of a warp holds the address of row r of matrix i."""
        load = parts[0] == "ldmatrix"
        rows = self._address(operands[1] if load else operands[0]).reshape(-1, WARP)
        if (rows % np.uint64(16)).any():
            raise ValueError("a row that is not aligned")
        lane = np.arange(WARP)
        for i, register in enumerate(_names(operands[0] if load else operands[1])):
            halves = []
            for half in (0, 1):
                row, column = lane // 4, 2 * (lane % 4) + half
                if "trans" in parts:
                    row, column = column, row
                halves.append((rows[:, 8 * i + row] + (2 * column).astype(np.uint64)).ravel())
            if load:
                low, high = (self._shared.load(at, 2, self._every) for at in halves)
                self._write(register, low | high << np.uint64(16), 32, self._every)
            else:
                for at, shift in zip(halves, (0, 16), strict=True):
                    self._shared.store(at, self._read(register) >> np.uint64(shift), 2, self._every)

    def _product(self, parts: list[str], operands: list[str]) -> None:
        """m16n8: each lane holds pairs along k of A (16, k) and B (k, 8), and along n of C and D (16, 8)."""
        out, a, b, c = map(_names, operands)
        depth, kind = int(parts[3].split("k")[1]), parts[7]
        lane = np.arange(self._lanes.size)
        warp, g, t = lane // WARP, lane % WARP // 4, lane % 4
        together = 1 if kind == "tf32" else 2
        left = self._left_fragment(a, depth, kind)
        right, sums = np.zeros((warp[-1] + 1, depth, 8)), np.zeros((warp[-1] + 1, 16, 8))
        for j in range(together):
            for i, register in enumerate(b):
                right[warp, depth // 2 * i + together * t + j, g] = element(self._read(register), kind, j)
        for i, register in enumerate(c):
            sums[warp, g + 8 * (i // 2), 2 * t + i % 2] = float_of(self._read(register))
        result = (left @ right + sums).astype(np.float32)
        for i, register in enumerate(out):
            self._write(register, bits_of(result[warp, g + 8 * (i // 2), 2 * t + i % 2]), 32, self._every)

    def _left_fragment(self, registers: list[str], depth: int, kind: str) -> np.ndarray:
        """A (warps, 16, depth) from the pairs along k that the lanes hold."""
        lane = np.arange(self._lanes.size)
        warp, g, t = lane // WARP, lane % WARP // 4, lane % 4
        together = 1 if kind == "tf32" else 2
        left = np.zeros((warp[-1] + 1, 16, depth))
        for j in range(together):
            for i, register in enumerate(registers):
                k = depth // 2 * (i // 2) + together * t + j
                left[warp, g + 8 * (i % 2), k] = element(self._read(register), kind, j)
        return left

    def _group_product(self, parts: list[str], operands: list[str]) -> Callable[[], None]:
        """`wgmma`: m64 of each four warps; A in shared memory or registers, B in shared memory."""
        (shape, _, kind, _), out, given = parts[4:8], _names(operands[0]), _names(operands[1])
        width, depth = map(int, known(re.fullmatch(r"m64n(\d+)k(\d+)", shape)).groups())
        # whether A's columns instead of its rows are contiguous, and the same of B
        across = [int(o) for o in operands[6:]]
        if [int(o) for o in operands[4:6]] != [1, 1] or any(across[1:]):
            raise ValueError("a factor that is negated, or a right one that is transposed")
        groups = self._lanes.size // (4 * WARP)
        descriptors = [self._read(o)[:: 4 * WARP].tolist() for o in operands[1:3] if not o.startswith("{")]
        adds = bool(self._read(operands[3])[0])

        def multiply() -> None:
            right = [factor(self._shared, d, width, depth, kind).T for d in descriptors[-1]]
            if len(given) > 1:
                left = list(self._left_fragment(given, depth, kind).reshape(groups, ROWS, depth))
            elif any(across):
                left = [factor(self._shared, d, depth, ROWS, kind).T for d in descriptors[0]]
            else:
                left = [factor(self._shared, d, ROWS, depth, kind) for d in descriptors[0]]
            sums = np.matmul(left, right)
            for i, register in enumerate(out):
                at = positions(self._lanes.size, i)
                if adds:
                    sums[at] += float_of(self._read(register))
                self._write(register, bits_of(sums.astype(np.float32)[at]), 32, self._every)

        return multiply

    def _shuffle(self, parts: list[str], operands: list[str]) -> None:
        lane = np.arange(self._lanes.size)
        by = self._read(operands[2]).astype(np.int64)
        within = lane % WARP
        source = {"up": within - by, "down": within + by, "bfly": within ^ by, "idx": by}[parts[2]]
        inside = (source >= 0) & (source < WARP)
        source = np.where(inside, lane - within + source, lane)
        self._write(operands[0], self._read(operands[1])[source], 32, self._every)

    def _move(self, parts: list[str], operands: list[str], active: Bools) -> None:
        width = 1 if parts[1] == "pred" else int(parts[1][1:])
        out, values = _names(operands[0]), _names(operands[1])
        if len(out) > 1:
            step = width // len(out)
            for i, register in enumerate(out):
                self._write(register, self._read(values[0]) >> np.uint64(i * step), step, active)
            return
        step = width // len(values)
        joined = np.zeros_like(self._lanes)
        for i, value in enumerate(values):
            joined |= (self._read(value) & np.uint64(2**step - 1)) << np.uint64(i * step)
        self._write(out[0], joined, width, active)


def _names(operand: str) -> list[str]:
    return operand.strip("{} ").replace(",", " ").split()
