"""What all tests share: where the real cases lie, and the command line as a user runs it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

# Its libraries and TensorFlow's get along in this order only; in the other, the process dies.
with suppress(ImportError):
    importlib.import_module("XRootD.client")

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The small models shipped with the project."""
    return FIXTURES


@pytest.fixture(scope="session")
def cases() -> Path:
    """Real models with expected outputs, which are not part of the project: skips where they are absent."""
    folder = os.environ.get("MODELHUB_CASES", str(ROOT.parent / "shared" / "cases"))
    if not Path(folder).is_dir():
        pytest.skip("the real cases are not here: set MODELHUB_CASES to their folder")
    return Path(folder)


@pytest.fixture
def modelhub(tmp_path: Path):
    """Run `modelhub ARGS` as a process of its own, in an empty folder; returns the finished process."""

    def run(*args: object, env: dict[str, str] | None = None, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelhub", *map(str, args)],
            cwd=cwd,
            env={**os.environ, "MODELHUB_REGISTRY": str(tmp_path / "registry"), "COLUMNS": "120", **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run
