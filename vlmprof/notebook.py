"""A run as a notebook holds it.

>>> import vlmprof
>>> run = vlmprof.load("runs/quick")  # doctest: +SKIP
>>> run.frame  # the rows, a pandas DataFrame  # doctest: +SKIP
>>> run.plot()  # the six-panel figure, shown by the notebook  # doctest: +SKIP
>>> run.report()  # report.html and report.md in the run folder  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmprof.analysis import runs
from vlmprof.analysis.frames import Statistic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run(runs.Run):
    """The rows, raw values and manifest of a run folder, with its figure and report."""

    def plot(
        self,
        *,
        statistic: Statistic | None = None,
        log: bool = False,
        reference: str | None = None,
        width: str = "two-column",
    ) -> Figure:
        """The six-panel figure, as `render.six_panel.six_panel` draws it."""
        from vlmprof.render.figures.six_panel import six_panel

        return six_panel(
            self.frame, self.samples,
            statistic=statistic or self.statistic, log=log, reference=reference, width=width,
        )  # fmt: skip

    def report(self, out: Path | str | None = None) -> list[Path]:
        """Write the report as HTML and Markdown to a folder, by default the run's own; the files written."""
        from vlmprof.render.report import write_report

        return write_report([self], Path(out) if out is not None else self.path or Path())

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(max_rows=20, notebook=True))


def load(run: Path | str) -> Run:
    """Read a run folder. Raises `UserError` when it is none or has no rows yet."""
    return Run(**vars(runs.load(run)))
