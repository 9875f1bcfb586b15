"""The run folder: `run.json`, append-only `rows.jsonl`, raw values in `samples/`, output in `logs/`.

A row is on disk before the next cell starts. A line that was cut off is no row: readers skip it and the next
writer removes it, so its cell is measured again.
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
from vlmprof.fields import SETTINGS
from vlmprof.measure.samples import Samples
from vlmprof.records import Row, completed

try:
    from orjson import loads as _loads
except ImportError:  # three times slower, and the same values
    from json import loads as _loads  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, ROWS, SAMPLES, LOGS, LOCK = "run.json", "rows.jsonl", "samples", "logs", ".lock"

POLICY = {"run_after_oom", "cell_timeout_s", "cool_down_s", "order", "profile"}
"""Settings that decide which cells and passes run, not what a number means: they may change on resuming."""

Understood = TypeVar("Understood")


class RunFolder:
    """A run that is being written: a context manager with a lock that a crash does not leave behind."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Open `path`, or make it and write `manifest` (`spec`, `command`, `environment`).

        A run may grow: a specification with more values on its axes replaces the one that is there. Raises
        `UserError` when the folder cannot be written, belongs to another specification or device, or another
        sweep is writing to it.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            existing = _read_manifest(path)
            if existing is None:
                if any(entry.name != LOCK for entry in path.iterdir()):
                    raise UserError(f"{path} is not empty and no run folder; name another with --out")
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

        Raises `UserError` when the disk is full; what was there before stays whole.
        """
        end = self._rows.seek(0, os.SEEK_END)
        try:
            if samples:
                _write_whole(self.path / SAMPLES / f"{row.cell_id}.json", json.dumps(samples))
            text = json.dumps(row.to_flat(), allow_nan=False, ensure_ascii=False)
            # half a surrogate pair, as in a badly encoded file name, becomes a question mark
            line = memoryview(text.encode("utf-8", "replace") + b"\n")
            while line:
                line = line[self._rows.write(line) :]
            os.fsync(self._rows.fileno())
        except OSError as error:
            self._rows.truncate(end)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "no space left on the disk" if full else error.strerror or str(error)
            raise UserError(
                f"{why}: the row of {row.cell_id} was not written; the rows before it are safe, "
                f"and the same command goes on once {self.path} can be written"
            ) from None

    def rows(self) -> dict[str, Row]:
        """The rows so far by cell id; a later row of a cell replaces an earlier one."""
        return {row.cell_id: row for row in read_rows(self.path)}

    def samples(self, cell_id: str) -> Samples:
        """A cell's raw values as written; empty if its file is gone."""
        return _read_samples(self.path / SAMPLES / f"{cell_id}.json") or Samples()

    def log_path(self, cell_id: str) -> Path:
        """Where a cell's process writes what it prints."""
        return self.path / LOGS / f"{cell_id}.txt"

    def _drop_torn_line(self) -> None:
        self._rows.seek(0)
        data = self._rows.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._rows.truncate(whole)


def check_can_hold_a_run(path: Path) -> None:
    """Raise `UserError` at once if `path` is a file, or a folder that nothing can be written to."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise UserError(f"cannot write the run folder {path}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write the run folder {path}: nothing can be written to {existing}")


def read_rows(path: Path) -> list[Row]:
    """The rows of a run in the order written. Lines that are cut off or garbled are passed over."""
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
    """Raise `UserError` for what is no run folder, before anything slow is loaded for it."""
    for run in runs:
        if run is not None:
            load_manifest(run)


def load_frame(run: Path | str) -> pd.DataFrame:
    """The rows of a run as a DataFrame, one per cell, columns as in `records.Row.to_flat`.

    Raises `UserError` when `run` is no run folder or has no row yet.
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
    """No cyclic garbage collection: JSON has no cycles, and looking for them in many rows takes seconds."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_samples(run: Path | str) -> dict[str, Samples]:
    """Raw values by cell id; cells without a readable file are left out."""
    samples = {}
    for path in sorted((Path(run) / SAMPLES).glob("*.json")):
        values = _read_samples(path)
        if values is not None:
            samples[path.stem] = values
    return samples


def load_manifest(run: Path | str) -> dict[str, Any]:
    """`run.json`: the specification, the command and the environment. Raises `UserError`."""
    manifest = _read_manifest(Path(run))
    if manifest is None:
        raise UserError(f"{run} is no run folder: it has no {MANIFEST}")
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
    """Raise `UserError`, showing both sides of every difference that would mix two runs in one folder."""
    differing = [
        f"{section}.{key} is {json.dumps(old.get(key))} there and {json.dumps(new.get(key))} here"
        for section in ("axes", "fixed")
        for old, new in [(_section(existing, section), _section(wanted, section))]
        for key in sorted((old.keys() | new.keys()) - POLICY)
        if old.get(key) != new.get(key) and not (section == "axes" and _has_all(new.get(key), old.get(key)))
    ]
    devices = [manifest.get("environment", {}).get("device_name") for manifest in (existing, wanted)]
    if devices[0] != devices[1]:
        differing.append(f"device is {devices[0]} there and {devices[1]} here")
    if differing:
        raise UserError(f"{path} belongs to another sweep: {'; '.join(differing)}; name another with --out")


def _has_all(values: Any, earlier: Any) -> bool:
    return isinstance(values, list) and isinstance(earlier, list) and all(v in values for v in earlier)


def _section(manifest: Mapping[str, Any], section: str) -> dict[str, Any]:
    """`axes` or `fixed` of a manifest; a setting that was not known when it was written had its default."""
    written: dict[str, Any] = manifest.get("spec", {}).get(section, {})
    if section == "axes":
        return written
    return {setting.attribute: setting.default for setting in SETTINGS.values()} | written


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is either complete or not there."""
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
    """The lock file, held until it is closed or the process ends. Raises `UserError` if another holds it."""
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
            # a sweep that was just killed may still be ending
            if attempt == 19:
                handle.close()
                raise UserError(
                    f"another sweep is writing to {path}; wait for it or name another with --out"
                ) from None
            time.sleep(0.1)
    return handle
