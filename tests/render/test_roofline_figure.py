"""The roofline figure of a kernel benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from matplotlib.image import imread

from vlmprof.render.figures.roofline import draw_roofline


def benchmark(dtype: str, backend: str, **changed: object) -> dict[str, object]:
    row = {"op": "selective_scan", "backend": backend, "dtype": dtype, "counted_flops": 2e9}
    row |= {"counted_bytes": 1e9, "flops_per_s": 3e11}
    return row | {"copy_ceiling_bytes_per_s": 4e12, "matmul_ceiling_flops_per_s": 8e14} | changed


def test_one_panel_for_each_dtype(tmp_path: Path) -> None:
    one = [benchmark("float32", "torch"), benchmark("float32", "triton", flops_per_s=9e11)]
    draw_roofline(one, tmp_path / "one.png")
    draw_roofline([*one, benchmark("bfloat16", "triton")], tmp_path / "two.png")
    narrow, wide = (imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert wide.shape[1] > 1.6 * narrow.shape[1]
    assert narrow[..., :3].std() > 0.01


def test_drawing_leaves_the_choice_of_backend_to_others() -> None:
    code = "import sys, vlmprof.render.figures.roofline; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
