"""The whole-backbone half of `vlmprof kernels bench`, beside the published GPU vision latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmprof.cli import kernel_rows
from vlmprof.errors import UserError

if TYPE_CHECKING:
    import torch

    from vlmprof.kernels.whole import Encoder, EncoderLatency

PAPER = "kuo2026"


@dataclass(frozen=True)
class Row:
    """One line of the table: a backbone at a resolution, and where it ran."""

    backbone: str
    resolution: int
    dtype: str
    levels: str
    device: str
    latency: EncoderLatency
    paper_gpu_vision_s: float | None
    """Kuo & Cascante-Bonilla 2026, Fig. 4 (H200, bfloat16, all levels); None where it has no such point."""

    def flat(self) -> dict[str, object]:
        """The row with the latency's columns beside its own."""
        columns = asdict(self)
        latency = columns.pop("latency")
        paper = columns.pop("paper_gpu_vision_s")
        return {**columns, **latency, "paper_gpu_vision_s": paper}


IDENTITY = ("backbone", "resolution", "dtype", "levels", "device", "mode")


def bench_backbones(
    names: Sequence[str],
    resolutions: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    levels: str,
    seconds: float,
    out: Path | None,
    public: Path | None = None,
    modes: Sequence[str] | None = None,
) -> None:
    """Time each backbone in every mode, or in `modes`, print a line for each, and keep the rows in `out`.

    What `out` already has is not timed again. With a checkout of the `public` code, its backbones too; all
    of theirs are of all levels.
    """
    import torch

    from vlmprof.analysis.reference import reference_title
    from vlmprof.backbones import create_backbone
    from vlmprof.kernels.public_backbone import public_encoder
    from vlmprof.kernels.whole import encoder_latencies, speed_ups

    wanted = _modes(modes, public, levels, names)
    paper = _paper_latencies()
    rows = kernel_rows.read(out, "backbones") if out is not None else []
    ended = [row for row in rows if row.get("status") in ("ok", "oom")]
    done = {tuple(row.get(name) for name in IDENTITY): row for row in ended}
    rows = list(done.values())
    kind = str(dtype).removeprefix("torch.")
    print(f"paper: {reference_title(PAPER)}, GPU vision latency; {levels} levels here, {kind} on {device}")
    for name in names:
        for side in resolutions:
            here = (name, side, kind, levels, str(device))
            todo = tuple(mode for mode in wanted if (*here, mode) not in done)
            # the generator is the CPU's, so that every device sees the same image
            images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))

            def build(kernels: str, name: str = name, side: int = side) -> Encoder:
                if kernels == "public" and public is not None:
                    return public_encoder(public, name, dtype).to(device)
                return create_backbone(
                    name, levels=levels, image_size=(side, side), device=device, dtype=dtype,
                    kernels=kernels,  # type: ignore[arg-type]
                )  # fmt: skip

            kept = [done[(*here, mode)] for mode in wanted if (*here, mode) in done]
            measured = {row["mode"]: row["median_s"] for row in kept if row["status"] == "ok"}
            for latency in encoder_latencies(build, images.to(device, dtype), todo, seconds):
                row = Row(name, side, kind, levels, str(device), latency, paper.get((name, str(side))))
                _print(row)
                rows.append(row.flat())
                if out is not None:
                    kernel_rows.write(rows, out, "backbones")
                if latency.median_s is not None:
                    measured[latency.mode] = latency.median_s
            for mode, ratio in speed_ups(measured):
                fastest = min(measured, key=measured.__getitem__)
                print(f"{name} {side}: {fastest} is {ratio:.2f}× as fast as {mode}")
    if out is not None:
        print(f"wrote backbones.csv and backbones.json to {out}")


def _modes(asked: Sequence[str] | None, public: Path | None, levels: str, names: Sequence[str]) -> list[str]:
    """The modes to time. Raises `UserError` for one that is not known or cannot be had."""
    from vlmprof.kernels.public_backbone import check_checkout
    from vlmprof.kernels.whole import MODES, PUBLIC_MODES

    known = MODES if public is None else (*MODES, *PUBLIC_MODES)
    for mode in asked or ():
        if mode in PUBLIC_MODES and public is None:
            raise UserError(f"--mode {mode!r} needs --public, a checkout of MzeroMiko/VMamba")
        if mode not in known:
            raise UserError(f"unknown mode {mode!r}; known: {', '.join(known)}")
    chosen = list(dict.fromkeys(asked or known))
    if public is not None and levels != "all" and any(mode in PUBLIC_MODES for mode in chosen):
        raise UserError("--public times all levels of a backbone; leave --levels through-tap out")
    if public is not None:
        try:
            check_checkout(public, names)
        except ValueError as error:
            raise UserError(str(error)) from None
    return chosen


def backbone_names(given: Sequence[str]) -> list[str]:
    """Names from options that may each hold several, separated by commas. Raises `UserError` for none."""
    found = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if not found:
        raise UserError("--backbones needs a name, such as vmamba-t or vmamba-t,vmamba-s,vmamba-b")
    return found


def _paper_latencies() -> dict[tuple[str, str], float]:
    """(backbone, resolution) to seconds."""
    from vlmprof.analysis.reference import load_reference

    points = load_reference(PAPER).dropna(subset=["gpu_vision_s"])
    return {
        (str(name), str(side)): float(seconds)
        for name, side, seconds in zip(
            points["backbone"], points["resolution"], points["gpu_vision_s"], strict=True
        )
    }


def _print(row: Row) -> None:
    latency, paper_s = row.latency, row.paper_gpu_vision_s
    line = f"{row.backbone:10} {row.resolution:5} {latency.mode:14}"
    if latency.median_s is None or latency.quartile_low_s is None or latency.quartile_high_s is None:
        print(f"{line} {latency.status}: {latency.message}", flush=True)
        return
    spread = (latency.quartile_high_s - latency.quartile_low_s) / latency.median_s
    line += f" {latency.median_s * 1e3:10.3f} ms ±{spread:4.0%} of {latency.samples:4}"
    if latency.peak_allocated_bytes is not None:
        line += f" {latency.peak_allocated_bytes / 2**30:7.2f} GiB"
    if paper_s is not None:
        line += f"   paper {paper_s * 1e3:9.3f} ms, {paper_s / latency.median_s:6.2f}× as fast as it"
    print(line, flush=True)
