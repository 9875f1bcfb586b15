"""The machine of a run, queried from a separate process."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from vlmprof.environment import Accelerator, host_facts
from vlmprof.errors import UserError
from vlmprof.execution.processes import call_in_process
from vlmprof.settings import Machine

logger = logging.getLogger(__name__)


def describe_machine(device: str, dtypes: Collection[str] = ()) -> Machine:
    """Describe `device`, with its ceilings in each of `dtypes`.

    This process does not import torch, and the fork server does not touch a device. If ceilings cannot be
    measured, the facts state why. Raises `UserError` if there is no such device.
    """
    ended = call_in_process("vlmprof.environment:accelerator_facts", (device,))
    if ended.user_error:
        raise UserError(ended.user_error)
    if ended.value is None:
        why = ended.error or f"the process that queried it exited with code {ended.exit_code}"
        raise UserError(f"device {device!r} cannot be used: {why}")
    found: Accelerator = ended.value
    machine = Machine(
        found.device, found.device_name, found.device_memory_bytes, found.device_uuid,
        facts={**host_facts(), "torch_threads": found.torch_threads, "cuda_version": found.cuda_version},
    )  # fmt: skip
    if found.warnings:
        machine = replace(machine, facts={**machine.facts, "warnings": list(found.warnings)})
    logger.info("device %s: %s, %s bytes", machine.device, machine.device_name, machine.device_memory_bytes)
    if not dtypes:
        return machine
    reached = measure_ceilings(machine.device, dtypes)
    if isinstance(reached, str):
        return replace(machine, facts={**machine.facts, "ceilings_missing": reached})
    return replace(machine, ceilings=reached)


def measure_ceilings(device: str, dtypes: Collection[str]) -> Mapping[str, Mapping[str, float]] | str:
    """Measure the ceilings of `device` by dtype in a separate process; return why not if that fails."""
    reached = call_in_process("vlmprof.measure.ceilings:device_ceilings", (device, sorted(dtypes)))
    if reached.value is None:
        return reached.error or f"exit code {reached.exit_code}"
    found: Mapping[str, Mapping[str, float]] = reached.value
    return found
