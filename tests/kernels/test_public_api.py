"""The public functions: rejected arguments, registration, and guarantees about results."""

from __future__ import annotations

import importlib.metadata
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from vlmprof.errors import UserError
from vlmprof.fields import AXES
from vlmprof.kernels import (
    BACKENDS,
    convolution_norm,
    cross_merge,
    cross_scan,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
    resolve_backend,
    selective_scan,
    ss2d,
)
from vlmprof.kernels.common import backends

Parameters = tuple[torch.Tensor, ...]
Operation = Callable[..., Any]


def drawn(height: int, width: int, d_inner: int, dt_rank: int = 2, d_state: int = 1) -> Parameters:
    generator = torch.Generator().manual_seed(height * 100 + width)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return (
        draw(1, height, width, d_inner),
        draw(4, dt_rank + 2 * d_state, d_inner) * d_inner**-0.5,
        draw(4, d_inner, dt_rank),
        draw(4, d_inner),
        0.1 * draw(4 * d_inner, d_state),
        draw(4 * d_inner),
    )


def test_two_pixels_by_hand() -> None:
    """A row of two pixels with one channel, B = C = x, A = −1 and Δ = softplus(1)."""
    x = torch.tensor([2.0, 3.0]).view(1, 1, 2, 1).double()
    zero_rank = torch.zeros(4, 1, 1).double()
    x_proj = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1).repeat(4, 1, 1).double()  # B = C = x
    step = torch.log1p(torch.ones((), dtype=torch.float64).exp())  # softplus(1)
    decay = (-step).exp()
    ones = torch.ones(4).double()
    arguments = (x, x_proj, zero_rank, ones[:, None], 0.0 * ones[:, None], ones)
    # forward: h0 = Δ·2·2, y0 = 2·h0; h1 = a·h0 + Δ·3·3, y1 = 3·h1. A row reads the same by columns.
    h0, back1 = step * 4, step * 9
    first = 2 * h0 + 2 * (decay * back1 + step * 4) + 2 * 2
    second = 3 * (decay * h0 + step * 9) + 3 * back1 + 2 * 3
    expected = 2 * torch.stack((first, second)).view(1, 1, 2, 1)
    for backend in ("reference", "torch"):
        assert torch.allclose(ss2d(*arguments, backend=backend), expected, rtol=1e-12)


def test_transposing_the_image_swaps_rows_and_columns() -> None:
    x, *parameters = drawn(5, 8, 6)
    swapped = [p.view(4, -1, *p.shape[1:])[[1, 0, 3, 2]].reshape(p.shape) for p in parameters]
    turned = ss2d(x.transpose(1, 2), *swapped).transpose(1, 2)
    assert torch.allclose(ss2d(x, *parameters), turned, rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_do_not_meet() -> None:
    x, *parameters = drawn(6, 7, 6)
    other = x.flip(1) * 3.0
    both = ss2d(torch.cat((x, other)), *parameters)
    assert torch.allclose(both[0], ss2d(x, *parameters)[0], rtol=1e-4, atol=1e-5)
    assert torch.allclose(both[1], ss2d(other, *parameters)[0], rtol=1e-4, atol=1e-5)


def test_cross_merge_is_the_adjoint_of_cross_scan() -> None:
    x, ys = torch.randn(2, 3, 5, 9).double(), torch.randn(2, 4, 3, 45).double()
    assert torch.allclose((cross_scan(x) * ys).sum(), (x * cross_merge(ys, 5, 9)).sum())


def test_steps_that_underflow_every_decay_are_exact() -> None:
    """With exp(ΔA) = 0 the state forgets all: y = C·Δ·B·u + D·u at each position alone."""
    u = torch.randn(1, 4, 300)
    ones = torch.ones(1, 1, 300)
    y = selective_scan(u, torch.full_like(u, 50.0), -torch.full((4, 1), 100.0), ones, ones, backend="torch")
    assert torch.equal(y, 50.0 * u)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_results_keep_shape_dtype_and_are_contiguous(dtype: torch.dtype) -> None:
    for height, width in ((3, 5), (13, 31), (1, 23)):  # 13 and 31 are no multiples of a piece's steps
        x, *parameters = drawn(height, width, 6)
        channels_first = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        for given in (x, channels_first):
            y = ss2d(given.to(dtype), *parameters)
            assert (y.shape, y.dtype, y.is_contiguous()) == (x.shape, dtype, True)
        assert torch.equal(ss2d(x.to(dtype), *parameters), y)


def test_torch_compile_takes_the_operators_whole() -> None:
    arguments = drawn(4, 6, 6)
    compiled = torch.compile(lambda *a: 2.0 * ss2d(*a), fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(*arguments), 2.0 * ss2d(*arguments))


def test_operators_pass_the_registration_checks() -> None:
    tests = ("test_schema", "test_faketensor")
    u = torch.randn(1, 4, 5)
    for operator, arguments in (
        (torch.ops.vlmprof.ss2d.default, drawn(3, 4, 6)),
        (torch.ops.vlmprof.cross_scan.default, (torch.randn(1, 2, 3, 4),)),
        (torch.ops.vlmprof.cross_merge.default, (torch.randn(1, 4, 2, 12), 3, 4)),
        (
            torch.ops.vlmprof.selective_scan.default,
            (u, u, -torch.ones(4, 1), torch.ones(1, 1, 1, 5), torch.ones(1, 1, 1, 5), None, None, True),
        ),
    ):
        torch.library.opcheck(operator, (*arguments, "torch"), test_utils=tests)


def test_the_reference_is_differentiable_and_the_others_say_no() -> None:
    arguments = drawn(2, 3, 4)
    arguments[0].requires_grad_()
    ss2d(*arguments, backend="reference").sum().backward()
    assert arguments[0].grad is not None
    with pytest.raises(RuntimeError, match="no_grad"):
        ss2d(*arguments, backend="torch")
    with torch.no_grad():
        ss2d(*arguments, backend="torch")


def test_auto_is_recorded_and_what_cannot_run_is_refused() -> None:
    assert resolve_backend("ss2d", "cpu") == "torch"
    with pytest.raises(ValueError, match="unknown backend"):
        resolve_backend("ss2d", "cpu", "cuda")
    with pytest.raises(ValueError, match="unknown operation"):
        resolve_backend("conv", "cpu")


@pytest.mark.parametrize(
    ("triton", "numpy", "runs"),
    [("3.6.0", "2.4.1", False), ("3.6.0", "2.3.5", True), ("3.7.0", "2.5.0rc1", True)],
)
def test_an_interpreter_that_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, triton: str, numpy: str, runs: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"triton": triton, "numpy": numpy}.__getitem__)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(backends, "TRITON_INSTALLED", True)
    backends.interpreter_fault.cache_clear()
    try:
        reason = backends.why_not_triton(torch.device("cpu"))
    finally:
        backends.interpreter_fault.cache_clear()
    assert reason is None if runs else "NumPy below 2.4" in str(reason)


def test_a_wrong_shape_is_named() -> None:
    x, x_proj, *rest = drawn(3, 4, 6)
    with pytest.raises(ValueError, match=r"x_proj_weight must be .* = \(4, 4, 6\)"):
        ss2d(x, x_proj[:, 1:], *rest)
    with pytest.raises(TypeError, match="float"):
        ss2d(x.long(), x_proj, *rest)
    with pytest.raises(ValueError, match=r"input_bias must be .* = \(6,\)"):
        layer_norm(x, torch.ones(6), input_bias=torch.ones(5))
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        layer_norm(x, torch.ones(6), activation="relu")
    u, B = torch.ones(1, 4, 5), torch.ones(1, 3, 1, 5)
    with pytest.raises(ValueError, match="groups"):
        selective_scan(u, u, torch.ones(4, 1), B, B)
    with pytest.raises(TypeError, match=r"A must be .*complex64"):
        selective_scan(u, u, torch.ones(4, 1, dtype=torch.complex64), B[:, :1], B[:, :1])


def test_the_block_matches_modules() -> None:
    x = torch.randn(2, 5, 7, 12)
    norm, projection = torch.nn.LayerNorm(12), torch.nn.Linear(12, 20)
    with torch.no_grad():
        expected = torch.nn.functional.gelu(projection(norm(x)))
        y = norm_linear(x, norm.weight, norm.bias, projection.weight, projection.bias, activation="gelu")
        assert torch.allclose(y, expected, atol=1e-6)
        convolution = torch.nn.Conv2d(12, 12, 3, padding=1, groups=12)
        expected = torch.nn.functional.silu(convolution(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        y = depthwise_conv_silu(x, convolution.weight, convolution.bias)
        assert torch.allclose(y, expected, atol=1e-6)
        assert convolution.bias is not None
        expected = torch.nn.functional.gelu(norm(x + convolution.bias))
        y = layer_norm(x, norm.weight, norm.bias, input_bias=convolution.bias, activation="gelu")
        assert torch.allclose(y, expected, atol=1e-6)


def test_vectors_may_be_strided_or_expanded_and_rows_may_be_none() -> None:
    x, weight = torch.randn(5, 12), torch.randn(20, 12)
    for bias in (torch.randn(20, 3)[:, 1], torch.randn(1).expand(20)):
        assert torch.allclose(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias), atol=1e-5)
    ones = torch.ones(1).expand(12)
    assert layer_norm(x[:0], ones).shape == (0, 12)
    assert norm_linear(x[:0], ones, None, weight).shape == (0, 20)
    with pytest.raises(ValueError, match="channels > 0"):
        layer_norm(x[:, :0], ones[:0])


def test_no_module_takes_the_name_of_a_function() -> None:
    """Importing a module binds its name in its package: a function of that name would be gone."""
    for package in ("block", "cross_scan", "selective_scan", "ss2d"):
        found = import_module(f"vlmprof.kernels.{package}")
        modules = {module.name for module in pkgutil.iter_modules(found.__path__)}
        functions = {name for name, value in vars(found).items() if callable(value)}
        assert modules & functions == set()


def test_a_sweep_offers_every_backend_and_no_other() -> None:
    """The sweep's list is loaded without torch, which this one needs."""
    parse = AXES["kernel_backend"].parse
    assert [parse(backend) for backend in BACKENDS] == list(BACKENDS)
    with pytest.raises(UserError) as refused:
        parse("cuda")
    assert ", ".join(BACKENDS) in str(refused.value).replace(" or ", ", ")


ROWS, MATRIX, VECTOR, IMAGE = (3, 4), (4, 4), (4,), (1, 5, 5, 4)
BLOCK: dict[Operation, dict[str, tuple[int, ...]]] = {
    norm_linear: {
        "x": ROWS, "norm_weight": VECTOR, "norm_bias": VECTOR,
        "weight": MATRIX, "bias": VECTOR, "residual": ROWS,
    },
    linear: {"x": ROWS, "weight": MATRIX, "bias": VECTOR, "residual": ROWS},
    norm_mlp: {
        "x": ROWS, "norm_weight": VECTOR, "norm_bias": VECTOR,
        "fc1_weight": MATRIX, "fc1_bias": VECTOR, "fc2_weight": MATRIX, "fc2_bias": VECTOR,
    },
    layer_norm: {"x": ROWS, "weight": VECTOR, "bias": VECTOR, "input_bias": VECTOR},
    depthwise_conv_silu: {"x": IMAGE, "weight": (4, 1, 3, 3), "bias": VECTOR},
    convolution_norm: {
        "x": IMAGE, "filters": (4, 4, 3, 3), "weight": VECTOR, "bias": VECTOR, "input_bias": VECTOR
    },
}  # fmt: skip
"""The tensors of each operation, with shapes."""


def block_arguments(operation: Operation) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in BLOCK[operation].items()}


@pytest.mark.parametrize("operation", BLOCK, ids=lambda operation: operation.__name__)
def test_each_tensor_of_the_wrong_kind_is_named(operation: Operation) -> None:
    """An 8-bit weight without its scale and a norm without its weight would be wrong in silence."""
    given = block_arguments(operation)
    operation(**given)
    for name, tensor in given.items():
        dtypes = (torch.int8, torch.complex64)
        wrong: list[object] = [*map(tensor.to, dtypes), tensor.tolist(), tensor.to_sparse()]
        if name == "x" or name.endswith("weight") or operation is norm_mlp:
            wrong.append(None)
        for value in wrong:
            with pytest.raises(TypeError, match=f"^{operation.__name__}: {name} must be [^\n]*got [^\n]*$"):
                operation(**{**given, name: value})
        with pytest.raises(ValueError, match=r"is on (cpu|meta), the input is on (cpu|meta)$"):
            operation(**{**given, name: tensor.to("meta")})


@pytest.mark.parametrize("operation", BLOCK, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_parameters_of_any_dtype_are_taken_and_the_result_is_in_that_of_x(
    operation: Operation, backend: str
) -> None:
    given = block_arguments(operation)
    expected = operation(**given, backend="reference").detach()
    dtypes = (torch.float64, torch.bfloat16, torch.float32)
    for turn in range(3):
        mixed = {name: tensor.to(dtypes[(turn + i) % 3]) for i, (name, tensor) in enumerate(given.items())}
        mixed["x"] = given["x"].bfloat16().requires_grad_()
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                y = operation(**mixed, backend=backend)
            assert y.dtype == torch.bfloat16
            assert torch.allclose(y.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))


def test_forward_mode_derivatives_are_right_or_refused() -> None:
    """The tangents of operators that autograd does not know are zero."""
    for operation in BLOCK:
        given = block_arguments(operation)
        call = lambda x, operation=operation, given=given: operation(**{**given, "x": x})  # noqa: E731
        given["x"].requires_grad_()
        direction, weights = torch.randn_like(given["x"]), torch.randn_like(call(given["x"]))
        (backward,) = torch.autograd.grad((call(given["x"]) * weights).sum(), given["x"])
        forward = torch.func.jvp(call, (given["x"].detach(),), (direction,))[1]
        assert torch.allclose((forward * weights).sum(), (backward * direction).sum(), rtol=1e-3, atol=1e-4)
    x, *parameters = drawn(3, 4, 6)
    with pytest.raises(RuntimeError, match="ss2d: backend 'torch' is inference only"), torch.no_grad():
        torch.func.jvp(lambda x: ss2d(x, *parameters), (x,), (x,))
    tangent = torch.func.jvp(lambda x: ss2d(x, *parameters, backend="reference"), (x,), (x,))[1]
    assert tangent.abs().max() > 0
