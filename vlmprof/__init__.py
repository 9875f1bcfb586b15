"""Efficiency profiling of vision encoders inside vision–language models."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vlmprof.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from vlmprof.notebook import Run

__all__ = ["__version__", "load"]

# silent unless the importing program configures the `vlmprof` logger
logging.getLogger(__name__).addHandler(logging.NullHandler())

# transformers imports torchao if it is installed, which logs that kernels of other devices cannot be loaded
for _name in ("torchao", "torch.utils._pytree"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.ERROR)


def load(run: Path | str) -> Run:
    """Load a run folder: `.frame`, `.samples`, `.plot()` and `.report()`. Imports pandas.

    Raises `vlmprof.errors.UserError` if `run` is not a run folder or has no rows yet.

    >>> import vlmprof
    >>> run = vlmprof.load("runs/mine")
    >>> run.frame.query("status == 'ok'")["resolution"].max()
    '512'
    >>> len(run.samples[run.frame["cell_id"][0]]["gpu_vision_s"])  # raw values, in seconds
    10
    """
    from vlmprof.notebook import load as load_run

    return load_run(run)
