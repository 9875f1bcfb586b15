"""Prints pyproject.toml's dependencies pinned to their lowest versions, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
    name, lowest, marker = re.fullmatch(r"([\w-]+)>=([\w.]+),<[\w.]+\s*(;.*)?", dependency).groups()
    print(f"{name}=={lowest}{marker or ''}")
