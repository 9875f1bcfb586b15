"""The other operations of a VMamba block: norm and projection, depthwise convolution and SiLU, MLP."""

from vlmprof.kernels.block.op import depthwise_conv_silu, linear, norm_linear, norm_mlp

__all__ = ["depthwise_conv_silu", "linear", "norm_linear", "norm_mlp"]
