"""Run a command as if this machine had GPUs: python tests/simulated_gpu/simulate.py COMMAND…

The host side is real: torch's allocator and dispatcher, Triton's compiler and launches, streams, events,
graphs, NVML. Kernels compute nothing and take a configurable time. See README.md in this folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
LIBRARIES_LEFT = ("cusolver", "cusparse", "cufft", "cuFile", "curand", "nvrtc", "nvshmem")
"""Loaded as they are, and never called by what is tested."""

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=name,compute_cap) echo "Simulated NVIDIA H200, {capability}" ;;
*) echo "a simulated GPU" ;;
esac
"""
"""It has a name of its own, so that what is kept under the card's name is told from a real one's."""

STUB = 'extern "C" __attribute__((visibility("default"))) int {name}(...) {{ {body} return 0; }}\n'


@cache
def why_not() -> str | None:
    """The reason why there can be no simulated GPU here, or None when there can."""
    import torch

    if torch.version.cuda is None:
        return "needs a build of torch with CUDA"
    if not all(map(shutil.which, ("g++", "nm", "readelf"))):
        return "needs g++ and binutils"
    if not (_headers() / "cupti.h").exists():
        return "needs the headers of CUDA, in CUDA_HOME or /usr/local/cuda"
    return None


def environment(work: Path) -> dict[str, str]:
    """What a process needs in its environment to see GPUs; the libraries are built in `work`."""
    import torch

    torch_libraries = Path(torch.__file__).parent / "lib"
    users = [p for p in torch_libraries.glob("*.so") if re.search("cuda|torch_(python|cpu)|nvrtc", p.name)]
    looked_up = (torch_libraries / "libc10_cuda.so").read_bytes()
    wanted = _imported(users) | _named(rb"\x00(cu[A-Z]\w+)(?=\x00)", looked_up) | _called_by_triton()
    sources = ["devices", "memory", "streams", "kernels", "libraries", "profiler"]
    preloaded = [
        # under the driver's name, which is then what kernels' launchers need wherever they are carried to
        _build(work, "libcuda.so.1", sources, wanted),
        _build(work, _soname(users, "libnvrtc.so"), ["nvrtc"], set()),
    ]
    _build(work, "libnvidia-ml.so.1", ["nvml"], _named(rb"\x00(nvml\w+)(?=\x00)", looked_up))
    (work / "libcuda.so").symlink_to("libcuda.so.1")
    smi = work / "nvidia-smi"
    smi.write_text(NVIDIA_SMI.format(capability=os.environ.get("SIMULATED_CAPABILITY", "9.0")))
    smi.chmod(0o755)
    return {
        "PATH": f"{work}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "LD_PRELOAD": ":".join(map(str, preloaded)),
        "LD_LIBRARY_PATH": str(work),
        "TRITON_LIBCUDA_PATH": str(work),
    }


def _build(work: Path, name: str, sources: list[str], wanted: set[str]) -> Path:
    """A library of these sources, and of functions that do nothing for all else that is wanted."""
    objects = [work / f"{source}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        _run(
            "g++", "-O1", "-fPIC", "-w", f"-I{_headers()}", "-c", str(HERE / f"{source}.cpp"), "-o", str(made)
        )
    defined = {line.split()[-1] for line in _run("nm", *map(str, objects)).splitlines() if " T " in line}
    noting = "simulated_gpu_note" in defined
    text = 'extern "C" void simulated_gpu_note(const char*);\n' if noting else ""
    for function in sorted(wanted - defined):
        text += STUB.format(name=function, body=f'simulated_gpu_note("{function}");' if noting else "")
    rest = work / f"{name}.rest.cpp"
    rest.write_text(text)
    built = work / name
    linked = [*map(str, objects), str(rest), "-o", str(built), f"-Wl,-soname,{name}", "-ldl", "-lpthread"]
    _run("g++", "-fPIC", "-w", "-shared", *linked)
    return built


def _imported(libraries: list[Path]) -> set[str]:
    """CUDA's functions that these libraries ask the linker for."""
    lines = _run("nm", "-D", "--undefined-only", *map(str, libraries)).splitlines()
    names = {line.split()[-1].split("@")[0] for line in lines if " U " in line}
    return {n for n in names if re.match(r"(__)?cu[a-zA-Z]", n) and not n.startswith(LIBRARIES_LEFT)}


def _called_by_triton() -> set[str]:
    """Functions in the source that Triton compiles when it first meets a GPU."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return set()
    return _named(rb"(cu[A-Z]\w+)\(", (Path(spec.origin).parent / "backends/nvidia/driver.c").read_bytes())


def _named(pattern: bytes, text: bytes) -> set[str]:
    return {found.decode() for found in re.findall(pattern, text)}


def _soname(libraries: list[Path], name: str) -> str:
    needed = _run("readelf", "-d", *map(str, libraries))
    found = re.search(rf"\[({re.escape(name)}\.\d+)\]", needed)
    assert found, f"nothing needs {name}"
    return found[1]


def _headers() -> Path:
    return Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Run the command line in a simulated machine."""
    reason = why_not()
    if reason is not None or not sys.argv[1:]:
        print(f"simulate: {reason or 'name a command to run'}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        return subprocess.run(
            sys.argv[1:], env={**os.environ, **environment(Path(work))}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
