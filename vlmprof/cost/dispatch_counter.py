"""Counting of a module's operations by running it on `meta` tensors, which have shapes but no data.

The counter intercepts torch's dispatcher below autograd, and sees the operations that would reach the device:
composite operations are decomposed first, except attention, which is one kernel unless `math` is requested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Literal, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode

from vlmprof.backbones.grouped_products import grouped_output, is_grouped_product
from vlmprof.cost.costs import OpCost, StageCost, unread_bytes
from vlmprof.cost.experts import TOP_K, Routing, grouped_cost, routing_of
from vlmprof.cost.formulas import attention_workspace_bytes, op_cost, tensors_in
from vlmprof.cost.liveness import LiveMemory, in_blocks, module_tensors
from vlmprof.cost.packed_parameters import PackedParameters
from vlmprof.cost.repeats import MOST_OUTCOMES, Call, known_outcomes, outcome
from vlmprof.cost.scans import Kernels, is_scan, scan_cost
from vlmprof.cost.values import ReadsValuesError, assumed_values, is_read, on_one_device

Attention = Literal["fused", "math"]
Result = TypeVar("Result")

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_CONVOLUTION = torch.ops.aten.convolution.default
FUSED_HEAD_DIM = 256
"""The largest head dimension that torch's flash attention kernels support."""

_LOOPS_OVER_EXPERTS: WeakSet[nn.Module] = WeakSet()
"""Models that were found to read the indices of the chosen experts."""


class CostCounter(TorchDispatchMode):
    """A context that counts every operation and every live byte. Use it inside `torch.inference_mode()`.

    With `routes`, routers return expert indices with values, so that a loop over experts can be counted.
    """

    def __init__(
        self,
        kernels: Kernels = "triton",
        attention: Attention = "fused",
        in_full: bool = False,
        routes: bool = False,
    ) -> None:
        super().__init__()
        self.memory = LiveMemory()
        self.packed = PackedParameters()
        self._kernels = kernels
        self._attention = attention
        # an operation costs the same in every module; integers are promoted to torch's default dtype
        self._outcomes = known_outcomes(kernels, attention, torch.get_default_dtype())
        self._in_full = in_full
        self._routes = routes
        self._routings: list[Routing] = []
        """The routing of every `topk` so far."""
        self._costs: list[OpCost] = []
        """Costs in order: of all operations, or of the one being counted."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # nothing is compiled here; torch would wrap every dispatch to keep the compiler out
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._routes:
            args, kwargs = on_one_device(func, args, kwargs)
        if func.namespace == "vlmprof" and self._kernels == "triton":
            self.packed.note(func, args)
        if func is TOP_K:
            self._routings.append(routing_of(args[0], args[1]))
        # unfused attention depends on torch's settings, and a product of experts on the router before it
        unfused = func is _ATTENTION and not self._fuses(args[0])
        chooses = func is TOP_K and self._routes
        if self._in_full or unfused or chooses or is_grouped_product(func) or is_read(func, args, kwargs):
            return self._counted(func, args, kwargs)
        call = Call(func, args, kwargs, self.memory)
        if call.key is None:
            return self._counted(func, args, kwargs)
        known = self._outcomes.get(call.key)
        if known is None:
            return self._first(call, func, args, kwargs)
        if call.on_host:
            output = func(*args, **kwargs)
            if not known.repeat_on_host(output, self.memory):
                return self._counted(func, args, kwargs)
            self._costs += known.costs
            return output
        self._costs += known.costs
        return known.repeat(call, self.memory)

    def _first(self, call: Call, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Count the first call with its key, and store the outcome for later ones."""
        memory, around = self.memory, self._costs
        live_bytes, peak_bytes = memory.live_bytes, memory.peak_bytes
        memory.peak_bytes, self._costs = live_bytes, []
        try:
            output = self._counted(func, args, kwargs)
        finally:
            costs, self._costs = self._costs, around
            growth_bytes = memory.peak_bytes - live_bytes
            memory.peak_bytes = max(peak_bytes, memory.peak_bytes)
        self._costs += costs
        did = outcome(call, output, costs, growth_bytes, memory.live_bytes - live_bytes)
        if did is not None and call.key is not None:
            if len(self._outcomes) >= MOST_OUTCOMES:
                self._outcomes.clear()
            self._outcomes[call.key] = did
        return output

    def add(self, cost: OpCost) -> None:
        """Count a cost that no operation of torch shows."""
        self._costs.append(cost)

    def cut(self) -> tuple[dict[OpCost, int], int]:
        """The operations since the last cut, and the most bytes alive at once meanwhile."""
        ops, peak_bytes = self.ops(), self.memory.peak_bytes
        self._costs.clear()
        self.memory.peak_bytes = self.memory.live_bytes
        return ops, peak_bytes

    def ops(self) -> dict[OpCost, int]:
        """Return the number of calls of each distinct operation, in the order of their first calls."""
        same = {id(cost): cost for cost in self._costs}
        counted: Counter[OpCost] = Counter()
        for known, n in Counter(map(id, self._costs)).items():
            counted[same[known]] += n
        return dict(counted)

    def _counted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call and count it."""
        if is_read(func, args, kwargs):
            return assumed_values(func, args[0], self._routings if self._routes else ())
        fused = func is _ATTENTION and self._fuses(args[0])
        if not fused and _is_composite(func):
            with self:
                # as eager mode decomposes it; the compiler's decompositions turn a resize into 160 operations
                output = func._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
            if output is not NotImplemented:
                return output
        if is_grouped_product(func):
            return self._grouped(func, args, kwargs)
        output = _attended(*args[:3]) if fused and args[0].is_meta else func(*args, **kwargs)
        if func is _CONVOLUTION and args[0].is_meta:
            output = _laid_out_like(output, args[0])
        if func is TOP_K and self._routes and args[0].is_meta:
            output = output[0], self._routings[-1].choices(output[1].shape)
        workspace_bytes = 0
        cost: OpCost | None
        if is_scan(func):
            cost, workspace_bytes = scan_cost(func, args, output, self._kernels)
        else:
            cost = op_cost(func, args, kwargs, output)
            if fused:
                workspace_bytes = in_blocks(attention_workspace_bytes(args[0]))
        if cost is not None:
            self._costs.append(cost)
        self.memory.hold(tensors_in(output))
        self.memory.reach(workspace_bytes)
        return output

    def _grouped(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Make a grouped product and count it."""
        a, b = args[:2]
        output: Tensor = grouped_output(*args[:3], **kwargs) if a.is_meta else func(*args, **kwargs)
        self._costs.append(grouped_cost(output, a, b, self._routings))
        self.memory.hold([output])
        return output

    def _fuses(self, q: Tensor) -> bool:
        """Return whether attention with these queries, (…, tokens, head dim), is a single kernel."""
        return self._attention == "fused" and q.shape[-1] <= FUSED_HEAD_DIM and q.dtype != torch.float64


def count_module(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    call: Callable[..., Any] | None = None,
    kernels: Kernels = "triton",
    attention: Attention = "fused",
    in_full: bool = False,
) -> StageCost:
    """Count the cost of one call of `module` on `inputs`. On `meta`, nothing is computed or allocated.

    Args:
        call: The function to call with `inputs`, instead of `module`.
        kernels: The implementation of the scans to count, see `vlmprof.cost.scans`.
        attention: `fused` for a single kernel, `math` for separate operations.
        in_full: Do not reuse earlier counts. The result is the same.

    Raises `UserError` for a module that reads values of its tensors, which `meta` tensors do not have.
    """
    return count_call(module, inputs, call=call, kernels=kernels, attention=attention, in_full=in_full)[0]


def count_call(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    call: Callable[..., Any] | None = None,
    kernels: Kernels = "triton",
    attention: Attention = "fused",
    in_full: bool = False,
    state: Callable[[], Iterable[Tensor]] = tuple,
) -> tuple[StageCost, Any]:
    """Do the same as `count_module`, and also return the output of the call.

    `state` gives the tensors that an earlier call left in memory and that this one may replace.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    weights = [*module.parameters(), *module.buffers()]  # as they are before the call

    def counted(routes: bool) -> tuple[CostCounter, int, Any]:
        with torch.inference_mode(), CostCounter(kernels, attention, in_full, routes) as counter:
            memory = counter.memory
            memory.hold(module_tensors(module))
            resident_bytes = memory.live_bytes
            memory.hold(given)
            memory.hold(state())
            memory.peak_bytes = memory.live_bytes
            return counter, resident_bytes, (call or module)(*given)

    counter, resident_bytes, output = routed_if_read(module, counted)
    ops = counter.ops()
    cost = StageCost(
        ops=ops,
        unread_weight_bytes=unread_bytes(ops),
        weight_bytes=sum(t.nbytes for t in weights),
        resident_bytes=resident_bytes + counter.packed.size_bytes,
        input_bytes=sum(t.nbytes for t in given),
        output_bytes=sum(t.nbytes for t in tensors_in(output)),
        peak_activation_bytes=counter.memory.peak_bytes - resident_bytes,
    )
    return cost, output


def routed_if_read(module: nn.Module, counted: Callable[[bool], Result]) -> Result:
    """Return `counted(routes)`, with routes only if the model reads which experts its routers choose."""
    loops = module in _LOOPS_OVER_EXPERTS
    try:
        return counted(loops)
    except ReadsValuesError:
        if loops:
            raise
    result = counted(True)
    _LOOPS_OVER_EXPERTS.add(module)
    return result


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return an output with the layout of fused kernels, (batch, tokens, heads, dim) in memory, so that
    merging the heads afterwards copies nothing. The `meta` kernel would use the layout of q."""
    if q.dim() != 4:
        return q.new_empty(*q.shape[:-1], v.shape[-1])
    batch, heads, tokens, _ = q.shape
    return q.new_empty(batch, tokens, heads, v.shape[-1]).transpose(1, 2)


def _laid_out_like(output: Tensor, images: Tensor) -> Tensor:
    """Return a convolution's output channels last if its input is, as cuDNN and oneDNN do. The `meta`
    kernel does not, which would add a copy that no device makes."""
    last = torch.channels_last
    if output.dim() == 4 and images.is_contiguous(memory_format=last):
        return output.contiguous(memory_format=last)
    return output
