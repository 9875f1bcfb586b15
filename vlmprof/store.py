"""The run folder: `run.json`, append-only `rows.jsonl`, raw values in `samples/`, output in `logs/`.

Each row is on disk before the next cell starts. Readers skip a truncated line, and the next writer removes
it, so that its cell is measured again.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from vlmprof.errors import UserError
from vlmprof.fields import AXES, SETTINGS
from vlmprof.measure.samples import Samples
from vlmprof.records import Row, completed
from vlmprof.settings import PARTS

try:
    from orjson import loads as _loads
except ImportError:  # same values, three times slower
    from json import loads as _loads  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, ROWS, SAMPLES, LOGS, LOCK = "run.json", "rows.jsonl", "samples", "logs", ".lock"

POLICY = {"run_after_oom", "cell_timeout_s", "cool_down_s", "order", "profile"}
"""Settings that may change on resuming: they decide which cells and passes run, not what the numbers mean."""

Understood = TypeVar("Understood")


class RunFolder:
    """A run folder open for writing: a context manager that holds a lock, which a crash releases."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Open `path`, or create it and write `manifest` (`spec`, `command`, `environment`).

        A specification that only adds values to axes replaces the stored one. Raises `UserError` if the
        folder is not writable, belongs to another specification or device, or another sweep is writing to it.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            existing = _read_manifest(path)
            if existing is None:
                if any(entry.name != LOCK for entry in path.iterdir()):
                    raise UserError(f"{path} is not empty and not a run folder; choose another with --out")
                _write_whole(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")
            else:
                _refuse_other(path, existing, manifest)
                if _section(existing, "axes") != _section(manifest, "axes"):
                    grown = {**existing, "spec": manifest["spec"], "command": manifest["command"]}
                    _write_whole(path / MANIFEST, json.dumps(grown, indent=2) + "\n")
            for folder in (SAMPLES, LOGS):
                (path / folder).mkdir(exist_ok=True)
            self._rows = (path / ROWS).open("a+b", buffering=0)
            self._drop_torn_line()
        except OSError as error:
            raise UserError(f"cannot write the run folder {path}: {error.strerror or error}") from None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._lock.close()

    def append(self, row: Row, samples: Samples) -> None:
        """Write a cell's samples, then its row, and wait until both are on disk.

        Raises `UserError` if the disk is full; existing rows stay intact.
        """
        end = self._rows.seek(0, os.SEEK_END)
        try:
            if samples:
                _write_whole(self.path / SAMPLES / f"{row.cell_id}.json", json.dumps(samples))
            text = json.dumps(row.to_flat(), allow_nan=False, ensure_ascii=False)
            # an unpaired surrogate, as in a badly encoded file name, becomes a question mark
            line = memoryview(text.encode("utf-8", "replace") + b"\n")
            while line:
                line = line[self._rows.write(line) :]
            os.fsync(self._rows.fileno())
        except OSError as error:
            self._rows.truncate(end)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "no space left on the disk" if full else error.strerror or str(error)
            raise UserError(
                f"{why}: the row of {row.cell_id} was not written; earlier rows are safe, "
                f"and the same command resumes once {self.path} is writable"
            ) from None

    def rows(self) -> dict[str, Row]:
        """Return the rows so far by cell id. A later row of a cell replaces an earlier one."""
        return {row.cell_id: row for row in read_rows(self.path)}

    def samples(self, cell_id: str) -> Samples:
        """Return a cell's raw values; empty if their file is missing or unreadable."""
        return _read_samples(self.path / SAMPLES / f"{cell_id}.json") or Samples()

    def log_path(self, cell_id: str) -> Path:
        """Return the path of the log that captures the output of a cell's process."""
        return self.path / LOGS / f"{cell_id}.txt"

    def _drop_torn_line(self) -> None:
        self._rows.seek(0)
        data = self._rows.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._rows.truncate(whole)


def check_can_hold_a_run(path: Path) -> None:
    """Raise `UserError` if `path` is a file or not writable."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise UserError(f"cannot write the run folder {path}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write the run folder {path}: {existing} is not writable")


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a run in the order written, skipping truncated or malformed lines."""
    return list(_read(path, Row.from_flat))


def _read(path: Path, understand: Callable[[dict[str, Any]], Understood]) -> Iterator[Understood]:
    try:
        lines = (path / ROWS).open("rb")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            try:
                yield understand(_loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


def check_runs(*runs: Path | None) -> None:
    """Raise `UserError` for a path that is not a run folder, before slow imports."""
    for run in runs:
        if run is not None:
            load_manifest(run)


def load_frame(run: Path | str) -> pd.DataFrame:
    """Read the rows of a run as a DataFrame, one per cell, with the columns of `records.Row.to_flat`.

    Raises `UserError` if `run` is not a run folder or has no rows yet.
    """
    import pandas as pd

    load_manifest(run)
    with _no_collection():
        latest = {row["cell_id"]: row for row in _read(Path(run), completed)}
        if not latest:
            raise UserError(f"{run} has no rows yet")
        return pd.DataFrame(list(latest.values()))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable cyclic garbage collection: JSON has no cycles, and the search takes seconds for many rows."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_samples(run: Path | str) -> dict[str, Samples]:
    """Read the raw values by cell id. Cells without a readable file are omitted."""
    samples = {}
    for path in sorted((Path(run) / SAMPLES).glob("*.json")):
        values = _read_samples(path)
        if values is not None:
            samples[path.stem] = values
    return samples


def load_manifest(run: Path | str) -> dict[str, Any]:
    """Read `run.json`: the specification, the command and the environment.

    Raises `UserError` if `run` is not a run folder.
    """
    manifest = _read_manifest(Path(run))
    if manifest is None:
        raise UserError(f"{run} is not a run folder: it has no {MANIFEST}")
    return manifest


def _read_samples(path: Path) -> Samples | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Samples(values) if isinstance(values, dict) else None


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("not an object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path / MANIFEST} cannot be read: {error}") from None
    return manifest


def _refuse_other(path: Path, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `UserError` if the folder belongs to another sweep, listing every difference."""
    differing = [
        f"{section}.{key} is {json.dumps(old.get(key))} there but {json.dumps(new.get(key))} here"
        for section in ("axes", "fixed")
        for old, new in [(_section(existing, section), _section(wanted, section))]
        for key in sorted((old.keys() | new.keys()) - POLICY)
        if old.get(key) != new.get(key) and not (section == "axes" and _has_all(new.get(key), old.get(key)))
    ]
    devices = [manifest.get("environment", {}).get("device_name") for manifest in (existing, wanted)]
    if devices[0] != devices[1]:
        differing.append(f"device is {devices[0]} there but {devices[1]} here")
    if differing:
        raise UserError(f"{path} belongs to another sweep: {'; '.join(differing)}; choose another with --out")


def _has_all(values: Any, earlier: Any) -> bool:
    return isinstance(values, list) and isinstance(earlier, list) and all(v in values for v in earlier)


def _section(manifest: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return `axes` or `fixed` of a manifest. What was added since it was written has its default."""
    written: dict[str, Any] = manifest.get("spec", {}).get(section, {})
    if section == "axes":
        inapplicable = PARTS if "vlm" in written else ("vlm",)
        defaults = {axis.name: [axis.default] for axis in AXES.values() if axis.default is not None}
        return {name: value for name, value in defaults.items() if name not in inapplicable} | written
    return {setting.attribute: setting.default for setting in SETTINGS.values()} | written


def _write_whole(path: Path, text: str) -> None:
    """Write a file atomically."""
    draft = path.with_suffix(".part")
    try:
        with draft.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _locked(path: Path) -> IO[bytes]:
    """Lock the folder until the returned file is closed. Raises `UserError` if it is already locked."""
    handle = (path / LOCK).open("ab")
    try:
        import fcntl
    except ImportError:
        return handle
    for attempt in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            # a sweep that was just killed may still be exiting
            if attempt == 19:
                handle.close()
                raise UserError(
                    f"another sweep is writing to {path}; wait for it or choose another with --out"
                ) from None
            time.sleep(0.1)
    return handle
