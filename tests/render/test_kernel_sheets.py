"""Tables of stored benchmark rows: their columns, and when they are compared with the paper."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vlmprof.cli.app import app
from vlmprof.errors import UserError
from vlmprof.render.tables.kernels import encoder_sheet, operation_sheet
from vlmprof.render.tables.sheet import Sheet


def encoder(mode: str, median_s: float | None, resolution: int = 1024, **more: object) -> dict[str, Any]:
    return {
        "backbone": "vmamba-t", "resolution": resolution, "dtype": "bfloat16", "levels": "all",
        "device": "cuda", "device_name": "NVIDIA H200", "mode": mode, "status": "ok", "message": "",
        "median_s": median_s, "peak_allocated_bytes": 3 << 28, "paper_gpu_vision_s": 0.00995,
    } | more  # fmt: skip


def operation(shape: str, **more: object) -> dict[str, Any]:
    return {
        "op": "ss2d", "shape": shape, "dtype": "bfloat16", "backend": "triton", "launch": "4 tiles by tuning",
        "median_s": 2e-4, "quartile_low_s": 1.9e-4, "quartile_high_s": 2.1e-4, "bytes_per_s": 2.4e12,
        "flops_per_s": 5e12, "share_of_copy_ceiling": 0.6, "share_of_matmul_ceiling": 0.01,
    } | more  # fmt: skip


def as_dicts(sheet: Sheet) -> list[dict[str, str]]:
    titles = [column.title for column in sheet.columns]
    return [dict(zip(titles, row, strict=True)) for row in sheet.text_rows()]


ROWS = [
    encoder("fused", 0.00250),
    encoder("fused graphs", 0.00199),
    encoder("public", 0.0102),
    encoder("fused", 0.00120, 224, paper_gpu_vision_s=None),
    encoder("eager", None, 224, status="oom", message="CUDA out of memory", paper_gpu_vision_s=None),
]


def test_modes_stand_side_by_side_with_the_paper_and_the_public_code() -> None:
    sheet = encoder_sheet(ROWS)
    at_224, at_1024 = as_dicts(sheet)
    assert [column.title for column in sheet.columns[2:6]] == ["eager", "fused", "fused graphs", "public"]
    assert at_1024 == {
        "backbone": "VMamba-T", "resolution": "1024²", "fused": "2.50 ms", "fused graphs": "1.99 ms",
        "public": "10.2 ms", "eager": "", "paper (H200)": "9.95 ms", "paper / fused graphs": "5.00×",
        "public / fused graphs": "5.13×", "peak, fused graphs": "768 MiB",
    }  # fmt: skip
    assert (at_224["fused"], at_224["eager"], at_224["paper / fused graphs"]) == (
        "1.20 ms",
        "out of memory",
        "",
    )


@pytest.mark.parametrize("rows", [[encoder("fused", 0.1, device_name="NVIDIA H100 80GB HBM3")], ROWS])
def test_the_paper_is_a_rival_on_its_own_card_alone(rows: list[dict[str, Any]]) -> None:
    sheet = encoder_sheet(rows)
    titles = [column.title for column in sheet.columns]
    assert "paper (H200)" in titles
    assert any(title.startswith("paper / ") for title in titles) == (rows is ROWS)
    assert rows[0]["device_name"] in sheet.note


def test_what_differs_between_encoders_has_a_column() -> None:
    rows = [encoder("fused", 0.1), encoder("fused", 0.2, levels="through-tap")]
    assert [row["levels"] for row in as_dicts(encoder_sheet(rows))] == ["all", "through-tap"]


def test_operations_have_their_shares_of_the_ceilings() -> None:
    (row,) = as_dicts(operation_sheet([operation("vmamba-t 1024 level 1")]))
    assert row["time"] == "200 (190 to 210) µs"
    assert (row["GB/s"], row["of copy"], row["of matrix product"]) == ("2,400", "60.0 %", "1.00 %")


def kept(folder: Path, stem: str, rows: object) -> Path:
    folder.mkdir()
    (folder / f"{stem}.json").write_text(json.dumps(rows))
    return folder


def test_the_command_joins_what_several_folders_keep(tmp_path: Path) -> None:
    folders = [
        kept(tmp_path / "encoders", "backbones", ROWS),
        kept(tmp_path / "t", "bench", [operation("vmamba-t 1024 level 1")]),
        kept(tmp_path / "b", "bench", [operation("vmamba-b 1024 level 1")]),
    ]
    done = CliRunner().invoke(app, ["kernels", "tables", *map(str, folders)])
    assert done.exit_code == 0
    assert "| VMamba-T | 1024² |" in done.stdout
    assert done.stdout.count("| ss2d |") == 2
    done = CliRunner().invoke(app, ["kernels", "tables", str(folders[1]), "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(done.stdout.strip()))
    assert float(row["time (s)"]) == 2e-4


def test_files_with_the_former_names_of_modes_are_read(tmp_path: Path) -> None:
    names = {"eager": "eager", "compiled": "compile", "graphed": "graphs", "fused graphed": "fused graphs"}
    folder = kept(tmp_path / "old", "backbones", [encoder(name, 0.1) for name in names])
    done = CliRunner().invoke(app, ["kernels", "tables", str(folder), "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(done.stdout.strip()))
    assert [f"{name} (s)" in row for name in names.values()] == [True] * 4


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (None, (), "no backbones.json or bench.json"),
        ([{"op": "ss2d"}], (), "rows of another kind"),
        ({"op": "ss2d"}, (), "not a list of rows"),
        ([operation("x")], ("--format", "html"), "html"),
    ],
)
def test_what_is_no_benchmark_is_said(
    tmp_path: Path, rows: object, options: tuple[str, ...], words: str
) -> None:
    folder = kept(tmp_path / "run", "bench" if rows else "nothing", rows)
    done = CliRunner().invoke(app, ["kernels", "tables", str(folder), *options])
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
