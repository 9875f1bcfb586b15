"""The run folder: `run.json`, append-only `rows.jsonl`, raw values in `samples/`, output in `logs/`.

Each row is on disk before the next cell starts. Readers skip a truncated line and say so, and the next writer
removes it, so that its cell is measured again.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from vlmprof.errors import RunWarning, UnwrittenError, UserError, writing
from vlmprof.files import exists, read_json, replace_file
from vlmprof.manifest import MANIFEST, declared_axes, newer_schema, read_manifest, resumed
from vlmprof.measure.samples import Samples
from vlmprof.records import Row, completed, plausible
from vlmprof.settings import AXIS_NAMES

try:
    from orjson import loads as _loads
except ImportError:  # same values, three times slower
    from json import loads as _loads  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

ROWS, SAMPLES, LOGS, LOCK = "rows.jsonl", "samples", "logs", ".lock"

Understood = TypeVar("Understood")


class RunFolder:
    """A run folder open for writing: a context manager that holds a lock, which a crash releases."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Open `path`, or create it and write `manifest` (`spec`, `command`, `environment`).

        A specification that only adds values to axes replaces the stored one. Raises `UserError` if the
        folder is not writable, belongs to another specification, device or a newer version, or another sweep
        is writing to it.
        """
        self.path = path
        with writing(f"the run folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            existing = read_manifest(path)
            self._is_new = existing is None
            if existing is None:
                if any(entry.name != LOCK for entry in path.iterdir()):
                    raise UserError(f"{path} is not empty and not a run folder; choose another with --out")
                self._write_manifest(manifest)
            else:
                goes_on = resumed(path, existing, manifest)
                if goes_on != existing:
                    self._write_manifest(goes_on)
            for folder in (SAMPLES, LOGS):
                (path / folder).mkdir(exist_ok=True)
            self._rows = (path / ROWS).open("a+b", buffering=0)
            self._drop_torn_line()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *ended: object) -> None:
        self._rows.close()
        self._lock.close()

    def append(self, row: Row, samples: Samples) -> None:
        """Write a cell's samples, then its row, and wait until both are on disk.

        Raises `UnwrittenError` if the disk is full or the folder is no longer there or writable; existing
        rows stay intact.
        """
        text = _line(row.to_flat()).decode().rstrip()
        if (elsewhere := self._where()) is not None:
            message = f"{self.path} {elsewhere}: the row of {row.cell_id}, above, was not written"
            raise UnwrittenError(message, [text])
        end = self._rows.seek(0, os.SEEK_END)
        try:
            if samples:
                content = json.dumps(samples)
                replace_file(self.path / SAMPLES / f"{row.cell_id}.json", content, to_disk=True)
            line = memoryview(f"{text}\n".encode())
            while line:
                line = line[self._rows.write(line) :]
            os.fsync(self._rows.fileno())
        except OSError as error:
            with suppress(OSError):
                self._rows.truncate(end)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "no space left on the disk" if full else error.strerror or str(error)
            message = (
                f"{why}: the row of {row.cell_id}, above, was not written; earlier rows are safe, "
                f"and the same command resumes once {self.path} is writable"
            )
            raise UnwrittenError(message, [text]) from None

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        replace_file(self.path / MANIFEST, json.dumps(manifest, indent=2) + "\n", to_disk=True)

    def _where(self) -> str | None:
        """Describe what happened to the folder; None if it is still in place."""
        held = os.fstat(self._rows.fileno())
        try:
            found = (self.path / ROWS).stat()
        except OSError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            return None
        if not held.st_nlink:
            return "was deleted, with the earlier rows"
        try:
            place = Path(os.readlink(f"/proc/self/fd/{self._rows.fileno()}"))
        except OSError:  # not on Linux
            return "was moved, with the earlier rows"
        return f"was moved to {place.parent}, with the earlier rows"

    def revise(self, rows: Mapping[str, Row], environment: Mapping[str, Any]) -> None:
        """Replace finished rows by cell id, and entries of the environment if this sweep made the folder.

        Other lines, and columns that a row does not know, stay as they are. Raises `UserError` if the disk is
        full; the earlier files stay intact.
        """
        with writing(f"the run folder {self.path}"):
            lines = (self.path / ROWS).read_bytes().splitlines(keepends=True)
            last: dict[str, int] = {}
            for i, line in enumerate(lines):
                with suppress(ValueError, KeyError, TypeError):
                    last[_loads(line)["cell_id"]] = i
            for cell_id, row in rows.items():
                i = last[cell_id]
                lines[i] = _line({**_loads(lines[i]), **row.to_flat()})
            replace_file(self.path / ROWS, b"".join(lines), to_disk=True)
            self._rows.close()
            self._rows = (self.path / ROWS).open("a+b", buffering=0)
            manifest = read_manifest(self.path) or {}
            if self._is_new:
                manifest["environment"] = {**manifest.get("environment", {}), **environment}
                self._write_manifest(manifest)

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


def check_can_hold_a_run(path: Path, kind: str = "the run folder") -> None:
    """Raise `UserError` if `path`, a folder of this `kind`, is a file, or cannot be made and written."""
    absent = [folder for folder in (path, *path.absolute().parents) if not exists(folder)]
    existing = next(folder for folder in (path, *path.absolute().parents) if exists(folder))
    if not existing.is_dir():
        raise UserError(f"cannot write {kind} {path}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {kind} {path}: {existing} is not writable")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {kind} {path}: {why}") from None
    finally:
        for folder in absent:  # a command that is refused for another reason leaves nothing
            with suppress(OSError, ValueError):
                folder.rmdir()


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a run in the order written, skipping unreadable lines with a `RunWarning`."""
    manifest = read_manifest(path) or {}
    axes = {*AXIS_NAMES, *declared_axes(manifest)}
    return _read(path, lambda flat: Row.from_flat(flat, axes))


def _read(path: Path, understand: Callable[[dict[str, Any]], Understood]) -> list[Understood]:
    """Read the lines that `understand` accepts, and warn about the number of others."""
    found, count = [], 0
    try:
        lines = (path / ROWS).open("rb")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path / ROWS} cannot be read: {error.strerror}") from None
    with lines:
        for line in lines:
            if line.isspace():
                continue
            count += 1
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                found.append(understand(_loads(line)))
    if len(found) < count:
        _warn(f"{path}: {count - len(found)} of {count} lines could not be read and are ignored")
    return found


def _warn(words: str) -> None:
    warnings.warn(words, RunWarning, stacklevel=3)


def load_frame(run: Path | str) -> pd.DataFrame:
    """Read the rows of a run as a DataFrame, one per cell, with the columns of `records.Row.to_flat`.

    Columns of a newer version are kept; those that its `run.json` calls axes are listed in
    `frame.attrs["axes"]`. What cannot be read or is newer is said with a `RunWarning`. Raises `UserError` if
    `run` is not a run folder or has no rows yet.
    """
    import pandas as pd

    manifest = load_manifest(run)
    if newer := newer_schema(run, manifest):
        _warn(f"{newer}: columns that this version does not know are ignored")
    with _no_collection():
        latest = {row["cell_id"]: row for row in _read(Path(run), completed)}
        if not latest:
            written = (Path(run) / ROWS).is_file() and (Path(run) / ROWS).stat().st_size
            raise UserError(f"{run} has no rows that can be read" if written else f"{run} has no rows yet")
        frame = pd.DataFrame(list(latest.values()))
    axes = [axis for axis in declared_axes(manifest) if axis in frame]
    for axis in set(axes) - set(AXIS_NAMES):
        # a newer version may have lists there, which cannot be compared or grouped
        frame[axis] = frame[axis].map(_plain)
    frame.attrs["axes"] = axes
    return frame


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


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
    paths = sorted((Path(run) / SAMPLES).glob("*.json"))
    return {path.stem: values for path in paths if (values := _read_samples(path)) is not None}


def load_manifest(run: Path | str) -> dict[str, Any]:
    """Read `run.json`: the specification, the command and the environment.

    Raises `UserError` if `run` is not a run folder.
    """
    manifest = read_manifest(Path(run))
    if manifest is None:
        why = f"it has no {MANIFEST}" if Path(run).exists() else "there is no such folder"
        raise UserError(f"{run} is not a run folder: {why}")
    return manifest


def _read_samples(path: Path) -> Samples | None:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return None
    return Samples(values) if isinstance(values, dict) and all(map(_numbers, values.values())) else None


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) in (int, float) and plausible(v) for v in values)


def _line(flat: Mapping[str, Any]) -> bytes:
    text = json.dumps(flat, allow_nan=False, ensure_ascii=False)
    # an unpaired surrogate, as in a badly encoded file name, becomes a question mark
    return text.encode("utf-8", "replace") + b"\n"


def _locked(path: Path) -> IO[bytes]:
    """Lock the folder until the returned file is closed. Raises `UserError` if it is already locked."""
    handle = (path / LOCK).open("ab")
    try:
        import fcntl
    except ImportError:
        return handle
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        time.sleep(0.1)  # a sweep that was just killed may still be exiting
    handle.close()
    raise UserError(f"another sweep is writing to {path}; wait for it or choose another with --out")
