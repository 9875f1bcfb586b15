"""Growth of latency or memory with an image's tokens: fixed, linear and quadratic parts.

The model is y(n) = fixed + linear · n + quadratic · n², fitted by least squares of relative residuals,
because a sweep spans orders of magnitude and the noise of a latency grows with it. The weights are
1 / y², with y from the values first and from the fit in two further passes. Intervals are Student's t on
the residuals of the fit, so features that the model cannot represent (a launch-bound plateau, a change of
algorithm) widen them. Signs are unconstrained: a part whose interval contains 0 is not significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from vlmprof.analysis.frames import Line, encoder_tokens
from vlmprof.analysis.intervals import UPPER, Interval
from vlmprof.measure.statistics import Floats

FEWEST_POINTS = 3
"""Fewest distinct token counts for a fit; with exactly this many there is no quadratic part."""

LLM_COLUMNS = ("host_prefill_s", "gpu_prefill_s", "host_decode_s", "gpu_decode_s", "tpot_s")
"""Columns that grow with visual tokens. All others grow with the image, and so with encoder tokens."""


@dataclass(frozen=True)
class Fit:
    """A fitted y(n). The parts have the unit of y, of y per token, and of y per token squared."""

    coefficients: Floats
    """Fixed, linear and (with four or more points) quadratic part, shape (2,) or (3,)."""
    covariance: Floats
    degrees_of_freedom: int
    relative_rms: float
    """Root mean square of the relative residuals."""
    tokens_low: float
    tokens_high: float
    """The fitted range of token counts."""

    @property
    def fixed(self) -> Interval:
        """The part that does not depend on the number of tokens."""
        return self._along(np.array([1.0, 0.0, 0.0]))

    @property
    def linear(self) -> Interval:
        """The part per token."""
        return self._along(np.array([0.0, 1.0, 0.0]))

    @property
    def quadratic(self) -> Interval | None:
        """The part per token squared; None with too few points."""
        return self._along(np.array([0.0, 0.0, 1.0])) if self.coefficients.size == 3 else None

    def at(self, tokens: float) -> Interval:
        """Return the fitted value at a token count."""
        return self._along(np.array([1.0, tokens, tokens**2]))

    def marginal(self, tokens: float) -> Interval:
        """Return the cost of one more token at this token count: linear + 2 · quadratic · n."""
        return self._along(np.array([0.0, 1.0, 2 * tokens]))

    def _along(self, direction: Floats) -> Interval:
        direction = direction[: self.coefficients.size]
        value = float(direction @ self.coefficients)
        spread = math.sqrt(max(float(direction @ self.covariance @ direction), 0.0))
        reach = float(stdtrit(self.degrees_of_freedom, UPPER)) * spread
        return Interval(value, value - reach, value + reach)


def fit_tokens(tokens: Sequence[float] | Floats, values: Sequence[float] | Floats) -> Fit | None:
    """Fit positive values against token counts, both of shape (points,), ignoring NaN.

    Returns None for fewer than `FEWEST_POINTS` distinct token counts.
    """
    n, y = np.asarray(tokens, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(n) & np.isfinite(y) & (y > 0)
    n, y = n[usable], y[usable]
    distinct = np.unique(n).size
    if distinct < FEWEST_POINTS:
        return None
    terms = 3 if distinct > FEWEST_POINTS else 2
    scale = n.max() ** np.arange(terms)
    powers = np.vander(n, terms, increasing=True) / scale
    expected = y
    for _ in range(3):
        design = powers / expected[:, None]
        solution, *_ = np.linalg.lstsq(design, y / expected, rcond=None)
        fitted = powers @ solution
        expected = np.where(fitted > 0.1 * y, fitted, y)
    residuals = (y - fitted) / expected
    freedom = y.size - terms
    variance = float(residuals @ residuals) / freedom
    inverse = np.linalg.pinv(design.T @ design)
    return Fit(
        coefficients=solution / scale,
        covariance=variance * inverse / np.outer(scale, scale),
        degrees_of_freedom=freedom,
        relative_rms=math.sqrt(float(np.mean((fitted / y - 1) ** 2))),
        tokens_low=float(n.min()),
        tokens_high=float(n.max()),
    )


def tokens_of(line: Line, column: str) -> Floats:
    """Return the tokens that a column grows with, shape (rows,), with NaN for rows that are not `ok`."""
    if column in LLM_COLUMNS:
        return line.measured("visual_tokens")
    return np.where(line.ok, encoder_tokens(line.rows), np.nan)


def fit_line(line: Line, column: str) -> Fit | None:
    """Fit one column of a line's measured cells against `tokens_of` it."""
    return fit_tokens(tokens_of(line, column), line.measured(column))
