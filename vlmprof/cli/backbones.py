"""`vlmprof backbones`: every encoder by name, and what is known of one without running it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(
    help="List the vision backbones, or show one.", invoke_without_command=True, no_args_is_help=False
)

DTYPES = ("bfloat16", "float16", "float32")

ResolutionOption = Annotated[
    str, typer.Option(help="Image size in pixels: 512, or 1333x800 (width x height).")
]


@app.callback()
def list_all(context: typer.Context, resolution: ResolutionOption = "512") -> None:
    """List every backbone: parameters, visual tokens at a resolution, and the extra that it needs."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from vlmprof.backbones import facts, names
    from vlmprof.fields import parse_resolution, resolution_size

    height, width = resolution_size(parse_resolution(resolution))
    table = Table()
    for heading in ("backbone", "parameters", f"tokens at {resolution}", "d_model", "sides", "extra"):
        table.add_column(heading, no_wrap=heading in ("backbone", "parameters"))
    for name in names():
        known = facts(name)
        given = known.padded(height, width)
        table.add_row(
            name,
            f"{known.parameters:,}" if known.parameters else "",
            f"{known.num_tokens(*given):,}"
            + ("" if given == (height, width) else f" ({given[1]}x{given[0]})"),
            str(known.embed_dim),
            f"from {known.min_size}" + (f", by {known.multiple}" if known.multiple > 1 else ""),
            known.extra or "",
        )
    # a table in a file or a pipe keeps its columns
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table)
    if any(not facts(name).accepts(height, width) for name in names()):
        console.print(
            "In brackets: what an image is padded to (--fit pad) where a backbone does not take it."
        )
    console.print("Also timm:NAME, hf:NAME-or-path, and module:function for one in a file of your own.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A backbone's name.")],
    resolution: ResolutionOption = "512",
    level: Annotated[int, typer.Option(help="The feature level that is tapped.")] = 3,
    levels: Annotated[str, typer.Option(help="through-tap or all.")] = "through-tap",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
) -> None:
    """Show one backbone: its sizes, its levels' shapes, FLOPs and bytes, counted without running it."""
    from vlmprof.activity import say

    say("loading torch")
    import torch
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from vlmprof.backbones import create_backbone, facts
    from vlmprof.cost.dispatch_counter import count_module
    from vlmprof.errors import unknown
    from vlmprof.fields import parse_resolution, resolution_size
    from vlmprof.units import show_bytes

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    asked = resolution_size(parse_resolution(resolution))
    known = facts(name, level)
    size = known.padded(*asked)
    encoder = create_backbone(
        name, level=level, levels=levels, kernels="triton", image_size=size, device="meta",
        dtype=getattr(torch, dtype),
    )  # fmt: skip
    cost = count_module(encoder, torch.empty(1, 3, *size, device="meta", dtype=getattr(torch, dtype)))
    built = sum(parameter.numel() for parameter in encoder.parameters())

    tap = f"level {known.level} of {len(known.level_dims)}, {levels}" if known.level else "the last layer"

    rows = {
        "family": f"{known.family} {known.size}".strip(),
        "published parameters": f"{known.parameters:,}" if known.parameters else "unknown",
        "parameters built here": f"{built:,}",
        "official weights": known.pretrained or "none that can be loaded safely",
        "needs": f"pip install 'vlmprof[{known.extra}]'" if known.extra else "nothing more",
        "image": f"{size[1]} x {size[0]} pixels{'' if size == asked else ', padded'}, {dtype}",
        "tapped": tap,
        "visual tokens": f"{known.num_tokens(*size):,} of {known.embed_dim} channels, stride {known.stride}",
    }
    for i in range(1, len(known.level_dims) + 1):
        at_level = known.at_level(i)
        grid = " x ".join(map(str, at_level.grid(*size)))
        rows[f"level {i}"] = f"{at_level.embed_dim} channels x {grid}"
    rows |= {
        "FLOPs": f"{cost.flops / 1e9:,.2f} GFLOP (1 MAC = 2 FLOPs)",
        "weights": show_bytes(cost.weight_bytes),
        "least traffic": f"{show_bytes(cost.least_bytes)} (weights and images in, tokens out)",
        "peak activations": show_bytes(cost.peak_activation_bytes),
    }
    table = Table("", Column(escape(name), overflow="fold"))
    for title, words in rows.items():
        table.add_row(title, escape(words))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
