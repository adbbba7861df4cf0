"""Whether scikit-learn refuses every row with a missing value (NaN), so that no tree of the model ever sees one.

Wherever this is not known for sure the answer is no: a tree that forgot where it sends a NaN would be wrong in silence.
"""

from __future__ import annotations

from modelhub_sklearn.estimator import Estimator

__all__ = ["refuses_missing"]

REFUSING = (
    "sklearn.decomposition.",
    "sklearn.discriminant_analysis.",
    "sklearn.ensemble._gb.",
    "sklearn.ensemble._weight_boosting.",
    "sklearn.linear_model.",
    "sklearn.naive_bayes.",
    "sklearn.neighbors.",
    "sklearn.neural_network.",
    "sklearn.svm.",
)
"""What checks its rows itself and takes no NaN."""

PASSING = tuple(
    f"sklearn.preprocessing._data.{kind}"
    for kind in ("StandardScaler", "RobustScaler", "MaxAbsScaler", "MinMaxScaler", "PowerTransformer")
)
"""Transformers that leave a NaN where it is."""

TOGETHER = ("sklearn.ensemble._voting.", "sklearn.ensemble._stacking.", "sklearn.ensemble._bagging.")
"""Estimators all of whose members see the row."""


def refuses_missing(e: Estimator) -> bool:
    """Whether no row with a missing value gets an answer."""
    if e.name.startswith(REFUSING):
        return True
    if e.name.startswith(TOGETHER):
        return any(refuses_missing(member) for member in e.parts("estimators_"))
    if e.name == "sklearn.pipeline.Pipeline":
        for item in e.items("steps"):
            step = item[1] if isinstance(item, tuple | list) and len(item) == 2 else None
            if isinstance(step, Estimator) and step.name not in PASSING:
                return refuses_missing(step)
    return False
