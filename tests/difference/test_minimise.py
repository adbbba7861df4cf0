"""The smallest input: only the numbers that matter are left, and the floats between which a decision turns."""

from __future__ import annotations

import numpy as np
import pytest

from modelhub.difference import minimise as module
from modelhub.difference.minimise import median_event, minimise


def event(*values: float, dtype: str = "float32") -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype)}


def asks(rule):
    return lambda events: np.array([bool(rule(e["x"])) for e in events], dtype=bool)


def test_one_number_of_many_is_left():
    bad = event(*range(1, 41))
    found = minimise(bad, [event(*[0] * 40)], asks(lambda x: x[17] > 3))
    assert found.changed == (("x", (17,)),)
    assert np.flatnonzero(found.fails["x"]).tolist() == [17]


def test_two_numbers_that_are_needed_together_are_left():
    bad = event(*range(1, 31))
    found = minimise(bad, [event(*[0] * 30)], asks(lambda x: x[2] > 1 and x[25] > 1))
    assert {place for _, place in found.changed} == {(2,), (25,)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at", [0.3, -1e-30, 2.5e7, 0.0])
def test_an_edge_is_two_adjacent_floats(dtype, at):
    kind = np.dtype(dtype).type
    edge = kind(at)
    found = minimise(event(1e9, dtype=dtype), [event(-1e9, dtype=dtype)], asks(lambda x: x[0] >= edge))
    ((place, bad, good),) = found.edges
    assert place == ("x", (0,))
    assert kind(bad) == edge
    assert kind(good) == np.nextafter(edge, kind(-np.inf))


def test_each_of_several_numbers_has_its_edge():
    found = minimise(event(8, 8), [event(0, 0)], asks(lambda x: x[0] > 1 and x[1] > 2))
    edges = {place[1][0]: (np.float32(bad), np.float32(good)) for place, bad, good in found.edges}
    assert edges[0] == (np.nextafter(np.float32(1), np.float32(2)), np.float32(1))
    assert edges[1] == (np.nextafter(np.float32(2), np.float32(3)), np.float32(2))


def test_what_differs_everywhere_has_nothing_that_passes():
    found = minimise(event(1, 2), [event(0, 0), event(5, 5)], asks(lambda x: True))
    assert (found.passes, found.changed, found.edges) == (None, (), ())


def test_the_first_neutral_event_that_passes_is_taken():
    found = minimise(event(1, 2), [event(9, 9), event(0, 7)], asks(lambda x: x[0] > 0.5))
    assert found.passes["x"].tolist() == [0, 7]


def test_missing_values_and_whole_numbers_have_no_edge():
    found = minimise(event(np.nan, 1), [event(0, 0)], asks(lambda x: np.isnan(x[0])))
    assert (found.changed, found.edges) == ((("x", (0,)),), ())
    whole = minimise(event(7, dtype="int64"), [event(0, dtype="int64")], asks(lambda x: x[0] > 3))
    assert (whole.changed, whole.edges) == ((("x", (0,)),), ())


def test_steps_and_several_inputs():
    bad = {"jets": np.ones(3, "float32"), "tracks": np.ones((4, 2), "float32")}
    good = {name: np.zeros_like(x) for name, x in bad.items()}
    found = minimise(bad, [good], lambda events: np.array([e["tracks"][2, 1] > 0.5 for e in events]))
    assert found.changed == (("tracks", (2, 1)),)


def test_the_models_are_not_asked_without_end(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 3)
    calls = []

    def fails(events):
        calls.append(len(events))
        return np.array([e["x"].sum() > 100 for e in events])

    minimise(event(*range(64)), [event(*[0] * 64)], fails)
    assert len(calls) == 3


def test_the_median_leaves_missing_values_out():
    middle = median_event({"x": np.array([[1, np.nan], [2, 4], [9, 5]], "float32"), "k": np.array([[3], [1], [2]])})
    assert middle["x"].tolist() == [2, 4.5]
    assert middle["k"].tolist() == [2]
    assert middle["k"].dtype.kind == "i"
