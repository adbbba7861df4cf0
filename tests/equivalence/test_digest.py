"""The digest of a report: the same on another host, another when anything is found differently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_check import changed, network

import modelhub
from modelhub.equivalence.digest import digest

CHECK = "import sys, modelhub; print(modelhub.check(sys.argv[1], sys.argv[2]).dumps())"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    modelhub.write(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_same_from_another_processor(net: Path) -> None:
    """numpy's and BLAS's kernels for an older processor stand for another host: they round differently."""
    old = {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3", "OPENBLAS_CORETYPE": "Nehalem"}
    reports = []
    for extra in ({}, old):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHECK, net, net],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        reports.append(json.loads(done.stdout))
    assert reports[0]["digest"] == reports[1]["digest"] == digest(reports[0])


def test_what_it_covers(net: Path) -> None:
    document = modelhub.check(net, net).to_json()
    kept = document["digest"]
    probe = document["legs"][0]["probes"][0]
    for here, key, other in (
        (document, "created", "2001-01-01T00:00:00+00:00"),
        (document["host"], "machine", "abacus"),
        (probe, "difference", 1e-9),
        (probe, "event", 7),
        (document["legs"][0], "verdict", "identical"),
        (document["parties"]["graph"], "sha256", "0" * 64),
    ):
        before, here[key] = here.get(key), other
        assert digest(document) == kept, key
        here[key] = before
    for here, key, other in (
        (document, "verdict", "different"),
        (document["legs"][0], "verdict", "suspect"),
        (document, "seed", 1),
        (document["parties"]["target"], "sha256", "0" * 64),
        (probe, "events", 1),
        (document, "preset", "ftag"),
        (document["coverage"][0], "floor", 0.9),
    ):
        before, here[key] = here.get(key), other
        assert digest(document) != kept, key
        here[key] = before
        if before is None:
            del here[key]
    assert modelhub.check(net, changed(net, "dense_1/weight", 1e-3)).to_json()["digest"] != kept
