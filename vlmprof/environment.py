"""The environment of a run: machine, accelerator, versions, commit and machine state.

Host, user and folder names are left out, because run folders are meant to be shared.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import vlmprof
from vlmprof.errors import UserError

SETTINGS_READ = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
PACKAGES = ("torch", "triton", "transformers", "numpy")
EXTRAS = ("torchao",)
"""Packages that are listed where they are installed."""

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The tree of control groups, and those of this process."""


@dataclass(frozen=True)
class Accelerator:
    """The device that cells run on, and torch's settings."""

    device: str
    """As torch names it: `cpu`, `cuda:0`."""
    device_name: str
    device_memory_bytes: int | None
    device_uuid: str | None
    """The UUID of an NVIDIA GPU, as the driver reports it."""
    torch_threads: int
    cuda_version: str | None
    warnings: tuple[str, ...] = ()
    """What a reader of the measurements must know of the machine."""


def host_facts() -> dict[str, Any]:
    """Describe the machine, its versions and its current state, without importing torch."""
    import psutil

    return {
        "vlmprof": vlmprof.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "cpu_quota_cores": cpu_quota_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": nvidia_gpus(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "settings": {name: os.environ[name] for name in SETTINGS_READ if name in os.environ},
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def accelerator_facts(wanted: str) -> Accelerator:
    """Resolve `wanted` (`auto` or a torch device) to a device of this machine. Imports torch.

    Raises `UserError` if there is no such device.
    """
    import torch

    from vlmprof.measure.clocks import UNMEASURABLE

    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    why_not = UNMEASURABLE.get(here.type) if here else None
    if wanted == "auto":
        device = torch.device("cpu") if here is None or why_not else here
    else:
        try:
            device = torch.device(wanted)
        except RuntimeError:
            raise UserError(f"torch does not know device {wanted!r}; use auto, cpu or cuda") from None
        if device.type != "cpu" and (here is None or here.type != device.type):
            found = f"the accelerator is {here.type}" if here else "this machine has no accelerator"
            raise UserError(f"device {wanted!r} is not available: {found}; use --device auto")
        if device.type != "cpu" and why_not:
            raise UserError(f"device {wanted!r} cannot be measured: {why_not}; use --device cpu")
        if device.type != "cpu" and (device.index or 0) >= torch.accelerator.device_count():
            count = torch.accelerator.device_count()
            raise UserError(f"device {wanted!r} does not exist; this machine has {count}, counted from 0")
    name, memory_bytes, uuid = cpu_name(), None, None
    if device.type != "cpu":
        name = device.type
        with suppress(AttributeError, RuntimeError):
            properties = torch.get_device_module(device).get_device_properties(device)
            name, memory_bytes = properties.name, properties.total_memory
            uuid = "GPU-" + str(properties.uuid).removeprefix("GPU-")
    threads, quota = torch.get_num_threads(), cpu_quota_cores()
    warnings = []
    if here and why_not and wanted == "auto":
        warnings.append(f"{here.type} is not used: {why_not}")
    if quota is not None and threads > max(1, quota):
        allowed = f"this container may use {quota:g} of the cores; set OMP_NUM_THREADS={max(1, int(quota))}"
        warnings.append(f"torch uses {threads} threads, and {allowed}")
    return Accelerator(
        str(device), name, memory_bytes, uuid, threads, torch.version.cuda, tuple(warnings)
    )  # fmt: skip


@cache
def nvidia_gpus() -> list[dict[str, Any]]:
    """List the NVIDIA GPUs that the driver reports, without importing torch; empty if there are none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # the driver is optional: any failure means no GPU
        return []
    gpus = []
    with suppress(pynvml.NVMLError):
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = str(pynvml.nvmlDeviceGetName(handle))
            memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            gpus.append({"name": name, "memory_bytes": memory_bytes, "driver": driver})
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return gpus


def has_gpu() -> bool:
    """Return whether this process can see a GPU, without importing torch."""
    return bool(nvidia_gpus()) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def gpu_memory_bytes() -> int | None:
    """Return the memory of the largest GPU of the machine; None if this process can see none."""
    return max(gpu["memory_bytes"] for gpu in nvidia_gpus()) if has_gpu() else None


def visible_gpu_uuid() -> str | None:
    """Return the UUID of the first GPU in `CUDA_VISIBLE_DEVICES`, without importing torch.

    None if the variable is not set or the driver cannot resolve it.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.startswith("GPU-"):
        return first
    if not first.isdigit():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(first))))
    except Exception:  # the driver is optional: any failure means an unknown UUID
        return None


def cpu_quota_cores() -> float | None:
    """Return how many cores the control group of this process may use, as `docker run --cpus` limits them.

    None without a limit. The limits of parent groups apply too.
    """
    quotas = []
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                root = CGROUPS / ("cpu" if controllers else "")
                own = root / group.strip("/")
                quotas += [
                    _quota_cores(folder)
                    for folder in (own, *own.parents)
                    if root in (folder, *folder.parents)
                ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_cores(folder: Path) -> float | None:
    """Read cpu.max of cgroup v2, `200000 100000` for two cores, or the two files of v1."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):
            quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else None
    return None


def cpu_name() -> str:
    """Return the processor's model name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            named = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"],
                capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
            return named.stdout.strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in (*PACKAGES, *EXTRAS):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _commit() -> str | None:
    """Return the commit of the source tree, with `-dirty` if it was modified; None for an installed wheel.

    VLMPROF_COMMIT overrides it, for a copy without git history.
    """
    if commit := os.environ.get("VLMPROF_COMMIT"):
        return commit
    root = Path(vlmprof.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
