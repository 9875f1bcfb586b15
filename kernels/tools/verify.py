"""Every operation against its float64 reference, on every backend that runs here.

A backend passes when its error is at most `MULTIPLE` times the error that the plain code makes in the
same dtype, where an error below an eighth of the dtype's epsilon counts as that eighth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlmprof.kernels.block import depthwise_conv_silu, linear, norm_linear
from vlmprof.kernels.common.backends import triton_interpreted, why_not_triton
from vlmprof.kernels.common.checks import first_line
from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d

MULTIPLE = 4.0

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One operation and what it is given: `arguments` in the dtype under test, `options` as they are."""

    op: str
    name: str
    function: Callable[..., Tensor]
    arguments: tuple[Tensor | None, ...]
    options: dict[str, object]

    def on(self, device: torch.device) -> Case:
        """The same with its tensors on `device`."""

        def moved(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        arguments = tuple(moved(argument) for argument in self.arguments)
        return replace(self, arguments=arguments, options={k: moved(v) for k, v in self.options.items()})


@dataclass(frozen=True)
class Comparison:
    """One backend to be run on one case, whose tensors are still on the CPU."""

    case: Case
    dtype: torch.dtype
    backend: str

    def labels(self) -> dict[str, str]:
        """The labels of its row."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"op": self.case.op, "case": self.case.name, "dtype": dtype, "backend": self.backend}

    def verdict(self, device: torch.device) -> Verdict:
        """Run it on `device`. Raises whatever the backend raises."""
        return verify_case(self.case.on(device), self.dtype, self.backend)


@dataclass(frozen=True)
class Verdict:
    """One backend on one case. Errors are ‖y − y64‖ / ‖y64‖ with y64 from float64."""

    op: str
    case: str
    dtype: str
    backend: str
    relative_error: float
    plain_relative_error: float
    limit: float
    deterministic: bool | None
    """Two runs agree bit for bit; None when there was one."""
    failure: str | None = None
    """What the backend raised, if it did; the errors are NaN then."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit, and two runs did not differ. NaN does not pass."""
        return self.deterministic is not False and self.relative_error <= self.limit


def available_backends(device: torch.device) -> list[str]:
    """The fast backends that run on `device`."""
    return ["torch"] if why_not_triton(device) else ["torch", "triton"]


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
    """SS2D on x (batch, height, width, d_inner) with parameters as VMamba initialises them.

    With `dt_offset`, steps before softplus are ± that, whatever the input; `strided` makes x a view
    whose channels are not neighbours.
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
    """A selective scan of u (batch, d_inner, L) with every optional argument."""
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


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Square, odd, prime, a row, a column, longer than a chunk, extreme steps, strided, batched.

    Each is about as small as can show its fault, since Triton's interpreter takes seconds for a few tiles.
    """
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
    """Several chunks and channel blocks: quick everywhere but in the interpreter."""
    yield ss2d_case("37 × 41", (1, 37, 41, 10), 3, 1, dtype, device)
    yield ss2d_case("23 × 5, batch 3, odd channels", (3, 23, 5, 131), 6, 1, dtype, device)
    yield ss2d_case("32 × 21, rank 24", (1, 32, 21, 70), 24, 1, dtype, device)
    yield ss2d_case("one row of 331", (1, 1, 331, 8), 2, 1, dtype, device)
    yield ss2d_case("19 × 29, steps of ±50", (1, 19, 29, 8), 2, 1, dtype, device, dt_offset=50.0)
    yield ss2d_case("13 × 17, d_state 16", (1, 13, 17, 12), 2, 16, dtype, device)
    yield selective_scan_case("1031 steps, d_state 16", (1, 6, 1031), 2, 16, dtype, device)


def large_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """VMamba's levels, for a GPU."""
    for level, (d_inner, dt_rank) in enumerate(((192, 6), (384, 12), (768, 24), (1536, 48))):
        side = 96 >> level
        yield ss2d_case(f"level {level + 1}", (2, side, side, d_inner), dt_rank, 1, dtype, device)
    yield ss2d_case("VMamba-B, level 3", (2, 24, 24, 1024), 32, 1, dtype, device)
    yield ss2d_case("97 × 131", (1, 97, 131, 192), 6, 1, dtype, device)
    yield ss2d_case("56 × 56, d_state 16", (1, 56, 56, 192), 6, 16, dtype, device)
    yield selective_scan_case("VMamba level 1", (1, 768, 3136), 4, 1, dtype, device)
    yield linear_case("20001 rows, large tiles", 20001, 200, 300, dtype, device)


def linear_case(
    name: str, rows: int, width_in: int, width_out: int, dtype: torch.dtype, device: torch.device
) -> Case:
    """A layer norm and a projection of x (rows, width_in) whose mean is far from zero, with all options
    but the activation."""
    draw = _drawing(name, device)
    x = (draw(rows, width_in) + 2.0).to(dtype)
    weight = (draw(width_out, width_in) * width_in**-0.5).to(dtype)
    arguments = (x, 1.0 + 0.1 * draw(width_in), draw(width_in), weight, draw(width_out))
    return Case("norm_linear", name, norm_linear, arguments, {"residual": draw(rows, width_out).to(dtype)})


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
    convolution = (draw(2, 5, 35, 20).to(dtype), draw(20, 1, 3, 3).to(dtype) / 3.0, draw(20))
    yield Case("depthwise_conv_silu", "3 × 3", depthwise_conv_silu, convolution, {})


def verify_case(case: Case, dtype: torch.dtype, backend: str, twice: bool = True) -> Verdict:
    """Run one backend, `twice` or once, on one case and compare it with float64 and with the plain code."""
    with torch.inference_mode():
        truth = _run(case, "reference", torch.float64)
        plain = _error(_plain(case), truth)
        first = _run(case, backend)
        repeats = torch.equal(first, _run(case, backend)) if twice else None
    floor = torch.finfo(dtype).eps / 8
    return Verdict(
        op=case.op,
        case=case.name,
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        relative_error=_error(first, truth),
        plain_relative_error=plain,
        limit=MULTIPLE * max(plain, floor),
        deterministic=repeats,
    )


def comparisons(
    device: torch.device, backends: Sequence[str], dtypes: Sequence[torch.dtype], op: str | None = None
) -> Iterator[Comparison]:
    """Each case with each dtype and backend, of one operation or of all: small ones in the interpreter, all
    of them on a GPU."""
    sizes = [cases]
    if not ("triton" in backends and triton_interpreted()):
        sizes.append(medium_cases)
    if device.type == "cuda":
        sizes.append(large_cases)
    for dtype in dtypes:
        for make in sizes:
            for case in make(dtype, torch.device("cpu")):
                if op in (None, case.op):
                    yield from (Comparison(case, dtype, backend) for backend in backends)


def verify(device: torch.device, backends: list[str], dtypes: tuple[torch.dtype, ...]) -> Iterator[Verdict]:
    """A verdict for each comparison. What a backend raises is its verdict."""
    for comparison in comparisons(device, backends, dtypes):
        try:
            yield comparison.verdict(device)
        except Exception as error:  # a kernel that cannot run must not hide what others do
            message = f"{type(error).__name__}: {first_line(error)}"
            yield Verdict(
                **comparison.labels(), relative_error=math.nan, plain_relative_error=math.nan,
                limit=math.nan, deterministic=None, failure=message,
            )  # fmt: skip


def _plain(case: Case) -> Tensor:
    """The plain code in the kernel's own dtype: the block's is the `torch` backend, others' the reference."""
    return _run(case, "torch" if case.op in ("linear", "norm_linear", "depthwise_conv_silu") else "reference")


def _run(case: Case, backend: str, dtype: torch.dtype | None = None) -> Tensor:
    def cast(value: object) -> object:
        return value.to(dtype) if dtype is not None and isinstance(value, Tensor) else value

    arguments = [cast(a) for a in case.arguments]
    options = {name: cast(value) for name, value in case.options.items()}
    return case.function(*arguments, **options, backend=backend)


def _error(y: Tensor, truth: Tensor) -> float:
    size = truth.norm().item()
    error = (y.double() - truth).norm().item()
    return error / size if size else (0.0 if error == 0.0 else math.inf)


def _drawing(name: str, device: torch.device) -> Callable[..., Tensor]:
    """A source of normal numbers that is the same for the same name, whatever the device."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)
