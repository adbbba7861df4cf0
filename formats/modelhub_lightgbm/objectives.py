"""What each objective makes of a raw score: a closed table (ConvertOutput in src/objective/*.hpp of LightGBM)."""

from __future__ import annotations

import math

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph.forest import Link

__all__ = ["link"]

_IDENTITY = (
    "custom", "fair", "huber", "lambdarank", "mape", "none", "quantile", "rank_xendcg", "regression_l1",
)  # fmt: skip
_EXP = ("gamma", "poisson", "tweedie")


def link(objective: str, where: str) -> Link:
    """The link of an objective line such as ``binary sigmoid:1``; an empty line is a custom objective: raw scores."""
    name, *rest = objective.split() or ["none"]
    parameters = dict(part.partition(":")[::2] for part in rest)
    if name in _IDENTITY:
        return Link()
    if name == "regression" and parameters.keys() <= {"sqrt"}:
        return Link("signed_square" if "sqrt" in parameters else "identity")
    if name in _EXP:
        return Link("exp")
    if name == "multiclass":
        return Link("softmax")
    if name in ("binary", "multiclassova"):
        return Link("sigmoid", _slope(parameters.get("sigmoid", "1"), where))
    if name == "cross_entropy":
        return Link("sigmoid")
    if name == "cross_entropy_lambda":
        return Link("softplus")
    raise Unsupported(f"{where}: the objective {safe_text(objective)!r} is not one of LightGBM's")


def _slope(text: str, where: str) -> float:
    try:
        slope = float(text)
    except ValueError:
        slope = math.nan
    if not (math.isfinite(slope) and slope > 0):
        raise UnreadableFile(f"{where}: a sigmoid parameter of {safe_text(text, 40)}")
    return slope
