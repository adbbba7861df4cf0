"""The plug-in door, with a third party's distribution really installed by pip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ACME = Path(__file__).parent / "plugins" / "acme"
MODEL = "acme 1\npt eta phi\n0.5 -1.25 3.0\n0.1\n"


def install(project: Path, target: Path) -> dict[str, str]:
    """Install a project into a folder of its own; the environment that sees it."""
    pip = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", *pip, str(project)], check=True)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))}


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(ACME, folder / "project")
    return install(folder / "project", folder / "site")


def test_reads_writes_checks(acme: dict[str, str], modelhub, tmp_path: Path) -> None:
    source, target = tmp_path / "net.acme", tmp_path / "net.onnx"
    source.write_text(MODEL)
    done = modelhub("convert", source, "-o", target, "--require-check", "--json", env=acme)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "equivalent"
    assert report["parties"]["source"]["engines"] == ["acme 1.0 float64"]
    back = modelhub("convert", "net.onnx", "-o", "again.acme", "--no-check", env=acme)
    assert back.returncode == 0, back.stderr
    names, weights = (tmp_path / "again.acme").read_text().splitlines()[1:3]
    assert names == "pt eta phi"
    assert weights == "0.5 -1.25 3.0"


def test_adds_a_command(acme: dict[str, str], modelhub) -> None:
    assert "Say what acme is." in modelhub("--help", env=acme).stdout
    assert modelhub("acme", env=acme).stdout == "acme: linear models as text\n"


def test_two_plugins_of_one_name(acme: dict[str, str], modelhub, tmp_path: Path) -> None:
    project = tmp_path / "rival"
    shutil.copytree(ACME, project)
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(
        text.replace("modelhub-acme", "modelhub-rival").replace("modelhub_acme", "modelhub_rival")
    )
    (project / "modelhub_acme").rename(project / "modelhub_rival")
    rival = install(project, tmp_path / "site")
    both = {"PYTHONPATH": os.pathsep.join([rival["PYTHONPATH"], acme["PYTHONPATH"]])}
    done = modelhub("formats", env=both)
    assert done.returncode == 3
    assert "modelhub-acme" in done.stderr
    assert "modelhub-rival" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_plugin_is_named(acme: dict[str, str], modelhub, tmp_path: Path) -> None:
    project = tmp_path / "broken"
    shutil.copytree(ACME, project)
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("acme", "broken"))
    (project / "modelhub_acme").rename(project / "modelhub_broken")
    (project / "modelhub_broken" / "__init__.py").write_text("import a_package_that_is_not_there\n")
    done = modelhub("formats", env=install(project, tmp_path / "site"))
    assert done.returncode == 3
    assert "modelhub-broken" in done.stderr
    assert "a_package_that_is_not_there" in done.stderr
    assert "Traceback" not in done.stderr
