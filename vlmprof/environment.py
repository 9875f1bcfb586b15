"""What a run was made on: machine, accelerator, versions, commit, machine state.

Names of hosts, users and folders are left out: a run folder is made to be shown to others.
"""

from __future__ import annotations

import os
import platform
import subprocess
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


@dataclass(frozen=True)
class Accelerator:
    """The device that cells run on, and what torch is set to."""

    device: str
    """As torch names it: `cpu`, `cuda:0`."""
    device_name: str
    device_memory_bytes: int | None
    device_uuid: str | None
    """The driver's own name of an NVIDIA GPU."""
    torch_threads: int
    cuda_version: str | None


def host_facts() -> dict[str, Any]:
    """The machine, the versions and the state it was in, without torch."""
    import psutil

    return {
        "vlmprof": vlmprof.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": nvidia_gpus(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "settings": {name: os.environ[name] for name in SETTINGS_READ if name in os.environ},
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def accelerator_facts(wanted: str) -> Accelerator:
    """The device that `wanted` (`auto` or a torch device) means here. Imports torch.

    Raises `UserError` when there is no such device.
    """
    import torch

    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wanted == "auto":
        device = here or torch.device("cpu")
    else:
        try:
            device = torch.device(wanted)
        except RuntimeError:
            raise UserError(f"device {wanted!r} is not known to torch; write auto, cpu or cuda") from None
        if device.type != "cpu" and (here is None or here.type != device.type):
            found = f"the accelerator here is {here.type}" if here else "there is no accelerator here"
            raise UserError(f"device {wanted!r} was asked for, but {found}; use --device auto")
        if device.type != "cpu" and (device.index or 0) >= torch.accelerator.device_count():
            raise UserError(f"device {wanted!r} was asked for; there are {torch.accelerator.device_count()}")
    name, memory_bytes, uuid = cpu_name(), None, None
    if device.type != "cpu":
        name = device.type
        with suppress(AttributeError, RuntimeError):
            properties = torch.get_device_module(device).get_device_properties(device)
            name, memory_bytes = properties.name, properties.total_memory
            uuid = "GPU-" + str(properties.uuid).removeprefix("GPU-")
    return Accelerator(str(device), name, memory_bytes, uuid, torch.get_num_threads(), torch.version.cuda)


@cache
def nvidia_gpus() -> list[dict[str, Any]]:
    """The NVIDIA GPUs that the driver shows, without torch; an empty list where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # any failure of an optional driver means that there is none
        return []
    gpus = []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(
                {
                    "name": str(pynvml.nvmlDeviceGetName(handle)),
                    "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    "driver": driver,
                }
            )
    except pynvml.NVMLError:
        return gpus
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return gpus


def has_gpu() -> bool:
    """Whether a GPU is there for this process, without torch."""
    return bool(nvidia_gpus()) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def visible_gpu_uuid() -> str | None:
    """The UUID of the first GPU in `CUDA_VISIBLE_DEVICES`, without torch.

    None where that variable or the driver does not say.
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
    except Exception:  # any failure of an optional driver means that it does not say
        return None


def cpu_name() -> str:
    """The processor as it calls itself."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that runs, `-dirty` if it was changed; None for an installed wheel.

    VLMPROF_COMMIT says it for a copy without its history.
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
