"""The other operations of a VMamba block: norm and projection, depthwise convolution and SiLU, MLP."""

from vlmprof.kernels.block.norm_op import convolution_norm, layer_norm
from vlmprof.kernels.block.op import depthwise_conv_silu, linear, norm_linear, norm_mlp

__all__ = ["convolution_norm", "depthwise_conv_silu", "layer_norm", "linear", "norm_linear", "norm_mlp"]
