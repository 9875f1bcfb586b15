"""FLOPs, bytes and special functions of each dispatched operation, from the shapes of its tensors.

1 MAC = 2 FLOPs. Operators with a formula are registered in `FORMULAS`. All others are counted as elementwise,
with `FLOPS_PER_ELEMENT` FLOPs per element of the largest tensor, and with a stated assumption if torch does
not classify them as pointwise. Views and allocations cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlmprof.cost.costs import INT4, Kind, OpCost

Formula = Callable[..., OpCost]
aten = torch.ops.aten

FORMULAS: dict[Any, Formula] = {}
"""Formulas by operator packet, called with the output followed by the operator's arguments."""

SPECIAL_FUNCTIONS = {
    "exp": 1, "exp2": 1, "log": 1, "log2": 1, "expm1": 1, "log1p": 2, "sin": 1, "cos": 1, "tanh": 1, "erf": 1,
    "sqrt": 1, "rsqrt": 1, "reciprocal": 1, "sigmoid": 2, "silu": 2, "gelu": 1, "softplus": 2, "mish": 3,
    "_softmax": 1, "_safe_softmax": 1, "hardswish": 0, "pow": 0,
}  # fmt: skip
"""Special functions per element of the output: `silu` needs exp and reciprocal, `softplus` exp and log."""

FLOPS_PER_ELEMENT = {
    "native_layer_norm": 7, "native_group_norm": 7, "_fused_rms_norm": 4, "native_batch_norm": 2,
    "_native_batch_norm_legit_no_training": 2, "_softmax": 4, "_safe_softmax": 4, "silu": 4, "gelu": 4,
    "upsample_bilinear2d": 8, "_upsample_bicubic2d_aa": 64, "upsample_bicubic2d": 64,
}  # fmt: skip
"""FLOPs per element if not one: a norm has mean, variance, scale and shift; a special function is one."""

COPIES = frozenset((
    "clone", "copy_", "_to_copy", "contiguous", "cat", "stack", "roll", "flip", "repeat", "where",
    "index", "index_select", "gather", "embedding", "masked_fill", "constant_pad_nd", "im2col",
    "col2im", "reflection_pad2d", "pixel_shuffle", "pixel_unshuffle", "slice_scatter", "select_scatter",
    "fill_", "zero_", "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros",
    "new_ones", "new_full", "arange", "scalar_tensor", "lift_fresh_copy",
))  # fmt: skip
"""Operations that move or create values without computing any."""

ONE_PASS = frozenset((
    "sum", "mean", "amax", "amin", "aminmax", "max", "min", "argmax", "argmin", "any", "all",
    "_is_all_true", "prod", "norm", "linalg_vector_norm", "var", "std", "var_mean", "std_mean",
    "logsumexp", "histc", "bincount", "count_nonzero", "equal", "cumsum", "cumprod", "cummax",
    "cummin", "logcumsumexp", "_log_softmax", "_fused_dropout", "native_dropout",
    "log_sigmoid_forward", "polar", "floor_divide", "sort", "topk", "argsort", "searchsorted",
    "bucketize", "isin", "nonzero", "_unique2", "tril", "triu", "index_add", "index_put",
    "_unsafe_index", "_index_put_impl", "scatter", "scatter_add", "scatter_reduce", "index_copy",
    "index_fill", "masked_select", "masked_scatter", "take", "detach", "repeat_interleave",
    "uniform", "normal", "random", "bernoulli", "exponential", "rand", "randn", "randint",
    "randperm", "linspace", "logspace", "eye", "one_hot", "tril_indices", "triu_indices", "copy",
    "set", "resize", "avg_pool2d", "avg_pool1d", "avg_pool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "adaptive_max_pool2d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "max_pool1d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "grid_sampler_2d", "replication_pad1d", "replication_pad2d",
    "reflection_pad1d", "channel_shuffle", "native_channel_shuffle", "view_as_complex",
    "view_as_real", "complex", "real", "imag", "alias_copy", "split_with_sizes_copy",
    "_conj_physical", "_assert_async", "_assert_tensor_metadata", "_functional_assert_async",
))  # fmt: skip
"""Operations with about one read and a few FLOPs per element that torch does not tag as pointwise."""

GATHERS = frozenset(("embedding", "index", "index_select", "gather"))
"""Operations that read only as many elements of their first input as they write."""

ALLOCATIONS = frozenset(
    ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense")
)
"""Operations that launch nothing."""


def formula(*packets: Any) -> Callable[[Formula], Formula]:
    """Register the formula of one or more operators."""

    def register(function: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(packets, function))
        return function

    return register


def op_cost(func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> OpCost | None:
    """Return the cost of a dispatched operation; None if it launches nothing on the device."""
    packet = func.overloadpacket
    if packet in FORMULAS:
        return FORMULAS[packet](output, *args, **kwargs)
    name = packet.__name__
    outputs, inputs = tensors_in(output), tensors_in((args, kwargs))
    if name in ALLOCATIONS or not outputs or _only_views(func, inputs, outputs):
        return None
    base = name if name in SPECIAL_FUNCTIONS or name in COPIES else name.rstrip("_")
    elements = max(tensor.numel() for tensor in (*outputs, *inputs))
    copies = base in COPIES
    read = touched_bytes(inputs)
    if base in GATHERS:
        read = touched_bytes(inputs[1:]) + touched_bytes(outputs)
    elif base == "copy_":
        read = touched_bytes(inputs[1:])
    assumed = f"{func.namespace}.{name} has no formula: counted as if elementwise"
    return OpCost(
        Kind.COPY if copies else Kind.ELEMENTWISE,
        dtype_name(*inputs, *outputs),
        flops=0 if copies else elements * FLOPS_PER_ELEMENT.get(base, 1),
        moved_bytes=read + touched_bytes(outputs),
        special_functions=outputs[0].numel() * SPECIAL_FUNCTIONS.get(base, 0),
        assumed="" if _touches_each_once(func, base) else assumed,
    )


def _touches_each_once(func: Any, base: str) -> bool:
    """Return whether an operation is known to cost as much as an elementwise one."""
    if func.namespace == "aten" and (base in ONE_PASS or base in COPIES or base in SPECIAL_FUNCTIONS):
        return True
    return base in FLOPS_PER_ELEMENT or bool({torch.Tag.pointwise, torch.Tag.reduction} & {*func.tags})


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in tensors_in(value)]


def touched_bytes(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of these tensors, each counted once, and an expanded one by its storage."""
    sizes = {id(t): min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors}
    return sum(sizes.values())


def dtype_name(*tensors: Tensor) -> str:
    """Return the dtype of the first floating-point tensor, or else of the first tensor."""
    floating = [t.dtype for t in tensors if t.is_floating_point()]
    dtype = floating[0] if floating else tensors[0].dtype
    return str(dtype).removeprefix("torch.")


def _only_views(func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    if func.is_view:
        return True
    if func._schema.is_mutable:
        return False
    given = {tensor.untyped_storage()._cdata for tensor in inputs}
    return all(tensor.untyped_storage()._cdata in given for tensor in outputs)


def product(kind: Kind, flops: int, output: Tensor, *inputs: Any, special_functions: int = 0) -> OpCost:
    """Return the cost of an operation that reads its inputs once and writes its output once."""
    given = tensors_in(inputs)
    moved_bytes = touched_bytes(given) + touched_bytes([output])
    return OpCost(
        kind,
        dtype_name(*given),
        flops=flops,
        moved_bytes=moved_bytes,
        special_functions=special_functions,
    )


def _matmul_flops(a: Tensor, b: Tensor) -> int:
    """Count a product that sums over the last dimension of a: each of its elements meets each column of b."""
    return 2 * a.numel() * (b.shape[-1] if b.dim() > 1 else 1)


@formula(aten.mm, aten.bmm, aten.mv, aten.dot, aten.vdot)
def _matmul(output: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return product(Kind.MATMUL, _matmul_flops(a, b), output, a, b)


@formula(aten.addmm, aten.baddbmm, aten.addbmm, aten.addmv)
def _biased_matmul(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return product(Kind.MATMUL, _matmul_flops(a, b), output, bias, a, b)


@formula(aten._int_mm, aten._scaled_mm)
def _quantized_matmul(output: Tensor, a: Tensor, *quantized: Any, **_: Any) -> OpCost:
    """A product with a quantized matrix, whose scales it reads as well."""
    return product(Kind.MATMUL, 2 * a.numel() * output.shape[-1], output, a, *quantized)


@formula(aten._weight_int4pack_mm, aten._weight_int4pack_mm_for_cpu)
def _int4_matmul(output: Tensor, a: Tensor, *quantized: Any, **_: Any) -> OpCost:
    """A product of activations with a matrix of int4, which has a rate of its own."""
    cost = _quantized_matmul(output, a, *quantized)
    return replace(cost, dtype=INT4 + cost.dtype)


@formula(aten.linalg_solve_triangular)
def _solve_triangular(output: Tensor, a: Tensor, b: Tensor, *, left: bool = True, **_: Any) -> OpCost:
    """Triangular solve, (n, n) with m right-hand sides: n²·m FLOPs, not on matrix units (Golub & Van Loan,
    Matrix Computations, section 3.1)."""
    return product(Kind.ELEMENTWISE, a.shape[-1] * output.numel(), output, a, b)


@formula(aten._fft_r2c, aten._fft_c2c, aten._fft_c2r)
def _fft(output: Tensor, x: Tensor, dim: Sequence[int], *_: Any, **__: Any) -> OpCost:
    """FFT of N points: 5·N·log₂ N FLOPs in radix 2 (Cooley & Tukey 1965), or half if one side is real."""
    larger = output if output.numel() > x.numel() else x
    length = math.prod(larger.shape[d] for d in dim)
    halves = 2 if output.is_complex() and x.is_complex() else 1
    flops = int(2.5 * halves * larger.numel() * math.log2(max(length, 2)))
    return product(Kind.ELEMENTWISE, flops, output, x)


@formula(aten.convolution)
def _convolution(
    output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> OpCost:  # fmt: skip
    # one MAC per weight and position: of the output for weights (out, in/groups, *taps), of the input for
    # those of a transposed convolution, (in, out/groups, *taps)
    positions = (x if transposed else output).shape[2:].numel() * x.shape[0]
    return product(Kind.CONVOLUTION, 2 * positions * weight.numel(), output, x, weight, bias)


@formula(aten.scaled_dot_product_attention)
def _attention(
    output: Tensor, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> OpCost:  # fmt: skip
    """Attention as one kernel, without the N² scores in memory: 2·N²·d FLOPs for the scores and 2·N²·d for
    the weighted sum of values (Dao et al. 2022, arXiv 2205.14135).

    Causal kernels skip scores above the diagonal, which torch's FLOP counter includes.
    """
    heads = math.prod(q.shape[:-2])
    queries, keys = q.shape[-2], k.shape[-2]
    per_score = 2 * (q.shape[-1] + v.shape[-1])
    above = min(queries, keys) * (min(queries, keys) - 1) // 2 if is_causal else 0
    given = tensors_in((q, k, v, attn_mask))
    return OpCost(
        Kind.ATTENTION,
        dtype_name(q),
        flops=heads * queries * keys * per_score,
        skipped_flops=heads * above * per_score,
        moved_bytes=touched_bytes(given) + touched_bytes([output]),
        special_functions=heads * (queries * keys - above),
    )


def attention_workspace_bytes(q: Tensor) -> int:
    """Return the bytes of the float32 log-sum-exp of each query, which fused kernels also write."""
    return 4 * math.prod(q.shape[:-1])
