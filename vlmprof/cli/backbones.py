"""`vlmprof backbones`: list the encoders, or describe one without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmprof.cli.tables import SaveOption, show_sheet

app = typer.Typer(
    help="List the vision backbones, or show one.", invoke_without_command=True, no_args_is_help=False
)

DTYPES = ("bfloat16", "float16", "float32")

ResolutionOption = Annotated[
    str, typer.Option(help="Image size in pixels: 512, or 1333x800 for width by height.")
]


@app.callback()
def list_all(
    context: typer.Context, resolution: ResolutionOption = "512", save_tables: SaveOption = None
) -> None:
    """List the backbones with their parameters, visual tokens at a resolution, and required extra."""
    if context.invoked_subcommand is not None:
        return
    from vlmprof.backbones import facts, names
    from vlmprof.fields import parse_resolution, resolution_size
    from vlmprof.render.tables.backbones import backbones_sheet

    size = resolution_size(parse_resolution(resolution))
    show_sheet(backbones_sheet([facts(name) for name in names()], resolution, *size), save_tables)
    print("Also accepted: timm:NAME, hf:NAME, hf:PATH, and module:function for your own backbone.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A backbone's name.")],
    resolution: ResolutionOption = "512",
    level: Annotated[int, typer.Option(help="Feature level that feeds the LLM.")] = 3,
    levels: Annotated[str, typer.Option(help="Levels to run: through-tap or all.")] = "through-tap",
    dtype: Annotated[str, typer.Option(help="Data type: bfloat16, float16 or float32.")] = "bfloat16",
) -> None:
    """Show a backbone's sizes, feature level shapes, FLOPs and bytes, counted without running it."""
    from vlmprof.activity import say

    say("loading torch")
    import torch

    from vlmprof.backbones import create_backbone, facts, names
    from vlmprof.backbones.dry_run import reason
    from vlmprof.cost.dispatch_counter import count_call
    from vlmprof.errors import UserError, unknown
    from vlmprof.fields import parse_resolution, resolution_size
    from vlmprof.render.tables.backbones import Built, backbone_sheet

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    asked = resolution_size(parse_resolution(resolution))
    known = facts(name, level)
    size = known.padded(*asked)
    given_dtype = getattr(torch, dtype)
    image = torch.empty(1, 3, *size, device="meta", dtype=given_dtype)
    task = "be built"
    try:
        encoder = create_backbone(
            name, level=level, levels=levels, kernels="triton", image_size=size, device="meta",
            dtype=given_dtype,
        )  # fmt: skip
        task = f"encode {size[1]}x{size[0]}"
        cost, tokens = count_call(encoder, image)
    except UserError:
        raise
    except Exception as problem:
        if name in names():
            raise
        raise UserError(f"backbone {name!r} cannot {task} ({reason(problem)})") from problem
    known.check_output(tuple(tokens.shape), 1, *size)
    built = Built(
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        levels=encoder.backends.get("levels", levels),
        dtype=dtype,
        height_px=size[0],
        width_px=size[1],
        padded=size != asked,
        cost=cost,
    )
    show_sheet(backbone_sheet(known, built))
