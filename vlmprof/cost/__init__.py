"""FLOPs, bytes and memory counted on meta tensors, and the roofline estimate. Measures nothing.

count      a cell's axes, or any module and its inputs, to counted costs
estimate   counted costs and a card's data sheet to latencies and memory
"""

from vlmprof.cost.costs import CellCost, Kind, OpCost, StageCost
from vlmprof.cost.dispatch_counter import count_module

__all__ = ["CellCost", "Kind", "OpCost", "StageCost", "count_module"]
