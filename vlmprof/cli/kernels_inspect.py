"""`vlmprof kernels inspect`: print a line for each compiled kernel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from vlmprof.activity import say
from vlmprof.cli import kernels_rows
from vlmprof.cli.json_output import add_rows, tell
from vlmprof.errors import UserError, check_known

PATIENCE_S = 0.5
"""Compilation time after which a line reports that a kernel is being compiled."""

if TYPE_CHECKING:
    from vlmprof.kernels.tools.inspect import Compiled
    from vlmprof.kernels.tools.launch_variants import Launch


def inspect_kernels(architectures: Sequence[str], kernel: str, mix: bool) -> None:
    """Compile the kernels whose name contains `kernel`, or read the cached results, and print them.

    Raises `UserError` if kernels cannot be compiled on this machine, and `typer.Exit` with code 1 if one
    spills or fails to compile.
    """
    say("loading torch and Triton")
    from vlmprof.kernels.common.checks import first_line
    from vlmprof.kernels.tools import inspect as compiler
    from vlmprof.kernels.tools.inspect_cache import compile_all
    from vlmprof.kernels.tools.launch_variants import all_launches

    launches = [launch for launch in all_launches() if kernel in launch.name]
    if not launches:
        raise UserError(f"--kernel: no kernel has {kernel!r} in its name; without it, all are listed")
    check_known("architecture", architectures, compiler.ARCHITECTURES)
    made, failed = [], []
    kernels_rows.print_folded(
        f"{'kernel':44} {'arch':7}", "registers stack_B spills shared_B instructions per element"
    )
    for architecture in architectures:
        begins = _announcing(architecture, len(launches))
        try:
            for launch, result in compile_all(launches, architecture, begins):
                if isinstance(result, Exception):
                    failed.append(f"{launch.name} does not compile for {architecture}: {first_line(result)}")
                    continue
                made.append(result)
                _print(result, mix)
        except (ValueError, RuntimeError) as error:
            raise UserError(str(error)) from None
    bad = compiler.spilling(made)
    add_rows("inspect", map(asdict, made))
    for c in bad:
        tell(f"{c.name} spills on {c.architecture}: {c.spill_instructions} instructions")
    for line in failed:
        tell(line)
    if bad or failed:
        raise typer.Exit(1)


def _announcing(architecture: str, kernels: int) -> Callable[[Launch], None]:
    """Return a function that says which kernel is being compiled; thread-safe, as a count is."""
    numbers = itertools.count(1)

    def begins(launch: Launch) -> None:
        where = f"kernel {next(numbers)} of {kernels} for {architecture}"
        say(f"compiling {launch.name} ({where})", patience_s=PATIENCE_S)

    return begins


def _print(c: Compiled, mix: bool) -> None:
    loops = ", ".join(f"{n:.1f}" for n in c.loop_instructions_per_element)
    kernels_rows.print_folded(
        f"{c.name:44} {c.architecture:7}",
        f"{c.registers:9} {c.stack_bytes:7} {c.spill_instructions:6} {c.shared_bytes:8} "
        f"{c.instructions:12} {loops}",
    )
    if mix:
        print("    " + ", ".join(f"{name} {n}" for name, n in list(c.mix.items())[:16]))
