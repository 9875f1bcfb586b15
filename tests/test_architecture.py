"""The import rules of the package, checked by reading its imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "vlmprof").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
NO_TORCH = ("torch", "triton", "transformers", "timm")
LIGHT = (
    "vlmprof.spec",
    "vlmprof.plan",
    "vlmprof.records",
    "vlmprof.errors",
    "vlmprof.units",
    "vlmprof.store",
    "vlmprof.logs",
    "vlmprof.execution.sweep",
    "vlmprof.execution.frontier",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("vlmprof", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def imports(path: Path, everywhere: bool) -> set[str]:
    """Modules that a file imports: at its top level, or `everywhere` (inside functions too)."""
    tree = ast.parse(path.read_text())
    found = set()
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {base} | {f"{base}.{name.name}" for name in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return found


def uses(found: set[str], *packages: str) -> set[str]:
    return {
        name for name in found for package in packages if name == package or name.startswith(package + ".")
    }


def files_of(*packages: str) -> list[Path]:
    return [path for path in FILES if uses({module_name(path)}, *packages)]


def violations(paths: list[Path], *forbidden: str, everywhere: bool = True) -> dict[str, set[str]]:
    checked = {module_name(path): uses(imports(path, everywhere), *forbidden) for path in paths}
    assert checked
    return {name: found for name, found in checked.items() if found}


def every_import(path: Path) -> set[str]:
    """Modules of the project that a file imports anywhere: in functions and for type checkers too."""
    known = {module_name(other) for other in FILES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names}
            # `from package import module` is not an import of what the package's own file defines
            found |= {name if name in known else str(node.module) for name in names}
    return found & known


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules that all reach each other."""
    reach = {name: set(below) for name, below in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    found = []
    for name in graph:
        members = {other for other in reach[name] if name in reach[other]}
        if members and members not in found:
            found.append(members)
    return found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"e"}, "e": {"f"}, "f": {"d", "a"}, "g": {"g"}}
    assert circles(graph) == [{"b", "c"}, {"d", "e", "f"}, {"g"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module_name(path): every_import(path) for path in FILES}
    assert len(graph) > 100
    assert circles(graph) == []


def loaded_by(modules: Sequence[str], *heavy: str) -> dict[str, list[str]]:
    """The heavy packages that have been loaded after each module, where there are any; in a fresh process."""
    code = f"""
import importlib, json, sys
found = {{}}
for name in {list(modules)}:
    importlib.import_module(name)
    found[name] = [package for package in {list(heavy)} if package in sys.modules]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name: packages for name, packages in json.loads(done.stdout).items() if packages}


def test_the_light_modules_load_no_torch_even_indirectly() -> None:
    modules = (*LIGHT, "vlmprof.backbones.catalog", "vlmprof.vlm.llm_catalog", "vlmprof.cli.app")
    assert loaded_by(modules, *NO_TORCH, "scipy") == {}


def test_what_plan_backbones_vlms_and_estimate_print_needs_no_pandas() -> None:
    """They would take twice as long to answer: pandas and scipy import in half a second."""
    tables = [f"vlmprof.render.tables.{name}" for name in ("plans", "backbones", "vlms", "estimates")]
    pending, loaded = ["vlmprof.cli.show", "vlmprof.cli.predictions", *tables], set[str]()
    paths = {module_name(path): path for path in FILES}
    while pending:
        found = imports(paths[pending.pop()], everywhere=False) - loaded
        loaded |= found
        pending += found & paths.keys()
    assert {"vlmprof.cost.count", "torch", "numpy"} <= loaded
    assert uses(loaded, "pandas", "matplotlib", "scipy") == set()


def test_kernels_know_torch_and_triton_and_nothing_else_of_the_project() -> None:
    others = [
        module_name(path)
        for path in files_of("vlmprof.kernels")
        if uses(imports(path, True), "vlmprof") - uses(imports(path, True), "vlmprof.kernels")
    ]
    assert others == []


def test_operations_use_no_tool_and_what_they_share_knows_neither() -> None:
    common, tools = "vlmprof.kernels.common", "vlmprof.kernels.tools"
    operations = [f"vlmprof.kernels.{name}" for name in ("ss2d", "selective_scan", "cross_scan", "block")]
    assert violations([*files_of(*operations), ROOT / "kernels" / "__init__.py"], tools) == {}
    assert violations(files_of(common), *operations, tools) == {}
    rooms = uses({module_name(path) for path in files_of("vlmprof.kernels")}, common, tools, *operations)
    assert rooms | {"vlmprof.kernels"} == {module_name(path) for path in files_of("vlmprof.kernels")}


def test_models_use_kernels_and_not_what_measures_them() -> None:
    models = files_of("vlmprof.backbones", "vlmprof.vlm")
    forbidden = ("measure", "execution", "store", "analysis", "render", "cli")
    assert violations(models, *(f"vlmprof.{name}" for name in forbidden)) == {}


def test_measurement_knows_no_model() -> None:
    allowed = ("vlmprof.measure", "vlmprof.errors")
    known = {module_name(path): uses(imports(path, True), "vlmprof") for path in files_of("vlmprof.measure")}
    beyond = {name: found - uses(found, *allowed) for name, found in known.items()}
    assert {name: found for name, found in beyond.items() if found} == {}


def test_execution_goes_from_the_sweep_down_to_the_cell() -> None:
    """The sweep over launchers over supervisors over processes; what runs in a cell's process knows none."""
    execution = "vlmprof.execution"
    drivers = [f"{execution}.{name}" for name in ("sweep", "frontier", "launchers", "supervisor", "machine")]
    inside = [f"{execution}.{name}" for name in ("worker", "trace", "pipelines", "modes")]
    assert (
        violations(
            files_of(*inside),
            *drivers,
            f"{execution}.processes",
            f"{execution}.starting",
            f"{execution}.progress",
        )
        == {}
    )
    assert violations(files_of(f"{execution}.supervisor"), *drivers[:3], f"{execution}.progress") == {}
    assert violations(files_of(f"{execution}.launchers"), *drivers[:2]) == {}
    assert violations(files_of(*drivers), *inside) == {}


def test_analysis_and_render_load_no_torch() -> None:
    paths = files_of("vlmprof.analysis", "vlmprof.render")
    assert violations(paths, *NO_TORCH, "vlmprof.kernels", "vlmprof.vlm.model", "vlmprof.execution") == {}


def test_only_execution_sees_both_models_and_measurement() -> None:
    both = [
        module_name(path)
        for path in FILES
        if uses(found := imports(path, True), "vlmprof.measure")
        and uses(found, "vlmprof.backbones", "vlmprof.vlm", "vlmprof.kernels")
    ]
    assert [name for name in both if not name.startswith(("vlmprof.execution", "vlmprof.cli"))] == []


def test_nobody_imports_the_command_line() -> None:
    rest = [path for path in FILES if not uses({module_name(path)}, "vlmprof.cli", "vlmprof.__main__")]
    assert violations(rest, "vlmprof.cli") == {}


def test_kernels_are_never_imported_by_their_bare_name() -> None:
    everything = FILES + sorted((ROOT / "tests").rglob("*.py"))
    assert violations(everything, "kernels", "sweeps") == {}


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    heavy = (*NO_TORCH, "pandas", "matplotlib", "numpy", "scipy")
    assert violations(files_of("vlmprof.cli"), *heavy, everywhere=False) == {}


def test_every_package_is_installed() -> None:
    found = find_packages(str(ROOT), include=["vlmprof*"])
    present = {module_name(path) for path in FILES if path.name == "__init__.py"} | {"vlmprof.sweeps"}
    assert present - set(found) == set()


def test_the_readme_maps_every_file_and_folder_of_the_top() -> None:
    listing = (ROOT / "README.md").read_text().split("## How it is built")[1].split("```")[1]
    named = {word.strip(",;:") for word in listing.split()}
    named |= {word.removeprefix("vlmprof/") for word in named}
    package = [path for path in (ROOT / "vlmprof").iterdir() if not path.name.startswith("_")]
    top = {path.name for path in package if path.suffix == ".py" and path.name != "version.py"}
    for parent in (ROOT / "vlmprof", ROOT / "kernels"):
        top |= {f"{path.parent.name}/" for path in parent.glob("*/__init__.py")}
    assert top - named == set()


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350
