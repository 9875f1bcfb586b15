"""Scripts that run in processes of their own, in which Triton's interpreter runs the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PATCHED_ONCE = """
import triton.language as tl
from triton.runtime import interpreter
patch, patched = interpreter._patch_lang, set()
def patch_once(fn):
    if tl.core.is_builtin(tl.load):  # as it is between two launches
        patched.clear()
    if id(fn.__globals__) not in patched:
        patched.add(id(fn.__globals__))
        return patch(fn)
interpreter._patch_lang = patch_once
"""
"""The interpreter patches its language again for each call of a device function, which takes a third of its
time. Once for each module is enough."""


def interpret(
    script: str, folder: Path, environment: Mapping[str, str], warnings: str = "ignore"
) -> list[str]:
    """Run a script from a file in `folder`, since kernels need one; return the lines that it prints."""
    file = folder / "interpreted.py"
    file.write_text(PATCHED_ONCE + script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", warnings, str(file)],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
