"""The softplus of the `torch` backend against float64, for all magnitudes of float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vlmprof.kernels.selective_scan.vectorized import MOST_EXPONENT, softplus_

SMALLEST_NORMAL = 2.0**-126


def softplus(x: Tensor) -> Tensor:
    return softplus_(x.clone(), torch.empty_like(x))


def expected(x: Tensor) -> np.ndarray:
    """max(x, 0) · ln 2 + log1p(2^-|x|), in NumPy's float64."""
    wide = x.double().numpy()
    return np.maximum(wide, 0) * math.log(2.0) + np.log1p(np.exp2(-np.abs(wide)))


def every_magnitude() -> Tensor:
    """Finite float32 values of both signs and all exponents, 511 of each."""
    bits = torch.arange(-(2**31), 2**31, 16421, dtype=torch.int64).to(torch.int32).view(torch.float32)
    return bits[bits.isfinite()]


@pytest.mark.parametrize(
    "x",
    [
        every_magnitude(),
        torch.linspace(-1000, -100, 200_003),
        torch.linspace(-30, 0, 200_003),
        torch.linspace(0, 30, 200_003),
        torch.linspace(20, MOST_EXPONENT - 1e-3, 200_003),
        torch.linspace(MOST_EXPONENT - 1, 200, 200_003),
    ],
    ids=["all", "vanishing", "small", "moderate", "linear", "beyond the largest power"],
)
def test_digits_of_float32(x: Tensor) -> None:
    right = expected(x)
    error = np.abs(softplus(x).double().numpy() - right)
    normal = right >= SMALLEST_NORMAL
    assert (error[normal] <= 2.0**-22 * right[normal]).all()  # two units in the last place
    assert (error[~normal] <= 2.0**-148).all()  # as far apart as numbers below the normal ones are


def test_digits_of_float64() -> None:
    x = torch.linspace(-900, 200, 300_007, dtype=torch.float64)
    np.testing.assert_allclose(softplus(x).numpy(), expected(x), rtol=2.0**-51, atol=0)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among others"])
def test_values_that_are_not_finite(alone: bool) -> None:
    x = torch.tensor([-math.inf, math.inf, math.nan, 0.0, -0.0, 5000.0])
    y = torch.cat([softplus(value) for value in x[:, None]]) if alone else softplus(x)
    right = torch.tensor([0.0, math.inf, math.nan, math.log(2.0), math.log(2.0), 5000 * math.log(2.0)])
    torch.testing.assert_close(y, right, equal_nan=True, rtol=1e-6, atol=0)


def test_works_in_place() -> None:
    x = torch.randn(4, 33)
    assert softplus_(x, torch.empty_like(x)) is x
