"""PTX instructions that compute each lane's result from its own operands, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.kernels.ptx.memory import Bits

Floats = npt.NDArray[np.float32]

MODIFIERS = {"rn", "rna", "rz", "lo", "hi", "wide", "approx", "ftz", "full", "NaN"}

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}  # fmt: skip

FLOATING: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "fma": lambda a, b, c: a * b + c,
    "abs": np.abs, "neg": np.negative, "max": np.fmax, "min": np.fmin, "min.NaN": np.minimum, "ex2": np.exp2,
    "rsqrt": lambda a: 1 / np.sqrt(a),
}  # fmt: skip

INTEGER: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mad": lambda a, b, c: a * b + c,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert, "neg": np.negative,
    "min": np.minimum, "max": np.maximum, "abs": np.abs,
    # towards zero, unlike numpy's
    "div": lambda a, b: np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)),
    "rem": lambda a, b: np.sign(a) * (np.abs(a) % np.abs(b)),
}  # fmt: skip


def evaluate(parts: list[str], values: list[Bits]) -> tuple[Bits, int]:
    """The result of an instruction, by the parts of its name, and its width in bits.

    Raises ValueError for an instruction that is not known.
    """
    name, kind = parts[0], parts[-1]
    unknown = set(parts[1:-1]) - MODIFIERS
    if name == "cvt":
        return _convert(parts[-2], kind, values[0])
    if name == "setp":
        return COMPARISONS[parts[1]](*(_typed(value, kind) for value in values)).astype(np.uint64), 1
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    if kind == "pred":
        return INTEGER[name](*values), 1
    width = int(kind[1:])
    if name == "selp":
        return np.where(values[2].astype(bool), values[0], values[1]), width
    with np.errstate(all="ignore"):
        if kind[0] == "f":
            wide = [float_of(value).astype(np.float64) for value in values]
            function = FLOATING[f"{name}.NaN" if "NaN" in parts else name]
            return bits_of(function(*wide).astype(np.float32)), width
        if name == "prmt":
            return _permute(*values), width
        if name in ("shl", "shr", "bfe"):
            return _shift(name, kind, values), width
        x = [_typed(value, kind) for value in values]
        if "wide" in parts:
            product = x[0] * x[1]
            total = product if name == "mul" else product + values[2].view(product.dtype)
            return total.view(np.uint64), 2 * width
        if "hi" in parts:
            return (x[0] * x[1] >> x[0].dtype.type(width)).view(np.uint64), width
        return np.asarray(INTEGER[name](*x)).view(np.uint64), width


def _typed(bits: Bits, kind: str) -> npt.NDArray[Any]:
    """Bits as the numbers that a type says they are: 64 bits wide, or float32."""
    width = int(kind[1:])
    if kind[0] == "f":
        return float_of(bits)
    if kind[0] == "s":
        return bits.astype(f"u{width // 8}").view(f"i{width // 8}").astype(np.int64)
    return bits & np.uint64(2**width - 1)


def _shift(name: str, kind: str, values: list[Bits]) -> Bits:
    x = _typed(values[0], kind)
    if name == "bfe":
        start, length = int(values[1][0]), int(values[2][0])
        field = values[0] >> np.uint64(start) & np.uint64(2**length - 1)
        negative = (field >> np.uint64(length - 1)).astype(bool) & (kind[0] == "s")
        return np.where(negative, field | np.uint64(2**64 - 2**length), field)
    by = np.minimum(values[1] & np.uint64(0xFFFFFFFF), np.uint64(63)).astype(x.dtype)
    return (x << by if name == "shl" else x >> by).view(np.uint64)


def _permute(a: Bits, b: Bits, selector: Bits) -> Bits:
    """Four of the eight bytes of b and a; a selector's nibble with its highest bit set repeats the sign."""
    both, result = b << np.uint64(32) | a & np.uint64(0xFFFFFFFF), np.zeros_like(a)
    for i in range(4):
        nibble = selector >> np.uint64(4 * i) & np.uint64(15)
        byte = both >> np.uint64(8) * (nibble & np.uint64(7)) & np.uint64(255)
        signs = np.where(byte >= 128, np.uint64(255), np.uint64(0))
        result |= np.where(nibble >= 8, signs, byte) << np.uint64(8 * i)
    return result


def _convert(to: str, source: str, bits: Bits) -> tuple[Bits, int]:
    if to == "tf32":
        return bits + np.uint64(0x1000) & np.uint64(0xFFFFE000), 32
    if to == "f32" and source in ("f16", "bf16"):
        return bits_of(half_of(bits, source)), 32
    if to in ("f16", "bf16") and source == "f32":
        return round_half(float_of(bits), to), 16
    if to[0] in "us" and source[0] in "us":
        return _typed(bits, source).view(np.uint64), int(to[1:])
    raise ValueError(f"unknown: from {source} to {to}")


def bits_of(values: Floats) -> Bits:
    """The bits of float32."""
    return np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)


def float_of(bits: Bits) -> Floats:
    """float32 from its bits."""
    return bits.astype(np.uint32).view(np.float32)


def half_of(bits: Bits, kind: str) -> Floats:
    """float32 from the bits of `f16` or `bf16`, the lower 16."""
    low = bits.astype(np.uint16)
    if kind == "f16":
        return low.view(np.float16).astype(np.float32)
    return (low.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_half(values: Floats, kind: str) -> Bits:
    """The bits of `f16` or `bf16` nearest to float32, ties to even."""
    if kind == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16).astype(np.uint64)
    raw = np.where(np.isnan(values), np.uint64(0x7FC00000), bits_of(values))
    return raw + np.uint64(0x7FFF) + (raw >> np.uint64(16) & np.uint64(1)) >> np.uint64(16) & np.uint64(
        0xFFFF
    )
