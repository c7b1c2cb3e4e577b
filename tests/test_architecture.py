"""The rules of the tree as tests: imports point one way, packages are listed, --help is light, files are short."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "capfilt": {"ray", "workers", "pipelines"},
    "workers": {"pipelines"},
    "pipelines": {"ray"},
}
ALLOWED = {(f"capfilt/cli/{name}.py", "pipelines") for name in ("main", "decide", "plan", "train")}
ALLOWED |= {("capfilt/cli/jobs.py", "workers")}
RAY = ("client", "dashboard", "decoder", "jobs", "metrics", "pool", "session", "slots", "train_worker")
LINES = 250
MODULES = sorted(p.relative_to(ROOT).as_posix() for package in FORBIDDEN for p in (ROOT / package).rglob("*.py"))


@cache
def imported(module: str) -> set[str]:
    """Return the modules that a module imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    for package in tops(module) & FORBIDDEN[module.split("/")[0]]:
        assert (module, package) in ALLOWED, f"{module} imports {package}; see the import rules in CONTRIBUTING.md"


def test_few_modules_import_ray():
    assert [module for module in MODULES if "ray" in tops(module)] == [f"workers/{name}.py" for name in RAY]


@pytest.mark.parametrize("depth", [2, None], ids=["packages", "modules"])
def test_there_is_no_import_cycle(depth):
    """Nothing takes a name from capfilt/__init__.py, which loads what it offers at the first use alone."""
    names = {module: module.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") for module in MODULES}
    graph = {}
    for module, name in names.items():
        targets = (imported(module) & set(names.values())) - {"capfilt"}
        graph.setdefault(outer(name, depth), set()).update(outer(target, depth) for target in targets)
    graph = {name: targets - {name} for name, targets in graph.items()}
    while leaves := {name for name, targets in graph.items() if not targets & set(graph)}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph, f"these import each other: {sorted(graph)}"


def outer(name: str, depth: int | None) -> str:
    """Return what a module lies in, such as capfilt.runs at depth 2; the module itself at depth None."""
    return ".".join(name.split(".")[:depth])


@pytest.mark.parametrize("driver", ["pipelines.bootstrap", "workers.train_worker"])
def test_a_driver_does_without_timm(driver):
    """It takes seconds to import, and the workers alone have models."""
    names = {module.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): module for module in MODULES}
    loaded, new = set(), {driver}
    while new:
        loaded |= new
        new = {name for module in new for name in imported(names[module]) if name in names} - loaded
    assert not {name for name in loaded if "timm" in tops(names[name])}


@pytest.mark.parametrize(
    ("package", "known"),
    [
        ("capfilt/config/", ("config", "display", "errors")),
        ("capfilt/med/", ("config", "errors", "med", "memory", "storage")),
    ],
)
def test_a_package_near_the_ground_knows_few_others(package, known):
    """MED can be read, tested and taken elsewhere without captioners, filters, ledger or jobs."""
    for module in (module for module in MODULES if module.startswith(package)):
        others = {name.split(".")[1] for name in imported(module) if name.startswith("capfilt.")} - set(known)
        assert not others, f"{module} imports {others}"


def test_nothing_imports_the_command_line():
    """A driver on a cluster is started as a process of its own, since its exit code tells how it ended."""
    others = [module for module in MODULES if not module.startswith("capfilt/cli/")]
    assert not [module for module in others if any(name.startswith("capfilt.cli") for name in imported(module))]


def test_every_package_is_listed_for_installation():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        {m.rpartition("/")[0].replace("/", ".") for m in MODULES if m.endswith("/__init__.py")}
    )


def test_help_loads_neither_torch_nor_ray():
    code = "import sys, capfilt.cli; print(sorted({'torch', 'ray', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize("module", MODULES)
def test_names_say_what_is_in_a_file(module):
    assert not {"utils", "common", "helpers", "base", "misc", "manager"} & set(Path(module).with_suffix("").parts)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_split_by_idea_before_it_is_long(module):
    assert len((ROOT / module).read_text().splitlines()) <= LINES
