"""Compare the adaptive rule with the paper's fixed 100 + 100, on simulated streams of Figure 4's cells.

Each published point becomes two streams of samples, vision and LLM, around its published mean: a decaying
warm-up, autocorrelated noise, rare outliers, and a drift in one cell of ten. Both protocols draw from the
same streams; the adaptive one measures the LLM once per resolution and shares it. The difference between two
hundreds of the fixed protocol shows how close any protocol can come.

    python tests/benchmarks/adaptive_replay.py [--noise 0.005] [--start-up 3] [--figures 6]

`--start-up` is the time per cell in addition to its iterations (process, model, first call), in seconds.

    vlmprof sweep ... --warm-up 0 --iterations 200 --out RUN
    python tests/benchmarks/adaptive_replay.py --run RUN

replays the recorded streams of a run instead, cell by cell.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import numpy.typing as npt

import vlmprof
from vlmprof.measure.samples import Samples
from vlmprof.measure.statistics import median_interval
from vlmprof.measure.stopping import Adaptive, Settling

LARGEST = 6144
SETTLES_S = 0.05
"""Time constant of clocks and caches; the first call is slower still."""
WATCHED = ("gpu_vision_s", "gpu_prefill_s", "end_to_end_s")
Stream = npt.NDArray[np.float64]


def points() -> list[tuple[str, int, float, float]]:
    """(backbone, resolution, GPU vision, GPU LLM) of the published cells up to `LARGEST`, in seconds."""
    text = resources.files("vlmprof.analysis.data").joinpath("kuo2026_fig4.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return [
        (row["backbone"], int(row["resolution"]), float(row["gpu_vision_s"]), float(row["gpu_llm_s"]))
        for row in rows
        if int(row["resolution"]) <= LARGEST
    ]


def stream(
    rng: np.random.Generator, mean_s: float, iteration_s: float, noise: float, drifts: bool, n: int = 1200
) -> Stream:
    """`n` samples of a stage whose settled mean is `mean_s`, in iterations that take `iteration_s`."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = 0.3 * x[i - 1] + 0.954 * rng.standard_normal()
    values = np.exp(noise * x)
    values[rng.random(n) < 0.01] *= 1.3
    values[0] *= 1.5
    values *= 1 + 0.2 * np.exp(-iteration_s * np.arange(n) / SETTLES_S)
    if drifts:
        values *= 1 + 0.004 * np.minimum(np.arange(n), 200) / 200
    return mean_s * values / values[100:200].mean()


def adaptive(streams: dict[str, Stream]) -> tuple[Samples, float, bool]:
    """What the adaptive rule takes: samples by column, seconds spent, and whether it met its target."""
    whole = np.sum(list(streams.values()), axis=0)
    settling = Settling()
    first = next(n for n in range(1, whole.size) if settling.enough(list(whole[:n])))
    rule = Adaptive(watched=tuple(name for name in WATCHED if name in streams or name == "end_to_end_s"))
    n = 1
    while not rule.enough(taken := _taken(streams, whole, first, n)):
        n += 1
    return taken, float(whole[: first + n].sum()), not rule.unmet(taken)


def _taken(streams: dict[str, Stream], whole: Stream, first: int, n: int) -> Samples:
    return _part(streams | {"end_to_end_s": whole}, first, n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="replay what this run recorded")
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--start-up", type=float, default=3.0)
    parser.add_argument(
        "--figures", type=int, default=6, help="draw the streams of the whole figure so often"
    )
    options = parser.parse_args()
    if options.run:
        replay_run(options.run)
    else:
        simulate(options)


def replay_run(folder: str) -> None:
    """Both protocols on each cell's recorded stream: means, medians with intervals, iterations and time."""
    run = vlmprof.load(folder)
    print("cell                      latency              fixed, mean   adaptive, median and interval")
    measured = run.frame[run.frame["status"] == "ok"]
    for cell_id, backbone, resolution in zip(
        measured["cell_id"], measured["backbone"], measured["resolution"], strict=True
    ):
        cell = f"{backbone} @ {resolution}"
        recorded = {name: np.asarray(values) for name, values in run.samples[cell_id].items()}
        whole = recorded["end_to_end_s"]
        if whole.size < 200:
            raise SystemExit(f"{cell} has {whole.size} samples; record 200")
        clock = "gpu" if "gpu_vision_s" in recorded else "host"
        watched = (f"{clock}_vision_s", f"{clock}_prefill_s", "end_to_end_s")
        settling = Settling()
        first = next(n for n in range(1, whole.size) if settling.enough(list(whole[:n])))
        rule, n = Adaptive(watched=watched), 1
        while first + n < whole.size and not rule.enough(_part(recorded, first, n)):
            n += 1
        taken = _part(recorded, first, n)
        for name in watched:
            fixed_s, interval = float(recorded[name][100:200].mean()), median_interval(taken[name])
            found = float(np.median(taken[name]))
            width = f"± {interval.relative_half_width:.1%}" if interval else "no interval"
            print(
                f"{cell:25} {name:18} {fixed_s * 1e3:12.2f} ms "
                f"{found * 1e3:15.2f} ms {width:8} ({found / fixed_s - 1:+.1%})"
            )
        spent_s = float(whole[: first + n].sum())
        print(
            f"{'':25} fixed: 200 iterations, {whole[:200].sum():.1f} s; adaptive: {first} discarded + {n}, "
            f"{spent_s:.1f} s; {'; '.join(rule.unmet(taken)) or 'target met'}"
        )


def _part(columns: dict[str, Stream], first: int, n: int) -> Samples:
    return Samples({name: values[first : first + n].tolist() for name, values in columns.items()})


def simulate(options: argparse.Namespace) -> None:
    """Both protocols on simulated streams of every published cell, for each of several figures."""
    cells, figures = points(), [Figure() for _ in range(options.figures)]
    near = {"vision": Nearness(), "LLM": Nearness()}
    for seed, figure in enumerate(figures):
        rng = np.random.default_rng(seed)
        for _, resolution, vision_s, llm_s in cells:
            figure.measure(rng, resolution, vision_s, llm_s, options, near)
    n = len(cells) * len(figures)
    fixed_h = [figure.fixed_s / 3600 for figure in figures]
    adaptive_min = [figure.adaptive_s / 60 for figure in figures]
    print(f"{len(cells)} cells up to {LARGEST}², noise {options.noise:.1%}, {options.start_up:g} s to start, "
          f"drawn {len(figures)} times")  # fmt: skip
    print(f"fixed 100 + 100      {np.mean(fixed_h):.1f} h")
    print(f"adaptive, shared LLM {min(adaptive_min):.1f} to {max(adaptive_min):.1f} min")
    for name, nearness in near.items():
        nearness.show(name)
    covered, judged = (sum(getattr(figure, name) for figure in figures) for name in ("covered", "judged"))
    print(f"target met in {sum(figure.met for figure in figures)} of {n} cells; vision intervals cover the "
          f"stream's median in {covered} of {judged} that do not drift")  # fmt: skip


@dataclass
class Figure:
    """All published cells, measured by both protocols."""

    fixed_s: float = 0.0
    adaptive_s: float = 0.0
    met: int = 0
    covered: int = 0
    judged: int = 0
    shared: dict[int, tuple[list[float], Stream]] = field(default_factory=dict)
    """By resolution, what was taken of the LLM and the stream it was taken of."""

    def measure(
        self,
        rng: np.random.Generator,
        resolution: int,
        vision_s: float,
        llm_s: float,
        options: argparse.Namespace,
        near: dict[str, Nearness],
    ) -> None:
        drifts = rng.random() < 0.1
        whole_s = vision_s if resolution in self.shared else vision_s + llm_s
        streams = {
            "gpu_vision_s": stream(rng, vision_s, whole_s, options.noise, drifts),
            "gpu_prefill_s": stream(rng, llm_s, whole_s, options.noise, drifts),
        }
        self.fixed_s += float(sum(values[:200].sum() for values in streams.values())) + options.start_up
        own = {"gpu_vision_s": streams["gpu_vision_s"]} if resolution in self.shared else streams
        taken, seconds, within = adaptive(own)
        self.adaptive_s += seconds + options.start_up
        self.met += within
        if resolution not in self.shared:
            self.shared[resolution] = (taken["gpu_prefill_s"], streams["gpu_prefill_s"])
        near["vision"].add(taken["gpu_vision_s"], streams["gpu_vision_s"])
        near["LLM"].add(*self.shared[resolution])
        interval = median_interval(taken["gpu_vision_s"])
        if interval is not None and not drifts:
            self.judged += 1
            self.covered += bool(interval.low <= np.median(streams["gpu_vision_s"][100:]) <= interval.high)


class Nearness:
    """How far results are from what the fixed protocol's hundred say, cell by cell."""

    def __init__(self) -> None:
        self.errors: dict[str, list[float]] = {
            "adaptive median, fixed mean": [],
            "adaptive mean, fixed mean": [],
            "adaptive median, fixed median": [],
            "a second fixed mean, fixed mean": [],
        }

    def add(self, taken: list[float], whole: Stream) -> None:
        first, second = whole[100:200], whole[300:400]
        pairs = (
            (np.median(taken), first.mean()),
            (np.mean(taken), first.mean()),
            (np.median(taken), np.median(first)),
            (second.mean(), first.mean()),
        )
        for errors, (found, expected) in zip(self.errors.values(), pairs, strict=True):
            errors.append(abs(float(found / expected) - 1))

    def show(self, name: str) -> None:
        for what, errors in self.errors.items():
            print(
                f"{name:6} {what:31} {np.median(errors):.2%} typical, within 1 % in "
                f"{sum(error <= 0.01 for error in errors)} of {len(errors)} cells, {max(errors):.2%} at worst"
            )


if __name__ == "__main__":
    main()
