"""The splits of a forest as TMVA asks them: ``x >= cut`` in float32, and what NaN would have to be for it.

Every split of the source flips between two neighbouring float32 values; the upper one is the cut, so that each float32
goes on the side it went on before. No cut may be infinite: older readers take the text "inf" for 0. NaN passes no cut
(and makes TMVA::Reader answer -999): where the forest sends it somewhere, a number is looked for that goes the same way
at every split of that variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import safe_text
from modelhub.graph.forest import Compare, Forest
from modelhub.graph.forest_onnx import narrowed

__all__ = ["Cuts", "cuts_of"]

LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True, eq=False)
class Cuts:
    """The splits of a forest; at leaves -1."""

    cut: NDArray[np.float32]
    """[nodes]"""
    right: NDArray[np.int64]
    """[nodes] where ``x >= cut`` leads; the same node as `left` where a split asks nothing."""
    left: NDArray[np.int64]
    """[nodes]"""
    missing: tuple[float | None, ...]
    """For each variable what NaN has to be replaced by; None where the forest does nothing with it."""


def cuts_of(forest: Forest, names: Sequence[str], defaults: NDArray[np.float64], reasons: list[str]) -> Cuts:
    """The cuts of `forest`, whose variables are called `names`; `defaults` [variables] replace NaN already.

    What TMVA cannot ask is added to `reasons`.
    """
    compare, t = narrowed(forest.compare, forest.threshold)
    splits = forest.splits
    for kind, what in ((Compare.EQ, "equality"), (Compare.NE, "inequality")):
        if (splits & (forest.compare == kind)).any():
            which = _listed(names, forest.feature[splits & (forest.compare == kind)])
            reasons.append(f"trees ask for {what} ({which}); TMVA's ask for thresholds only. Write ONNX")
    closed = (compare == Compare.LE) | (compare == Compare.GT)
    with np.errstate(over="ignore"):
        cut = np.where(closed, np.nextafter(t, np.float32(np.inf)), t)
    above = (compare == Compare.GE) | (compare == Compare.GT)
    right = np.where(above, forest.true_child, forest.false_child)
    left = np.where(above, forest.false_child, forest.true_child)
    passes = splits & ~closed & (t == -np.inf)  # whatever the value
    fails = splits & closed & (t == np.inf)
    beyond = splits & (cut == np.inf) & ~fails & (forest.compare <= Compare.GT)
    if beyond.any():
        which = _listed(names, forest.feature[beyond])
        reasons.append(f"trees ask whether {which} is infinite; TMVA's cuts are finite. Write ONNX")
    nan = np.where(forest.missing, forest.true_child, forest.false_child)
    fixed = passes | fails
    chosen = np.where(passes, right, left)
    missing = _replacements(forest, names, cut, defaults, nan == right, fixed, fixed & (nan != chosen), reasons)
    right, left = np.where(fixed, chosen, right), np.where(fixed, chosen, left)
    return Cuts(np.where(splits, cut, np.float32(0)).astype(np.float32), right, left, missing)


def _replacements(
    forest: Forest,
    names: Sequence[str],
    cut: NDArray[np.float32],
    defaults: NDArray[np.float64],
    up: NDArray[np.bool_],
    fixed: NDArray[np.bool_],
    apart: NDArray[np.bool_],
    reasons: list[str],
) -> tuple[float | None, ...]:
    """For each variable the number that goes as NaN goes: up at the splits `up`, nowhere at those `apart`."""
    splits = forest.splits
    result: list[float | None] = []
    stuck = []
    for feature in range(len(names)):
        if not np.isnan(defaults[feature]):
            result.append(float(defaults[feature]))
            continue
        here = splits & (forest.feature == feature)
        number = None
        if (here & (forest.missing | apart)).any():
            asked = here & ~fixed
            low = cut[asked & up].max(initial=LOWEST)
            high = cut[asked & ~up].min(initial=np.float32(np.inf))
            if (here & apart).any() or not low < high:
                stuck.append(feature)
            else:
                number = _between(low, high)
        result.append(number)
    if stuck:
        reasons.append(
            f"trees send missing values ({_listed(names, np.array(stuck))}) where no number goes; TMVA knows no "
            "missing values. Give these variables a default with --interface, or write ONNX"
        )
    return tuple(result)


def _between(low: np.float32, high: np.float32) -> float:
    """A float32 from `low` on and below `high`: 0 where that is one."""
    if low <= 0 < high:
        return 0.0
    if high <= 0:
        return float(max(low, np.float32(max(2.0 * float(high) - 1, float(LOWEST)))))
    return float(low)


def _listed(names: Sequence[str], features: NDArray[np.int32] | NDArray[np.int64]) -> str:
    unique = np.unique(features)
    shown = ", ".join(safe_text(names[i]) for i in unique[:5])
    return shown if len(unique) <= 5 else f"{shown} and {len(unique) - 5} more"
