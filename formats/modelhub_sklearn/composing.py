"""Estimators made of estimators: pipelines, columns, unions, voting, stacking, transformed targets.

Source: sklearn/pipeline.py, compose/_column_transformer.py, compose/_target.py, ensemble/_voting.py, _stacking.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import safe_text
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import METHODS, Rows, apply, class_index, converts, method_of, offers, side_by_side
from modelhub_sklearn.trees import one_hot, spread

__all__: list[str] = []

PIPELINE = "sklearn.pipeline.Pipeline"
UNION = "sklearn.pipeline.FeatureUnion"
COLUMNS = "sklearn.compose._column_transformer.ColumnTransformer"
TARGET = "sklearn.compose._target.TransformedTargetRegressor"
STACKING = "sklearn.ensemble._stacking."
VOTING = "sklearn.ensemble._voting."


def _steps(e: Estimator) -> list[tuple[str, Estimator | None]]:
    """Names and steps; what passes its input on is None."""
    steps: list[tuple[str, Estimator | None]] = []
    for item in e.items("steps"):
        if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
            raise e.broken("a step without a name")
        name, step = safe_text(item[0]), item[1]
        if isinstance(step, Estimator):
            steps.append((name, step))
        elif step is None or (isinstance(step, str) and step == "passthrough"):
            steps.append((name, None))
        else:
            raise e.broken(f"the step {name!r} is not an estimator")
    if not steps:
        raise e.broken("a pipeline without steps")
    return steps


def _last(e: Estimator, method: str) -> bool:
    last = _steps(e)[-1][1]
    return method == "transform" if last is None else offers(last, method)


def _through(method: str) -> None:
    @converts(method, PIPELINE, when=lambda e: _last(e, method))
    def pipeline(e: Estimator, x: Rows) -> Rows:
        *before, (name, last) = _steps(e)
        for step_name, step in before:
            x = x if step is None else apply(step, x, "transform", step_name)
        return x if last is None else apply(last, x, method, name)


for _method in (*METHODS, "votes"):
    _through(_method)


@converts("inverse_transform", PIPELINE)
def pipeline_back(e: Estimator, x: Rows) -> Rows:
    """The steps undone, the last one first."""
    for name, step in reversed(_steps(e)):
        x = x if step is None else apply(step, x, "inverse_transform", name)
    return x


@converts("transform", UNION)
def union(e: Estimator, x: Rows) -> Rows:
    """All side by side, each times its weight."""
    weights = e.get("transformer_weights") if e.has("transformer_weights") else {}
    parts = []
    for item in e.items("transformer_list"):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise e.broken("a transformer without a name")
        name, step = item
        if step == "drop":
            continue
        part = x if step == "passthrough" else apply(_estimator(e, step), x, "transform", safe_text(name))
        parts.append(_weighted(e, part, weights, name))
    if not parts:
        raise e.refused("a union of nothing")
    return side_by_side(parts)


def _estimator(e: Estimator, value: Any) -> Estimator:
    if not isinstance(value, Estimator):
        raise e.broken("a part that is not an estimator")
    return value


def _weighted(e: Estimator, part: Rows, weights: Any, name: Any) -> Rows:
    weight = weights.get(name, 1.0) if isinstance(weights, dict) else None
    if not isinstance(weight, int | float):
        raise e.broken("a weight that is not a number")
    return part if weight == 1 else part.op("Mul", float(weight))


@converts("transform", COLUMNS)
def column_transformer(e: Estimator, x: Rows) -> Rows:
    """Each transformer on its columns, side by side in the order of the list."""
    weights = e.get("transformer_weights") if e.has("transformer_weights") else {}
    parts = []
    for item in e.items("transformers_"):
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise e.broken("a transformer without columns")
        name, step, columns = item
        if step == "drop":
            continue
        index = _columns(e, columns, name, x.width)
        if not len(index):
            continue
        rows = x.take(index)
        part = rows if step == "passthrough" else apply(_estimator(e, step), rows, "transform", safe_text(name))
        parts.append(_weighted(e, part, weights, name))
    if not parts:
        raise e.refused("no column is left")
    return side_by_side(parts)


def _columns(e: Estimator, columns: Any, name: Any, width: int) -> NDArray[np.int64]:
    """Places of the columns of one transformer: given by place, name, mask or slice; or by scikit-learn's own table."""
    table = e.attributes.get("_transformer_to_input_indices")
    if isinstance(table, dict) and name in table:
        return e.columns(table[name], "_transformer_to_input_indices", width)
    if isinstance(columns, slice):
        columns = np.arange(width)[columns]
    if isinstance(columns, str | int) and not isinstance(columns, bool):
        columns = [columns]
    found = np.asarray(columns) if isinstance(columns, list | tuple | np.ndarray) else np.zeros((0, 0))
    if found.ndim == 1 and found.dtype.kind == "b" and len(found) == width:
        return np.flatnonzero(found)
    if found.ndim == 1 and found.dtype.kind in "UO" and e.has("feature_names_in_"):
        names = [str(known) for known in np.asarray(e.get("feature_names_in_")).reshape(-1)]
        if set(map(str, found)) <= set(names):
            return np.array([names.index(str(wish)) for wish in found], np.int64)
    return e.columns(found, "transformers_", width)


@converts("predict", TARGET)
def transformed_target(e: Estimator, x: Rows) -> Rows:
    """The prediction through the inverse of what was done to the targets."""
    return apply(e.part("transformer_"), apply(e.part("regressor_"), x, "predict"), "inverse_transform", "target")


def _member_names(e: Estimator, count: int) -> list[str]:
    """Names of the members that were not dropped."""
    pairs = [p for p in e.items("estimators") if isinstance(p, tuple | list) and len(p) == 2 and p[1] != "drop"]
    return [safe_text(pair[0]) for pair in pairs] if len(pairs) == count else [f"member_{i}" for i in range(count)]


def _kept(e: Estimator, count: int) -> list[bool]:
    """Which members were not dropped."""
    kept = [not (isinstance(p, tuple | list) and len(p) == 2 and p[1] == "drop") for p in e.items("estimators")]
    if sum(kept) != count:
        raise e.broken("the members do not fit their names")
    return kept


def _weights(e: Estimator, count: int) -> NDArray[np.float64]:
    """The weights of those members that were not dropped, summing to 1."""
    if not e.has("weights"):
        return np.full(count, 1 / count)
    all_weights = e.array("weights", None)
    kept = _kept(e, count)
    if len(kept) != len(all_weights) or not all_weights[kept].sum() > 0:
        raise e.broken("the weights do not fit the members")
    return np.asarray(all_weights[kept] / all_weights[kept].sum())


def _mean(e: Estimator, x: Rows, method: str) -> Rows:
    members = e.parts("estimators_")
    weights = _weights(e, len(members))
    total = None
    for member, weight, name in zip(members, weights, _member_names(e, len(members)), strict=True):
        part = apply(member, x, method, name).op("Mul", float(weight))
        if total is not None and total.width != part.width:
            raise e.broken("the members have different outputs")
        total = part if total is None else total.op("Add", part)
    assert total is not None
    return total


@converts("predict_proba", f"{VOTING}VotingClassifier", when=lambda e: e.choice("voting") == "soft")
def soft_voting(e: Estimator, x: Rows) -> Rows:
    """The weighted mean of probabilities."""
    return _mean(e, x, "predict_proba")


@converts("predict", f"{VOTING}VotingClassifier", when=lambda e: e.choice("voting") == "hard", decides=True)
def hard_voting(e: Estimator, x: Rows) -> Rows:
    """1 for the class with most votes, the first of equals, else 0.

    The members were trained on the places of the labels, and so are their own labels.
    """
    members, count = e.parts("estimators_"), len(e.classes)
    kept = _kept(e, len(members))
    weights = e.array("weights", len(kept))[kept] if e.has("weights") else np.ones(len(members))
    total = None
    for member, weight, name in zip(members, weights, _member_names(e, len(members)), strict=True):
        with x.b.scope(name):
            winner = x.b.op("Unsqueeze", class_index(member, x), x.b.ints(1))
            vote = one_hot(x, winner, len(member.classes)).times(spread(e, member, np.eye(len(member.classes))))
        vote = vote.op("Mul", float(weight))
        total = vote if total is None else total.op("Add", vote)
    assert total is not None
    return one_hot(total, x.b.op("ArgMax", total.value, axis=1, keepdims=1), count)


@converts("predict", f"{VOTING}VotingRegressor")
def voting_regressor(e: Estimator, x: Rows) -> Rows:
    """The weighted mean of predictions."""
    return _mean(e, x, "predict")


def _stacked(e: Estimator, x: Rows, classes: int) -> Rows:
    """What the first layer says, column by column, and the row itself where it is passed through."""
    members, methods = e.parts("estimators_"), e.items("stack_method_")
    methods = [method for method in methods if method is not None]
    if len(methods) != len(members):
        raise e.broken("not one method for every member")
    parts = []
    for member, method, name in zip(members, methods, _member_names(e, len(members)), strict=True):
        if not isinstance(method, str) or method not in METHODS:
            raise e.broken("an unknown method")
        if method == "predict" and classes:
            with x.b.scope(name):
                place = class_index(member, x)
                labels = member.array("classes_", classes)
                value = x.b.op("Gather", x.b.constant(labels, "labels"), place)
                part = Rows(x.b, x.b.op("Unsqueeze", value, x.b.ints(1)), 1)
        else:
            part = apply(member, x, method, name)
        # of two probabilities that add up to one, the first tells nothing
        parts.append(part.column(1) if method == "predict_proba" and classes == 2 else part)
    return side_by_side([*parts, x] if e.flag("passthrough") else parts)


def _final(method: str) -> None:
    @converts(
        method,
        f"{STACKING}StackingClassifier",
        when=lambda e: e.has("final_estimator_") and offers(e.part("final_estimator_"), method),
    )
    def stacking(e: Estimator, x: Rows) -> Rows:
        return apply(e.part("final_estimator_"), _stacked(e, x, len(e.classes)), method, "final")


for _method in ("predict_proba", "decision_function"):
    _final(_method)


@converts("predict", f"{STACKING}StackingRegressor")
def stacking_regressor(e: Estimator, x: Rows) -> Rows:
    """The last regressor on the predictions of the first ones."""
    final = e.part("final_estimator_")
    return apply(final, _stacked(e, x, 0), method_of(final, ("predict",)), "final")
