"""Every Triton kernel with the constants and argument types of its launches in VMamba and MambaVision.

For compiling without a GPU (`inspect`), with the same constants and pointer alignment as in a launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    types = dict.fromkeys(
        ("bias_ptr", "a_ptr", "skip_ptr", "sum_ptr", "decay_ptr", "end_ptr", "entering_ptr"), "*fp32"
    )
    types |= dict.fromkeys(("p_ptr", "weight_ptr"), "*" + element)
    types |= {"x_ptr": word, "bc_ptr": word, "out_ptr": word, "y_ptr": "*i64", "passed_ptr": "*i64"}
    types |= dict.fromkeys(tile.SIZES, "i32")
    block, rank = block_shape(dt_rank, d_state, dtype)
    variant = tile.Variant(d_inner, block, d_state, rank, ELEMENTS[dtype])
    where = f"d{d_inner} r{dt_rank} n{d_state} {element}"
    unaligned = frozenset(tile.UNALIGNED)

    def launch(name: str, kernel: Any, count: bool = False, **constants: Any) -> Launch:
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
    for edges, where_used in ((True, ", edges"), (False, "")):
        count = countable and not edges
        cut = replace(variant, EDGES=edges)
        launches.append(launch(f"summary{where_used}", summary_kernel, count, V=cut))
        for columns, name in enumerate(("rows", "columns")):
            launches.append(
                launch(f"output {name}{where_used}", output_kernel, count, COLUMNS=columns, V=cut)
            )
    return launches


def selective_scan_launches(d_state: int, dtype: torch.dtype) -> list[Launch]:
    """Return both passes of `selective_scan`."""
    from vlmprof.kernels.selective_scan import fused

    element = ELEMENT_NAMES[dtype]
    types = dict.fromkeys(("u_ptr", "delta_ptr", "b_ptr", "c_ptr", "y_ptr"), "*" + element)
    wide = ("a_ptr", "skip_ptr", "bias_ptr", "sum_ptr", "state_ptr", "end_ptr", "entering_ptr")
    types |= dict.fromkeys(wide, "*fp32") | dict.fromkeys(("length", "chunks", "d_inner", "groups"), "i32")
    variant = fused.Variant(d_state, SOFTPLUS=True)
    where = f"n{d_state} {element}"
    return [
        Launch(f"selective_scan.{name} {where}", fused.scan_kernel, types,
               {"OUTPUT": output, "V": variant}, FOUR_WARPS)
        for name, output in (("summary", False), ("output", True))
    ]  # fmt: skip


def carry_launches(d_state: int) -> list[Launch]:
    """Return the carry kernels of `selective_scan` and `ss2d`, which run in float32 for every input."""
    from vlmprof.kernels.selective_scan import fused
    from vlmprof.kernels.ss2d import carry

    types = dict.fromkeys(("a_ptr", "sum_ptr", "state_ptr", "end_ptr", "entering_ptr"), "*fp32")
    types |= dict.fromkeys(("chunks", "d_inner"), "i32")
    carried = {"N": d_state, "CHUNKS": fused.CHUNKS, "ELEMENTS": fused.ELEMENTS}
    return [
        Launch(f"selective_scan.carry n{d_state}", fused.carry_kernel, types, carried, FOUR_WARPS),
        Launch(f"ss2d.carry n{d_state}", carry.carry_kernel, types, carried | {"D": 192}, FOUR_WARPS),
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
    names = ("x", "y", "xs", "ys", "weight", "bias", "input_bias", "filter", "norm_weight", "residual")
    types = {f"{name}_ptr": "*" + element for name in names} | {"sum_ptr": "*fp32", "offset_ptr": "*fp32"}
    types |= dict.fromkeys(("rows", "blocks", "columns", "channels", "height", "width"), "i32") | {
        "eps": "fp32"
    }
    where = f"d{d_model} {element}"

    def product(tile: Tile, name: str, width_in: int, width_out: int, **more: Any) -> Launch:
        variant = Variant(width_in, width_out, PRECISE=element == "fp32", **({"FOLDED": True} | more))
        kernel, constants = kernel_for(tile, variant)
        return Launch(f"{name}, {tile.label()} {where}", kernel, types, constants, tile.options())

    convolution = {"V": depthwise.variant_for(2 * d_model, 3, True)}
    convolve, tile = depthwise.depthwise_conv_silu_kernel, {"TILE": cross.TILE}
    normed = {"NORM": True}
    products: list[tuple[str, int, int, dict[str, Any]]] = [
        ("norm_linear", d_model, 2 * d_model, normed),
        ("norm_linear, few rows", d_model, 2 * d_model, normed | {"FOLDED": False}),
        ("norm_linear, GELU", d_model, 4 * d_model, normed | {"ACTIVATION": "gelu"}),
        ("norm_linear, residual", 2 * d_model, d_model, normed | {"RESIDUAL": True}),
        ("linear, residual", 4 * d_model, d_model, {"RESIDUAL": True}),
    ]
    rows = {"V": norm.variant_for(d_model // 2, dtype.itemsize, norm.DEFAULT, True, True, "gelu")}
    image = {"V": stem.variant_for(dtype, 3, d_model // 2, 3, 2, 1, True, True, "gelu")}
    kept, stepped = ((), (WIDE,)) if element == "fp32" else ((KEPT, KEPT_FEW), (SMALL, LARGE))
    return [
        *(product(tile, name, k, m, **more) for tile in kept for name, k, m, more in products),
        # those of a deeper level, whose rows are too long to keep
        *(product(tile, name, 8 * k, 8 * m, **more) for tile in stepped for name, k, m, more in products[1:]),
        Launch(f"layer_norm, GELU {where}", norm.norm_kernel, types, rows, norm.DEFAULT.options()),
        Launch(f"convolution_norm, GELU {where}", stem.stem_kernel, types, image, FOUR_WARPS),
        Launch(f"depthwise_conv_silu {where}", convolve, types, convolution, FOUR_WARPS),
        Launch(f"cross_scan {element}", cross.cross_scan_kernel, types, tile, FOUR_WARPS),
        Launch(f"cross_merge {element}", cross.cross_merge_kernel, types, tile, FOUR_WARPS),
    ]


def mlp_launches(channels: int, dtype: torch.dtype) -> list[Launch]:
    """Return the MLP in one kernel with every candidate tile; none in float32."""
    from vlmprof.kernels.block.fused_mlp import MlpVariant, mlp_kernel
    from vlmprof.kernels.block.mlp_tiles import CANDIDATES, PIECES

    if dtype == torch.float32:
        return []
    element = ELEMENT_NAMES[dtype]
    types = {name: "*" + element for name in mlp_kernel.arg_names if name.endswith("_ptr")}
    types |= {"rows": "i32", "eps": "fp32"}
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
