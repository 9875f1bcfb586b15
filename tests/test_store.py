"""The run folder: what survives faults, and what is rejected."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.checks import known
from vlmprof import store
from vlmprof.errors import UserError
from vlmprof.manifest import environments
from vlmprof.measure.samples import Samples
from vlmprof.records import Row, StageFigures, Status, completed, stage_column
from vlmprof.store import RunFolder, load_frame, load_manifest, load_samples, read_rows

MANIFEST: dict[str, Any] = {
    "spec": {"axes": {"backbone": ["vit-t"]}, "fixed": {"seed": 0, "run_after_oom": False}},
    "command": "vlmprof sweep",
    "environment": {"device_name": "this"},
}


def a_row(cell_id: str = "a", **changes: Any) -> Row:
    base: dict[str, Any] = {
        "cell_id": cell_id,
        "axes": {"backbone": "vit-t", "resolution": "224", "llm": "llama-23m"},
        "height_px": 224,
        "width_px": 224,
        "status": Status.OK,
        "stages": {
            "vision": StageFigures(host_s=0.125, peak_rss_bytes=7),
            "prefill": StageFigures(gpu_s=0.5),
        },
        "end_to_end_s": 0.7,
        "backends": {"ss2d": "torch"},
        "warnings": ("careful",),
    }
    return Row(**(base | changes))


def test_a_row_comes_back_as_it_was() -> None:
    assert Row.from_flat(json.loads(json.dumps(a_row().to_flat()))) == a_row()


def test_every_number_carries_its_unit() -> None:
    assert stage_column("host_s", "vision") == "host_vision_s"
    assert stage_column("peak_allocated_bytes", "prefill") == "peak_allocated_prefill_bytes"
    assert stage_column("achieved_flops_per_s", "vision") == "achieved_vision_flops_per_s"
    units = ("_s", "_bytes", "_px", "_tokens")
    plain = {"batch_size", "warm_up", "iterations", "repeat"}
    for name, value in a_row(weight_bytes=1, visual_tokens=2, build_s=1.0).to_flat().items():
        if isinstance(value, int | float) and name not in plain:
            assert name.endswith(units), name


def test_a_run_from_before_the_profiler_could_be_left_out_goes_on_either_way(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", MANIFEST) as folder:
        folder.append(a_row("a"), Samples())
    for profile in (True, False):
        fixed = {**MANIFEST["spec"]["fixed"], "profile": profile}
        with RunFolder(
            tmp_path / "run", {**MANIFEST, "spec": {**MANIFEST["spec"], "fixed": fixed}}
        ) as folder:
            assert folder.rows() == {"a": a_row("a")}
    assert len(load_frame(tmp_path / "run")) == 1


def test_rows_samples_and_manifest_are_read_back(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", MANIFEST) as folder:
        folder.append(a_row("a"), Samples({"host_vision_s": [0.1, 0.15]}))
        folder.append(a_row("b", status=Status.OOM, oom_stage="vision"), Samples())
        folder.append(a_row("a", end_to_end_s=0.9), Samples({"host_vision_s": [0.2]}))
    frame = load_frame(tmp_path / "run").set_index("cell_id")
    assert frame.loc["a", "end_to_end_s"] == 0.9
    assert frame.loc["b", "oom_stage"] == "vision"
    assert load_samples(tmp_path / "run") == {"a": {"host_vision_s": [0.2]}}
    assert load_manifest(tmp_path / "run") == MANIFEST


@pytest.mark.filterwarnings("ignore::vlmprof.errors.RunWarning")
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_half_written_last_line_is_survived(tmp_path: Path, keep: float) -> None:
    run = tmp_path / "run"
    with RunFolder(run, MANIFEST) as folder:
        folder.append(a_row("a"), Samples())
        folder.append(a_row("b"), Samples())
    first, second, _ = (run / "rows.jsonl").read_bytes().split(b"\n")
    (run / "rows.jsonl").write_bytes(first + b"\n" + second[: int(len(second) * keep)])
    assert [row.cell_id for row in read_rows(run)] == ["a"]
    with RunFolder(run, MANIFEST) as folder:
        assert list(folder.rows()) == ["a"]
        folder.append(a_row("c"), Samples())
    assert [row.cell_id for row in read_rows(run)] == ["a", "c"]


@pytest.mark.filterwarnings("ignore::vlmprof.errors.RunWarning")
def test_a_garbled_line_in_the_middle_costs_only_its_own_cell(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunFolder(run, MANIFEST) as folder:
        for name in "abc":
            folder.append(a_row(name), Samples())
    lines = (run / "rows.jsonl").read_bytes().split(b"\n")
    for garbage in (b"\x00\xff" * 9, b"null", b"[]", b'{"cell_id": "b"}', b'{"status": "fine"}'):
        (run / "rows.jsonl").write_bytes(b"\n".join([lines[0], garbage, *lines[2:]]))
        assert [row.cell_id for row in read_rows(run)] == ["a", "c"]


@pytest.mark.filterwarnings("error")
def test_an_empty_line_is_no_row_and_rows_that_are_no_file_are_a_clear_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunFolder(run, MANIFEST) as folder:
        folder.append(a_row("a"), Samples())
    rows = run / "rows.jsonl"
    rows.write_bytes(b"\n" + rows.read_bytes() + b"\r\n \n")
    assert list(load_frame(run)["cell_id"]) == ["a"]
    rows.unlink()
    rows.mkdir()
    for read in (load_frame, read_rows):
        with pytest.raises(UserError, match="cannot be read: Is a directory"):
            read(run)


@pytest.mark.parametrize("loads", [vars(store)["_loads"], json.loads], ids=["orjson", "json"])
def test_any_text_and_number_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: Callable[[bytes], object]
) -> None:
    monkeypatch.setattr("vlmprof.store._loads", loads)
    rows = [
        a_row("odd", message=os.fsdecode(b"no file \xff.png")),
        a_row("b", message="naïve\n\x00\u2028😀", end_to_end_s=0.1 + 0.2, weight_bytes=2**53 + 1),
    ]
    with RunFolder(tmp_path / "run", MANIFEST) as run:
        for row in rows:
            run.append(row, Samples())
    assert [row.message for row in read_rows(tmp_path / "run")] == ["no file ?.png", rows[1].message]
    assert read_rows(tmp_path / "run")[1] == rows[1]
    assert load_frame(tmp_path / "run")["end_to_end_s"].tolist() == [0.7, 0.1 + 0.2]


def test_another_spec_or_device_is_refused_with_both_shown(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", MANIFEST).__exit__(None, None, None)
    other = json.loads(json.dumps(MANIFEST))
    other["spec"]["axes"]["backbone"] = ["vit-s"]
    other["environment"]["device_name"] = "that"
    with pytest.raises(
        UserError, match=r'\["vit-t"\] there but \["vit-s"\] here; device is this there but that'
    ):
        RunFolder(tmp_path / "run", other)
    other = json.loads(json.dumps(MANIFEST))
    other["spec"]["fixed"]["run_after_oom"] = True
    RunFolder(tmp_path / "run", other).__exit__(None, None, None)


def test_a_run_grows_by_values_on_its_axes_and_by_nothing_else(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", MANIFEST) as folder:
        folder.append(a_row("kept"), Samples())
    grown = json.loads(json.dumps(MANIFEST))
    grown["spec"]["axes"]["backbone"] = ["vit-s", *MANIFEST["spec"]["axes"]["backbone"]]
    grown["command"] = "another"
    grown["environment"]["started_at"] = "later"
    with RunFolder(tmp_path / "run", grown) as folder:
        assert folder.rows().keys() == {"kept"}
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written == {**MANIFEST, "spec": grown["spec"], "command": "another"}
    with pytest.raises(UserError, match=r'\["vit-s", "vit-t"\] there but \["vit-t"\] here'):
        RunFolder(tmp_path / "run", MANIFEST)
    grown["spec"]["fixed"]["seed"] = 1
    with pytest.raises(UserError, match=r"fixed\.seed"):
        RunFolder(tmp_path / "run", grown)


def test_rows_of_older_versions_get_the_columns_they_lack_in_the_order_of_new_rows() -> None:
    new = a_row().to_flat()
    known = {"cell_id", "backbone", "resolution", "llm", "height_px", "width_px", "status"}
    old = {name: value for name, value in new.items() if name in known}
    assert list(completed(old)) == [*old, *(name for name in new if name not in known)]


def test_a_run_continued_by_other_software_lists_both_environments(tmp_path: Path) -> None:
    def here(commit: str, load: float) -> dict[str, Any]:
        environment = {**MANIFEST["environment"], "commit": commit, "load_average": [load]}
        return {**MANIFEST, "environment": environment}

    for commit, load in (("aaa", 0.0), ("aaa", 9.0), ("bbb", 0.0), ("bbb", 1.0), ("aaa", 0.0)):
        with RunFolder(tmp_path / "run", here(commit, load)):
            pass
    kept = load_manifest(tmp_path / "run")
    assert kept["environment"]["commit"] == "aaa"
    assert [part["environment"]["commit"] for part in kept["continued"]] == ["bbb", "aaa"]
    assert [environment["commit"] for environment in environments(kept)] == ["aaa", "bbb", "aaa"]


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder(tmp_path, MANIFEST)
    assert (tmp_path / "thesis.txt").read_text() == "years"


@pytest.mark.slow
def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vlmprof.store import RunFolder;"
        f"f = RunFolder(Path(sys.argv[1]), {MANIFEST!r}); print('open', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert known(first.stdout).readline() == b"open\n"
    with pytest.raises(UserError, match="another sweep is writing"):
        RunFolder(tmp_path / "run", MANIFEST)
    first.kill()
    first.wait()
    RunFolder(tmp_path / "run", MANIFEST).__exit__(None, None, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write the run folder"):
        RunFolder(tmp_path / "run", MANIFEST)


def test_a_file_in_the_way_is_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot write the run folder"):
        RunFolder(tmp_path / "run", MANIFEST)


def _fill_up(run: Path, limit: int, results: Queue[tuple[int, str]]) -> None:
    """Append rows until files may grow no further, as on a full disk; report how it ended."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    written = 0
    with RunFolder(run, MANIFEST) as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            for n in range(1000):
                folder.append(a_row(f"cell-{n}"), Samples({"host_vision_s": [0.1] * 10}))
                written += 1
        except UserError as error:
            results.put((written, str(error)))


def test_a_full_disk_loses_no_row(tmp_path: Path) -> None:
    results: Queue[tuple[int, str]] = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(
        target=_fill_up, args=(tmp_path / "run", 20_000, results)
    )
    process.start()
    written, words = results.get(timeout=60)
    process.join()
    assert written > 3
    assert "no space left" in words
    assert "earlier rows are safe" in words
    assert [row.cell_id for row in read_rows(tmp_path / "run")] == [f"cell-{n}" for n in range(written)]
    assert (tmp_path / "run" / "rows.jsonl").read_bytes().endswith(b"\n")
    with RunFolder(tmp_path / "run", MANIFEST) as folder:
        folder.append(a_row("after"), Samples())
    assert read_rows(tmp_path / "run")[-1].cell_id == "after"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_samples_that_do_not_fit_leave_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder(tmp_path / "run", MANIFEST) as folder:

        def no_space(fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(UserError, match="no space left"):
            folder.append(a_row("a"), Samples({"host_vision_s": [0.1]}))
    assert list((tmp_path / "run" / "samples").iterdir()) == []
    assert read_rows(tmp_path / "run") == []


def test_a_run_from_before_a_setting_was_known_goes_on_with_its_default(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", MANIFEST).__exit__(None, None, None)
    newer = {**MANIFEST, "spec": {**MANIFEST["spec"], "fixed": {"seed": 0, "outputs": "freed"}}}
    RunFolder(tmp_path / "run", newer).__exit__(None, None, None)
    newer["spec"]["fixed"]["outputs"] = "kept"
    with pytest.raises(UserError, match=r"fixed\.outputs is"):
        RunFolder(tmp_path / "run", newer)


def test_a_run_from_before_an_axis_was_known_goes_on_with_its_default(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", MANIFEST).__exit__(None, None, None)
    newer = json.loads(json.dumps(MANIFEST))
    newer["spec"]["axes"] |= {"tiling": ["none"], "tile_size": ["auto"], "max_tiles": ["auto"]}
    RunFolder(tmp_path / "run", newer).__exit__(None, None, None)
    newer["spec"]["axes"]["tiling"] = ["dynamic"]
    with pytest.raises(UserError, match=r"axes\.tiling is"):
        RunFolder(tmp_path / "run", newer)
