"""vlmprof: what a vision encoder costs inside a vision-language model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vlmprof.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from vlmprof.notebook import Run

__all__ = ["__version__", "load"]

# silent, unless the program that imports this shows what `vlmprof` logs
logging.getLogger(__name__).addHandler(logging.NullHandler())


def load(run: Path | str) -> Run:
    """A run folder for a notebook: `.frame`, `.samples`, `.plot()`, `.report()`. Imports pandas.

    Raises `vlmprof.errors.UserError` when it is none or has no rows yet.

    >>> import vlmprof
    >>> run = vlmprof.load("runs/mine")
    >>> run.frame.query("status == 'ok'")["resolution"].max()
    '512'
    >>> len(run.samples[run.frame["cell_id"][0]]["gpu_vision_s"])  # raw values, in seconds
    10
    """
    from vlmprof.notebook import load as load_run

    return load_run(run)
