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
from vlmprof.kernels.tools.case import Case, Draw, Inputs, case_of, strided

BLOCK_OPERATIONS = (
    "linear", "norm_linear", "norm_mlp", "layer_norm", "convolution_norm", "depthwise_conv_silu",
)  # fmt: skip


def small_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield a few rows of each operation: odd sizes, unaligned shapes, strided vectors, none at all."""
    for case in (
        _biased_linear_case("bias", dtype, device),
        linear_case("few rows, wide weight", dtype, device, 3, 40, 70),
        mlp_case("rows of 13, in two kernels", dtype, device, (3, 7, 13), 20),
        depthwise_case("3 × 3", dtype, device, (2, 5, 35, 20)),
        layer_norm_case("odd channels", dtype, device, 7, 45),
        stem_case("4 × 4, stride 4, odd channels", dtype, device, (1, 9, 13, 3), 45, 4, 4, 0),
    ):
        yield case
        yield strided(case)
    yield _activated_case("GELU, residual", dtype, device)
    yield _large_values_case("few rows of 20,000", dtype, device)
    yield layer_norm_case("48 channels, GELU", dtype, device, 131, 48, "gelu")
    yield stem_case("3 × 3, stride 2", dtype, device, (2, 9, 13, 3), 48, 3, 2, 1)
    yield linear_case("no rows", dtype, device, 0, 40, 30)
    yield layer_norm_case("no rows", dtype, device, 0, 40)
    yield mlp_case("no rows", dtype, device, (2, 0, 96), 384)


def medium_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield rows of more channels, and convolutions of several blocks."""
    for channels in (1, 96, 331, 384, 1024, 1537):
        yield layer_norm_case(f"67 rows of {channels}", dtype, device, 67, channels)
    yield stem_case("two blocks of a row", dtype, device, (1, 7, 263, 3), 64, 3, 2, 1)
    yield stem_case("deep filters", dtype, device, (1, 11, 13, 20), 50, 3, 2, 1)


def large_block_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with the shapes of VMamba's levels, and larger ones."""
    yield from _product_cases(dtype, device)
    yield linear_case("20001 rows, large tiles", dtype, device, 20001, 200, 300)
    yield layer_norm_case("300007 rows of 48, GELU", dtype, device, 300007, 48, "gelu")
    yield layer_norm_case("100003 rows of 128", dtype, device, 100003, 128)
    yield stem_case("1021 × 517", dtype, device, (2, 1021, 517, 3), 48, 3, 2, 1)
    yield stem_case("513 × 1031, 64 filters", dtype, device, (1, 513, 1031, 3), 64, 3, 2, 1)
    yield stem_case("255 × 301, patches", dtype, device, (1, 255, 301, 3), 96, 4, 4, 0)
    yield layer_norm_case("40009 rows of 192", dtype, device, 40009, 192)
    yield layer_norm_case("20011 rows of 768, GELU", dtype, device, 20011, 768, "gelu")
    for channels in (96, 128, 192, 256):
        yield mlp_case(f"20001 rows of {channels}", dtype, device, (20001, channels), 4 * channels)
        side = math.isqrt(ROWS_PER_CHANNEL * channels) + 1
        shape = (1, side, side + 4, channels)
        yield mlp_case(f"few rows of {channels}", dtype, device, shape, 4 * channels)
    yield mlp_case("1009 × 131 rows of 96", dtype, device, (1009, 131, 96), 384)
    yield mlp_case("4099 rows of 100, in two kernels", dtype, device, (4099, 100), 400)


def _product_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield a block's products for few rows at three levels, and for many rows with each kind of tile."""
    for channels in (96, 384, 512):
        for product in block_products(channels):
            yield product_case(f"{product.name} of {channels}, 197 rows", dtype, device, 197, product)
    for channels in (96, 128, 256, 384):
        for product in block_products(channels):
            yield product_case(f"{product.name} of {channels}, 20001 rows", dtype, device, 20001, product)


@dataclass(frozen=True)
class BlockProduct:
    """One matrix product of a VMamba block."""

    name: str
    depth: int
    features: int
    normed: bool = False
    residual: bool = False
    activation: str | None = None
    biased: bool = True


def block_products(channels: int) -> Iterator[BlockProduct]:
    """Yield the products of a block of so many channels, in their order."""
    yield BlockProduct("in_proj", channels, 2 * channels, normed=True)
    yield BlockProduct("out_proj", 2 * channels, channels, normed=True, residual=True)
    yield BlockProduct("fc1", channels, 4 * channels, normed=True, activation="gelu")
    yield BlockProduct("fc2", 4 * channels, channels, residual=True)


def product_case(
    name: str, dtype: torch.dtype, device: torch.device, rows: int, product: BlockProduct
) -> Case:
    """Create one product of a block, whose x has a mean far from 0."""
    make = case_of(norm_linear if product.normed else linear)(_product_inputs)
    return make(name, dtype, device, rows, product)


def _product_inputs(draw: Draw, dtype: torch.dtype, rows: int, product: BlockProduct) -> Inputs:
    k, m = product.depth, product.features
    x, weight = (draw(rows, k) + 2.0).to(dtype), (draw(m, k) * k**-0.5).to(dtype)
    bias = draw(m) if product.biased else None
    residual = draw(rows, m).to(dtype) if product.residual else None
    norm = (1.0 + 0.1 * draw(k), draw(k)) if product.normed else ()
    return (x, *norm, weight, bias), {"residual": residual, "activation": product.activation}


@case_of(linear)
def _biased_linear_case(draw: Draw, dtype: torch.dtype) -> Inputs:
    return ((draw(3, 11, 40) + 2.0).to(dtype), (draw(50, 40) / 6.0).to(dtype), draw(50)), {}


@case_of(norm_linear)
def _activated_case(draw: Draw, dtype: torch.dtype) -> Inputs:
    x, weight = (draw(3, 11, 40) + 2.0).to(dtype), (draw(50, 40) / 6.0).to(dtype)
    options = {"residual": draw(3, 11, 50).to(dtype), "activation": "gelu"}
    return (x, 1.0 + 0.1 * draw(40), draw(40), weight, draw(50)), options


@case_of(norm_linear)
def _large_values_case(draw: Draw, dtype: torch.dtype) -> Inputs:
    return ((2e4 * draw(3, 40)).to(dtype), 3.0 + draw(40), draw(40), draw(70, 40).to(dtype) / 6.0), {}


@case_of(depthwise_conv_silu)
def depthwise_case(
    draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int, int], biased: bool = True
) -> Inputs:
    """Draw a depthwise 3 × 3 convolution of x (batch, height, width, channels)."""
    channels = shape[3]
    weight = draw(channels, 1, 3, 3) / 3.0
    return (draw(*shape).to(dtype), weight.to(dtype), draw(channels) if biased else None), {}


@case_of(norm_linear)
def linear_case(draw: Draw, dtype: torch.dtype, rows: int, width_in: int, width_out: int) -> Inputs:
    """Draw a layer norm and a projection of x (rows, width_in) with a mean far from 0, with all options
    except the activation."""
    x = (draw(rows, width_in) + 2.0).to(dtype)
    weight = (draw(width_out, width_in) * width_in**-0.5).to(dtype)
    arguments = (x, 1.0 + 0.1 * draw(width_in), draw(width_in), weight, draw(width_out))
    return arguments, {"residual": draw(rows, width_out).to(dtype)}


@case_of(layer_norm)
def layer_norm_case(
    draw: Draw, dtype: torch.dtype, rows: int, channels: int, activation: str | None = None
) -> Inputs:
    """Draw a layer norm of x (rows, channels) with a mean far from 0 after an input bias."""
    arguments = ((draw(rows, channels) + 2.0).to(dtype), 1.0 + 0.1 * draw(channels), draw(channels))
    return arguments, {"input_bias": draw(channels).to(dtype), "activation": activation}


@case_of(convolution_norm)
def stem_case(
    draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int, int], channels: int,
    size: int, stride: int, padding: int,
) -> Inputs:  # fmt: skip
    """Draw a convolution of x (batch, height, width, in_channels) with bias, layer norm and GELU."""
    filters = draw(channels, shape[3], size, size) / (shape[3] ** 0.5 * size)
    arguments = (draw(*shape).to(dtype), filters.to(dtype), 1.0 + 0.1 * draw(channels), draw(channels))
    after = {"input_bias": draw(channels).to(dtype), "activation": "gelu"}
    return arguments, after | {"stride": stride, "padding": padding}


@case_of(norm_mlp)
def mlp_case(draw: Draw, dtype: torch.dtype, shape: tuple[int, ...], hidden: int) -> Inputs:
    """Draw an MLP on x (..., channels) with a mean far from 0."""
    channels = shape[-1]
    return (
        (draw(*shape) + 2.0).to(dtype),
        1.0 + 0.1 * draw(channels),
        draw(channels),
        (draw(hidden, channels) * channels**-0.5).to(dtype),
        draw(hidden),
        (draw(channels, hidden) * hidden**-0.5).to(dtype),
        draw(channels),
    ), {}
