"""Parallel compilation of kernels, with results cached on disk.

A kernel is compiled again only if its source, its launch, the compiler, the disassembler or the parsing of
its output has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from vlmprof.kernels.common.tuning_cache import cache_path, write_atomically
from vlmprof.kernels.tools import inspect
from vlmprof.kernels.tools.inspect import Compiled, compile_launch
from vlmprof.kernels.tools.launch_variants import Launch

OnBegin = Callable[[Launch], None]


def folder() -> Path:
    """Return the folder of the cached results, next to the tuning cache."""
    return cache_path().parent / "inspected"


def compile_all(
    launches: Sequence[Launch], architecture: str, on_begin: OnBegin = lambda launch: None
) -> Iterator[tuple[Launch, Compiled | Exception]]:
    """Yield each launch with its compilation result or error, in the given order.

    `on_begin` is called, from any thread, with each launch that is not cached. Raises the errors of
    `check_can_compile`.
    """
    inspect.check_can_compile(architecture)
    # most of the time is spent in LLVM and the assembler, which release the interpreter lock
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None)
    try:
        work = [pool.submit(_compiled, launch, architecture, on_begin) for launch in launches]
        for launch, result in zip(launches, work, strict=True):
            yield launch, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compiled(launch: Launch, architecture: str, on_begin: OnBegin) -> Compiled | Exception:
    try:
        path = folder() / f"{_key(launch, architecture)}.json"
        cached = _read(path)
        if cached is None:
            on_begin(launch)
            cached = compile_launch(launch, architecture)
            _write(path, cached)
        return cached
    except Exception as error:  # whatever the compiler raises is the result of this kernel
        return error


_keys = threading.Lock()


def _key(launch: Launch, architecture: str) -> str:
    """Return a file name that encodes everything the result depends on."""
    import triton
    from triton._C.libtriton import get_cache_invalidating_env_vars
    from triton.compiler import make_backend

    with _keys:  # on first use, Triton hashes a kernel's source and queries the assembler's version
        source = inspect.source(launch).hash()
        assembler = make_backend(inspect.target(architecture)).hash()
    tool = Path(inspect.disassembler())
    stat = tool.stat()
    parts = (
        source, launch.name, launch.count_loop, launch.single_state, sorted(launch.options.items()),
        assembler, triton.__version__, sorted(get_cache_invalidating_env_vars().items()),
        str(tool), stat.st_size, stat.st_mtime_ns, Path(inspect.__file__).read_bytes(),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _read(path: Path) -> Compiled | None:
    """Read the result in a file, or return None if it is missing or unreadable."""
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))
        loops = tuple(columns.pop("loop_instructions_per_element"))
        return Compiled(**columns, loop_instructions_per_element=loops)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, compiled: Compiled) -> None:
    """Write the result to a file; if that fails, warn, because the kernel will be compiled again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(compiled)))
    except OSError as error:
        warnings.warn(f"cannot cache compiled kernels in {path.parent}: {error.strerror}", stacklevel=2)
