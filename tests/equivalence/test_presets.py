"""Flavour tagging's own tolerances: what they let pass and what they do not, and its table of shares."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_check import changed, network

import modelhub
from modelhub.equivalence.presets import PRESETS
from modelhub.equivalence.report import schema


@pytest.fixture
def net(tmp_path: Path) -> Path:
    modelhub.write(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize(("relative", "verdict"), [(3e-6, "suspect"), (3.0, "different")])
def test_small_changes_pass_large_ones_do_not(net: Path, relative: float, verdict: str) -> None:
    """The first is beyond rounding, but within what flavour tagging asks for; the numbers in the files tell it."""
    bad = changed(net, "dense_2/weight", relative)
    report = modelhub.check(net, bad, preset="ftag")
    assert report.verdict == verdict
    assert report.preset == "ftag"
    document = json.loads(report.dumps())
    jsonschema.Draft202012Validator(schema()).validate(document)
    for leg in document["legs"]:
        limits, shares = zip(*leg["bands"], strict=True)
        assert limits == (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2)
        assert list(shares) == sorted(shares, reverse=True)
    shares = dict(next(leg["bands"] for leg in document["legs"] if leg["between"] == ["graph", "target"]))
    assert (shares[1e-3] > 0) == (verdict == "different")
    assert shares[1e-7] > 0


def test_tolerances_for_events_and_for_steps() -> None:
    answer = {"jet": np.array([[0.5, 1e-9]]), "tracks": np.array([[[0.5, 1e-9]]])}
    allowed = PRESETS["ftag"].allowed(answer)
    assert allowed["jet"].tolerance == pytest.approx(np.array([[5.1e-5, 1e-6]]))
    assert allowed["tracks"].tolerance == pytest.approx(np.array([[[1.5e-6, 1e-6]]]))


def test_command_line(net: Path, modelhub) -> None:
    good = modelhub("check", net, net, "--preset", "ftag", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["preset"] == "ftag"
    assert "events that differ by more" in modelhub("check", net, net, "--preset", "ftag").stderr
