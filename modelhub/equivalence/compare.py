"""When are two outputs the same? A tolerance measured on the model at hand, not picked by hand.

A network's rounding error depends on its weights and its input, so no fixed tolerance is right for all. What can be
measured is how far float32 lies from float64 *in one and the same engine on the same probe*: the noise. Another
engine that computes the same function in float32 lies within a few times that noise, one in float64 within 2^-29 of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Difference", "compare", "noise_of", "tolerance"]

ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}
"""Unit roundoff of each precision."""

FACTOR = 16.0
"""How many times the measured noise two engines may differ: orders of summation and exp() differ between engines."""

CLAMP = 1e-12
"""Allowed in float64 whatever the noise: lwtnn's sigmoid is exactly 0 or 1 beyond |x| = 30, which is off by up to
9.4e-14 (src/Activations.cxx), and a layer that follows may enlarge that."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """The largest difference in one output of one probe, against its tolerance."""

    output: str
    largest: float
    tolerance: float
    event: int
    component: tuple[int, ...]
    a: float
    b: float
    identical: bool

    @property
    def excessive(self) -> bool:
        """Whether it is more than rounding can explain."""
        return not self.largest <= self.tolerance


def noise_of(low: Array, high: Array) -> Array:
    """The float32 rounding error of one engine: per component the largest |float32 - float64| over the events.

    low, high: [events, ..., components]; the result broadcasts against them.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(low.astype(np.float64) - high)
    difference = np.where(np.isfinite(difference), difference, 0.0)
    largest: Array = np.max(difference, axis=tuple(range(difference.ndim - 1)), initial=0.0, keepdims=True)
    return largest


def tolerance(reference: Array, noise: Array, precision: str) -> Array:
    """How far from `reference` another engine may lie at `precision`, elementwise."""
    u = ROUNDOFF[precision]
    size = np.where(np.isfinite(reference), np.abs(reference), 0.0).astype(np.float64)
    size = np.maximum(size, np.max(size, axis=tuple(range(size.ndim - 1)), initial=0.0, keepdims=True))
    allowed = FACTOR * (u / ROUNDOFF["float32"] * noise + u * size)
    allowed = np.maximum(allowed, np.finfo(precision).tiny)  # below it a number may be rounded to 0
    if precision == "float64":
        allowed = np.maximum(allowed, CLAMP * np.maximum(1.0, size))
    result: Array = np.broadcast_to(allowed, reference.shape)
    return result


def compare(output: str, a: Array, b: Array, allowed: Array) -> Difference:
    """The element of `a` and `b` that is worst against `allowed`; NaN equals NaN, an infinity only itself."""
    if a.shape != b.shape:
        return Difference(output, np.inf, 0.0, 0, (), float("nan"), float("nan"), identical=False)
    if a.size == 0:
        return Difference(output, 0.0, 0.0, 0, (), 0.0, 0.0, identical=True)
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    difference = np.where(np.isnan(difference), np.inf, difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0, 0.0, difference / np.maximum(allowed, np.finfo(np.float64).tiny))
    place = np.unravel_index(int(np.argmax(ratio)), a.shape)
    event, *component = (int(i) for i in place)
    return Difference(
        output,
        float(difference[place]),
        float(allowed[place]),
        event,
        tuple(component),
        float(a[place]),
        float(b[place]),
        identical=bool(same.all()),
    )
