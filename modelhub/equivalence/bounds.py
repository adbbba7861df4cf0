"""How far rounding may carry an answer: a tolerance that follows the model at hand, not one picked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.equivalence.compare import ROUNDOFF, Allowed

if TYPE_CHECKING:
    from modelhub.equivalence.parties import Side
    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays

__all__ = ["allowed", "noise", "noise_of", "tolerance"]

FACTOR = 16.0
"""How many times the measured noise two engines may differ: orders of summation and exp() differ between engines."""

CLAMP = 1e-12
"""Allowed in float64 whatever the noise: lwtnn's sigmoid is exactly 0 or 1 beyond |x| = 30, which is off by up to
9.4e-14 (src/Activations.cxx), and a layer that follows may enlarge that."""

Array = NDArray[Any]


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


def allowed(reference: Arrays, noise: Arrays, precision: str) -> dict[str, Allowed]:
    """The tolerance of every output."""
    return {name: Allowed(tolerance(x, noise[name], precision)) for name, x in reference.items()}


def noise(sides: list[Side], answers: dict[str, dict[str, Arrays]], probe: Probe) -> dict[str, Any]:
    """The rounding noise of float32 per output: float32 against float64 in the graph's engine, or the source's.

    Where no engine runs in both, the answer to inputs moved by a rounding's worth stands in for it.
    """
    for role in ("graph", "source"):
        answer = answers[role]
        if len(answer) == 2:
            return {name: noise_of(answer["float32"][name], answer["float64"][name]) for name in answer["float64"]}
    side = next(side for side in sides if answers[side.party.role])
    precision = next(iter(answers[side.party.role]))
    rng = np.random.default_rng(0)
    moved = {
        name: (x * (1 + rng.choice([-1, 1], x.shape) * 2.0**-23)).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for name, x in probe.arrays.items()
    }
    before, after = answers[side.party.role][precision], side.engines[precision](moved)
    return {name: noise_of(after[name], before[name]) for name in before}
