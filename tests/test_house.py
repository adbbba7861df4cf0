"""The rules of the house: who may import whom, what start-up may load, and how plug-ins are found."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "tensorflow", "keras", "tf_keras", "sklearn", "xgboost", "lightgbm"}
GRAPH = {"onnx", "onnx_ir", "onnxruntime", "numpy", "h5py", "sqlalchemy", "rich"}
PACKAGES = sorted([*(ROOT / "formats").glob("modelhub_*"), *(ROOT / "registry").glob("modelhub_*")])


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Names of modules a file imports, anywhere or only when it is itself imported."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def roots(path: Path, **kwargs: bool) -> set[str]:
    return {name.split(".")[0] for name in imports(path, **kwargs)}


@pytest.mark.parametrize("path", sorted((ROOT / "modelhub").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_hub_imports_no_format_and_no_framework(path: Path) -> None:
    assert not {name for name in roots(path) if name.startswith("modelhub_")}
    assert not roots(path) & FRAMEWORKS


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_plugin_imports_only_the_hub_and_itself(package: Path) -> None:
    for path in package.rglob("*.py"):
        others = {name for name in roots(path) if name.startswith("modelhub_")} - {package.name}
        assert not others, f"{path} imports {others}"


def test_hub_has_no_circle() -> None:
    """Imports at module level run one way: no module is reached again from what it imports."""
    modules = {}
    for path in (ROOT / "modelhub").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = {m for m in imports(path, top_level=True) if m.startswith("modelhub")}
    for path in (ROOT / "modelhub").rglob("*.py"):  # `from modelhub import plugins`
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module == "modelhub":
                modules[name] |= {f"modelhub.{a.name}" for a in node.names if f"modelhub.{a.name}" in modules}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join([*trail, name])}"
        if name in done:
            return
        for other in modules.get(name, set()) - {"modelhub"}:
            visit(other, (*trail, name))
        done.add(name)

    for name in modules:
        visit(name, ())


@pytest.mark.parametrize(
    ("code", "banned"),
    [
        ("import modelhub", FRAMEWORKS | GRAPH),
        ("import modelhub.cli", FRAMEWORKS | GRAPH),
        ("import modelhub.plugins as p; [p.importer(n) for n in p.names(p.IMPORTERS)]", FRAMEWORKS | GRAPH),
        ("import modelhub.plugins as p; list(p.commands())", FRAMEWORKS | GRAPH),
        ("import modelhub_registry", FRAMEWORKS | GRAPH),
    ],
)
def test_start_up_loads_nothing_heavy(code: str, banned: set[str]) -> None:
    script = f"{code}\nimport sys, json; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & banned


@pytest.mark.parametrize("args", [["--help"], ["formats"], ["registry", "list"]])
def test_commands_load_no_graph_library(args: list[str], tmp_path: Path) -> None:
    script = (
        "import sys, modelhub.cli\n"
        f"sys.argv = ['modelhub', *{args!r}]\n"
        "try: modelhub.cli.main()\n"
        "finally: print('|', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"MODELHUB_REGISTRY": str(tmp_path / "registry"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    loaded = set(done.stdout.rpartition("|")[2].split())
    assert not loaded & (FRAMEWORKS | {"onnx", "onnx_ir", "onnxruntime"})


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for shelf in ("modelhub", "formats", "registry")
        for path in (ROOT / shelf).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long


def test_packages_are_typed() -> None:
    assert all((package / "py.typed").exists() for package in [ROOT / "modelhub", *PACKAGES])
