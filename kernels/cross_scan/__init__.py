"""Cross-scan and cross-merge: the four scan orders of an image in SS2D, and their sum."""

from vlmprof.kernels.cross_scan.op import cross_merge, cross_scan

__all__ = ["cross_merge", "cross_scan"]
