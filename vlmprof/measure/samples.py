"""Raw values of a measurement, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CellSamples = Mapping[str, Sequence[float]]
"""The type of `Samples` and of other raw values of a cell by column, for functions that only read them."""


class Samples(dict[str, list[float]]):
    """Raw values in seconds by row column, one per measured iteration.

    Columns are `host_<stage>_s`, `gpu_<stage>_s` if the device has a clock, and `end_to_end_s`.
    """

    @property
    def end_to_end_s(self) -> list[float]:
        return self["end_to_end_s"]

    @property
    def host_s(self) -> dict[str, list[float]]:
        """Host latencies by stage."""
        return self._by_stage("host_")

    @property
    def gpu_s(self) -> dict[str, list[float]]:
        """GPU latencies by stage; empty without a device clock."""
        return self._by_stage("gpu_")

    def mean_s(self, column: str) -> float | None:
        """Return the mean of a column; None if there is no such column."""
        return mean(self.get(column, ()))

    def _by_stage(self, clock: str) -> dict[str, list[float]]:
        return {
            column.removeprefix(clock).removesuffix("_s"): values
            for column, values in self.items()
            if column.startswith(clock)
        }


def mean(values: Sequence[float]) -> float | None:
    """Return the mean of the values; None if there are none."""
    return sum(values) / len(values) if values else None
