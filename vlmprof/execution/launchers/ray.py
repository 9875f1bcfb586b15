"""A launcher for a Ray cluster: each cell is a task with a whole GPU (on CPU clusters, a whole node).

Only nodes with the same kind of device take part, so that no line of a figure mixes devices. A cell whose
worker or node is lost is sent to another node. All rows return to the same run folder.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmprof.environment import visible_gpu_uuid
from vlmprof.errors import UserError, message_of
from vlmprof.execution.ceilings import Ceilings
from vlmprof.execution.launchers import Finished, Job
from vlmprof.execution.machine import describe_machine, measure_ceilings
from vlmprof.execution.rows import unmeasured_row
from vlmprof.execution.supervisor import measure_cell
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import Row, Status
from vlmprof.settings import Machine, Settings

ATTEMPTS = 3
"""How often a cell is started before the loss of its worker is an error."""


@dataclass(frozen=True)
class Slot:
    """A place for one cell at a time."""

    node_id: str
    resources: Mapping[str, float]
    machine: Machine


def connect(address: str, device: str, dtypes: Collection[str]) -> tuple[RayLauncher, Machine]:
    """Connect to the cluster at `address` (`local` starts one on this machine); return a launcher and its
    machine, with ceilings in each of `dtypes`.

    Raises `UserError` if Ray is not installed, there is no such cluster, or none of its nodes has `device`.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'vlmprof[ray]'") from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {message_of(error)}") from None

    slots = [slot for node in ray.nodes() if node["Alive"] for slot in _slots(node, device, dtypes)]
    kinds = Counter(slot.machine.device_name for slot in slots)
    if not kinds:
        raise UserError(f"no node of the Ray cluster at {address!r} has device {device!r}")
    chosen = kinds.most_common(1)[0][0]
    taken = [slot for slot in slots if slot.machine.device_name == chosen]
    return RayLauncher(taken), taken[0].machine


def _slots(node: Mapping[str, Any], device: str, dtypes: Collection[str]) -> list[Slot]:
    """Return the slots of a node: one per GPU, or one for the node if it has no GPU."""
    import ray

    gpus = int(node["Resources"].get("GPU", 0)) if device != "cpu" else 0
    share = {"num_gpus": 1.0} if gpus else {"num_cpus": float(node["Resources"].get("CPU", 1))}
    try:
        machine = ray.get(_on_node(node["NodeID"], share, _describe).remote(device, list(dtypes)))
    except ray.exceptions.RayError:
        return []
    return [Slot(node["NodeID"], share, machine)] * max(gpus, 1) if machine else []


def _on_node(node_id: str, share: Mapping[str, float], function: Any) -> Any:
    """Wrap `function` as a task that runs on one node with a `share` of it, without retries by Ray."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return ray.remote(function).options(scheduling_strategy=here, max_retries=0, **share)


def _describe(device: str, dtypes: Collection[str]) -> Machine | None:
    try:
        return describe_machine(device, dtypes)
    except UserError:
        return None


def _measure(cell: Cell, settings: Settings, machine: Machine, rest_s: float) -> tuple[Row, Samples, str]:
    """Measure a cell on its node after a rest; return row, samples and the output of its process."""
    time.sleep(rest_s)
    if machine.device_uuid is not None:
        # `machine` describes one of the node's GPUs, which may not be this task's
        machine = replace(machine, device_uuid=visible_gpu_uuid())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        row, samples = measure_cell(cell, replace(settings, device=machine.device), machine, log)
        return row, samples, log.read_text(errors="replace") if log.exists() else ""


class RayLauncher:
    """Keeps every slot of the cluster busy with one cell."""

    def __init__(self, slots: list[Slot]) -> None:
        self._free = deque(slots)
        self._running: dict[Any, tuple[Job, Slot]] = {}
        self._waiting: deque[Job] = deque()
        self._lost: Counter[str] = Counter()

    def __enter__(self) -> RayLauncher:
        return self

    def __exit__(self, *ended: object) -> None:
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        ray.shutdown()

    def has_room(self) -> bool:
        return len(self._free) > len(self._waiting)

    def start(self, job: Job) -> None:
        self._waiting.append(job)
        self._send()

    def repeat(self, finished: Finished, rest_s: float) -> None:
        # on a node with several GPUs, Ray assigns the one that has just become free
        self._free.remove(finished.place)
        self._run(finished.job, finished.place, rest_s)

    def wait(self) -> Finished:
        import ray

        while True:
            self._send()
            if not self._running:
                # all nodes are lost, so waiting jobs cannot run
                return self._given_up(self._waiting.popleft(), "all nodes of the cluster are lost")
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=1.0)
            for task in done:
                job, slot = self._running.pop(task)
                try:
                    row, samples, printed = ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    self._free.append(slot)
                    return self._given_up(job, f"its task failed: {error.cause}")
                except ray.exceptions.RayError as error:
                    self._recover(slot)
                    self._lost[job.cell.cell_id] += 1
                    if self._lost[job.cell.cell_id] >= ATTEMPTS:
                        return self._given_up(
                            job, f"its worker was lost {ATTEMPTS} times: {type(error).__name__}"
                        )
                    self._waiting.append(job)
                    continue
                self._free.append(slot)
                if printed:
                    job.log.write_text(printed)
                return Finished(job, row, samples, slot)

    def ceilings(self, dtypes: Collection[str]) -> Ceilings:
        import ray

        if not self._free:  # all nodes are lost
            return {}
        slot = self._free[0]
        task = _on_node(slot.node_id, slot.resources, measure_ceilings)
        try:
            reached = ray.get(task.remote(slot.machine.device, list(dtypes)))
        except ray.exceptions.RayError:
            return {}
        return {} if isinstance(reached, str) else reached

    def _send(self) -> None:
        while self._waiting and self._free:
            self._run(self._waiting.popleft(), self._free.popleft(), rest_s=0.0)

    def _run(self, job: Job, slot: Slot, rest_s: float) -> None:
        task = _on_node(slot.node_id, slot.resources, _measure)
        self._running[task.remote(job.cell, job.settings, slot.machine, rest_s)] = (job, slot)

    def _recover(self, slot: Slot) -> None:
        """Reuse a slot whose worker was lost, if its node is still alive."""
        import ray

        if any(node["NodeID"] == slot.node_id and node["Alive"] for node in ray.nodes()):
            self._free.append(slot)

    def _given_up(self, job: Job, why: str) -> Finished:
        row = unmeasured_row(job.cell, job.settings.device, Status.ERROR, why)
        return Finished(job, row, Samples(), place=None)
