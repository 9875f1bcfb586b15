"""SS2D of VMamba: projections, four selective scans and their merge, fused."""

from vlmprof.kernels.ss2d.op import ss2d

__all__ = ["ss2d"]
