"""AdaBoost: weighted votes of classifiers, weighted median of regressors (sklearn/ensemble/_weight_boosting.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Forest, Link
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, apply, class_index, converts, side_by_side
from modelhub_sklearn.trees import (
    CLASSIFIERS,
    REGRESSORS,
    Tree,
    class_fractions,
    grown,
    leaf_classes,
    leaf_values,
    margins,
    one_hot,
    planted,
)

__all__ = ["voting_trees"]

CLASSIFIER = "sklearn.ensemble._weight_boosting.AdaBoostClassifier"
REGRESSOR = "sklearn.ensemble._weight_boosting.AdaBoostRegressor"


@converts("decision_function", CLASSIFIER, decides=True)
def decision(e: Estimator, x: Rows) -> Rows:
    """The weighted mean of votes: 1 for the class voted for, -1/(classes-1) for others; their difference for two."""
    members, count = e.parts("estimators_"), len(e.classes)
    if count < 2:
        raise e.refused("a classifier of one class")
    real = e.choice("algorithm") == "SAMME.R"
    if any(member.classes != e.classes for member in members):
        raise e.refused("a member has not met all classes")
    weight = np.ones(len(members)) if real else e.array("estimator_weights_", None)[: len(members)]
    if len(weight) != len(members) or not weight.sum() > 0:
        raise e.broken("the weights do not fit the members")
    if all(member.name in CLASSIFIERS for member in members):
        return margins(e, voting_trees(e, x.width, weight), x)
    if real:
        raise e.refused("algorithm='SAMME.R' is supported for trees only")
    return _general(e, x, members, weight / weight.sum())


def voting_trees(e: Estimator, features: int, weight: NDArray[np.float64]) -> Forest:
    """Votes of trees; for two classes the difference of both."""
    members, count = e.parts("estimators_"), len(e.classes)
    trees = grown(e, "estimators_", features)
    pairs = zip(members, trees, strict=True)
    if e.choice("algorithm") == "SAMME.R":
        votes = [_log_votes(member, tree, count) for member, tree in pairs]
    else:
        votes = [_votes(leaf_classes(member, tree, count), count) for member, tree in pairs]
    if count == 2:
        votes = [vote[:, 1:] - vote[:, :1] for vote in votes]
    return replace(planted(trees, votes, features), tree_weight=weight, divisor=float(weight.sum()))


def _votes(winner: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    return np.where(winner[:, np.newaxis] == np.arange(count), 1.0, -1 / (count - 1))


def _log_votes(e: Estimator, tree: Tree, count: int) -> NDArray[np.float64]:
    """SAMME.R, until 1.5: (classes-1) (log p - mean log p), p not below the smallest step from 1."""
    log = np.log(np.maximum(class_fractions(e, tree, count), np.finfo(np.float64).eps))
    return np.asarray((count - 1) * (log - log.mean(axis=1, keepdims=True)))


def _general(e: Estimator, x: Rows, members: list[Estimator], weight: NDArray[np.float64]) -> Rows:
    count = len(e.classes)
    total = None
    for index, member in enumerate(members):
        with x.b.scope(f"{member.short}_{index}"):
            winner = x.b.op("Unsqueeze", class_index(member, x), x.b.ints(1))
            chosen = one_hot(x, winner, count)
        vote = chosen.times(_votes(np.arange(count), count) * weight[index])
        total = vote if total is None else total.op("Add", vote)
    assert total is not None
    return total.times([[-1.0], [1.0]]) if count == 2 else total


@converts("predict_proba", CLASSIFIER, decides=True)
def classifier(e: Estimator, x: Rows) -> Rows:
    """The softmax of decisions over classes-1; for two classes that of -d/2 and d/2, which is a sigmoid."""
    d = decision(e, x)
    if d.width == 1:
        return both_classes(linked(d, Link("sigmoid")))
    return linked(d.op("Div", d.width - 1), Link("softmax"))


@converts("predict", REGRESSOR, decides=True)
def regressor(e: Estimator, x: Rows) -> Rows:
    """The weighted median: the first prediction in order at which the weights reach half of their sum."""
    members = e.parts("estimators_")
    weight = e.array("estimator_weights_", None)[: len(members)]
    if len(weight) != len(members):
        raise e.broken("the weights do not fit the members")
    b, count = x.b, len(members)
    y = _each(e, x, members)
    if y.width != count:
        raise e.refused("several targets at once are not supported")
    ordered, place = b.ops("TopK", y.value, b.ints(count), outputs=2, axis=1, largest=0, sorted=1)
    weights = b.op("Gather", b.constant(weight, "weights"), place)
    reached = Rows(b, b.op("CumSum", weights, b.constant(np.array(1, np.int64), "axis")), count)
    half = reached.column(count - 1).op("Mul", 0.5)
    at = b.op("ArgMax", reached.number(b.op("GreaterOrEqual", reached.value, half.value)).value, axis=1, keepdims=1)
    return Rows(b, b.op("GatherElements", ordered, at, axis=1), 1)


def _each(e: Estimator, x: Rows, members: list[Estimator]) -> Rows:
    """The predictions of all members, [N, members]."""
    if any(member.name not in REGRESSORS for member in members):
        return side_by_side([apply(member, x, "predict", f"{member.short}_{i}") for i, member in enumerate(members)])
    trees = grown(e, "estimators_", x.width)
    forest = planted(trees, [leaf_values(member, tree) for member, tree in zip(members, trees, strict=True)], x.width)
    return margins(e, replace(forest, tree_output=np.arange(len(trees)), base=np.zeros(len(trees))), x)
