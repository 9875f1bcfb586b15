"""Runs in a notebook.

>>> import vlmprof
>>> run = vlmprof.load("runs/mine")
>>> run.frame[["backbone", "resolution", "status", "peak_allocated_bytes"]].head(2)
  backbone resolution status  peak_allocated_bytes
0    vit-t        224     ok             576070912
1    vit-t        512     ok             741670912
>>> figure = run.plot(log=False)  # a notebook shows it
>>> sorted(path.name for path in run.report() if path.suffix != ".png")
['report.html', 'report.md']
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vlmprof.analysis import runs
from vlmprof.analysis.frames import Statistic
from vlmprof.errors import check_known

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Run(runs.Run):
    """The rows, raw values and manifest of a run folder, with its figure and report."""

    def plot(
        self,
        *,
        statistic: Statistic | None = None,
        log: bool = True,
        reference: str | None = None,
        width: str = "two-column",
    ) -> Figure:
        """Draw the six-panel figure of the run.

        Args:
            statistic: `mean` or `median`; by default, the one that suits the run's sampling.
            log: draw image sizes and latencies on logarithmic axes.
            reference: published points to draw in the background, such as `kuo2026`.
            width: `one-column` (3.5 in) or `two-column` (7.16 in).

        Raises `UserError` if the statistic, reference or width is unknown.

        >>> import vlmprof
        >>> figure = vlmprof.load("runs/mine").plot(statistic="median", reference="kuo2026")
        >>> [axes.get_title() for axes in figure.axes][:3]
        ['(a) Host vision', '(b) Host LLM', '(c) End-to-end']
        """
        from vlmprof.render.figures.six_panel import six_panel

        if statistic is not None:
            check_known("statistic", [statistic], get_args(Statistic))
        return six_panel(
            self.frame, self.samples,
            statistic=statistic or self.statistic, log=log, reference=reference, width=width,
        )  # fmt: skip

    def report(self, out: Path | str | None = None) -> list[Path]:
        """Write the report as HTML and Markdown to `out` (default: the run folder) and return the paths.

        Raises `UserError` if the folder is not writable.

        >>> import vlmprof
        >>> vlmprof.load("runs/mine").report("out")[1].as_posix()
        'out/report.html'
        """
        from vlmprof.render.report import write_report

        return write_report([self], Path(out) if out is not None else self.folder)

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(max_rows=20, notebook=True))


def load(run: Path | str) -> Run:
    """Load a run folder. Raises `UserError` if it is not one or has no rows yet."""
    return Run(**vars(runs.load(run)))
