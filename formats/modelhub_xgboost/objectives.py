"""What each objective makes of a margin, and of the base score: a closed table.

Source: PredTransform and ProbToMargin in src/objective/*.cu and *.h of XGBoost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Link

__all__ = ["OBJECTIVES", "Objective"]


@dataclass(frozen=True)
class Objective:
    """`link` from margin to prediction; `base` is how the base score becomes a margin."""

    link: Link
    base: str = "identity"
    """"identity", "logit" or "log"."""

    def margin(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The base score in margin space, in float32 as XGBoost computes it; kept as doubles."""
        value = score.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.base == "logit":
                value = -np.log(np.float32(1) / value - np.float32(1))
            elif self.base == "log":
                value = np.log(value)
        return value.astype(np.float64)


_IDENTITY = Objective(Link())
_LOGISTIC = Objective(Link("sigmoid"), "logit")
_EXP = Objective(Link("exp"), "log")

OBJECTIVES = {
    "binary:hinge": Objective(Link("step")),
    "binary:logistic": _LOGISTIC,
    "binary:logitraw": Objective(Link(), "logit"),
    "count:poisson": _EXP,
    "multi:softmax": Objective(Link("argmax")),
    "multi:softprob": Objective(Link("softmax")),
    "rank:map": _IDENTITY,
    "rank:ndcg": _IDENTITY,
    "rank:pairwise": _IDENTITY,
    "reg:absoluteerror": _IDENTITY,
    "reg:expectileerror": _IDENTITY,
    "reg:gamma": _EXP,
    "reg:linear": _IDENTITY,
    "reg:logistic": _LOGISTIC,
    "reg:pseudohubererror": _IDENTITY,
    "reg:quantileerror": _IDENTITY,
    "reg:squarederror": _IDENTITY,
    "reg:squaredlogerror": _IDENTITY,
    "reg:tweedie": _EXP,
    "survival:aft": _EXP,
    "survival:cox": _EXP,
}
