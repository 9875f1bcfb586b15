"""Every Triton kernel with the constants and argument types of its launches in VMamba and MambaVision.

For compiling without a GPU (`inspect`), with the same constants and pointer alignment as in a launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vlmprof.kernels.common.backends import FOUR_WARPS

LEVELS = ((192, 6), (384, 12), (768, 24), (1536, 48), (256, 8), (512, 16), (1024, 32), (2048, 64))
"""d_inner and dt_rank of the levels of VMamba-T and -S, then of VMamba-B."""

ELEMENT_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Launch:
    """One kernel with the constants and argument types of one launch."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, Any]
    unaligned: frozenset[str] = frozenset()
    single_state: bool = False
    """Whether it is a d_state 1 kernel of ss2d, which must not spill."""
    count_loop: bool = False
    """Whether its loops have a single path, so that their length is meaningful."""


def argument_types(kernel: Any, element: str, wide: Sequence[str] = ()) -> dict[str, str]:
    """Return the types of a kernel's arguments by name: pointers to `element`, or to float32 if `wide`."""
    pointers = {name: "*" + element for name in kernel.arg_names if name.endswith("_ptr")}
    numbers = dict.fromkeys(kernel.arg_names, "i32") | {"eps": "fp32"}
    return numbers | pointers | dict.fromkeys(wide, "*fp32")


def ss2d_launches(
    d_inner: int, dt_rank: int, d_state: int = 1, dtype: torch.dtype = torch.bfloat16
) -> list[Launch]:
    """Return the kernels of `ss2d` for one level, without the carry."""
    from vlmprof.kernels.ss2d import many_states, tile
    from vlmprof.kernels.ss2d.fused import ELEMENTS, compile_options
    from vlmprof.kernels.ss2d.packing import block_shape
    from vlmprof.kernels.ss2d.single_state import output_kernel, summary_kernel
    from vlmprof.kernels.ss2d.steps import is_sliced

    element = ELEMENT_NAMES[dtype]
    word = "*i64" if dtype == torch.float32 else "*i32"
    wide = ("bias_ptr", "a_ptr", "skip_ptr", "sum_ptr", "decay_ptr", "end_ptr", "entering_ptr")
    words = {"x_ptr": word, "bc_ptr": word, "out_ptr": word, "y_ptr": "*i64", "passed_ptr": "*i64"}
    block, rank = block_shape(dt_rank, d_state, dtype)
    variant = tile.Variant(d_inner, block, d_state, rank, ELEMENTS[dtype])
    where = f"d{d_inner} r{dt_rank} n{d_state} {element}"
    unaligned = frozenset(tile.UNALIGNED)

    def launch(name: str, kernel: Any, count: bool = False, **constants: Any) -> Launch:
        types = argument_types(kernel, element, wide) | words
        return Launch(
            f"ss2d.{name} {where}", kernel, types, constants, compile_options(kernel, **constants), unaligned,
            single_state=d_state == 1, count_loop=count,
        )  # fmt: skip

    if d_state > 1:
        return [
            launch("summary k1", many_states.summary_kernel, K=1, V=variant),
            launch("output k1", many_states.output_kernel, K=1, V=variant),
        ]
    # the loop over slices is a separate loop
    countable = not is_sliced(rank, ELEMENTS[dtype])
    launches = []
    for cut, edges in ((variant, ", edges"), (replace(variant, EDGES=False), "")):
        count = countable and not cut.EDGES
        launches += [
            launch(f"summary{edges}", summary_kernel, count, V=cut),
            launch(f"output rows{edges}", output_kernel, count, COLUMNS=0, V=cut),
            launch(f"output columns{edges}", output_kernel, count, COLUMNS=1, V=cut),
        ]
    return launches


def selective_scan_launches(d_state: int, dtype: torch.dtype) -> list[Launch]:
    """Return both passes of `selective_scan`."""
    from vlmprof.kernels.selective_scan import fused

    element = ELEMENT_NAMES[dtype]
    wide = ("a_ptr", "skip_ptr", "bias_ptr", "sum_ptr", "state_ptr")
    kernel, variant = fused.scan_kernel, fused.Variant(d_state, SOFTPLUS=True)
    types = argument_types(kernel, element, wide)
    return [
        Launch(f"selective_scan.{name} n{d_state} {element}", kernel, types, constants, FOUR_WARPS)
        for name, constants in (
            ("summary", {"OUTPUT": False, "V": variant}),
            ("output", {"OUTPUT": True, "V": variant}),
        )
    ]


def carry_launches(d_state: int) -> list[Launch]:
    """Return the carry kernels of `selective_scan` and `ss2d`, which run in float32 for every input."""
    from vlmprof.kernels.selective_scan import fused
    from vlmprof.kernels.ss2d import carry

    carried = {"N": d_state, "CHUNKS": fused.CHUNKS, "ELEMENTS": fused.ELEMENTS}
    return [
        Launch(f"{name}.carry n{d_state}", kernel, argument_types(kernel, "fp32"), constants, FOUR_WARPS)
        for name, kernel, constants in (
            ("selective_scan", fused.carry_kernel, carried),
            ("ss2d", carry.carry_kernel, carried | {"D": 192}),
        )
    ]


def block_launches(d_model: int, dtype: torch.dtype) -> list[Launch]:
    """Return norm, projection, convolution, MLP, cross-scan and cross-merge of a block; the stem's norm."""
    from vlmprof.kernels.block import fused_depthwise as depthwise
    from vlmprof.kernels.block import fused_norm as norm
    from vlmprof.kernels.block import fused_stem as stem
    from vlmprof.kernels.block.fused_linear import kernel_for
    from vlmprof.kernels.block.linear_kernels import Variant
    from vlmprof.kernels.block.linear_tiles import KEPT, KEPT_FEW, LARGE, SMALL, WIDE, Tile
    from vlmprof.kernels.cross_scan import fused as cross

    element = ELEMENT_NAMES[dtype]
    where = f"d{d_model} {element}"

    def launch(name: str, kernel: Any, options: Mapping[str, Any] = FOUR_WARPS, **constants: Any) -> Launch:
        types = argument_types(kernel, element, ("sum_ptr", "offset_ptr"))
        return Launch(name, kernel, types, constants, options)

    def product(tile: Tile, name: str, width_in: int, width_out: int, **more: Any) -> Launch:
        variant = Variant(width_in, width_out, PRECISE=element == "fp32", **({"FOLDED": True} | more))
        kernel, constants = kernel_for(tile, variant)
        return launch(f"{name}, {tile.label()} {where}", kernel, tile.options(), **constants)

    normed = {"NORM": True}
    products: list[tuple[str, int, int, dict[str, Any]]] = [
        ("norm_linear", d_model, 2 * d_model, normed),
        ("norm_linear, few rows", d_model, 2 * d_model, normed | {"FOLDED": False}),
        ("norm_linear, GELU", d_model, 4 * d_model, normed | {"ACTIVATION": "gelu"}),
        ("norm_linear, residual", 2 * d_model, d_model, normed | {"RESIDUAL": True}),
        ("linear, residual", 4 * d_model, d_model, {"RESIDUAL": True}),
    ]
    rows = norm.variant_for(d_model // 2, dtype.itemsize, True, True, "gelu")
    image = stem.variant_for(dtype, 3, d_model // 2, 3, 2, 1, True, True, "gelu")
    filters = depthwise.variant_for(2 * d_model, 3, True)
    kept, stepped = ((), (WIDE,)) if element == "fp32" else ((KEPT, KEPT_FEW), (SMALL, LARGE))
    return [
        *(product(tile, name, k, m, **more) for tile in kept for name, k, m, more in products),
        # those of a deeper level, whose rows are too long to keep
        *(product(tile, name, 8 * k, 8 * m, **more) for tile in stepped for name, k, m, more in products[1:]),
        launch(f"layer_norm, GELU {where}", norm.norm_kernel, V=rows),
        launch(f"convolution_norm, GELU {where}", stem.stem_kernel, V=image),
        launch(f"depthwise_conv_silu {where}", depthwise.depthwise_conv_silu_kernel, V=filters),
        launch(f"cross_scan {element}", cross.cross_scan_kernel, TILE=cross.TILE),
        launch(f"cross_merge {element}", cross.cross_merge_kernel, TILE=cross.TILE),
    ]


def mlp_launches(channels: int, dtype: torch.dtype) -> list[Launch]:
    """Return the MLP in one kernel with every candidate tile; none in float32."""
    from vlmprof.kernels.block.fused_mlp import MlpVariant, mlp_kernel
    from vlmprof.kernels.block.mlp_tiles import CANDIDATES, PIECES

    if dtype == torch.float32:
        return []
    element = ELEMENT_NAMES[dtype]
    types = argument_types(mlp_kernel, element)
    variant = MlpVariant(*PIECES[channels], 4 * channels)
    return [
        Launch(f"norm_mlp {tile.rows}x{tile.hidden}, {tile.stages} stages, d{channels} {element}", mlp_kernel,
               types, {"V": variant, "TILE": tile}, tile.options())
        for tile in CANDIDATES[channels]
    ]  # fmt: skip


def all_launches() -> Iterator[Launch]:
    """Yield SS2D at all levels in bfloat16, at the first level in the other dtypes and with d_state 16, and
    at the widest level in float32; then every other kernel in every dtype."""
    for d_inner, dt_rank in LEVELS:
        yield from ss2d_launches(d_inner, dt_rank)
    for dtype in (torch.float16, torch.float32):
        yield from ss2d_launches(*LEVELS[0], dtype=dtype)
    yield from ss2d_launches(*LEVELS[-1], dtype=torch.float32)
    yield from ss2d_launches(*LEVELS[0], d_state=16)
    for d_state in (1, 8, 16):
        yield from carry_launches(d_state)
    for dtype in ELEMENT_NAMES:
        for d_state in (1, 8, 16):
            yield from selective_scan_launches(d_state, dtype)
        yield from block_launches(LEVELS[0][0] // 2, dtype)
        for channels in (96, 128, 192, 256):
            yield from mlp_launches(channels, dtype)
