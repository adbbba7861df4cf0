"""What counts as the same: NaN and infinities as classes, verdicts, and batches that merge in any order."""

from __future__ import annotations

from functools import reduce

import numpy as np

from modelhub.equivalence.compare import UNDECIDED, Allowed, Difference, ProbeResult, judge
from modelhub.equivalence.compare import compare as compare_outputs
from modelhub.equivalence.probes import Probe


def compare(output: str, a: np.ndarray, b: np.ndarray, allowed: np.ndarray) -> Difference:
    probe = Probe("normal", None, {"x": np.zeros((len(a), 1))})
    return compare_outputs(probe, output, (a, b), Allowed(allowed)).worst


def test_classes_of_numbers() -> None:
    a = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    none = np.zeros((1, 4))
    assert compare("y", a, a.copy(), none).identical
    for column, other in ((0, 1.0), (1, -np.inf), (2, 0.0), (3, np.nan)):
        b = a.copy()
        b[0, column] = other
        difference = compare("y", a, b, np.full((1, 4), 1e9))
        assert difference.excessive
        assert difference.component == (column,)


def test_shapes_must_agree_and_nothing_equals_nothing() -> None:
    assert compare("y", np.zeros((2, 3)), np.zeros((2, 1)), np.ones((2, 3))).excessive
    assert compare("y", np.zeros((2, 0, 3)), np.zeros((2, 0, 3)), np.ones((2, 0, 3))).identical


def batch(numbers: np.ndarray, seed: int) -> tuple[Probe, np.ndarray, np.ndarray]:
    """Some events of a data set, whose values follow from their numbers."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((1000, 3))[numbers]
    b = (a * (1 + 1e-7 * np.random.default_rng(seed + 1).standard_normal((1000, 3))[numbers])).astype("f4")
    return Probe("data", None, {"x": a}, numbers=numbers), a, b


def test_batches_merge_in_any_order() -> None:
    def result(numbers: np.ndarray) -> ProbeResult:
        probe, a, b = batch(numbers, 5)
        return judge(
            probe, {"y": a, "z": a}, {"y": b, "z": a}, {n: Allowed(np.full(a.shape, 1e-7)) for n in "yz"}, "float32"
        )

    whole = result(np.arange(1000))
    assert whole.worst.ratio > 1
    parts = [result(part) for part in np.array_split(np.random.default_rng(0).permutation(1000), 7)]
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merged(part)
        assert merged == whole
    left = parts[0].merged(parts[1]).merged(parts[2])
    assert left == parts[0].merged(parts[1].merged(parts[2]))
    assert whole.events == 1000
    assert sum(whole.ulps) == 6000
    assert len(whole.rows) == 5
    assert whole.rows[0].worst == whole.worst or whole.rows[0].worst.event == whole.worst.event
    assert len(whole.scatter) == 400


def test_distances_in_units_in_the_last_place() -> None:
    one = np.float32(1)
    a = np.array([[1, 1, 1, 1, np.nan]], "f4")
    b = np.array([[1, np.nextafter(one, np.float32(2)), 1 + 2**-21, 1 + 2**-20, 1]], "f4")
    probe = Probe("normal", None, {"x": a})
    # 2**-23 is one unit just above 1
    assert judge(probe, {"y": a}, {"y": b}, {"y": Allowed(np.ones(a.shape))}, "float32").ulps == (1, 1, 0, 1, 1)


def test_an_undecidable_event_is_counted_and_does_not_fail() -> None:
    a, b = np.zeros((4, 2)), np.zeros((4, 2))
    b[[1, 3], 0] = 1.0
    probe = Probe("normal", None, {"x": a})
    allowed = Allowed(np.full(a.shape, 0.1), undecidable=np.array([True, True, False, False]))
    result = judge(probe, {"y": a}, {"y": b}, {"y": allowed}, "float64")
    assert (result.undecidable, result.worst.event, result.worst.verdict) == (1, 3, "different")
    assert (
        judge(
            probe,
            {"y": a[:3]},
            {"y": b[:3]},
            {"y": Allowed(allowed.tolerance[:3], 1.0, allowed.undecidable[:3])},
            "float64",
        ).worst.verdict
        == "equivalent"
    )


def test_undecidable_events_are_counted_once_and_listed_whatever_the_batches() -> None:
    """Two outputs, of which now the one and now the other differs; more events than are named."""
    rng = np.random.default_rng(3)
    outputs = {name: np.zeros((400, 2)) for name in "yz"}
    others = {name: np.where(rng.random((400, 2)) < 0.1, rng.random((400, 2)), 0.0) for name in "yz"}
    open_ = rng.random(400) < 0.5

    def result(numbers: np.ndarray) -> ProbeResult:
        a, b = ({name: x[numbers] for name, x in side.items()} for side in (outputs, others))
        allowed = {name: Allowed(np.full(x.shape, 0.01), undecidable=open_[numbers]) for name, x in a.items()}
        return judge(Probe("data", None, {"x": a["y"]}, numbers=numbers), a, b, allowed, "float64")

    whole = result(np.arange(400))
    beyond = {name: (x > 0.01).any(axis=1) & open_ for name, x in others.items()}
    assert whole.undecidable == (beyond["y"] | beyond["z"]).sum()
    expected = sorted((int(event), name) for name in "yz" for event in np.flatnonzero(beyond[name]))[:UNDECIDED]
    assert [(d.event, d.output) for d in whole.undecided] == expected
    for d in whole.undecided:
        assert d.largest == d.b == others[d.output][d.event].max()
    parts = [result(part) for part in np.array_split(rng.permutation(400), 6)]
    for order in (parts, parts[::-1]):
        assert reduce(ProbeResult.merged, order) == whole
    assert parts[0].merged(parts[1]).merged(parts[2]) == parts[0].merged(parts[1].merged(parts[2]))


def test_between_tolerance_and_limit_is_suspect() -> None:
    a, b = np.zeros((1, 1)), np.full((1, 1), 0.5)
    probe = Probe("normal", None, {"x": a})
    for limit, verdict in ((1.0, "different"), (4.0, "different"), (6.0, "suspect")):
        result = judge(probe, {"y": a}, {"y": b}, {"y": Allowed(np.full((1, 1), 0.1), limit)}, "float64")
        assert result.worst.verdict == verdict


def test_where_anything_goes_nothing_is_too_far() -> None:
    """Shaking takes some outputs out of the numbers: a ratio of NaN in the report would be read as a fault."""
    a, b = np.array([[np.nan], [1.0], [2.0]]), np.array([[0.0], [np.inf], [2.05]])
    worst = compare("y", a, b, np.array([[np.inf], [np.inf], [0.1]]))
    assert (worst.event, worst.verdict) == (2, "equivalent")
    alone = compare("y", a[:1], b[:1], np.full((1, 1), np.inf))
    assert (alone.ratio, alone.verdict) == (0.0, "equivalent")
