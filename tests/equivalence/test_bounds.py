"""The rounding bound holds on every architecture, follows the event, and knows hard decisions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from equivalence_bounds import ARCHITECTURES, INPUTS, inputs, measure

from modelhub.equivalence.bounds import bound
from modelhub.equivalence.compare import ROUNDOFF, judge
from modelhub.equivalence.parties import graph_side
from modelhub.equivalence.probes import Probe
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Interface


@pytest.mark.parametrize("draw", INPUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_engines_stay_within_it(architecture: str, draw: str) -> None:
    """And not so far within that a fault would hide: 1 in 20 of it is used (benchmarks/equivalence_bounds.py)."""
    with np.errstate(all="ignore"):
        model = ARCHITECTURES[architecture](7)
        found = measure(model, inputs(model, draw, 7, 200), 7)
    assert found["violations"] == 0
    if draw == "N(0,1)":
        assert max(found["onnxruntime"][0], found["numpy"][0]) > 0.05
    assert 2 < found["limit"] < 1000


def run(b: Builder, x: np.ndarray, tmp_path: Path) -> tuple:
    model = b.finish()
    interface = Interface.of(model)
    side = graph_side(model, interface, tmp_path)
    shaken = bound(model, interface, tmp_path, 0)
    assert shaken is not None
    probe = Probe("normal", None, {"x": x})
    answer = side.engines["float64"](probe.arrays)
    return probe, answer, shaken.of(probe, answer)


def test_it_follows_the_event(tmp_path: Path) -> None:
    """A sum of large numbers of both signs is uncertain by what they are, not by what is left of them."""
    b = Builder()
    x = b.input("x", ["N", 16])
    b.output(b.op("MatMul", x, b.constant(np.ones((16, 1), "f4"), "w")), "y", ["N", 1])
    signs = np.tile([1.0, -1.0], 8)
    _, _, spread = run(b, np.stack([signs * size for size in (1e-3, 1.0, 1e6)]).astype("f4"), tmp_path)
    deviation = spread.deviation["y"].ravel() / np.array([1e-3, 1.0, 1e6])
    u = ROUNDOFF["float32"]
    assert np.all(deviation > 6 * u * 16 / 4)  # λ u √(K Σt²) = 6 · 16 u, as far as eight draws tell
    assert np.all(deviation < 6 * u * 16 * 3)


def test_what_is_only_moved_is_not_rounded(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", ["N", 4])
    b.output(b.op("Transpose", b.op("Relu", b.op("Transpose", x, perm=[1, 0])), perm=[1, 0]), "y", ["N", 4])
    _, _, spread = run(b, np.random.default_rng(0).standard_normal((5, 4)).astype("f4"), tmp_path)
    assert not spread.deviation["y"].any()


def test_events_at_a_hard_decision_are_undecidable(tmp_path: Path) -> None:
    """A step at 1 of 3 times x: within a rounding of a third either answer is right; elsewhere one is."""
    b = Builder()
    x = b.input("x", ["N", 1])
    z = b.op("Mul", x, b.constant(np.float32(3.0), "three"))
    above = b.op("Cast", b.op("Greater", z, b.constant(np.float32(1.0), "one")), to=1)
    b.output(above, "y", ["N", 1])
    third = np.float32(1 / 3)
    rows = np.array([[0.1], [third], [np.nextafter(third, np.float32(0))], [third * np.float32(1.001)], [2.0]], "f4")
    probe, answer, spread = run(b, rows, tmp_path)
    assert spread.near["float32"].tolist() == [False, True, True, False, False]
    assert not spread.near["float64"].any()
    wrong = {"y": 1 - answer["y"]}
    result = judge(probe, answer, wrong, spread.allowed(answer, "float32"), "float32")
    assert result.worst.verdict == "different"
    assert result.undecidable <= 2
    near = {"y": np.where(spread.near["float32"][:, np.newaxis], wrong["y"], answer["y"])}
    assert judge(probe, answer, near, spread.allowed(answer, "float32"), "float32").worst.verdict != "different"


def test_raw_inputs_compared_with_a_constant_are_decidable(tmp_path: Path) -> None:
    """A mask (x == 0) sees the input itself, which nothing has rounded."""
    b = Builder()
    x = b.input("x", ["N", 1])
    b.output(b.op("Cast", b.op("Equal", x, b.constant(np.float32(0.0), "zero")), to=1), "y", ["N", 1])
    _, _, spread = run(b, np.array([[0.0], [1e-30]], "f4"), tmp_path)
    assert not spread.near["float32"].any()
