"""The arguments after x of each operation of a block: one bundle per operation, with its checks.

The public functions make them; plain code and kernels take them. A bundle is a tuple in the order of the
registered operator's arguments, from whose names and types the operator's schema is made.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vlmprof.kernels.common.checks import check_dims, check_shape, check_tensors

ACTIVATIONS = ("gelu", "silu")


class LinearArguments(NamedTuple):
    """activation(norm(x) · weightᵀ + bias) + residual, for x (..., in_features)."""

    norm_weight: Tensor | None
    """(in_features), or None without a norm."""
    norm_bias: Tensor | None
    """(in_features), or None for 0."""
    weight: Tensor
    """(out_features, in_features)."""
    bias: Tensor | None
    """(out_features), or None for 0."""
    residual: Tensor | None
    """(..., out_features), or None for 0."""
    activation: str | None
    """One of `ACTIVATIONS`, or None."""
    eps: float
    """Added to the variance."""

    def check(self, op: str, x: Tensor) -> None:
        """Check the arguments for x. Raises ValueError or TypeError, as all checks here."""
        norm = {"norm_weight": self.norm_weight}
        others = {"norm_bias": self.norm_bias, "bias": self.bias, "residual": self.residual}
        given = {"x": x, "weight": self.weight, **(norm if op == "norm_linear" else {})}
        check_tensors(op, given, others)
        check_dims(op, "weight", self.weight, 2, "(out_features, in_features)")
        out_features, in_features = self.weight.shape
        if x.dim() < 1 or x.shape[-1] != in_features:
            raise ValueError(f"{op}: x must be (..., in_features = {in_features}), got {tuple(x.shape)}")
        check_shape(op, "bias", self.bias, (out_features,), "(out_features)")
        check_shape(op, "residual", self.residual, (*x.shape[:-1], out_features), "(..., out_features)")
        check_activation(op, self.activation)
        for name in ("norm_weight", "norm_bias"):
            check_shape(op, name, getattr(self, name), (in_features,), "(in_features)")


class MlpArguments(NamedTuple):
    """x + fc2(GELU(fc1(norm(x)))), for x (..., channels)."""

    norm_weight: Tensor
    """(channels)."""
    norm_bias: Tensor
    """(channels)."""
    fc1_weight: Tensor
    """(hidden, channels)."""
    fc1_bias: Tensor
    """(hidden)."""
    fc2_weight: Tensor
    """(channels, hidden)."""
    fc2_bias: Tensor
    """(channels)."""
    eps: float
    """Added to the variance."""

    def first(self) -> LinearArguments:
        """Return the arguments of the product whose result are the hidden features."""
        return LinearArguments(
            self.norm_weight, self.norm_bias, self.fc1_weight, self.fc1_bias, None, "gelu", self.eps
        )

    def second(self, x: Tensor) -> LinearArguments:
        """Return the arguments of the product of the hidden features, with x as its residual."""
        return LinearArguments(None, None, self.fc2_weight, self.fc2_bias, x, None, 0.0)

    def check(self, op: str, x: Tensor) -> None:
        """Check the arguments for x."""
        tensors = self._asdict()
        del tensors["eps"]
        check_tensors(op, {"x": x, **tensors})
        check_dims(op, "fc1_weight", self.fc1_weight, 2, "(hidden, channels)")
        hidden, channels = self.fc1_weight.shape
        if x.dim() < 1 or x.shape[-1] != channels:
            raise ValueError(f"{op}: x must be (..., channels = {channels}), got {tuple(x.shape)}")
        check_shape(op, "fc1_bias", self.fc1_bias, (hidden,), "(hidden)")
        check_shape(op, "fc2_weight", self.fc2_weight, (channels, hidden), "(channels, hidden)")
        for name in ("norm_weight", "norm_bias", "fc2_bias"):
            check_shape(op, name, getattr(self, name), (channels,), "(channels)")


class DepthwiseArguments(NamedTuple):
    """SiLU(depthwise convolution), for x (batch, height, width, channels)."""

    weight: Tensor
    """(channels, 1, k, k) with k odd."""
    bias: Tensor | None
    """(channels), or None for 0."""

    def check(self, op: str, x: Tensor) -> None:
        """Check the arguments for x."""
        check_tensors(op, {"x": x, "weight": self.weight}, {"bias": self.bias})
        check_dims(op, "x", x, 4, "(batch, height, width, channels)")
        check_dims(op, "weight", self.weight, 4, "(channels, 1, k, k)")
        k = self.weight.shape[-1]
        check_shape(op, "weight", self.weight, (x.shape[3], 1, k, k), "(channels, 1, k, k)")
        if k % 2 == 0:
            raise ValueError(f"{op}: the kernel size must be odd, got {k}")
        check_shape(op, "bias", self.bias, (x.shape[3],), "(channels)")


class LayerNormArguments(NamedTuple):
    """activation(norm(x + input_bias)), for x (..., channels)."""

    weight: Tensor
    """(channels)."""
    bias: Tensor | None
    """(channels), or None for 0."""
    input_bias: Tensor | None
    """(channels), or None for 0."""
    activation: str | None
    """One of `ACTIVATIONS`, or None."""
    eps: float
    """Added to the variance."""

    def check(self, op: str, x: Tensor) -> None:
        """Check the arguments for x."""
        check_tensors(op, {"x": x, "weight": self.weight}, {"bias": self.bias, "input_bias": self.input_bias})
        if x.dim() < 1 or x.shape[-1] == 0:
            raise ValueError(f"{op}: x must be (..., channels), with channels > 0; got {tuple(x.shape)}")
        self.check_vectors(op, x.shape[-1])

    def check_vectors(self, op: str, channels: int) -> None:
        """Check the arguments for the norm of so many channels."""
        for name in ("weight", "bias", "input_bias"):
            check_shape(op, name, getattr(self, name), (channels,), "(channels)")
        check_activation(op, self.activation)


class ConvolutionNormArguments(NamedTuple):
    """activation(norm(convolution + input_bias)), for x (batch, height, width, in_channels)."""

    filters: Tensor
    """(channels, in_channels, k, k)."""
    weight: Tensor
    """(channels), of the norm."""
    bias: Tensor | None
    """(channels), of the norm, or None for 0."""
    input_bias: Tensor | None
    """(channels), of the convolution, or None for 0."""
    stride: int
    """Of both axes, in pixels."""
    padding: int
    """On all four sides, in pixels."""
    activation: str | None
    """One of `ACTIVATIONS`, or None."""
    eps: float
    """Added to the variance."""

    def norm(self) -> LayerNormArguments:
        """Return the arguments of what follows the convolution."""
        return LayerNormArguments(self.weight, self.bias, self.input_bias, self.activation, self.eps)

    def size_of_result(self, x: Tensor) -> tuple[int, int, int, int]:
        """Return (batch, rows, columns, channels)."""
        channels, _, _, k = self.filters.shape
        rows, columns = ((side + 2 * self.padding - k) // self.stride + 1 for side in x.shape[1:3])
        return x.shape[0], rows, columns, channels

    def check(self, op: str, x: Tensor) -> None:
        """Check the arguments for x."""
        given = {"x": x, "filters": self.filters, "weight": self.weight}
        check_tensors(op, given, {"bias": self.bias, "input_bias": self.input_bias})
        check_dims(op, "x", x, 4, "(batch, height, width, in_channels)")
        check_dims(op, "filters", self.filters, 4, "(channels, in_channels, k, k)")
        channels, _, _, k = self.filters.shape
        check_shape(
            op, "filters", self.filters, (channels, x.shape[3], k, k), "(channels, in_channels, k, k)"
        )
        if self.stride < 1 or self.padding < 0 or min(x.shape[1:3]) + 2 * self.padding < k:
            raise ValueError(f"{op}: no filter of {k} × {k} with stride {self.stride} fits {tuple(x.shape)}")
        self.norm().check_vectors(op, channels)


def check_activation(op: str, activation: str | None) -> None:
    """Raise ValueError for an unknown activation."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"{op}: unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)} or None")
