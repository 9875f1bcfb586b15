"""Tables of backbones: a list of all, and the details of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmprof.backbones.facts import BackboneFacts
from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.units import show_bytes

if TYPE_CHECKING:
    from vlmprof.cost.costs import StageCost


@dataclass(frozen=True)
class Built:
    """A backbone built on the meta device, with its counted costs."""

    parameters: int
    levels: str
    """The feature levels that it computes: `through-tap` or `all`."""
    dtype: str
    height_px: int
    width_px: int
    padded: bool
    """Whether that is larger than the requested size."""
    cost: StageCost


def backbones_sheet(known: Sequence[BackboneFacts], resolution: str, height_px: int, width_px: int) -> Sheet:
    """List every backbone with its parameters, visual tokens at a resolution, and required extra."""
    given = [facts.padded(height_px, width_px) for facts in known]
    counts = [facts.num_tokens(*size) for facts, size in zip(known, given, strict=True)]
    tokens = [
        f"{count:,}" + ("" if size == (height_px, width_px) else f" ({size[1]}x{size[0]})")
        for count, size in zip(counts, given, strict=True)
    ]
    padded = "In brackets: the padded size (--fit pad) if a backbone does not accept the resolution."
    all_take_it = all(facts.accepts(height_px, width_px) for facts in known)
    return Sheet("backbones", "Backbones", "" if all_take_it else padded, [
        Column("backbone", Kind.TEXT, [facts.name for facts in known]),
        Column("parameters", Kind.COUNT, [facts.parameters or None for facts in known]),
        Column(f"tokens at {resolution}", Kind.TEXT, tokens, key="visual_tokens", raw=counts),
        Column("d_model", Kind.TEXT, [str(facts.embed_dim) for facts in known], 1,
               raw=[facts.embed_dim for facts in known]),
        Column("sides", Kind.TEXT, [_sides(facts) for facts in known], 2, key="accepted_size_px",
               raw=[{"least": facts.min_size, "multiple": facts.multiple} for facts in known]),
        Column("extra", Kind.TEXT, [facts.extra or "" for facts in known], 1,
               raw=[facts.extra for facts in known]),
    ])  # fmt: skip


def backbone_sheet(facts: BackboneFacts, built: Built) -> Sheet:
    """Describe one backbone: its sizes, the shapes of its levels, FLOPs and bytes."""
    size, cost = (built.height_px, built.width_px), built.cost
    tap = (
        f"level {facts.level} of {len(facts.level_dims)}, {built.levels}" if facts.level else "the last layer"
    )
    rows = {
        "family": f"{facts.family} {facts.size}".strip(),
        "published parameters": f"{facts.parameters:,}" if facts.parameters else "unknown",
        "parameters built here": f"{built.parameters:,}",
        "official weights": facts.pretrained or "none in a safe format",
        "requires": f"pip install 'vlmprof[{facts.extra}]'" if facts.extra else "nothing else",
        "image": f"{size[1]} x {size[0]} pixels{', padded' if built.padded else ''}, {built.dtype}",
        "tapped": tap,
        "visual tokens": f"{facts.num_tokens(*size):,} of {facts.embed_dim} channels, stride {facts.stride}",
    }
    for level in range(1, len(facts.level_dims) + 1):
        at_level = facts.at_level(level)
        grid = " x ".join(map(str, at_level.grid(*size)))
        rows[f"level {level}"] = f"{at_level.embed_dim} channels x {grid}"
    rows |= {
        "FLOPs": f"{cost.flops / 1e9:,.2f} GFLOP (1 MAC = 2 FLOPs)",
        "weights": show_bytes(cost.weight_bytes),
        "least traffic": f"{show_bytes(cost.least_bytes)} (weights and images in, tokens out)",
        "peak activations": show_bytes(cost.peak_activation_bytes),
    }
    return Sheet("backbone", facts.name, "", [
        Column("backbone", Kind.TEXT, list(rows)),
        Column(facts.name, Kind.TEXT, list(rows.values())),
    ])  # fmt: skip


def backbone_row(facts: BackboneFacts, built: Built) -> dict[str, Any]:
    """Return the same description for programs."""
    size = (built.height_px, built.width_px)
    levels = [facts.at_level(level) for level in range(1, len(facts.level_dims) + 1)]
    return {
        "backbone": facts.name,
        "family": facts.family,
        "size": facts.size,
        "published_parameters": facts.parameters,
        "parameters": built.parameters,
        "pretrained": facts.pretrained,
        "extra": facts.extra,
        "height_px": built.height_px,
        "width_px": built.width_px,
        "padded": built.padded,
        "dtype": built.dtype,
        "level": facts.level,
        "levels": built.levels,
        "visual_tokens": facts.num_tokens(*size),
        "d_model": facts.embed_dim,
        "stride_px": facts.stride,
        "level_shapes": [[level.embed_dim, *level.grid(*size)] for level in levels],
        "flops": built.cost.flops,
        "weight_bytes": built.cost.weight_bytes,
        "least_bytes": built.cost.least_bytes,
        "peak_activation_bytes": built.cost.peak_activation_bytes,
    }


def _sides(facts: BackboneFacts) -> str:
    return f"from {facts.min_size}" + (f", by {facts.multiple}" if facts.multiple > 1 else "")
