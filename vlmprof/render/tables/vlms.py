"""transformers' image-text-to-text types as a table: which run, which without the stage `decode`, and why."""

from __future__ import annotations

from collections.abc import Sequence

from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.vlm.hf_vlm.support import Support


def vlms_sheet(known: Sequence[Support]) -> Sheet:
    """One row for each type."""
    return Sheet("vlms", "VLMs of transformers", "", [
        Column("type", Kind.TEXT, [support.model_type for support in known], key="model_type"),
        Column("runs", Kind.TEXT, [support.verdict for support in known],
               raw=[support.runs for support in known]),
        Column("needs", Kind.TEXT, [", ".join(support.needs) for support in known],
               raw=[support.needs for support in known]),
        Column("because", Kind.TEXT, [support.reason or "" for support in known], key="reason",
               raw=[support.reason for support in known]),
    ])  # fmt: skip
