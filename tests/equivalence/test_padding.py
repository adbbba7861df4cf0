"""Masked steps behind a sequence: what an engine makes of them, and of the sequence without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelhub
from modelhub.equivalence.kinds import KINDS
from modelhub.equivalence.padding import masking
from modelhub.equivalence.probes import probes
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output

keras = pytest.importorskip("keras")
layers = keras.layers

RECORD = Interface(
    (Input("tracks", tuple(Feature(n, offset=0.5, scale=0.25) for n in ("d0", "z0", "phi")), sequence=True),),
    (Output("flavour", ("pu", "pc", "pb")),),
)


def network(path: Path, body: Callable[[Any], Any], number: float = 0.0) -> Path:
    """A Keras file: Masking, what `body` makes of it, and three outputs."""
    tracks = keras.Input((None, 3), name="tracks")
    x = body(layers.Masking(number)(tracks))
    net = keras.Model(tracks, layers.Dense(3, activation="softmax", name="flavour")(x))
    rng = np.random.default_rng(5)
    net.set_weights([rng.normal(size=w.shape) / 2 for w in net.weights])
    net.save(path)
    return path


BODIES: dict[str, Callable[[], Any]] = {
    "last step": lambda: layers.GRU(4, reset_after=False),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(4)),
    "every step": lambda: layers.LSTM(4, return_sequences=True),
}


@pytest.mark.filterwarnings("ignore:.*lwtnn has no masks")
@pytest.mark.parametrize("number", [0.0, -2.0])
@pytest.mark.parametrize(
    ("body", "target"), [("last step", "net.json"), ("both ways", "net.onnx"), ("every step", "net.onnx")]
)
def test_masked_steps_change_nothing_in_any_engine(body: str, target: str, number: float, tmp_path: Path) -> None:
    source = network(tmp_path / "net.keras", BODIES[body](), number)
    report = modelhub.convert(source, tmp_path / target, interface=RECORD)
    assert report is not None
    assert report.verdict == "equivalent"
    for leg in report.legs:
        assert {r.length for r in leg.results if r.kind == "padding"} == {1, 10}
    assert not any("padding" in line for line in report.skipped)


@pytest.mark.filterwarnings("ignore:.*lwtnn has no masks")
def test_an_engine_that_takes_masked_steps_for_others_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lwtnn knows no masks; here it is given padded events all the same."""
    source = network(tmp_path / "net.keras", BODIES["last step"]())
    modelhub.convert(source, tmp_path / "net.json", interface=RECORD)
    monkeypatch.setattr("modelhub.equivalence.parties.knows_masks", lambda format: True)
    report = modelhub.check(source, tmp_path / "net.json", interface=RECORD)
    assert report.verdict == "different"
    assert {(leg.between[1], r.kind) for leg in report.legs for r in leg.results if r.worst.excessive} == {
        ("target", "padding")
    }


def test_a_network_that_heeds_no_mask_of_its_own_is_told_not_judged(tmp_path: Path) -> None:
    """Keras takes the maximum over masked steps too: where all others are below zero, padding changes the answer."""
    source = network(tmp_path / "net.keras", layers.GlobalMaxPooling1D())
    report = modelhub.convert(source, tmp_path / "net.onnx", interface=RECORD)
    assert report is not None
    assert report.verdict == "equivalent"
    assert any(line.startswith("padding at length 1: padding changes the answer") for line in report.skipped)
    assert not any(r.key == ("padding", 1) for leg in report.legs for r in leg.results)


def test_every_class_of_probes_is_told_in_words(tmp_path: Path) -> None:
    """What a network with masks, declared lengths and defaults is given, and what trees are."""
    source = network(tmp_path / "net.keras", BODIES["last step"]())
    features = (replace(RECORD.inputs[0].features[0], default=1.0), *RECORD.inputs[0].features[1:])
    record = replace(RECORD, inputs=(replace(RECORD.inputs[0], features=features, max_length=9),))
    model = modelhub.read(source, interface=record)
    made = {probe.kind for probe in probes(model, 1, lengths=2)} | {"long", "threshold", "data"}
    assert made == KINDS.keys()


def test_a_mask_behind_many_ways_is_found_at_once() -> None:
    """A sum of a value with itself, two hundred times over: 2^200 ways from the question to the input."""
    b = Builder()
    x = value = b.input("tracks", ["N", "T", 3])
    for _ in range(200):
        value = b.op("Add", value, value)
    asked = b.op("Equal", value, b.constant(np.array(7.0, np.float32), "padding"))
    b.output(b.op("Where", asked, x, x), "y", ["N", "T", 3])
    assert masking(b.finish()) == {"tracks": 7.0}
