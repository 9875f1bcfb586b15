"""The cases for verifying operations: small ones that cover every known fault, and larger ones.

Small cases are as small as their fault allows, because Triton's interpreter takes seconds for a few
tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlmprof.kernels.block import (
    convolution_norm,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
)
from vlmprof.kernels.block.mlp_tiles import ROWS_PER_CHANNEL
from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d


@dataclass(frozen=True)
class Case:
    """One operation and its inputs: `arguments` in the dtype under test, `options` unchanged."""

    op: str
    name: str
    function: Callable[..., Tensor]
    arguments: tuple[Tensor | None, ...]
    options: dict[str, object]

    def on(self, device: torch.device) -> Case:
        """Return the same case with its tensors on `device`."""

        def moved(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        arguments = tuple(moved(argument) for argument in self.arguments)
        return replace(self, arguments=arguments, options={k: moved(v) for k, v in self.options.items()})


def ss2d_case(
    name: str,
    shape: tuple[int, int, int, int],
    dt_rank: int,
    d_state: int,
    dtype: torch.dtype,
    device: torch.device,
    dt_offset: float | None = None,
    strided: bool = False,
) -> Case:
    """Create SS2D on x (batch, height, width, d_inner) with parameters initialized as in VMamba.

    With `dt_offset`, steps before softplus are ± that value for any input; `strided` makes x a view with
    non-contiguous channels.
    """
    draw = _drawing(name, device)
    d_inner = shape[3]
    x = draw(*shape[:3], 2 * d_inner)[..., ::2] if strided else draw(*shape)
    dt_weight = draw(4, d_inner, dt_rank) * dt_rank**-0.5
    dt_bias = draw(4, d_inner) * 1.5 - 3.0
    if dt_offset is not None:
        dt_weight = dt_weight * 0.0
        dt_bias = dt_bias.sign() * dt_offset
    decay = torch.arange(1, d_state + 1, device=device, dtype=torch.float32).log()
    return Case(
        "ss2d",
        name,
        ss2d,
        (
            x.to(dtype),
            (draw(4, dt_rank + 2 * d_state, d_inner) * d_inner**-0.5).to(dtype),
            dt_weight.to(dtype),
            dt_bias,
            decay.repeat(4 * d_inner, 1) + 0.1 * draw(4 * d_inner, d_state),
            draw(4 * d_inner),
        ),
        {},
    )


def selective_scan_case(
    name: str,
    shape: tuple[int, int, int],
    groups: int,
    d_state: int,
    dtype: torch.dtype,
    device: torch.device,
    delta_scale: float = 1.0,
) -> Case:
    """Create a selective scan of u (batch, d_inner, L) with every optional argument."""
    draw = _drawing(name, device)
    batch, d_inner, length = shape
    return Case(
        "selective_scan",
        name,
        selective_scan,
        (
            draw(*shape).to(dtype),
            (draw(*shape) * delta_scale).to(dtype),
            -draw(d_inner, d_state).exp(),
            draw(batch, groups, d_state, length).to(dtype),
            draw(batch, groups, d_state, length).to(dtype),
            draw(d_inner),
            draw(d_inner) - 1.0,
        ),
        {"delta_softplus": True},
    )


def small_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield square, odd, prime, one-row, one-column, multi-chunk, extreme, strided and batched cases."""
    for name, shape, dt_rank, d_state, dt_offset, strided in (
        ("square", (1, 5, 5, 4), 2, 1, None, False),
        ("prime, odd channels, batch 3", (3, 3, 7, 5), 3, 1, None, False),
        ("whole tiles", (1, 16, 2, 4), 2, 1, None, False),
        ("whole tiles by rows alone, rank 16", (1, 4, 4, 4), 16, 1, None, False),
        ("tall, two channel blocks", (1, 17, 2, 66), 6, 1, None, False),
        ("one row", (1, 1, 19, 4), 2, 1, None, False),
        ("one column", (1, 19, 1, 4), 2, 1, None, False),
        ("one pixel", (1, 1, 1, 4), 1, 1, None, False),
        ("rank 35, strided", (1, 3, 7, 6), 35, 1, None, True),
        ("steps of ±50", (1, 17, 2, 4), 2, 1, 50.0, False),
        ("d_state 3", (1, 2, 9, 4), 2, 3, None, False),
        ("d_state 16", (1, 2, 9, 2), 2, 16, None, False),
        ("d_state 16, steps of ±50", (1, 1, 5, 2), 2, 16, 50.0, False),
    ):
        yield ss2d_case(name, shape, dt_rank, d_state, dtype, device, dt_offset, strided)
    yield selective_scan_case("two groups", (2, 12, 37), 2, 4, dtype, device)
    yield selective_scan_case("longer than a chunk", (1, 5, 601), 1, 1, dtype, device)
    yield selective_scan_case("d_state 16", (1, 6, 9), 1, 16, dtype, device)
    yield selective_scan_case("steps of ±50", (1, 6, 70), 1, 2, dtype, device, delta_scale=50.0)
    yield from _layout_cases(dtype, device)
    yield from _block_cases(dtype, device)


def medium_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with several chunks and channel blocks: fast except in the interpreter."""
    yield ss2d_case("37 × 41", (1, 37, 41, 10), 3, 1, dtype, device)
    yield ss2d_case("23 × 5, batch 3, odd channels", (3, 23, 5, 131), 6, 1, dtype, device)
    yield ss2d_case("32 × 21, rank 24", (1, 32, 21, 70), 24, 1, dtype, device)
    yield ss2d_case("one row of 331", (1, 1, 331, 8), 2, 1, dtype, device)
    yield ss2d_case("19 × 29, steps of ±50", (1, 19, 29, 8), 2, 1, dtype, device, dt_offset=50.0)
    yield ss2d_case("13 × 17, d_state 16", (1, 13, 17, 12), 2, 16, dtype, device)
    yield selective_scan_case("1031 steps, d_state 16", (1, 6, 1031), 2, 16, dtype, device)
    for channels in (1, 96, 331, 384, 1024, 1537):
        yield layer_norm_case(f"67 rows of {channels}", 67, channels, dtype, device)
    yield stem_case("two blocks of a row", (1, 7, 263, 3), 64, 3, 2, 1, dtype, device)
    yield stem_case("deep filters", (1, 11, 13, 20), 50, 3, 2, 1, dtype, device)


def large_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with the shapes of VMamba's levels, for a GPU. The scans come last, because their
    references take a step per pixel, and seconds to minutes on a slow host."""
    yield from _product_cases(dtype, device)
    yield linear_case("20001 rows, large tiles", 20001, 200, 300, dtype, device)
    yield layer_norm_case("300007 rows of 48, GELU", 300007, 48, dtype, device, "gelu")
    yield layer_norm_case("100003 rows of 128", 100003, 128, dtype, device)
    yield stem_case("1021 × 517", (2, 1021, 517, 3), 48, 3, 2, 1, dtype, device)
    yield stem_case("513 × 1031, 64 filters", (1, 513, 1031, 3), 64, 3, 2, 1, dtype, device)
    yield stem_case("255 × 301, patches", (1, 255, 301, 3), 96, 4, 4, 0, dtype, device)
    yield layer_norm_case("40009 rows of 192", 40009, 192, dtype, device)
    yield layer_norm_case("20011 rows of 768, GELU", 20011, 768, dtype, device, "gelu")
    for channels in (96, 128, 192, 256):
        yield mlp_case(f"20001 rows of {channels}", (20001, channels), 4 * channels, dtype, device)
        side = math.isqrt(ROWS_PER_CHANNEL * channels) + 1
        shape = (1, side, side + 4, channels)
        yield mlp_case(f"few rows of {channels}", shape, 4 * channels, dtype, device)
    yield mlp_case("1009 × 131 rows of 96", (1009, 131, 96), 384, dtype, device)
    yield mlp_case("4099 rows of 100, in two kernels", (4099, 100), 400, dtype, device)
    for level, (d_inner, dt_rank) in enumerate(((192, 6), (384, 12), (768, 24), (1536, 48))):
        side = 96 >> level
        yield ss2d_case(f"level {level + 1}", (2, side, side, d_inner), dt_rank, 1, dtype, device)
    yield ss2d_case("VMamba-B, level 3", (2, 24, 24, 1024), 32, 1, dtype, device)
    yield ss2d_case("97 × 131", (1, 97, 131, 192), 6, 1, dtype, device)
    yield ss2d_case("131 × 257, several tiles per chunk", (1, 131, 257, 192), 6, 1, dtype, device)
    yield ss2d_case("128 × 160, no edges, batch 2", (2, 128, 160, 384), 12, 1, dtype, device)
    yield ss2d_case("56 × 56, d_state 16", (1, 56, 56, 192), 6, 16, dtype, device)
    yield selective_scan_case("VMamba level 1", (1, 768, 3136), 4, 1, dtype, device)


def _product_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield a block's products for few rows at three levels, and for many rows with each kind of tile."""
    for channels in (96, 384, 512):
        for product in block_products(channels):
            yield product_case(f"{product.name} of {channels}, 197 rows", 197, product, dtype, device)
    for channels in (96, 128, 256, 384):
        for product in block_products(channels):
            yield product_case(f"{product.name} of {channels}, 20001 rows", 20001, product, dtype, device)


@dataclass(frozen=True)
class BlockProduct:
    """One matrix product of a VMamba block."""

    name: str
    depth: int
    features: int
    normed: bool = False
    residual: bool = False
    activation: str | None = None


def block_products(channels: int) -> Iterator[BlockProduct]:
    """Yield the products of a block of so many channels, in their order."""
    yield BlockProduct("in_proj", channels, 2 * channels, normed=True)
    yield BlockProduct("out_proj", 2 * channels, channels, normed=True, residual=True)
    yield BlockProduct("fc1", channels, 4 * channels, normed=True, activation="gelu")
    yield BlockProduct("fc2", 4 * channels, channels, residual=True)


def product_case(
    name: str, rows: int, product: BlockProduct, dtype: torch.dtype, device: torch.device
) -> Case:
    """Create one product of a block, whose x has a mean far from 0."""
    draw = _drawing(name, device)
    k, m = product.depth, product.features
    x, weight, bias = (draw(rows, k) + 2.0).to(dtype), (draw(m, k) * k**-0.5).to(dtype), draw(m)
    residual = draw(rows, m).to(dtype) if product.residual else None
    options: dict[str, object] = {"residual": residual, "activation": product.activation}
    if not product.normed:
        return Case("linear", name, linear, (x, weight, bias), options)
    return Case("norm_linear", name, norm_linear, (x, 1.0 + 0.1 * draw(k), draw(k), weight, bias), options)


def linear_case(
    name: str, rows: int, width_in: int, width_out: int, dtype: torch.dtype, device: torch.device
) -> Case:
    """Create a layer norm and a projection of x (rows, width_in) with a mean far from 0, with all options
    except the activation."""
    draw = _drawing(name, device)
    x = (draw(rows, width_in) + 2.0).to(dtype)
    weight = (draw(width_out, width_in) * width_in**-0.5).to(dtype)
    arguments = (x, 1.0 + 0.1 * draw(width_in), draw(width_in), weight, draw(width_out))
    return Case("norm_linear", name, norm_linear, arguments, {"residual": draw(rows, width_out).to(dtype)})


def layer_norm_case(
    name: str,
    rows: int,
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
    activation: str | None = None,
) -> Case:
    """Create a layer norm of x (rows, channels) with a mean far from 0 after an input bias."""
    draw = _drawing(name, device)
    arguments = ((draw(rows, channels) + 2.0).to(dtype), 1.0 + 0.1 * draw(channels), draw(channels))
    options: dict[str, object] = {"input_bias": draw(channels).to(dtype), "activation": activation}
    return Case("layer_norm", name, layer_norm, arguments, options)


def stem_case(
    name: str,
    shape: tuple[int, int, int, int],
    channels: int,
    size: int,
    stride: int,
    padding: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Case:
    """Create a convolution of x (batch, height, width, in_channels) with bias, layer norm and GELU."""
    draw = _drawing(name, device)
    filters = draw(channels, shape[3], size, size) / (shape[3] ** 0.5 * size)
    arguments = (draw(*shape).to(dtype), filters.to(dtype), 1.0 + 0.1 * draw(channels), draw(channels))
    options: dict[str, object] = {"input_bias": draw(channels).to(dtype), "activation": "gelu"}
    options |= {"stride": stride, "padding": padding}
    return Case("convolution_norm", name, convolution_norm, arguments, options)


def mlp_case(
    name: str, shape: tuple[int, ...], hidden: int, dtype: torch.dtype, device: torch.device
) -> Case:
    """Create an MLP on x (..., channels) with a mean far from 0."""
    draw = _drawing(name, device)
    channels = shape[-1]
    return Case(
        "norm_mlp",
        name,
        norm_mlp,
        (
            (draw(*shape) + 2.0).to(dtype),
            1.0 + 0.1 * draw(channels),
            draw(channels),
            (draw(hidden, channels) * channels**-0.5).to(dtype),
            draw(hidden),
            (draw(channels, hidden) * hidden**-0.5).to(dtype),
            draw(channels),
        ),
        {},
    )


def _layout_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    draw = _drawing("layout", device)
    yield Case("cross_scan", "7 × 41", cross_scan, (draw(2, 3, 7, 41).to(dtype),), {})
    yield Case(
        "cross_merge", "7 × 41", cross_merge, (draw(2, 4, 3, 287).to(dtype),), {"height": 7, "width": 41}
    )


def _block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    draw = _drawing("block", device)
    x, weight, residual = draw(3, 11, 40) + 2.0, draw(50, 40) / 6.0, draw(3, 11, 50)
    linear_arguments = (x.to(dtype), weight.to(dtype), draw(50))
    norm = (x.to(dtype), 1.0 + 0.1 * draw(40), draw(40), weight.to(dtype), draw(50))
    more: dict[str, object] = {"residual": residual.to(dtype), "activation": "gelu"}
    yield Case("linear", "bias", linear, linear_arguments, {})
    yield Case("norm_linear", "GELU, residual", norm_linear, norm, more)
    yield linear_case("few rows, wide weight", 3, 40, 70, dtype, device)
    yield mlp_case("rows of 13, in two kernels", (3, 7, 13), 20, dtype, device)
    convolution = (draw(2, 5, 35, 20).to(dtype), draw(20, 1, 3, 3).to(dtype) / 3.0, draw(20))
    yield Case("depthwise_conv_silu", "3 × 3", depthwise_conv_silu, convolution, {})
    yield layer_norm_case("48 channels, GELU", 131, 48, dtype, device, "gelu")
    yield layer_norm_case("odd channels", 7, 45, dtype, device)
    yield stem_case("3 × 3, stride 2", (2, 9, 13, 3), 48, 3, 2, 1, dtype, device)
    yield stem_case("4 × 4, stride 4, odd channels", (1, 9, 13, 3), 45, 4, 4, 0, dtype, device)


def _drawing(name: str, device: torch.device) -> Callable[..., Tensor]:
    """Return a source of normal numbers that depends only on the name, on every device."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)
