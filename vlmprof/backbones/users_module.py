"""A module from the user's current folder, imported without opening that folder to anything else.

With the folder on `sys.path`, a `kernels/` or `flash_attn.py` of the user's would be taken for the library of
that name by whatever looks for one. So only the module asked for is found there, and what that module, or
another file of that folder, imports itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType


def import_users_module(name: str) -> ModuleType:
    """The module `name` of the current folder where there is one, else of the installed packages.

    Raises whatever importing it raises.
    """
    folder = os.getcwd()
    if not any(isinstance(finder, _SameFolder) and finder.folder == folder for finder in sys.meta_path):
        sys.meta_path.append(_SameFolder(folder))
    top = name.partition(".")[0]
    spec = None if top in sys.modules else PathFinder.find_spec(top, [folder])
    if spec is not None and spec.loader is not None:
        module = sys.modules[top] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise
    return importlib.import_module(name)


class _SameFolder(MetaPathFinder):
    """Finds what files of `folder` import from beside them, after all other finders have failed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not self._holds(_importing_file()):
            return None
        return PathFinder.find_spec(fullname, [self.folder])

    def _holds(self, file: Path) -> bool:
        # an environment of Python's may lie in the same folder
        return Path(self.folder) in file.parents and "site-packages" not in file.parts


def _importing_file() -> Path:
    """The file whose import statement, or call of `import_module`, is being carried out."""
    frame = sys._getframe(2)
    while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return Path(os.path.abspath(frame.f_code.co_filename))
