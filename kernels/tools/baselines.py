"""Other implementations of SS2D's core, timed in the same run if they are installed.

Each has the signature of `ss2d` and runs the projections as in the public code, then the baseline's scan. No
code is copied; it is imported, or loaded from a path.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vlmprof.kernels.common.checks import first_line
from vlmprof.kernels.common.compiled import compiled_here
from vlmprof.kernels.cross_scan.reference import cross_merge_reference, cross_scan_reference
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.ss2d.vectorized import segment_elements, ss2d_vectorized
from vlmprof.kernels.tools.official_vmamba import (
    MODELS,
    accept_any_mamba_ssm,
    allow_cpu,
    module_at,
    stub_missing_packages,
    why_no_compiled_scan,
)

MOST_UNROLLED = 2
"""Most segments of a direction to unroll; each adds about a hundred operations to the graph."""

Baseline = Callable[..., Tensor]


def find_baselines(public: Path | None = None) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Return the available baselines, and the reason for each unavailable one, both by name.

    `compiled` is the `torch` backend under torch.compile, `mamba_ssm` that package's scan, and `vmamba` the
    scan of a checkout of MzeroMiko/VMamba at `public`. Raises ValueError if `public` is not such a checkout.
    """
    if public is not None and not (public / MODELS / "csm_triton.py").exists():
        raise ValueError(f"{public} is not a checkout of MzeroMiko/VMamba: no {MODELS}/csm_triton.py")
    makers: dict[str, Callable[[], Baseline]] = {"compiled": _compiled, "mamba_ssm": _mamba_ssm}
    if public is not None:
        makers["vmamba"] = partial(_public, public)
    found, missing = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Exception as error:  # a broken build may raise anything on import
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            missing[name] = kind + first_line(error)
    return found, missing


def _mamba_ssm() -> Baseline:
    """Return mamba_ssm's scan, without importing the package's language models.

    Raises ImportError if the package is missing or broken.
    """
    with _bare_package("mamba_ssm"), stub_missing_packages():
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    return _with_projections(interface.selective_scan_fn, cross_scan_reference, cross_merge_reference)


@contextmanager
def _bare_package(name: str) -> Iterator[None]:
    """Let modules of a package be imported in this context without its `__init__`.

    The bare package is gone afterwards: transformers would take it for an installed one.
    """
    if name in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is not installed; add its parent folder to PYTHONPATH")
    bare = sys.modules[name] = ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations)
    try:
        yield
    finally:
        del sys.modules[name]


def _compiled() -> Baseline:
    """Return the vectorized code under torch.compile, which unrolls its loop over segments.

    Raises RuntimeError for inputs that would take hours to compile.
    """
    compiled = compiled_here(ss2d_vectorized)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        segments = -(-x.numel() // segment_elements(x.device))
        if segments > MOST_UNROLLED:
            raise RuntimeError(f"torch.compile would unroll {segments} segments in each direction; not tried")
        unrolled: Tensor = compiled(x, Parameters(*parameters))
        return unrolled

    return run


def _public(checkout: Path) -> Baseline:
    models = checkout / MODELS
    layout: Any = module_at(models / "csm_triton.py", "baseline_csm_triton")
    allow_cpu(layout, layout)
    scan = module_at(models / "csms6s.py", "baseline_csms6s")
    accept_any_mamba_ssm(scan)
    if torch.cuda.is_available() and (lacking := why_no_compiled_scan(scan)):
        raise ImportError(lacking)

    def cross_merge(ys: Tensor, height: int, width: int) -> Tensor:
        merged: Tensor = layout.cross_merge_fn(ys.unflatten(-1, (height, width)))
        return merged.unflatten(-1, (height, width))

    return _with_projections(scan.selective_scan_fn, layout.cross_scan_fn, cross_merge)


def _with_projections(
    scan: Callable[..., Tensor],
    cross_scan: Callable[[Tensor], Tensor],
    cross_merge: Callable[[Tensor, int, int], Tensor],
) -> Baseline:
    """Build SS2D's core from another implementation's cross-scan, selective scan and cross-merge."""

    def run(x: Tensor, *tensors: Tensor) -> Tensor:
        batch, height, width, d_inner = x.shape
        p = Parameters(*tensors)
        xs = cross_scan(x.permute(0, 3, 1, 2).contiguous())
        projected = torch.einsum("bkdl,kcd->bkcl", xs, p.x_proj_weight)
        dts, B, C = projected.split((p.dt_rank, p.d_state, p.d_state), dim=2)
        delta = torch.einsum("bkrl,kdr->bkdl", dts, p.dt_projs_weight).flatten(1, 2).contiguous()
        A, bias = -torch.exp(p.A_logs.float()), p.dt_projs_bias.flatten()
        B, C = B.contiguous(), C.contiguous()
        ys = scan(xs.flatten(1, 2), delta, A, B, C, p.Ds.float(), delta_bias=bias, delta_softplus=True)
        merged = cross_merge(ys.view(batch, 4, d_inner, height * width), height, width)
        return merged.permute(0, 2, 3, 1).to(x.dtype)

    return run
