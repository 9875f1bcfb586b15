"""The GPU scripts: results after a kill, valid names, and what they need to measure and report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.helpers.checks import known
from vlmprof.spec import shipped_specs

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "sweeps" / "gpu"
RUN = SCRIPTS / "run.sh"
STEPS = (SCRIPTS / "steps.sh").read_text()

TWENTY_STEPS = """
FIRST=()
for n in $(seq 10 29); do
    FIRST+=("n$n")
    eval "step_n$n() { run 20 bash -c 'head -c 200000 /dev/urandom >r$n; sleep 0.2; touch s$n'; }"
done
SECOND=(n10)
"""


def machine(
    tmp_path: Path, card: str = "NVIDIA H100 80GB HBM3, 9.0", steps: str = TWENTY_STEPS
) -> dict[str, str]:
    """The environment of a machine whose nvidia-smi names a card, and of a script with steps of its own."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    smi = tools / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\necho "{card}"\n')
    smi.chmod(0o755)
    (tmp_path / "steps.sh").write_text(steps)
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "STEPS": str(tmp_path / "steps.sh"),
        "OUT": str(tmp_path / "out"),
        "WORK": str(tmp_path / "work"),
        "PYTHON": sys.executable,
        "TOTAL": "5",
        "OMP_NUM_THREADS": "1",
    }


def run(environment: dict[str, str], *arguments: str, script: Path = RUN) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile():
                known(packed.extractfile(member)).read()  # whole, or this raises
        return set(packed.getnames())


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_bash_understands_every_script(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "seconds"), [(1, 0.03), (4, 0.17), (9, 0.29)])
def test_killed_at_any_moment_it_leaves_an_archive_of_all_but_the_command_in_flight(
    tmp_path: Path, steps: int, seconds: float
) -> None:
    killed = subprocess.Popen(
        ["bash", str(RUN)], env=machine(tmp_path), stdout=subprocess.DEVNULL, start_new_session=True
    )
    results = tmp_path / "work" / "h100"
    deadline = time.monotonic() + 60
    while not (results / f"s{10 + steps}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    ended = {path.name for path in results.glob("s??")}
    kept = {Path(name).name for name in names_in(tmp_path / "out" / "h100.tgz")}
    assert steps < len(ended) < 20
    assert len(ended - kept) <= 1
    assert 1 <= len(list((tmp_path / "out").iterdir())) <= 3


def test_told_to_end_it_packs_what_there_is_and_leaves_nothing_running(tmp_path: Path) -> None:
    steps = (
        "FIRST=(one)\nstep_one() { run 60 bash -c 'echo $$ >pid; echo part >rows; sleep 50'; }\nSECOND=()\n"
    )
    stopped = subprocess.Popen(
        ["bash", str(RUN)], env=machine(tmp_path, steps=steps), stdout=subprocess.DEVNULL
    )
    rows = tmp_path / "work" / "h100" / "rows"
    deadline = time.monotonic() + 60
    while not rows.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped.terminate()
    assert stopped.wait(timeout=20) == 130
    assert "h100/rows" in names_in(tmp_path / "out" / "h100.tgz")
    time.sleep(0.5)
    assert not Path(f"/proc/{(rows.parent / 'pid').read_text().strip()}").exists()


@pytest.mark.slow
def test_nothing_starts_that_has_no_time_left_and_what_runs_is_ended(tmp_path: Path) -> None:
    steps = "FIRST=(long after)\nSECOND=()\n"
    steps += "step_long() { run 60 sleep 50; }\nstep_after() { run 5 touch after; }\n"
    begun = time.monotonic()
    done = run({**machine(tmp_path, steps=steps), "TOTAL": "0.45"})  # 27 s, of which 15 are for the end
    assert time.monotonic() - begun < 27
    assert "ended with 124" in done.stdout
    assert "no time left for: touch after" in done.stdout
    assert "h100/after" not in names_in(tmp_path / "out" / "h100.tgz")


@pytest.mark.parametrize(
    ("said", "card"),
    [
        ("NVIDIA H200, 9.0", "h200 (sm_90)"),
        ("NVIDIA H100 80GB HBM3, 9.0", "h100 (sm_90)"),
        ("NVIDIA A100-SXM4-80GB, 8.0", "a100 (sm_80)"),
        ("NVIDIA GeForce RTX 4090, 8.9", "rtx-4090 (sm_89)"),
        ("NVIDIA B200, 10.0", "b200 (sm_100)"),
        ("Simulated NVIDIA H200, 9.0", "simulated-h200 (sm_90)"),
    ],
)
def test_results_are_named_after_the_card(tmp_path: Path, said: str, card: str) -> None:
    done = run(machine(tmp_path, said, "FIRST=()\nSECOND=()\n"))
    assert f"== {card}, commit" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{card.split()[0]}.tgz"]


def test_a_later_call_goes_on_from_the_archive_of_an_earlier_one(tmp_path: Path) -> None:
    run(machine(tmp_path), "n10", "n11")
    archive = (tmp_path / "out" / "h100.tgz").rename(tmp_path / "first.tgz")
    fresh = {**machine(tmp_path), "WORK": str(tmp_path / "elsewhere"), "RESUME": str(archive)}
    run(fresh, "n12")
    assert {"h100/s10", "h100/s11", "h100/s12"} <= names_in(tmp_path / "out" / "h100.tgz")
    other = run({**machine(tmp_path, "NVIDIA L40S, 8.9"), "RESUME": str(archive)}, "n12")
    assert other.returncode == 2
    assert "not an archive of results on l40s" in other.stderr


def test_without_a_card_or_with_an_unknown_step_it_says_so(tmp_path: Path) -> None:
    done = run(machine(tmp_path, ""))
    assert (done.returncode, "SMALL=1" in done.stderr) == (2, True)
    done = run(machine(tmp_path), "n10", "n99")
    assert (done.returncode, "no step n99" in done.stdout) == (2, True)
    assert not (tmp_path / "work" / "h100" / "s10").exists()


def test_steps_and_files_that_the_scripts_name_exist() -> None:
    defined = set(re.findall(r"^step_(\w+)\(\)", STEPS, re.M))
    described = set(re.findall(r"^#   (\w+) +\w", STEPS, re.M))
    listed = set(" ".join(re.findall(r"^(?:FIRST|SECOND)=\((.+)\)", STEPS, re.M)).split())
    assert described == defined
    assert listed < defined
    specs = set(re.findall(r"\bsweep \d+ (\w+)", STEPS))
    assert len(specs) == 5
    assert {f"gpu/{name}" for name in specs} <= set(shipped_specs())
    for script in SCRIPTS.glob("*.sh"):
        for path in re.findall(r"\$(?:root|here)/([\w./-]+\.(?:py|sh))", script.read_text()):
            assert any((folder / path).is_file() for folder in (ROOT, SCRIPTS)), path


def test_every_file_of_tests_that_need_a_gpu_is_named() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", STEPS))
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__) and "pytest.mark.gpu" in path.read_text()
    }
    assert named == marked


def test_no_command_changes_the_cards_settings() -> None:
    text = "".join(path.read_text() for path in SCRIPTS.iterdir() if path.suffix == ".sh")
    flags = (
        r"nvidia-smi[^\n]* (-pm|-pl|-ac|-rac|-lgc|-rgc|-lmc|-c|-e|-r|-mig|--(gpu-reset|lock|power-limit))\b"
    )
    assert re.search(flags, text) is None
    profiled = re.findall(r"\bncu (?!--import)[^\n]*", text.replace("command -v ncu", ""))
    assert profiled
    assert all("--clock-control none" in command for command in profiled if "--" in command)


@pytest.mark.slow
def test_it_measures_from_the_bare_tree_without_what_only_reports_need_and_the_reports_are_made(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for module in ("orjson", "plotly", "torch_tb_profiler"):
        (blocked / f"{module}.py").write_text(f"raise ImportError('{module} is not there')\n")
    environment = machine(tmp_path) | {"SMALL": "1", "STEPS": str(SCRIPTS / "steps.sh")}
    done = run(environment | {"PYTHONPATH": str(blocked)}, "versions", "encoders", "ss2d", "telling")
    assert "-- " not in done.stdout, done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cpu.tgz"]

    laid_out = run(
        environment, str(tmp_path / "out/cpu.tgz"), str(tmp_path / "reports"), script=SCRIPTS / "unpack.sh"
    )
    assert laid_out.returncode == 0, laid_out.stderr
    assert "remove them" not in laid_out.stderr, laid_out.stdout
    folder = tmp_path / "reports" / "cpu"
    page = (folder / "README.md").read_text()
    row = json.loads((folder / "encoders" / "backbones.json").read_text())[0]
    assert row["backbone"] == "vmamba-t"
    assert "| VMamba-T | 64² |" in page
    assert page.count("| ss2d | vmamba-t 64 level") == 4
    assert "vlmprof sweep gpu/figure --out figure" in page
    assert str(ROOT) not in page
    for name in ("six_panel.png", "report.md", "rows.jsonl", "run.json", "samples", "against-paper.txt"):
        assert (folder / "figure" / name).exists(), name
    assert not list(folder.rglob("logs"))


LINEAR = """
FIRST=(linear)
SECOND=()
step_linear() {
    run 200 "$python" -m vlmprof kernels bench --device cuda --op linear --level 4 --seconds 0.01
    check_cache
}
"""


@pytest.mark.slow
def test_kernels_that_were_compiled_without_a_gpu_are_not_compiled_again(tmp_path: Path) -> None:
    from tests.simulated_gpu.simulate import why_not

    if (reason := why_not()) is not None:
        pytest.skip(reason)
    environment = {
        **os.environ,
        **{name: machine(tmp_path, steps=LINEAR)[name] for name in ("STEPS", "OUT", "PYTHON")},
    }
    environment |= {"STEPS_ASKED": "linear", "WORK": str(tmp_path / "work"), "TOTAL": "5"}
    built = run(environment, "--out", str(tmp_path / "cache"), script=SCRIPTS / "build_cache.sh")
    count = int(known(re.match(r"(\d+) kernels for sm_90", built.stdout.splitlines()[-1]))[1])
    assert count > 0
    with tarfile.open(tmp_path / "cache" / "sm_90.txz") as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    launchers = list((tmp_path / "unpacked").rglob("*.so"))
    assert launchers
    needed = subprocess.run(["readelf", "-d", *launchers], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"NEEDED.*\[(.+)\]", needed)) <= {"libcuda.so.1", "libc.so.6", "libpython3.so"}

    simulated = [sys.executable, str(ROOT / "tests/simulated_gpu/simulate.py"), "bash", str(RUN)]
    for cache, said in (
        (tmp_path / "cache" / "sm_90.txz", "\n0 kernels compiled by the first command"),
        (tmp_path / "none", f"{count} kernels compiled by the first command\n-- the shorter plan"),
    ):
        given = {**environment, "CACHE": str(cache), "WORK": str(tmp_path / cache.name)}
        done = subprocess.run(simulated, env=given, capture_output=True, text=True, timeout=600, check=False)
        assert said in done.stdout, done.stdout
