"""The cases for verifying the operations of a block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vlmprof.kernels.block import (
    convolution_norm,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
)
from vlmprof.kernels.block.mlp_tiles import ROWS_PER_CHANNEL
from vlmprof.kernels.tools.case import Case, drawing, strided


def small_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield a few rows of each operation: odd sizes, unaligned shapes, strided vectors, none at all."""
    draw = drawing("block", device)
    x, weight, residual = draw(3, 11, 40) + 2.0, draw(50, 40) / 6.0, draw(3, 11, 50)
    linear_arguments = (x.to(dtype), weight.to(dtype), draw(50))
    norm = (x.to(dtype), 1.0 + 0.1 * draw(40), draw(40), weight.to(dtype), draw(50))
    more: dict[str, object] = {"residual": residual.to(dtype), "activation": "gelu"}
    large = ((2e4 * draw(3, 40)).to(dtype), 3.0 + draw(40), draw(40), draw(70, 40).to(dtype) / 6.0)
    convolution = (draw(2, 5, 35, 20).to(dtype), draw(20, 1, 3, 3).to(dtype) / 3.0, draw(20))

    product = Case("linear", "bias", linear, linear_arguments, {})
    normed = linear_case("few rows, wide weight", 3, 40, 70, dtype, device)
    mlp = mlp_case("rows of 13, in two kernels", (3, 7, 13), 20, dtype, device)
    depthwise = Case("depthwise_conv_silu", "3 × 3", depthwise_conv_silu, convolution, {})
    odd_rows = layer_norm_case("odd channels", 7, 45, dtype, device)
    patches = stem_case("4 × 4, stride 4, odd channels", (1, 9, 13, 3), 45, 4, 4, 0, dtype, device)
    for case in (product, normed, mlp, depthwise, odd_rows, patches):
        yield case
        yield strided(case)
    yield Case("norm_linear", "GELU, residual", norm_linear, norm, more)
    yield Case("norm_linear", "few rows of 20,000", norm_linear, large, {})
    yield layer_norm_case("48 channels, GELU", 131, 48, dtype, device, "gelu")
    yield stem_case("3 × 3, stride 2", (2, 9, 13, 3), 48, 3, 2, 1, dtype, device)
    yield linear_case("no rows", 0, 40, 30, dtype, device)
    yield layer_norm_case("no rows", 0, 40, dtype, device)
    yield mlp_case("no rows", (2, 0, 96), 384, dtype, device)


def medium_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield rows of more channels, and convolutions of several blocks."""
    for channels in (1, 96, 331, 384, 1024, 1537):
        yield layer_norm_case(f"67 rows of {channels}", 67, channels, dtype, device)
    yield stem_case("two blocks of a row", (1, 7, 263, 3), 64, 3, 2, 1, dtype, device)
    yield stem_case("deep filters", (1, 11, 13, 20), 50, 3, 2, 1, dtype, device)


def large_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with the shapes of VMamba's levels, and larger ones."""
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
    draw = drawing(name, device)
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
    draw = drawing(name, device)
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
    draw = drawing(name, device)
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
    draw = drawing(name, device)
    filters = draw(channels, shape[3], size, size) / (shape[3] ** 0.5 * size)
    arguments = (draw(*shape).to(dtype), filters.to(dtype), 1.0 + 0.1 * draw(channels), draw(channels))
    options: dict[str, object] = {"input_bias": draw(channels).to(dtype), "activation": "gelu"}
    options |= {"stride": stride, "padding": padding}
    return Case("convolution_norm", name, convolution_norm, arguments, options)


def mlp_case(
    name: str, shape: tuple[int, ...], hidden: int, dtype: torch.dtype, device: torch.device
) -> Case:
    """Create an MLP on x (..., channels) with a mean far from 0."""
    draw = drawing(name, device)
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
