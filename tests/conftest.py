"""Run tests that need a GPU first, or skip them with a reason if there is no GPU."""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping
from types import FrameType

import psutil
import pytest
from filelock import FileLock

from vlmprof.environment import has_gpu
from vlmprof.execution import counting, kernel_runs, machine, starting

# with workers, torch 2.11's compiler can take five minutes to end a process; read when it is imported
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# jobs in a shell's background ignore Ctrl-C, and so would the commands that the tests start and stop
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


EVERY = 8
"""Without `--exhaustive`, an exhaustive test runs with one case in so many."""

LONGEST_S = 600
"""The longest tests take half a minute on two quiet cores."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="run exhaustive tests with all their cases")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run on all cores where pytest-xdist is installed and more is asked for than one file.

    A GPU is not shared between tests, so with one they run one after another.
    """
    if hasattr(config, "workerinput") or not config.pluginmanager.hasplugin("xdist"):
        return
    several = not any(".py" in argument for argument in config.args)
    if several and config.option.numprocesses is None and not config.option.usepdb and not has_gpu():
        # one more than cores, since tests wait for processes a fifth of their time; each takes up to 3 GB
        cores, rooms = os.cpu_count() or 1, psutil.virtual_memory().total // (4 << 30)
        config.option.numprocesses = max(1, min(cores + 1, rooms, 4))
    if config.option.numprocesses and config.option.dist == "no":
        config.option.dist = "loadfile"
        # `_longest_first` has ordered the files; pytest-xdist would order by their numbers of tests alone
        config.option.loadscopereorder = False
        os.environ.setdefault("OMP_NUM_THREADS", "1")


FEW_BUT_LONG = (
    "kernels/test_compiled_kernels.py",
    "kernels/test_compiled_numerics.py",
    "kernels/test_fused_mlp.py",
    "kernels/test_backends.py",
    "kernels/test_baselines.py",
    "sweeps/test_gpu_scripts.py",
    "cli/test_stopping.py",
    "cli/test_json.py",
    "execution/test_faults.py",
    "execution/test_kernel_faults.py",
    "execution/test_frontier.py",
)
"""Files that take long with few slow tests."""


def _longest_first(items: list[pytest.Item]) -> None:
    """Order files so that no long one is left for the end: by their slow tests, then by all of theirs."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    every = Counter(item.path for item in items)
    begin = {path for path in slow if path.as_posix().endswith(FEW_BUT_LONG)}
    items.sort(key=lambda item: (item.path not in begin, -slow[item.path], -every[item.path]))


def _leave_a_sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect most cases of tests that go over all that a library has, unless they are asked for by name."""
    named = any("::" in argument for argument in config.args)
    left_out = [
        item
        for item in items
        if item.get_closest_marker("exhaustive")
        and not named
        and isinstance(item, pytest.Function)
        and max(item.callspec.indices.values()) % EVERY
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(trylast=True)  # once those that are not asked for have gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.exhaustive:
        _leave_a_sample(config, items)
    if hasattr(config, "workerinput"):
        _longest_first(items)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        items.sort(key=lambda item: item.get_closest_marker("gpu") is None)
        return
    for item in on_gpu:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none here"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that waits for what never happens, rather than hang with it."""
    in_main = threading.current_thread() is threading.main_thread()
    if item.config.option.usepdb or not in_main or not hasattr(signal, "SIGALRM"):
        return (yield)

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"took longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def _facts_of_this_session_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep facts of encoders from one test to the next, and from no session to another."""
    os.environ["VLMPROF_FACTS_CACHE"] = str(tmp_path_factory.mktemp("facts"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while test modules import libraries, and never what they import.

    Each collection would otherwise go over all objects of torch and transformers, for half a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        # libraries that check for leaks at exit would report frozen objects
        atexit.register(gc.unfreeze)


@pytest.fixture(scope="session", autouse=True)
def one_fork_server() -> Iterator[None]:
    """The commands that run in this process share a fork server, which imports what any of them needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PRELOAD", starting.PRELOAD)
        patch.setattr(kernel_runs, "PRELOAD", starting.PRELOAD)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ceilings_measured_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sweeps in this process begin with the ceilings that the first one of any worker measured, for seconds.

    Those that are measured again at the end of a sweep are not looked up.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    measure = machine.measure_ceilings

    def once(device: str, dtypes: Collection[str]) -> Mapping[str, Mapping[str, float]] | str:
        kept = folder / f"ceilings-{device.replace(':', '-')}-{'-'.join(sorted(dtypes))}.json"
        with FileLock(f"{kept}.lock"):
            if kept.exists():
                known: Mapping[str, Mapping[str, float]] = json.loads(kept.read_text())
                return known
            reached = measure(device, dtypes)
            if not isinstance(reached, str):
                kept.write_text(json.dumps(reached))
            return reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "measure_ceilings", once)
        yield


@pytest.fixture
def interpreted_environment() -> dict[str, str]:
    """The environment of a process in which Triton's interpreter runs the kernels."""
    pytest.importorskip("triton")
    from vlmprof.kernels.common.backends import interpreter_fault

    if (fault := interpreter_fault()) is not None:
        pytest.skip(fault)
    return os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
