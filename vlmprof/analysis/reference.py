"""Published results as frames with the columns of a run, so that code for runs also works on them.

`data/README.md` documents the contents and source of each file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from vlmprof.errors import check_known
from vlmprof.records import Row, StageFigures, Status
from vlmprof.units import GIB


def _read(name: str) -> pd.DataFrame:
    text = resources.files("vlmprof.analysis").joinpath("data", name).read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text))


def _kuo2026() -> pd.DataFrame:
    """Read Figure 4 of Kuo & Cascante-Bonilla 2026 (arXiv 2603.19209), whose LLM stage is our `prefill`."""
    rows = [_kuo2026_row(dict(point)) for _, point in _read("kuo2026_fig4.csv").iterrows()]
    out_of_memory = [
        _kuo2026_row({"backbone": name, "resolution": 3072}, Status.OOM)
        for name in ("ViTDet-B", "ViTDet-L", "ViTDet-H")
    ]
    return pd.DataFrame([row.to_flat() for row in rows + out_of_memory])


def _kuo2026_row(point: dict[Any, Any], status: Status = Status.OK) -> Row:
    def seconds(column: str) -> float | None:
        value = point.get(column)
        return float(value) if isinstance(value, float) and pd.notna(value) else None

    side = int(str(point["resolution"]))
    backbone = str(point["backbone"]).lower()
    memory_gib = seconds("peak_alloc_gib")
    return Row(
        cell_id=f"kuo2026-{backbone}-{side}",
        axes={
            "backbone": backbone, "resolution": str(side), "llm": "vicuna-7b", "connector": "mlp2",
            "dtype": "bfloat16", "batch_size": 1, "levels": "all",
        },
        height_px=side,
        width_px=side,
        status=status,
        message="first resolution reported out of memory" if status is Status.OOM else None,
        visual_tokens=(side // 16) ** 2,
        stages={
            "vision": StageFigures(host_s=seconds("host_vision_s"), gpu_s=seconds("gpu_vision_s")),
            "prefill": StageFigures(host_s=seconds("host_llm_s"), gpu_s=seconds("gpu_llm_s")),
        },
        end_to_end_s=seconds("e2e_s"),
        peak_allocated_bytes=None if memory_gib is None else round(memory_gib * GIB),
        warm_up=100,
        iterations=100,
        device="NVIDIA H200",
    )  # fmt: skip


@dataclass(frozen=True)
class _Reference:
    title: str
    device: str
    """As the driver names it."""
    load: Callable[[], pd.DataFrame]


_REFERENCES = {
    "kuo2026": _Reference("Kuo & Cascante-Bonilla 2026, Fig. 4 (H200)", "NVIDIA H200", _kuo2026),
}


def _reference(name: str) -> _Reference:
    check_known("reference", [name], _REFERENCES)
    return _REFERENCES[name]


def references() -> list[str]:
    """Return the names of all references."""
    return list(_REFERENCES)


def reference_title(name: str) -> str:
    """Return the legend title of a reference. Raises `UserError` for an unknown name."""
    return _reference(name).title


def another_device(name: str, device_name: str | None) -> str | None:
    """Describe how a device differs from the reference's device; None if it is the same model.

    A variant of the card counts as the same model; a MIG slice does not.
    """
    device = _reference(name).device
    wanted, given = device.split(), (device_name or "").split()
    if given[: len(wanted)] == wanted and "MIG" not in given:
        return None
    here = f"this is {device_name}" if device_name else "the device of this run is unknown"
    return f"the numbers of {name} are from an {device}, but {here}"


def another_device_in(name: str, frame: pd.DataFrame) -> str | None:
    """Return `another_device` for the first row of a run that is on another device; None if there is none."""
    devices = frame.get("device", [None])
    named = dict.fromkeys(device if isinstance(device, str) else None for device in devices)
    return next((words for device in named if (words := another_device(name, device))), None)


def load_reference(name: str) -> pd.DataFrame:
    """Load published points as rows of a run: latencies in seconds, memory in bytes.

    Values that the source does not give are null. Raises `UserError` for an unknown name.
    """
    return _reference(name).load()


def study_scores() -> pd.DataFrame:
    """Return the scores, in percent, of the eight models released with Kuo & Cascante-Bonilla 2026."""
    return _read("study_scores.csv")
