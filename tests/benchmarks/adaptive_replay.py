"""The adaptive rule against the paper's fixed 100 + 100, on the same simulated streams of Figure 4's cells.

Each published point becomes two streams of samples, vision and LLM, around its published mean: a warm-up
that decays, noise that remembers its last value, rare outliers, and for one cell in ten a drift. Both
protocols draw from the same streams; the adaptive one takes the LLM once per resolution and shares it.

    python tests/benchmarks/adaptive_replay.py [--noise 0.005] [--start-up 3]

`--start-up` is what a cell costs beside its iterations (process, model, first call), in seconds.

    vlmprof sweep ... --warm-up 0 --iterations 200 --out RUN
    python tests/benchmarks/adaptive_replay.py --run RUN

replays the recorded streams of a run instead, cell by cell.
"""

from __future__ import annotations

import argparse
import csv
from importlib import resources

import numpy as np
import numpy.typing as npt

import vlmprof
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


def stream(rng: np.random.Generator, mean_s: float, noise: float, drifts: bool, n: int = 1200) -> Stream:
    """`n` samples whose settled mean is `mean_s`."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = 0.3 * x[i - 1] + 0.954 * rng.standard_normal()
    values = np.exp(noise * x)
    values[rng.random(n) < 0.01] *= 1.3
    values[0] *= 1.5
    values *= 1 + 0.2 * np.exp(-mean_s * np.arange(n) / SETTLES_S)
    if drifts:
        values *= 1 + 0.004 * np.minimum(np.arange(n), 200) / 200
    return mean_s * values / values[100:200].mean()


def adaptive(streams: dict[str, Stream]) -> tuple[dict[str, Stream], float, bool]:
    """What the adaptive rule takes: samples by column, seconds spent, and whether it met its target."""
    whole = np.sum(list(streams.values()), axis=0)
    settling = Settling()
    first = next(n for n in range(1, whole.size) if settling.enough(list(whole[:n])))
    rule = Adaptive(tuple(name for name in WATCHED if name in streams or name == "end_to_end_s"))
    n = 1
    while not rule.enough(taken := _taken(streams, whole, first, n)):
        n += 1
    return taken, float(whole[: first + n].sum()), not rule.unmet(taken)


def _taken(streams: dict[str, Stream], whole: Stream, first: int, n: int) -> dict[str, Stream]:
    return {name: values[first : first + n] for name, values in streams.items()} | {
        "end_to_end_s": whole[first : first + n]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="replay what this run recorded")
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--start-up", type=float, default=3.0)
    options = parser.parse_args()
    if options.run:
        replay_run(options.run)
    else:
        simulate(options)


def replay_run(folder: str) -> None:
    """Both protocols on each cell's recorded stream: means, medians with intervals, iterations and time."""
    run = vlmprof.load(folder)
    print("cell                      latency              fixed, mean   adaptive, median and interval")
    for row in run.frame[run.frame["status"] == "ok"].itertuples():
        recorded = {name: np.asarray(values) for name, values in run.samples[row.cell_id].items()}
        whole = recorded["end_to_end_s"]
        if whole.size < 200:
            raise SystemExit(f"{row.backbone} @ {row.resolution} has {whole.size} samples; record 200")
        clock = "gpu" if "gpu_vision_s" in recorded else "host"
        watched = (f"{clock}_vision_s", f"{clock}_prefill_s", "end_to_end_s")
        settling = Settling()
        first = next(n for n in range(1, whole.size) if settling.enough(list(whole[:n])))
        rule, n = Adaptive(watched), 1
        while first + n < whole.size and not rule.enough(_part(recorded, first, n)):
            n += 1
        taken = _part(recorded, first, n)
        for name in watched:
            fixed_s, interval = float(recorded[name][100:200].mean()), median_interval(taken[name])
            found = float(np.median(taken[name]))
            width = f"± {interval.relative_half_width:.1%}" if interval else "no interval"
            print(
                f"{row.backbone + ' @ ' + str(row.resolution):25} {name:18} {fixed_s * 1e3:12.2f} ms "
                f"{found * 1e3:15.2f} ms {width:8} ({found / fixed_s - 1:+.1%})"
            )
        spent_s = float(whole[: first + n].sum())
        print(
            f"{'':25} fixed: 200 iterations, {whole[:200].sum():.1f} s; adaptive: {first} discarded + {n}, "
            f"{spent_s:.1f} s; {'; '.join(rule.unmet(taken)) or 'target met'}"
        )


def _part(columns: dict[str, Stream], first: int, n: int) -> dict[str, Stream]:
    return {name: values[first : first + n] for name, values in columns.items()}


def simulate(options: argparse.Namespace) -> None:
    """Both protocols on simulated streams of every published cell."""
    rng = np.random.default_rng(0)

    shared: dict[int, tuple[Stream, float]] = {}
    fixed_s = adaptive_s = 0.0
    errors: dict[str, list[float]] = {"vision": [], "LLM": []}
    met = covered = judged = 0
    cells = points()
    for _, resolution, vision_s, llm_s in cells:
        drifts = rng.random() < 0.1
        streams = {
            "gpu_vision_s": stream(rng, vision_s, options.noise, drifts),
            "gpu_prefill_s": stream(rng, llm_s, options.noise, drifts),
        }
        fixed_s += float(sum(values[:200].sum() for values in streams.values())) + options.start_up
        own = {"gpu_vision_s": streams["gpu_vision_s"]} if resolution in shared else streams
        taken, seconds, within = adaptive(own)
        adaptive_s += seconds + options.start_up
        met += within
        if resolution not in shared:
            shared[resolution] = (taken["gpu_prefill_s"], llm_s)
        errors["vision"].append(abs(float(np.median(taken["gpu_vision_s"])) / vision_s - 1))
        llm_taken, llm_mean_s = shared[resolution]
        errors["LLM"].append(abs(float(np.median(llm_taken)) / llm_mean_s - 1))
        interval = median_interval(taken["gpu_vision_s"])
        if interval is not None:
            judged += 1
            covered += interval.low <= np.median(streams["gpu_vision_s"][100:]) <= interval.high

    print(
        f"{len(cells)} cells up to {LARGEST}², noise {options.noise:.1%}, {options.start_up:g} s to start one"
    )
    print(f"fixed 100 + 100      {fixed_s / 3600:7.1f} h")
    print(f"adaptive, shared LLM {adaptive_s / 60:7.1f} min   ratio {fixed_s / adaptive_s:.0f}")
    for name, values in errors.items():
        print(
            f"{name:6} median against the fixed mean: {np.median(values):.2%} typical, within 1 % in "
            f"{sum(v <= 0.01 for v in values)} of {len(values)} cells, {max(values):.2%} at worst"
        )
    print(f"target met in {met} of {len(cells)} cells; vision intervals cover the stream's median in "
          f"{covered} of {judged}")  # fmt: skip


if __name__ == "__main__":
    main()
