"""What each objective makes of a margin, and of the base score: a closed table.

Source: PredTransform and ProbToMargin in src/objective/*.cu and *.h of XGBoost, in the version that wrote the file
where versions differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Link

__all__ = ["Objective", "objective"]


_SMALL = np.float32(1e-6)
"""kRtEps in include/xgboost/base.h."""


@dataclass(frozen=True)
class Objective:
    """`link` from margin to prediction; `base` is how the base score becomes a margin."""

    link: Link
    base: str = "identity"
    """"identity", "logit", "log" or "gaps" (the first as it is, then what softplus makes the next distance of)."""

    def margin(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The base score in margin space, in float32 as XGBoost computes it; kept as doubles."""
        value = score.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.base == "logit":
                value = np.clip(value, _SMALL, np.float32(1) - _SMALL)
                value = -np.log(np.float32(1) / value - np.float32(1))
            elif self.base == "log":
                value = np.log(value)
            elif self.base == "gaps":
                gap = np.maximum(np.diff(value) - _SMALL, _SMALL)
                value = np.concatenate([value[:1], gap + np.log(-np.expm1(-gap))])
        return value.astype(np.float64)


_IDENTITY = Objective(Link())
_LOGISTIC = Objective(Link("sigmoid"), "logit")
_EXP = Objective(Link("exp"), "log")

_OBJECTIVES = {
    "binary:hinge": Objective(Link("step")),
    "binary:logistic": _LOGISTIC,
    "binary:logitraw": _IDENTITY,
    "count:poisson": _EXP,
    "multi:softmax": Objective(Link("argmax")),
    "multi:softprob": Objective(Link("softmax")),
    "rank:map": _IDENTITY,
    "rank:ndcg": _IDENTITY,
    "rank:pairwise": _IDENTITY,
    "reg:absoluteerror": _IDENTITY,
    "reg:expectileerror": Objective(Link("steps"), "gaps"),
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


def objective(name: str, version: tuple[int, ...], outputs: int) -> Objective | None:
    """The objective `name` as XGBoost `version` has it, for so many outputs; None where it has none of this name."""
    if name == "binary:logitraw" and version < (1, 4):
        return Objective(Link(), "logit")
    if name == "reg:quantileerror" and version >= (3, 4) and outputs > 1:
        return Objective(Link("sorted"))
    if name == "reg:expectileerror" and outputs == 1:
        return _IDENTITY
    return _OBJECTIVES.get(name)
