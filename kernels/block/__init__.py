"""The other operations of a VMamba block: norms, products, depthwise convolution and MLP.

    operation             in one kernel                                              kernel in
    linear, norm_linear   norm, product, bias, activation, residual                  linear_kernels
    norm_mlp              norm, both products, GELU, residual                        fused_mlp
    depthwise_conv_silu   depthwise convolution, bias, SiLU                          fused_depthwise
    layer_norm            bias, norm, activation                                     fused_norm
    convolution_norm      the convolution of an image too; of other inputs, torch's  fused_stem

**Files**, in reading order: `op` and `norm_op` have the public functions; `arguments`, a bundle of arguments
per operation, with its checks; `operation`, the path from a call to a backend; `plain`, the `torch` backend
and, in wider dtypes, the reference. In the `triton` backend, `fused_linear` and the files above launch,
`linear_tiles` and `mlp_tiles` choose tiles, and `packing` folds and reorders parameters.

**Constants of a kernel**: V, a `Variant` with sizes and what is fused; TILE, what a program computes at a
time; MASKED or PARTIAL, whether a load may cross the end of the channels; PRECISE, whether x is float32.
"""

from vlmprof.kernels.block.norm_op import convolution_norm, layer_norm
from vlmprof.kernels.block.op import depthwise_conv_silu, linear, norm_linear, norm_mlp

__all__ = ["convolution_norm", "depthwise_conv_silu", "layer_norm", "linear", "norm_linear", "norm_mlp"]
