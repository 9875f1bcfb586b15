"""All cells of a run use the same kind of device, on every launcher."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from rich.console import Console

from vlmprof.environment import visible_gpu_uuid
from vlmprof.errors import UserError
from vlmprof.execution import sweep
from vlmprof.execution.progress import PlainProgress
from vlmprof.settings import Machine
from vlmprof.spec import load_spec


def machines(*names: str) -> Callable[..., Machine]:
    """Stands in for looking at devices: one GPU of each name."""
    found = iter(names)
    return lambda device, dtypes=(): Machine(device, next(found))


def test_gpus_of_two_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "describe_machine", machines("NVIDIA H200", "NVIDIA L40S"))
    with pytest.raises(UserError, match=r"of the same kind, but they are NVIDIA H200, NVIDIA L40S"):
        sweep._local_launcher(load_spec("quick"), PlainProgress(Console()), ["cuda:0", "cuda:1"], None)


def machine(device: str, uuid: str | None = None) -> Machine:
    return Machine(device, "the same kind", device_uuid=uuid)


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        (["cpu", "cpu"], [machine("cpu"), machine("cpu")]),
        (["cpu", "cpu:0"], [machine("cpu"), machine("cpu:0")]),
        (["cuda:1", "cuda:1"], [machine("cuda:1", "GPU-b"), machine("cuda:1", "GPU-b")]),
        (["cuda", "cuda:0"], [machine("cuda", "GPU-a"), machine("cuda:0", "GPU-a")]),
        (["xpu:0", "xpu:1", "xpu:0"], [machine("xpu:0"), machine("xpu:1"), machine("xpu:0")]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_one_device_under_two_names_is_refused(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], found: list[Machine]
) -> None:
    described = iter(found)
    monkeypatch.setattr(sweep, "describe_machine", lambda device, dtypes=(): next(described))
    with pytest.raises(UserError, match=rf"--devices {devices[0]} and {devices[-1]} are the same device"):
        sweep._local_launcher(load_spec("quick"), PlainProgress(Console()), devices, None)


def test_gpus_of_one_kind_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "describe_machine", machines("NVIDIA H200", "NVIDIA H200"))
    launcher, machine = sweep._local_launcher(
        load_spec("quick"), PlainProgress(Console()), ["cuda:0", "cuda:1"], None
    )
    assert machine.device == "cuda:0"
    with launcher:
        assert launcher.has_room()


@pytest.mark.parametrize(
    ("visible", "uuid"),
    [
        ("3", "GPU-of-3"),
        ("1,0", "GPU-of-1"),
        ("GPU-abc,GPU-def", "GPU-abc"),
        ("", None),
        ("MIG-1", None),
        ("9", None),
    ],
)
def test_a_process_knows_the_gpu_it_was_left(
    monkeypatch: pytest.MonkeyPatch, visible: str, uuid: str | None
) -> None:
    driver = ModuleType("pynvml")
    vars(driver).update(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=range(8).__getitem__,
        nvmlDeviceGetUUID=lambda handle: f"GPU-of-{handle}",
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpu_uuid() == uuid
