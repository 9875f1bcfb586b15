"""Other implementations of SS2D found on the path: correct, or missing with a one-line reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.helpers.checks import known
from tests.helpers.commands import vlmprof
from tests.helpers.mamba_build import write_mamba
from vlmprof.kernels import ss2d
from vlmprof.kernels.tools.baselines import find_baselines
from vlmprof.kernels.tools.cases import ss2d_case
from vlmprof.kernels.tools.official_vmamba import why_no_compiled_scan

PUBLIC_LAYOUT = """
from vlmprof.kernels.cross_scan.reference import cross_merge_reference, cross_scan_reference
class CrossScanF:
    @staticmethod
    def apply(x, *chosen): return cross_scan_reference(x)
class CrossMergeF:
    @staticmethod
    def apply(ys, *chosen): return cross_merge_reference(ys.flatten(-2), *ys.shape[-2:]).flatten(-2)
def cross_scan_fn(x, *chosen): raise AssertionError("no CUDA device here")
cross_merge_fn = cross_scan_fn
"""

PUBLIC_SCANS = """
try:
    import selective_scan_cuda
except ImportError:
    pass
def selective_scan_fn(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=True, oflex=True,
                      backend=None):
    out, *rest = selective_scan_cuda.fwd(u, delta, A, B, C, D, None, delta_bias, delta_softplus)
    return out
"""

COMPARED = """
import json, os, sys, torch, torch._dynamo, torch._inductor.config
from pathlib import Path
from vlmprof.kernels.tools.baselines import find_baselines
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.ss2d.reference import ss2d_reference
from vlmprof.kernels.tools.cases import ss2d_case
x, *parameters = ss2d_case("any", torch.float32, torch.device("cpu"), (2, 5, 7, 6), 3, 1).arguments
torch.set_num_threads(1)  # a pool of threads does not survive the forks below
truth = ss2d_reference(x.double(), Parameters(*(p.double() for p in parameters)))
def compare(build, checkout):
    sys.path.insert(0, build)
    found, missing = find_baselines(Path(checkout) if checkout else None)
    errors = {}
    for name in found.keys() - {"compiled"}:
        with torch.inference_mode():
            errors[name] = float((found[name](x, *parameters).double() - truth).norm() / truth.norm())
    print(json.dumps([errors, missing]), flush=True)

for build, checkout in json.loads(sys.argv[1]):
    child = os.fork()  # a process of its own for each build, and torch imported once
    if not child:
        compare(build, checkout)
        os._exit(0)
    os.waitpid(child, 0)
"""


BROKEN = {
    "undefined symbol": (
        "selective_scan_cuda.py", "raise ImportError('undefined symbol: _ZN3c10\\nmore')",
    ),
    "OSError: libcudart": ("selective_scan_cuda.py", "raise OSError('libcudart.so.12: no such file')"),
    "selective_scan_fn": ("mamba_ssm/ops/selective_scan_interface.py", ""),
}  # fmt: skip
"""A file of a build that is broken, by a word of the reason."""

Compared = tuple[dict[str, float], dict[str, str]]
"""Relative errors of the peers that are found, and why others are missing."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compared]:
    """What is found of every build here, each looked at by a process of its own."""
    folder = tmp_path_factory.mktemp("builds")
    models = folder / "checkout" / "classification" / "models"
    models.mkdir(parents=True)
    (models / "csm_triton.py").write_text(PUBLIC_LAYOUT)
    (models / "csms6s.py").write_text(PUBLIC_SCANS)
    given: dict[str, tuple[Path, Path | None]] = {"whole": (write_mamba(folder / "whole"), None)}
    for more in ("", ", cu_seqlens"):
        given[f"public{more}"] = (write_mamba(folder / f"public{len(more)}", more), folder / "checkout")
    for words, (file, content) in BROKEN.items():
        build = write_mamba(folder / f"broken{len(given)}")
        (build / file).write_text(content)
        given[words] = (build, None)
    pairs = [[str(build), checkout and str(checkout)] for build, checkout in given.values()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPARED, json.dumps(pairs)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[{")]
    assert len(answers) == len(given), done.stderr[-2000:]
    return {name: (errors, missing) for name, (errors, missing) in zip(given, answers, strict=True)}


@pytest.mark.slow
def test_a_build_outside_is_found_and_computes_ss2d(compared: dict[str, Compared]) -> None:
    errors, missing = compared["whole"]
    assert errors.keys() == {"mamba_ssm"}
    assert errors["mamba_ssm"] < 1e-6
    assert missing == {}


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", ", cu_seqlens"])
def test_the_public_code_runs_on_any_build_of_that_scan(more: str, compared: dict[str, Compared]) -> None:
    errors, _ = compared[f"public{more}"]
    assert errors["vmamba"] < 1e-6


def test_a_public_code_without_a_compiled_scan_is_told_from_one_with_it() -> None:
    def scans(**names: object) -> ModuleType:
        module = ModuleType("csms6s")
        vars(module).update(names)
        return module

    assert why_no_compiled_scan(scans(selective_scan_cuda_core=object())) is None
    assert why_no_compiled_scan(scans(WITH_SELECTIVESCAN_OFLEX=False, WITH_SELECTIVESCAN_MAMBA=True)) is None
    for found in (
        scans(),
        scans(WITH_SELECTIVESCAN_OFLEX=False, WITH_SELECTIVESCAN_CORE=False, selective_scan_cuda_core=1),
    ):
        assert "selective_scan_cuda_oflex or selective_scan_cuda to PYTHONPATH" in str(
            why_no_compiled_scan(found)
        )


@pytest.mark.slow
@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_build_is_a_line_and_leaves_the_others(words: str, compared: dict[str, Compared]) -> None:
    errors, missing = compared[words]
    assert errors == {}
    assert words in missing["mamba_ssm"]
    assert "\n" not in missing["mamba_ssm"]


@pytest.mark.slow
def test_the_command_says_what_is_missing_and_times_the_rest(tmp_path: Path) -> None:
    """In this process, without compiling the other peer; `test_kernel_faults` has peers in processes."""
    command = ("kernels", "bench", "--no-isolate", "--device", "cpu", "--op", "ss2d", "--peers")
    outputs = []
    for path in (tmp_path, write_mamba(tmp_path / "build")):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(path)
            patch.setattr("vlmprof.kernels.tools.baselines.compiled_here", lambda function: function)
            done = vlmprof(tmp_path, *command, "--resolution", "64", "--level", "3", "--seconds", "0")
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "mamba_ssm" not in sys.modules  # transformers would take the bare package for an installed one
    not_there, there = outputs
    assert "mamba_ssm " in there
    assert "is not timed" not in there
    assert (
        "mamba_ssm is not timed: mamba_ssm is not installed; add its parent folder to PYTHONPATH\n"
        in not_there
    )


@pytest.mark.slow
def test_the_compiled_peer_compiles_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor, "compile_threads", 4)
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    compiled = find_baselines()[0]["compiled"]
    assert inductor.compile_threads == 1
    # each step of a line is unrolled, so that a few more would take half a minute to compile
    case = ss2d_case("any", torch.float32, torch.device("cpu"), (1, 2, 3, 4), 2, 1)
    with torch.inference_mode():
        arguments = [known(argument) for argument in case.arguments]
        assert torch.allclose(compiled(*arguments), ss2d(*arguments), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(inductor, "compile_threads", 4)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")
    find_baselines()
    assert inductor.compile_threads == 4
