"""Other implementations of SS2D's core, timed in the same run when they are there.

Each is a function from the arguments of `ss2d` to its result: the projections as the public code writes
them, then that peer's scan. Nothing of theirs is copied here; it is imported, or read from a path.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from vlmprof.kernels.cross_scan.reference import cross_merge_reference, cross_scan_reference
from vlmprof.kernels.ss2d.vectorized import segment_elements, ss2d_vectorized

MOST_UNROLLED = 2
"""Segments of a direction; each adds about a hundred operations to the graph."""

Peer = Callable[..., Tensor]
CrossScan = Callable[[Tensor], Tensor]
CrossMerge = Callable[[Tensor, int, int], Tensor]


def peers(public: Path | None = None) -> dict[str, Peer]:
    """The peers that can be had: `compiled` (the `torch` backend under torch.compile), `mamba_ssm` when it
    is installed, and `vmamba` from a checkout of MzeroMiko/VMamba at `public`.

    Raises ValueError when `public` holds no such checkout.
    """
    found: dict[str, Peer] = {"compiled": _compiled()}
    if importlib.util.find_spec("mamba_ssm") is not None:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        found["mamba_ssm"] = _written_out(
            interface.selective_scan_fn, cross_scan_reference, cross_merge_reference, takes_gate=True
        )
    if public is not None:
        found["vmamba"] = _public(public)
    return found


def _compiled() -> Peer:
    """The vectorised code under torch.compile, which unrolls its loop over segments. Raises RuntimeError
    where that would be compiled for hours."""
    compiled = torch.compile(ss2d_vectorized, dynamic=False)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        segments = -(-x.numel() // segment_elements(x.device))
        if segments > MOST_UNROLLED:
            raise RuntimeError(f"torch.compile would unroll {segments} segments in each direction; not tried")
        unrolled: Tensor = compiled(x, *parameters)
        return unrolled

    return run


def _public(checkout: Path) -> Peer:
    models = checkout / "classification" / "models"
    if not (models / "csm_triton.py").exists():
        raise ValueError(
            f"{checkout} is no checkout of MzeroMiko/VMamba: classification/models/csm_triton.py is missing"
        )
    layout = _module(models / "csm_triton.py")
    scan = _module(models / "csms6s.py")

    # its functions enter a CUDA device whatever they are given; the classes under them do not
    channels_first = (True, True, False, 0)

    def cross_scan(x: Tensor) -> Tensor:
        on_cpu = layout.CrossScanF.apply
        xs: Tensor = layout.cross_scan_fn(x) if x.is_cuda else on_cpu(x, *channels_first)
        return xs

    def cross_merge(ys: Tensor, height: int, width: int) -> Tensor:
        on_cpu = layout.CrossMergeF.apply
        ys = ys.unflatten(-1, (height, width))
        merged: Tensor = layout.cross_merge_fn(ys) if ys.is_cuda else on_cpu(ys, *channels_first)
        return merged.unflatten(-1, (height, width))

    return _written_out(scan.selective_scan_fn, cross_scan, cross_merge, takes_gate=False)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _written_out(
    scan: Callable[..., Tensor], cross_scan: CrossScan, cross_merge: CrossMerge, takes_gate: bool
) -> Peer:
    """SS2D's core around someone else's cross-scan, selective scan and cross-merge."""

    def run(
        x: Tensor,
        x_proj_weight: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
    ) -> Tensor:
        batch, height, width, d_inner = x.shape
        dt_rank, d_state = dt_projs_weight.shape[2], A_logs.shape[1]
        xs = cross_scan(x.permute(0, 3, 1, 2).contiguous())
        projected = torch.einsum("bkdl,kcd->bkcl", xs, x_proj_weight)
        dts, B, C = projected.split((dt_rank, d_state, d_state), dim=2)
        delta = torch.einsum("bkrl,kdr->bkdl", dts, dt_projs_weight).flatten(1, 2).contiguous()
        options: dict[str, object] = {"delta_bias": dt_projs_bias.flatten(), "delta_softplus": True}
        if takes_gate:
            options["z"] = None
        A = -torch.exp(A_logs.float())
        ys = scan(xs.flatten(1, 2), delta, A, B.contiguous(), C.contiguous(), Ds.float(), **options)
        merged = cross_merge(ys.view(batch, 4, d_inner, height * width), height, width)
        return merged.permute(0, 2, 3, 1).to(x.dtype)

    return run
