"""Cross-scan and cross-merge: the four readings of an image that SS2D scans, and their sum."""

from vlmprof.kernels.cross_scan.op import cross_merge, cross_scan

__all__ = ["cross_merge", "cross_scan"]
