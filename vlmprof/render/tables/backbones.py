"""Tables of backbones: a list of all, and the details of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    tokens = [
        f"{facts.num_tokens(*size):,}" + ("" if size == (height_px, width_px) else f" ({size[1]}x{size[0]})")
        for facts, size in zip(known, given, strict=True)
    ]
    padded = "In brackets: the padded size (--fit pad) if a backbone does not accept the resolution."
    all_take_it = all(facts.accepts(height_px, width_px) for facts in known)
    return Sheet("backbones", "Backbones", "" if all_take_it else padded, [
        Column("backbone", Kind.TEXT, [facts.name for facts in known]),
        Column("parameters", Kind.COUNT, [facts.parameters or None for facts in known]),
        Column(f"tokens at {resolution}", Kind.TEXT, tokens),
        Column("d_model", Kind.TEXT, [str(facts.embed_dim) for facts in known], 1),
        Column("sides", Kind.TEXT, [_sides(facts) for facts in known], 2),
        Column("extra", Kind.TEXT, [facts.extra or "" for facts in known], 1),
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


def _sides(facts: BackboneFacts) -> str:
    return f"from {facts.min_size}" + (f", by {facts.multiple}" if facts.multiple > 1 else "")
