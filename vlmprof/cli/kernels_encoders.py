"""`vlmprof kernels bench --backbones`: compare encoders with the published GPU vision latency."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmprof.cli import kernels_rows
from vlmprof.errors import UserError
from vlmprof.records import FAILED

if TYPE_CHECKING:
    from vlmprof.execution.kernel_runs import EncoderJob, KernelRun, Outcome

PAPER = "kuo2026"

IDENTITY = ("backbone", "resolution", "dtype", "levels", "device", "mode")


def bench_backbones(
    run: KernelRun, names: Sequence[str], resolutions: Sequence[int], asked: EncoderJob, out: Path | None
) -> int:
    """Time each backbone in every mode, or in those of `asked`, print a line for each, and write the rows to
    `out`.

    Returns the number of our own rows that failed. Rows already in `out` are not timed again. With a checkout
    of the public code, its backbones are timed too, always with all levels.
    """
    from vlmprof.analysis.reference import another_device, reference_title

    wanted = run.call("encoder_modes", asked.modes, tuple(names), asked.levels, asked.public)
    paper = _paper_latencies()
    device_name = run.environment["device_name"]
    rows = kernels_rows.read(out, "backbones", device_name) if out is not None else []
    ended = [row for row in rows if row.get("status") in ("ok", "oom")]
    done = {tuple(row.get(name) for name in IDENTITY): row for row in ended}
    file = kernels_rows.RowFile("backbones", out, done.values())
    print(
        f"paper: {reference_title(PAPER)}, GPU vision latency; {asked.levels} levels here, "
        f"{asked.dtype} on {device_name}"
    )
    elsewhere = another_device(PAPER, device_name)
    if elsewhere:
        print(f"{elsewhere}, so the two cannot be compared directly", flush=True)

    def bench(name: str, side: int) -> None:
        here = (name, side, asked.dtype, asked.levels, run.device)
        known = dict(zip(IDENTITY, here, strict=False))
        todo = tuple(mode for mode in wanted if (*here, mode) not in done)
        already = [done[(*here, mode)] for mode in wanted if (*here, mode) in done]
        measured = {row["mode"]: row["median_s"] for row in already if row["status"] == "ok"}

        def show(outcome: Outcome) -> None:
            row = _row(outcome, known, paper.get((name, str(side))), run.environment)
            _print(row, elsewhere is None)
            file.add(row)
            if row["median_s"] is not None:
                measured[str(row["mode"])] = row["median_s"]

        if todo:
            job = replace(asked, backbone=name, resolution=side, modes=todo)
            run.attempt_all("bench_encoder", (job,), {**known, "mode": ""}, show)
        kernels_rows.print_speed_ups(f"{name} {side}", measured)

    for name, side in itertools.product(names, resolutions):
        bench(name, side)
    file.tell()
    return sum(row["status"] in FAILED and "public" not in str(row["mode"]) for row in file.rows)


def _row(
    outcome: Outcome, known: Mapping[str, Any], paper_s: float | None, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Build one row: the configuration, the device, the latency and the paper's latency.

    `paper_gpu_vision_s` is from Kuo & Cascante-Bonilla 2026, Fig. 4 (H200, bfloat16, all levels); None if it
    has no such point.
    """
    figures = outcome.figures or {"status": str(outcome.status), "message": outcome.message}
    numbers = dict.fromkeys(
        ("median_s", "quartile_low_s", "quartile_high_s", "samples", "peak_allocated_bytes")
    )
    return {
        **known,
        "mode": outcome.labels.get("mode", ""),
        **numbers,
        **figures,
        "paper_gpu_vision_s": paper_s,
        **environment,
        **outcome.clocks(),
    }


def backbone_names(given: Sequence[str]) -> list[str]:
    """Split options at commas into names. Raises `UserError` if there are none."""
    found = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if not found:
        raise UserError("--backbones needs a name, such as vmamba-t or vmamba-t,vmamba-s,vmamba-b")
    return found


def _paper_latencies() -> dict[tuple[str, str], float]:
    """Return the paper's latencies in seconds by (backbone, resolution)."""
    from vlmprof.analysis.reference import load_reference

    points = load_reference(PAPER).dropna(subset=["gpu_vision_s"])
    return {
        (str(name), str(side)): float(seconds)
        for name, side, seconds in zip(
            points["backbone"], points["resolution"], points["gpu_vision_s"], strict=True
        )
    }


def _print(row: Mapping[str, Any], same_card: bool) -> None:
    from vlmprof.units import show_bytes

    paper_s, median_s = row["paper_gpu_vision_s"], row["median_s"]
    what = f"{row['backbone']:10} {row['resolution']:5} {row['mode']:14}"
    if median_s is None:
        kernels_rows.print_folded(what, f"{row['status']}: {row['message']}")
        return
    spread = (row["quartile_high_s"] - row["quartile_low_s"]) / median_s
    figures = f"{median_s * 1e3:10.3f} ms ±{spread:4.0%} of {row['samples']:4}"
    if row["peak_allocated_bytes"] is not None:
        figures += f" {show_bytes(row['peak_allocated_bytes']):>9}"
    if paper_s is not None:
        figures += f"   paper {paper_s * 1e3:9.3f} ms"
        figures += f", {paper_s / median_s:6.2f}× as fast as it" if same_card else " on another card"
    kernels_rows.print_folded(what, figures)
