"""How do wrong numbers look beside the right ones? As those with a step left out, turned round, scaled or exchanged.

Only what explains every number is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["resemblance"]

Array = NDArray[np.float64]

CLOSE = 1e-6
"""Up to which relative difference two arrays are one, here where a likeness is looked for, no proof."""

SHOWN = 4


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": _softmax,
    "exponential": np.exp,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


def resemblance(right: Array, wrong: Array) -> Iterator[str]:
    """What `wrong`, the graph's numbers, are beside `right`, the engine's, [events, ..., components] both."""
    if right.shape != wrong.shape or not right.size or right.ndim < 2:
        return
    with np.errstate(all="ignore"):
        found = _as_a_whole(right, wrong) or _by_component(right, wrong)
    if found:
        yield found


def _as_a_whole(right: Array, wrong: Array) -> str:
    if _close(-right, wrong):
        return "the graph has the opposite sign"
    for name, function in ACTIVATIONS.items():
        if _close(function(wrong), right):
            return f"the engine's numbers are the {name} of the graph's: the graph leaves out that activation"
        if _close(function(right), wrong):
            return f"the graph's numbers are the {name} of the engine's: the graph has an activation too many"
    if right.ndim > 2 and _close(right[:, ::-1], wrong):
        return "the graph has the steps in reverse order"
    if right.ndim > 2 and right.shape[1] == right.shape[2] and _close(np.swapaxes(right, 1, 2), wrong):
        return "the graph has steps and components exchanged"
    return ""


def _by_component(right: Array, wrong: Array) -> str:
    """Components at other places, or moved by a number each."""
    x, y = (z.reshape(-1, z.shape[-1]) for z in (right, wrong))
    width = x.shape[1]
    apart = [k for k in range(width) if not _close(x[:, k], y[:, k])]
    if not apart:
        return ""
    places = {k: next((j for j in range(width) if _close(x[:, j], y[:, k])), None) for k in apart[:64]}
    if None not in places.values() and len(set(places.values())) == len(places):
        told = ", ".join(f"{j} where {k} belongs" for k, j in list(places.items())[:SHOWN])
        return f"components are exchanged: {told}{', …' if len(places) > SHOWN else ''}"
    which = f"component{'s' * (len(apart) > 1)} {', '.join(map(str, apart[:SHOWN]))}"
    which = "every component" if len(apart) == width > 1 else which + (", …" if len(apart) > SHOWN else "")
    factor, shift = _factor(x[:, apart], y[:, apart]), _shift(x[:, apart], y[:, apart])
    if factor:
        return f"the graph's numbers are {factor} times the engine's in {which}"
    if shift:
        return f"the graph's numbers are the engine's {shift} in {which}"
    return f"{which} of {width} differ{'s' * (len(apart) == 1 or len(apart) == width)}" if len(apart) < width else ""


def _factor(x: Array, y: Array) -> str:
    ratio = float(np.median(y[x != 0] / x[x != 0])) if (x != 0).any() else 1.0
    return f"{ratio:.6g}" if np.isfinite(ratio) and _close(ratio * x, y) else ""


def _shift(x: Array, y: Array) -> str:
    """A number added, the same for every event; of several components their own."""
    steps = np.median(y - x, axis=0)
    if not np.isfinite(steps).all() or not _close(x + steps, y):
        return ""
    told = ", ".join(f"{step:+.6g}" for step in steps[:SHOWN])
    return told + (", …" if len(steps) > SHOWN else "")


def _close(a: Array, b: Array) -> bool:
    """Whether two arrays are one, and no constant, which resembles too much."""
    scale = float(np.max(np.abs(b), initial=0.0))
    return bool(np.allclose(a, b, rtol=CLOSE, atol=CLOSE * scale, equal_nan=True))
