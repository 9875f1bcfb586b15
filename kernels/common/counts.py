"""Minimum bytes and FLOPs of an operation, counted from shapes. 1 MAC = 2 FLOPs.

Bytes: each argument is read once and the result written once. Any additional traffic of an implementation,
such as four copies of a scan, shows as a lower share of the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """The minimum work of one call."""

    bytes: int
    flops: int


def scan_flops(elements: int, d_state: int) -> int:
    """Count a selective scan over `elements` (position, channel) pairs.

    Per element and state: Δ·A, exp, (Δu)·B, a MAC for h and one for <C, h>: 7 FLOPs; per element: Δ·u,
    softplus counted as 3, and a MAC for the skip: 6.
    """
    return elements * (7 * d_state + 6)


def ss2d_counts(
    batch: int, height: int, width: int, d_inner: int, dt_rank: int, d_state: int, item_bytes: int
) -> Counts:
    """Count `ss2d`: two projections and four scans; x in, y out, and the parameters."""
    pixels = batch * height * width
    per_direction = dt_rank + 2 * d_state
    projections = 2 * pixels * 4 * d_inner * (per_direction + dt_rank)
    parameters = 4 * d_inner * ((per_direction + dt_rank) * item_bytes + (d_state + 2) * 4)
    scans = scan_flops(4 * pixels * d_inner, d_state) + 3 * pixels * d_inner
    return Counts(2 * pixels * d_inner * item_bytes + parameters, projections + scans)


def selective_scan_counts(
    batch: int, d_inner: int, length: int, groups: int, d_state: int, item_bytes: int
) -> Counts:
    """Count `selective_scan`: u, delta, B, C in, y out, and A, D and the bias in float32."""
    elements = batch * d_inner * length
    activations = 3 * elements + 2 * batch * groups * d_state * length
    parameters = 4 * d_inner * (d_state + 2)
    return Counts(activations * item_bytes + parameters, scan_flops(elements, d_state))


def cross_counts(batch: int, d_inner: int, height: int, width: int, item_bytes: int, merge: bool) -> Counts:
    """Count `cross_scan` or `cross_merge`: one image on one side, four on the other."""
    elements = batch * d_inner * height * width
    return Counts(5 * elements * item_bytes, 3 * elements if merge else 0)


def linear_counts(rows: int, in_features: int, out_features: int, item_bytes: int, norm: bool) -> Counts:
    """Count `linear` or `norm_linear` without residual; the norm counts as 8 FLOPs per value."""
    moved = rows * (in_features + out_features) + in_features * out_features
    return Counts(
        moved * item_bytes, 2 * rows * in_features * out_features + (8 * rows * in_features if norm else 0)
    )


def layer_norm_counts(rows: int, channels: int, item_bytes: int) -> Counts:
    """Count `layer_norm` with an input bias: x in, y out, three vectors; 8 FLOPs per value."""
    return Counts((2 * rows + 3) * channels * item_bytes, 8 * rows * channels)


def convolution_norm_counts(
    pixels: int, in_pixels: int, in_channels: int, channels: int, size: int, item_bytes: int
) -> Counts:
    """Count `convolution_norm` with bias and GELU: image in, y out, parameters; 12 FLOPs per value after the
    convolution."""
    taps = size * size * in_channels
    moved = in_pixels * in_channels + (pixels + taps + 3) * channels
    return Counts(moved * item_bytes, pixels * channels * (2 * taps + 12))


def mlp_counts(rows: int, channels: int, hidden: int, item_bytes: int) -> Counts:
    """Count `norm_mlp`: x in, y out, both weights; the norm counts as 8 FLOPs per value, and GELU as 4."""
    values = 2 * rows * channels + 2 * channels * hidden
    return Counts(values * item_bytes, rows * (4 * channels * hidden + 4 * hidden + 8 * channels))


def depthwise_counts(
    batch: int, height: int, width: int, channels: int, size: int, item_bytes: int
) -> Counts:
    """Count `depthwise_conv_silu`: x in, y out; SiLU counts as 4 FLOPs."""
    elements = batch * height * width * channels
    return Counts((2 * elements + channels * size * size) * item_bytes, elements * (2 * size * size + 4))
