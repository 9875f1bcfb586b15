"""Measure how long users wait for commands, as whole processes: imports, work and output.

python tests/benchmarks/waiting.py [COMMAND…]

Prints elapsed and CPU seconds of each; `inspect` runs first without its cache. Arguments select commands by
the first words of their names.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

MANY = """
[axes]
backbone = ["vmamba-t", "vmamba-s", "vmamba-b", "vit-t", "vit-s", "vit-b", "vit-l", "vitdet-b", "vitdet-l",
            "vitdet-h", "clip-l", "siglip-b", "dinov2-b", "swin-t", "mambavision-t"]
resolution = [224, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 5120, 6144, 8192]
llm = ["vicuna-7b", "qwen2.5-7b", "llama-23m"]
connector = ["linear", "mlp2", "mlp3"]
dtype = ["bfloat16", "float16", "float32"]
batch_size = [1, 2, 4, 8]
mode = ["eager", "compile"]
"""
"""45,360 cells."""


def seconds(words: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, float, int]:
    """Elapsed and processor seconds of one command, children included, and the lines that it printed."""
    before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "vlmprof", *words], cwd=folder, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    elapsed_s, after = time.perf_counter() - begun_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return elapsed_s, busy_s, len(ended.stdout.splitlines())


def main() -> None:
    """Print a line per command."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "many.toml").write_text(MANY)
        kept = {"XDG_CACHE_HOME": str(folder / "cache"), "TRITON_CACHE_DIR": str(folder / "triton")}
        commands = {
            "version": ["--version"],
            "backbones": ["backbones"],
            "backbones show": ["backbones", "show", "vmamba-b"],
            "plan": ["plan", "many.toml"],
            "estimate": ["estimate", "kuo2026-fig4", "--gpu", "h200"],
            "inspect": ["kernels", "inspect"],
            "inspect again": ["kernels", "inspect"],
        }
        chosen = [name for name in commands if not sys.argv[1:] or name.split()[0] in sys.argv[1:]]
        seconds(["--version"], folder, kept)
        print(f"{'command':16} {'elapsed':>10} {'processor':>10} {'lines':>8}")
        for name in chosen:
            elapsed_s, busy_s, lines = seconds(commands[name], folder, kept)
            print(f"{name:16} {elapsed_s:8.2f} s {busy_s:8.2f} s {lines:8,}", flush=True)


if __name__ == "__main__":
    main()
