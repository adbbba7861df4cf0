"""The pytest plug-in, in a project of its own that is run by pytest as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

TESTS = """\
import pytest

def test_right(assert_equivalent):
    report = assert_equivalent("bdt.xml", "bdt.onnx")
    assert report.verdict in ("identical", "equivalent")

def test_wrong(assert_equivalent):
    assert_equivalent("bdt.xml", "wrong.onnx", seed=5)

@pytest.mark.equivalence(floors={"tree leaves": 1.0})
def test_floor(assert_equivalent):
    assert_equivalent("bdt.xml", "bdt.onnx")

def test_nothing_to_do_with_it():
    pass
"""


@pytest.fixture(scope="module")
def project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "tests"
    shutil.copytree(models, folder)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n")
    (folder / "test_models.py").write_text(TESTS)
    return folder


ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p modelhub.pytest_plugin"}
"""This plug-in and no other: the plug-ins of the environment take long to load."""


def run(project: Path, *args: str, env: dict[str, str] = ALONE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *args],
        cwd=project,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_passes_fails_and_keeps_reports(project: Path, tmp_path: Path) -> None:
    args = ("--equivalence-seed", "77", "--equivalence-report", str(tmp_path / "reports"))
    found = {"PYTEST_ADDOPTS": ""}  # by its entry point
    done = run(project, *args, f"--junit-xml={tmp_path / 'out.xml'}", env=found)
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert "bdt.xml → wrong.onnx: different" in done.stdout
    assert "source-target, float32: " in done.stdout
    assert "times the tolerance" in done.stdout
    assert "bdt.xml → bdt.onnx: inconclusive" in done.stdout
    assert "Traceback" not in done.stdout
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "reports").iterdir()}
    assert {name: report["verdict"] for name, report in written.items()} == {
        "test_models.py-test_right-1.json": written["test_models.py-test_right-1.json"]["verdict"],
        "test_models.py-test_wrong-1.json": "different",
        "test_models.py-test_floor-1.json": "inconclusive",
    }
    assert {report["seed"] for report in written.values()} == {77}  # the command line wins
    told = [p.get("value") for p in ET.parse(tmp_path / "out.xml").iter("property")]
    assert {report["digest"] for report in written.values()} <= set(told)


def test_every_test_that_uses_the_fixture_has_the_marker(project: Path) -> None:
    assert "3/4 tests collected" in run(project, "--collect-only", "-q", "-m", "equivalence").stdout
    assert "1 passed, 3 deselected" in run(project, "-m", "not equivalence").stdout
    assert "@pytest.mark.equivalence(" in run(project, "--markers").stdout


def test_what_it_does_not_know_is_told(project: Path, tmp_path: Path) -> None:
    (tmp_path / "test_typo.py").write_text("def test_it(assert_equivalent):\n    assert_equivalent('a', 'b', sede=1)\n")
    assert "sede" in run(tmp_path).stdout
    (tmp_path / "test_typo.py").write_text(
        "def test_it(assert_equivalent):\n    assert_equivalent('a', 'b', fail_on='x')\n"
    )
    assert "fail_on is" in run(tmp_path).stdout


def test_it_loads_nothing_before_a_test_asks(project: Path) -> None:
    script = (
        "import sys, pytest\n"
        "code = pytest.main(['-q', '-m', 'not equivalence'])\n"
        "assert 'modelhub.pytest_plugin' in sys.modules\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}), end='')"
    )
    env = {**os.environ, **ALONE}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=env, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert not loaded & {"numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "rich", "jinja2", "yaml", "h5py"}
