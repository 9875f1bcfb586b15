"""FLOPs, bytes and memory counted on meta tensors, and roofline estimates from them. Nothing is measured.

count      from a cell, or from any module and its inputs, to counted costs
estimate   from counted costs and a GPU's data sheet to latencies and peak memory
"""

from vlmprof.cost.costs import CellCost, Kind, OpCost, StageCost
from vlmprof.cost.dispatch_counter import count_module

__all__ = ["CellCost", "Kind", "OpCost", "StageCost", "count_module"]
