"""`vlmprof backbones`: list the encoders, or describe some without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from vlmprof.cli.json_output import json_option, tell
from vlmprof.cli.tables import SaveOption, show_sheet


@json_option("backbones", tables="backbones, or backbone for those named")
def backbones(
    names: Annotated[
        list[str] | None, typer.Argument(help="Backbones to describe (default: list all).", metavar="NAME")
    ] = None,
    resolution: Annotated[
        str, typer.Option(help="Image size in pixels: 512, or 1333x800 for width by height.")
    ] = "512",
    level: Annotated[
        int | None, typer.Option(help="Of those named: feature level that feeds the LLM (default: 3).")
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help="Of those named: levels to run, through-tap (default) or all.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of those named: data type, bfloat16 (default), float16 or float32."),
    ] = None,
    save_tables: SaveOption = None,
) -> None:
    """List the vision backbones, or describe those named: sizes, feature levels, FLOPs and bytes.

    Nothing runs: FLOPs and bytes are counted on tensors without data.
    """
    from vlmprof.backbones.facts import DEFAULT_LEVEL
    from vlmprof.errors import UserError

    # as the command was called when it had a subcommand of that name
    named = (names or [])[1:] if names and names[0] == "show" else names or []
    if named:
        tapped = DEFAULT_LEVEL if level is None else level
        for name in named:
            _describe(name, resolution, tapped, levels or "through-tap", dtype or "bfloat16", save_tables)
        return
    if names:
        raise UserError("backbones show needs the name of a backbone")
    for option, value in (("--level", level), ("--levels", levels), ("--dtype", dtype)):
        if value is not None:
            raise UserError(f"{option} needs the name of a backbone")
    _list(resolution, save_tables)


def _list(resolution: str, save_tables: Path | None) -> None:
    from vlmprof.backbones import facts, names
    from vlmprof.fields import parse_resolution, resolution_size
    from vlmprof.render.tables.backbones import backbones_sheet

    size = resolution_size(parse_resolution(resolution))
    show_sheet(backbones_sheet([facts(name) for name in names()], resolution, *size), save_tables)
    tell("Also accepted: timm:NAME, hf:NAME, hf:PATH, and module:function for your own backbone.")


def _describe(
    name: str, resolution: str, level: int, levels: str, dtype: str, save_tables: Path | None
) -> None:
    from vlmprof.activity import say
    from vlmprof.errors import UserError, check_known
    from vlmprof.fields import parse_resolution, resolution_size
    from vlmprof.settings import Dtype

    check_known("dtype", [dtype], get_args(Dtype))
    asked = resolution_size(parse_resolution(resolution))
    say("loading torch")
    import torch

    from vlmprof.backbones import create_backbone, facts, names
    from vlmprof.backbones.dry_run import reason
    from vlmprof.cost.dispatch_counter import count_call
    from vlmprof.render.tables.backbones import Built, backbone_row, backbone_sheet

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
    show_sheet(backbone_sheet(known, built), save_tables, rows=[backbone_row(known, built)])
