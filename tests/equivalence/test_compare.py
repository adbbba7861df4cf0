"""What counts as the same: tolerances that follow the noise, NaN and infinities as classes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from modelhub.equivalence.compare import compare, noise_of, tolerance


def dense(x: np.ndarray, weights: list[np.ndarray], dtype: str) -> np.ndarray:
    """A deep ReLU network in one precision."""
    for weight in weights:
        x = np.maximum(x.astype(dtype) @ weight.astype(dtype), 0)
    return x


@pytest.fixture(scope="module")
def network() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [44, 72, 60, 48, 36, 24, 12, 3]
    return [(rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype("f4") for a, b in pairwise(sizes)]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_rounding_passes_at_every_scale(network: list[np.ndarray], scale: float) -> None:
    x = (np.random.default_rng(1).standard_normal((64, 44)) * scale).astype("f4")
    low, high = dense(x, network, "f4"), dense(x, network, "f8")
    other = dense(x[:, ::-1], [network[0][::-1], *network[1:]], "f4")  # another order of summation
    noise = noise_of(low, high)
    assert not compare("y", high, other, tolerance(high, noise, "float32")).excessive


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize(("relative", "precision"), [(1e-4, "float64"), (1e-8, "float64"), (1e-2, "float32")])
def test_a_changed_weight_is_seen(network: list[np.ndarray], scale: float, relative: float, precision: str) -> None:
    x = (np.random.default_rng(1).standard_normal((64, 44)) * scale).astype("f4")
    high = dense(x, network, "f8")
    noise = noise_of(dense(x, network, "f4"), high)
    changed = [w.astype("f8") for w in network]
    place = np.unravel_index(np.argmax(np.abs(changed[0])), changed[0].shape)
    changed[0][place] *= 1 + relative
    got = dense(x, changed, "f8")
    assert compare("y", high, got, tolerance(high, noise, precision)).excessive


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
