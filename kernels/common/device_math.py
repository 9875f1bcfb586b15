"""Device functions shared by the kernels: exponentials, activations, products, words of two channels."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""The interpreter has no inline assembly and multiplies bfloat16 bit patterns in `tl.dot`."""

LOG2_E = tl.constexpr(1.4426950408889634)

LARGEST = tl.constexpr(3.4028234663852886e38)  # float32


@triton.jit
def exp2_fast(x):
    """2^x with subnormals flushed to 0, float32."""
    if INTERPRETED:
        y = tl.exp2(x)
    else:
        y = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return y


@triton.jit
def softplus(x, PRECISE: tl.constexpr):
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|): no overflow, and relative precision for x << 0.

    log1p(e) = e q(e) with q minimax on [0, 1] in relative error, 2e-7 in float32 arithmetic when
    PRECISE and 9e-6 otherwise. lg2.approx would be exact only to 2^-22 absolute, which is poor for
    the small steps that dt is trained to make.
    """
    e = exp2_fast(tl.abs(x) * -LOG2_E)
    if PRECISE:
        q = e * 0.005232692696154118 - 0.029505232349038124
        q = q * e + 0.07822594046592712
        q = q * e - 0.13663244247436523
        q = q * e + 0.19106006622314453
        q = q * e - 0.2484298199415207
        q = q * e + 0.3331909775733948
        q = q * e - 0.4999949336051941
        q = q * e + 0.9999999403953552
    else:
        q = e * -0.023869145661592484 + 0.10122226923704147
        q = q * e - 0.21004867553710938
        q = q * e + 0.3252066671848297
        q = q * e - 0.4993613660335541
        q = q * e + 0.9999915957450867
    return q * e + tl.maximum(x, 0.0)


@triton.jit
def split_pair(pair, ELEMENT: tl.constexpr):
    """Two neighbouring channels, as float32, from one word of twice the element's width."""
    if tl.float32 == ELEMENT:
        low = pair.to(tl.int32).to(tl.float32, bitcast=True)
        high = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    elif tl.bfloat16 == ELEMENT:
        low = (pair << 16).to(tl.float32, bitcast=True)
        high = (pair & -65536).to(tl.float32, bitcast=True)
    else:
        low = pair.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        high = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return low, high


@triton.jit
def join_pair(low, high, ELEMENT: tl.constexpr):
    """The inverse of `split_pair`, rounding float32 to ELEMENT."""
    if tl.float32 == ELEMENT:
        low_bits = low.to(tl.uint32, bitcast=True).to(tl.int64)
        high_bits = high.to(tl.uint32, bitcast=True).to(tl.int64)
        pair = low_bits | (high_bits << 32)
    elif INTERPRETED:
        low_bits = low.to(ELEMENT, fp_downcast_rounding="rtne").to(tl.uint16, bitcast=True).to(tl.int32)
        high_bits = high.to(ELEMENT, fp_downcast_rounding="rtne").to(tl.uint16, bitcast=True).to(tl.int32)
        pair = low_bits | (high_bits << 16)
    else:
        CONVERT: tl.constexpr = "bf16x2" if tl.bfloat16 == ELEMENT else "f16x2"
        pair = tl.inline_asm_elementwise(
            "cvt.rn." + CONVERT + ".f32 $0, $2, $1;",
            "=r,f,f",
            [low, high],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    return pair


@triton.jit
def opaque(x):
    """x, an int32 scalar, hidden from the optimiser at each use.

    Addresses made from it are recomputed where they are needed. Otherwise they are hoisted out of
    the loop, where they fill the registers.
    """
    if INTERPRETED:
        y = x
    else:
        y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=False, pack=1)
    return y


@triton.jit
def _second(first, second):
    return second


@triton.jit
def rows_in_lanes(x):
    """x (rows, 32) with each column in one lane, whatever layout it comes in; no arithmetic.

    A scan that returns every element is the one operation whose layout the compiler does not replace by
    that of its input. Without it everything after a matrix product is computed in the product's layout,
    and every other input and result is converted to it and back.
    """
    return x if INTERPRETED else tl.associative_scan(x, 0, _second)


@triton.jit
def _add_both(x1, y1, x2, y2):
    return x1 + x2, y1 + y2


@triton.jit
def sum_rows(x, companion, ROWS: tl.constexpr):
    """Sums of x (ROWS, 32) down its rows, (32,), in the layout of `companion`, which has the same shape.

    The sum is the last row of a scan that runs along with another: a separate operation would choose its
    own layout, and everything that x is made from would be computed again in that layout.
    """
    i = tl.arange(0, ROWS)[:, None]
    if INTERPRETED:
        sums = tl.where(i == ROWS - 1, tl.sum(x, 0)[None, :], 0.0)
    else:
        _, sums = tl.associative_scan((companion, x), 0, _add_both)
    return last_row(sums, ROWS)


@triton.jit
def last_row(x, ROWS: tl.constexpr):
    """The last row of x (ROWS, columns)."""
    i = tl.arange(0, ROWS)[:, None]
    # -0.0 is the neutral element of addition, so the sum costs nothing
    return tl.sum(tl.where(i == ROWS - 1, x, -0.0), 0)


@triton.jit
def flip_rows(x, ROWS: tl.constexpr):
    """x (ROWS, 32) with its rows in reverse order. Where a lane has all rows, this takes no instruction;
    a reversed `associative_scan` would shuffle every element between lanes and back."""
    if INTERPRETED:
        i = tl.arange(0, ROWS)[:, None]
        flipped = tl.gather(x, tl.broadcast_to(i ^ (ROWS - 1), x.shape), 0)
    else:
        flipped = tl.flip(x, 0)
    return flipped


@triton.jit
def load_where(pointers, mask, MASKED: tl.constexpr):
    """Load with `mask` and 0 elsewhere, or, when not MASKED, without one."""
    return tl.load(pointers, mask=mask, other=0) if MASKED else tl.load(pointers)


@triton.jit
def store_where(pointers, values, mask, MASKED: tl.constexpr):
    """Store with `mask`, or, when not MASKED, without one."""
    if MASKED:
        tl.store(pointers, values, mask=mask)
    else:
        tl.store(pointers, values)


@triton.jit
def compose(decay1, drive1, decay2, drive2):
    """h -> decay h + drive, first 1, then 2."""
    return decay1 * decay2, decay2 * drive1 + drive2


@triton.jit
def scan_along(decay, drive, AXIS: tl.constexpr, SIZE: tl.constexpr):
    """Inclusive scan of h -> decay h + drive along AXIS of two tiles, which have SIZE elements there.

    Returns the products of decays and the states from 0. The interpreter runs `associative_scan` one
    element at a time, so there elements are combined with those 1, 2, 4, … before.
    """
    if INTERPRETED:
        i = tl.expand_dims(tl.arange(0, SIZE), 1 - AXIS)
        products = decay
        states = drive
        distance = 1
        while distance < SIZE:
            before = tl.broadcast_to(tl.maximum(i - distance, 0), decay.shape)
            combined = products * tl.gather(states, before, AXIS) + states
            states = tl.where(i >= distance, combined, states)
            products = tl.where(i >= distance, products * tl.gather(products, before, AXIS), products)
            distance *= 2
    else:
        products, states = tl.associative_scan((decay, drive), AXIS, compose)
    return products, states


@triton.jit
def gelu(x, PRECISE: tl.constexpr):
    """GELU by the error function, float32: exact when PRECISE, and otherwise within 7e-7 for every x.

    GELU(x) = max(x, 0) - |x| Φ(-|x|), and log2 Φ(-z) is close to a parabola: p(z) of degree 5, minimax in
    z |Φ(-z) - 2^p(z)| on [0, 6.5] (our own fit), with 2^p(z) falling for all larger z. Nine instructions
    instead of about 25. +inf becomes the largest float32, which is +inf in 16 bits; -inf becomes NaN as in
    torch.
    """
    if PRECISE:
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        x = tl.minimum(x, LARGEST, propagate_nan=tl.PropagateNan.ALL)  # infinity would be multiplied by 0
        z = tl.abs(x)
        p = z * -0.00047330930829048157 + 0.007084557320922613
        p = p * z - 0.051827382296323776
        p = p * z - 0.4599924385547638
        p = p * z - 1.1507878303527832
        p = p * z - 1.000037670135498
        y = tl.maximum(x, 0.0) - z * exp2_fast(p)
    return y


@triton.jit
def silu(x):
    """x / (1 + e^-x), float32."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def activated(x, V: tl.constexpr):
    """x after V.ACTIVATION, float32: `gelu`, `silu` or nothing if it is empty; V.PRECISE as in `gelu`."""
    ACTIVATION: tl.constexpr = V.ACTIVATION  # Triton 3.6 takes no plain string as an argument
    if ACTIVATION == "gelu":
        x = gelu(x, V.PRECISE)
    elif ACTIVATION == "silu":
        x = silu(x)
    return x


@triton.jit
def multiply(x, w, total, PRECISE: tl.constexpr):
    """x w + total, in float32: (rows, depth) · (depth, columns). PRECISE for float32 factors."""
    if INTERPRETED:
        x = x.to(tl.float32)
        w = w.to(tl.float32)
    return tl.dot(x, w, total, input_precision="tf32x3" if PRECISE else "tf32")
