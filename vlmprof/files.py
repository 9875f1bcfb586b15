"""Reading files that users name, which may be anything, and replacing files in one step."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_BYTES = 2**30
"""Largest file to read: a larger one is not a text, picture or table."""


def path_of(name: str | Path) -> Path:
    """Return the path that a user names, with `~` expanded if there is such a user."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def exists(path: Path) -> bool:
    """Return whether there is a file or folder of this name; False for an impossible name."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Return whether there is a folder of this name."""
    return exists(path) and path.is_dir()


def check_regular(path: Path) -> None:
    """Raise `OSError` for a device, a pipe or a socket: reading it may never end."""
    if exists(path) and not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most `MOST_BYTES`. Raises `OSError`, whose `strerror` says why not."""
    try:
        check_regular(path)
        size_bytes = path.stat().st_size
        if size_bytes > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES >> 20} MiB")
        with path.open("rb") as file:
            return file.read(size_bytes)  # files in /proc report size 0, and some never end
    except ValueError:  # a null character
        raise OSError(errno.EINVAL, "no file can have this name") from None


def read_text(path: Path) -> str:
    """Read a regular UTF-8 file, with or without a byte-order mark. Raises `OSError` or `ValueError`."""
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """Read a JSON file as `read_text` does. Raises `OSError`, or `ValueError` if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft beside `path`, which takes its place at the end.

    If writing fails, as on a full disk, an old file at `path` stays as it was.
    """
    final = path.resolve()  # a link stays a link
    draft = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(final)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: str | bytes, to_disk: bool = False) -> None:
    """Write a file, as UTF-8, in the place of an old one; with `to_disk`, wait until it is there.

    Bytes of a file's name that are no UTF-8, which Python has as lone surrogates, become question marks.
    """
    with replacing(path) as draft, draft.open("wb") as handle:
        handle.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        handle.flush()
        if to_disk:
            os.fsync(handle.fileno())
