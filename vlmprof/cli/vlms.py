"""`vlmprof vlms`: transformers' image-text-to-text types, which run and why others do not."""

from __future__ import annotations

from vlmprof.cli.json_output import json_option, tell
from vlmprof.cli.tables import SaveOption, show_sheet


@json_option("vlms", tables="vlms")
def vlms(save_tables: SaveOption = None) -> None:
    """List transformers' image-text-to-text types: which run as --vlm hf:…, and why others do not."""
    from vlmprof.render.tables.vlms import vlms_sheet
    from vlmprof.vlm.hf_vlm.support import TRIED_WITH, all_support

    known = all_support()
    show_sheet(vlms_sheet(known), save_tables)
    runs = sum(support.runs for support in known)
    tell(
        f"{runs} of {len(known)} types run, each tried small with two photos under transformers {TRIED_WITH}"
    )
