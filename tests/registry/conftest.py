"""A registry in an empty folder, files to publish, and reports as `modelhub check` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registry_helpers import write_report

from modelhub_registry import Registry


@pytest.fixture
def registry(tmp_path: Path):
    with Registry(tmp_path / "registry") as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write files `name=content` into a folder and return their paths."""

    def write(folder: str = "in", **contents: str) -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = []
        for name, content in contents.items():
            path = tmp_path / folder / name.replace("_", ".")
            path.write_text(content)
            paths.append(path)
        return paths

    return write


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., Path]:
    """Write a report about two files and return its path."""

    def write(source: Path, target: Path, verdict: str = "equivalent", seed: int = 1, **more: Any) -> Path:
        path = tmp_path / f"{target.name}-{verdict}-{seed}.report.json"
        return write_report(path, source, target, verdict, seed, **more)

    return write


@pytest.fixture
def proved(registry: Registry, files, report) -> Registry:
    """A registry with btag@1: a source, two exports and a passing report of each."""
    source, json, onnx = files(net_pt="weights", net_json='{"a": 1}', net_onnx="graph")
    registry.push("btag", [source, json, onnx], [report(source, json), report(source, onnx, "identical")])
    return registry
