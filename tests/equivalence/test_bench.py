"""The bench: what it does to an engine whose answer depends on more than the event."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_check import network

from modelhub.equivalence.bench import Bench
from modelhub.equivalence.bounds import bound
from modelhub.equivalence.parties import Side, graph_side
from modelhub.equivalence.probes import probes
from modelhub.equivalence.report import Party, Report
from modelhub.graph.interface import Interface

SEED = 3

Arrays = dict[str, np.ndarray]


class Engine:
    """Runs another engine, and does something to its answer."""

    name, version, precision = "test", "1", "float64"

    def __init__(self, inner: Callable[[Arrays], Arrays], damage: Callable[[np.ndarray], np.ndarray]) -> None:
        self.inner, self.damage = inner, damage

    def __call__(self, arrays: Arrays) -> Arrays:
        return {name: self.damage(x) for name, x in self.inner(arrays).items()}


def report(damage: Callable[[np.ndarray], np.ndarray], folder: Path) -> Report:
    model = network()
    interface = Interface.of(model)
    graph = graph_side(model, interface, folder)
    sides = [Side(Party("source", "onnx", "x", "0" * 64), {"float64": graph.engines["float64"]}), graph]
    target = Side(Party("target", "test", "x", "0" * 64), {"float64": Engine(graph.engines["float64"], damage)})
    stand = Bench([*sides, target], bound(model, interface, folder, SEED))
    every = list(probes(model, SEED))
    stand.settle(every)
    made = stand.report(SEED, interface)
    for probe in every:
        made.take(stand.run(probe))
    return made


def failing(made: Report) -> set[str]:
    return {r.kind for leg in made.legs for r in leg.results if r.worst.excessive and "target" in leg.between}


def test_an_honest_engine_passes(tmp_path: Path) -> None:
    made = report(lambda y: y, tmp_path)
    assert made.verdict in ("identical", "equivalent")
    assert made.skipped == []


def test_an_answer_that_depends_on_the_other_events(tmp_path: Path) -> None:
    """Right for a batch as a whole, wrong for pieces of it."""

    def damage(y: np.ndarray) -> np.ndarray:
        return y + 1e-3 * (len(y) % 32 != 0)

    assert failing(report(damage, tmp_path)) == {"pieces"}


def test_what_is_made_of_nan_is_told_not_judged(tmp_path: Path) -> None:
    made = report(lambda y: np.where(np.isnan(y), 0.5, y), tmp_path)
    assert made.verdict in ("identical", "equivalent")
    (line,) = made.skipped
    assert line.startswith("nonfinite inputs are not judged: ")
    assert "graph and target disagree" in line


@pytest.mark.parametrize("shift", [1e-6, 1e-9])
def test_a_shift_is_seen_by_every_class(tmp_path: Path, shift: float) -> None:
    made = report(lambda y: y + shift, tmp_path)
    assert made.verdict == "different"
    judged = {r.kind for leg in made.legs for r in leg.results}
    assert failing(made) == judged
    assert len(judged) == 11
