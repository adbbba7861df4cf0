"""What wrong numbers look like beside the right ones."""

from __future__ import annotations

import numpy as np
import pytest

from modelhub.difference.resemblance import resemblance

RANDOM = np.random.default_rng(4)
FLAT, STEPS = RANDOM.normal(size=(20, 5)), RANDOM.normal(size=(20, 4, 4))


def one(place: tuple[slice | int, ...], change: float) -> np.ndarray:
    """`FLAT` with a part of it moved."""
    x = FLAT.copy()
    x[place] += change
    return x


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (FLAT, -FLAT, "the opposite sign"),
        (np.maximum(FLAT, 0), FLAT, "the relu of the graph's: the graph leaves out that activation"),
        (FLAT, np.tanh(FLAT), "the tanh of the engine's: the graph has an activation too many"),
        (STEPS, STEPS[:, ::-1], "the steps in reverse order"),
        (STEPS, np.swapaxes(STEPS, 1, 2), "steps and components exchanged"),
        (FLAT, FLAT[:, [0, 3, 2, 1, 4]], "components are exchanged: 3 where 1 belongs, 1 where 3 belongs"),
        (FLAT, 1.5 * FLAT, "1.5 times the engine's in every component"),
        (FLAT, one((slice(None), 2), 0.25), "the engine's +0.25 in component 2"),
        (FLAT, one((3, 2), 0.25), "component 2 of 5 differs"),
    ],
)
def test_a_likeness_is_told(right: np.ndarray, wrong: np.ndarray, told: str) -> None:
    (said,) = resemblance(right, wrong)
    assert told in said


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(FLAT, RANDOM.normal(size=(20, 5))), (FLAT, FLAT * (1 + 1e-9)), (FLAT, FLAT.T), (FLAT[:, 0], FLAT[:, 1])],
)
def test_where_there_is_none_nothing_is(right: np.ndarray, wrong: np.ndarray) -> None:
    assert list(resemblance(right, wrong)) == []
