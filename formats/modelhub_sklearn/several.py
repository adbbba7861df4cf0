"""Many estimators as one: one for every class, pair of classes, code or target; searches that found the best.

Source: sklearn/multiclass.py, multioutput.py, model_selection/_search.py, _classification_threshold.py.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from modelhub_sklearn.boosting import both_classes
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import METHODS, Rows, apply, class_index, converts, method_of, offers, side_by_side
from modelhub_sklearn.trees import one_hot

__all__: list[str] = []

ONE_AND_REST = "sklearn.multiclass.OneVsRestClassifier"
PAIRS = "sklearn.multiclass.OneVsOneClassifier"
CONSTANT = "sklearn.multiclass._ConstantPredictor"
TARGETS = "sklearn.multioutput."

SEARCHES = (
    *(f"sklearn.model_selection._search.{name}" for name in ("GridSearchCV", "RandomizedSearchCV")),
    *(f"sklearn.model_selection._search_successive_halving.Halving{name}SearchCV" for name in ("Grid", "Random")),
)


def _delegated(method: str) -> None:
    @converts(method, *SEARCHES, when=lambda e: e.has("best_estimator_") and offers(e.part("best_estimator_"), method))
    def best(e: Estimator, x: Rows) -> Rows:
        return apply(e.part("best_estimator_"), x, method, "best_estimator")


for _method in (*METHODS, "votes"):
    _delegated(_method)


def _every(x: Rows, method: str, parts: list[Estimator]) -> list[Rows]:
    return [apply(part, x, method, f"{part.short}_{index}") for index, part in enumerate(parts)]


def _all_offer(e: Estimator, method: str) -> bool:
    return all(offers(part, method) for part in e.parts("estimators_"))


@converts("predict_proba", CONSTANT)
def constant_probability(e: Estimator, x: Rows) -> Rows:
    """Certain of the only class it has met, 0 or 1."""
    return both_classes(constant(e, x))


@converts("decision_function", CONSTANT)
def constant(e: Estimator, x: Rows) -> Rows:
    """The only class it has met: 0 or 1, in a code also -1."""
    value = e.number("y_")
    same = x.column(0).number(x.b.op("Equal", x.column(0).value, x.column(0).value)).op("Mul", 0.0)
    return same.op("Add", value)


def _several_labels(e: Estimator) -> bool:
    binarizer = e.part("label_binarizer_")
    return binarizer.choice("y_type_").startswith("multilabel")


@converts("predict_proba", ONE_AND_REST, when=lambda e: _all_offer(e, "predict_proba"), decides=True)
def one_and_rest(e: Estimator, x: Rows) -> Rows:
    """What each member says of its own class, divided by the sum; not so where a row may have several labels."""
    members = [part.column(1) for part in _every(x, "predict_proba", e.parts("estimators_"))]
    y = side_by_side(members)
    if len(members) == 1:
        y = both_classes(y)
    elif len(members) != len(e.classes):
        raise e.broken(f"{len(members)} members for {len(e.classes)} classes")
    if _several_labels(e):
        return y
    total = y.total()
    none = x.b.op("Equal", total.value, x.b.constant(np.zeros(1), "zero"))
    return y.op("Div", total.where(none, np.ones(1)))


@converts("decision_function", ONE_AND_REST, when=lambda e: _all_offer(e, "decision_function"))
def one_and_rest_decision(e: Estimator, x: Rows) -> Rows:
    """The decision of each member for its own class."""
    members = _every(x, "decision_function", e.parts("estimators_"))
    if any(member.width != 1 for member in members) or (len(members) > 1 and len(members) != len(e.classes)):
        raise e.broken("not one decision for every class")
    return side_by_side(members)


@converts("votes", ONE_AND_REST, decides=True)
def one_and_rest_label(e: Estimator, x: Rows) -> Rows:
    """1 for the class whose member says most, the first of equals; of two classes for that beyond the middle."""
    members, count = e.parts("estimators_"), len(e.classes)
    if _several_labels(e):
        raise e.refused("several labels at once are not supported here")
    y = side_by_side([_score(member, x, f"{member.short}_{index}") for index, member in enumerate(members)])
    if len(members) == 1:
        return both_classes(_beyond(y, members[0]))
    winner = x.b.op("ArgMax", y.value, axis=1, keepdims=1)
    return one_hot(y, winner, count)


def _beyond(y: Rows, member: Estimator) -> Rows:
    """1 where y [N, 1] is beyond the middle: 0 of decisions, 1/2 of probabilities (_threshold_for_binary_predict)."""
    limit = 0.0 if offers(member, "decision_function") else 0.5
    return y.number(y.b.op("Greater", y.value, y.b.constant(np.full(1, limit), "limit")))


def _score(e: Estimator, x: Rows, scope: str) -> Rows:
    """[N, 1] what a member says of its second class (multiclass.py, _predict_binary)."""
    method = method_of(e, ("decision_function", "predict_proba", "predict"))
    y = apply(e, x, method, scope)
    return y.column(1) if method == "predict_proba" else y


@converts("decision_function", PAIRS, decides=True)
def pairs(e: Estimator, x: Rows) -> Rows:
    """Votes of every pair of classes, and a share of the confidences (utils/multiclass.py, _ovr_decision_function)."""
    members, count = e.parts("estimators_"), len(e.classes)
    places = list(combinations(range(count), 2))
    if len(members) != len(places):
        raise e.broken(f"{len(members)} members for {len(places)} pairs")
    every = [np.arange(x.width)] * len(places)
    columns = e.indices("pairwise_indices_", x.width) if e.has("pairwise_indices_") else every
    if len(columns) != len(places):
        raise e.broken("not one list of columns for every pair")
    votes, sums = [], []
    side = np.zeros((len(places), count))
    for index, (member, (i, j)) in enumerate(zip(members, places, strict=True)):
        side[index, i], side[index, j] = -1, 1
        rows, scope = x.take(columns[index]), f"{member.short}_{index}"
        with x.b.scope(scope):
            winner = class_index(member, rows)
        votes.append(Rows(x.b, x.b.op("Unsqueeze", x.b.op("Cast", winner, to=11), x.b.ints(1)), 1))
        sums.append(_score(member, rows, f"{scope}_score"))
    second = side_by_side(votes)  # 1 where the second of the pair wins, else its first
    counted = second.times(side, (side < 0).sum(axis=0).astype(np.float64))
    confidence = side_by_side(sums).times(side)
    y = counted.op("Add", confidence.op("Div", confidence.op("Abs").op("Add", 1.0).op("Mul", 3.0)))
    return y.column(1) if count == 2 else y


@converts("votes", PAIRS, decides=True)
def pair_label(e: Estimator, x: Rows) -> Rows:
    """The most of the above; of two classes the second where it is beyond the middle."""
    y = pairs(e, x)
    return y if y.width > 1 else both_classes(_beyond(y, e.parts("estimators_")[0]))


@converts("predict", "sklearn.multiclass.OutputCodeClassifier", decides=True)
def output_code(e: Estimator, x: Rows) -> Rows:
    """1 for the class whose code is nearest to what the members say; the first of equals."""
    members, count = e.parts("estimators_"), len(e.classes)
    book = e.array("code_book_", count, len(members))
    y = side_by_side([_score(member, x, f"{member.short}_{index}") for index, member in enumerate(members)])
    parts = []
    for code in book:
        gap = y.op("Sub", code)
        parts.append(gap.op("Mul", gap).total())
    distance = side_by_side(parts)
    nearest = x.b.op("ArgMin", distance.value, axis=1, keepdims=1)
    return one_hot(distance, nearest, count)


def _parallel(method: str, *names: str) -> None:
    @converts(method, *names, when=lambda e: _all_offer(e, method))
    def targets(e: Estimator, x: Rows) -> Rows:
        return side_by_side(_every(x, method, e.parts("estimators_")))


_parallel("predict_proba", f"{TARGETS}MultiOutputClassifier")
_parallel("predict", f"{TARGETS}MultiOutputRegressor")


def _chained(method: str, name: str) -> None:
    @converts(method, f"{TARGETS}{name}", decides=True, when=lambda e: _all_offer(e, method))
    def chain(e: Estimator, x: Rows) -> Rows:
        """Each member sees the row and what those before it said; columns in the order of the targets."""
        members = e.parts("estimators_")
        order = e.columns(e.get("order_"), "order_", len(members))
        if len(order) != len(members) or len(set(order.tolist())) != len(order):
            raise e.broken("the order of the chain is none")
        said: list[Rows] = []
        given: list[Rows] = []
        for index, member in enumerate(members):
            rows, scope = side_by_side([x, *given]), f"{member.short}_{index}"
            y = apply(member, rows, method, scope)
            said.append(_positive(e, member, y, method))
            given.append(_feature(e, member, rows, f"{scope}_given"))
        return side_by_side([said[place] for place in np.argsort(order)])


def _positive(e: Estimator, member: Estimator, y: Rows, method: str) -> Rows:
    """[N, 1] of a member of a chain: of two probabilities the second."""
    if method == "predict_proba" and len(member.classes) == 2:
        return y.column(1)
    if y.width != 1:
        raise e.refused("a target of a chain that is not one of two classes")
    return y


def _feature(e: Estimator, member: Estimator, x: Rows, scope: str) -> Rows:
    """[N, 1] what the following members are given: a label, a probability, a decision or a number."""
    method = e.choice("chain_method_") or "predict"
    if method not in METHODS:
        raise e.refused(f"chain_method={method[:30]!r} is not supported")
    if method == "predict" and member.has("classes_"):
        with x.b.scope(scope):
            labels = x.b.constant(member.array("classes_", len(member.classes)), "labels")
            value = x.b.op("Gather", labels, class_index(member, x))
            return Rows(x.b, x.b.op("Unsqueeze", value, x.b.ints(1)), 1)
    return _positive(e, member, apply(member, x, method, scope), method)


for _method in ("predict_proba", "decision_function"):
    _chained(_method, "ClassifierChain")
_chained("predict", "RegressorChain")


THRESHOLDS = tuple(
    f"sklearn.model_selection._classification_threshold.{name}"
    for name in ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
)


@converts("predict_proba", *THRESHOLDS, when=lambda e: offers(e.part("estimator_"), "predict_proba"))
def unmoved(e: Estimator, x: Rows) -> Rows:
    """The probabilities of the classifier inside: the threshold moves the label only, which a graph does not give."""
    return apply(e.part("estimator_"), x, "predict_proba")


@converts("votes", *THRESHOLDS)
def moved(e: Estimator, _: Rows) -> Rows:
    """The label by the moved threshold, which a model around this one would ask for."""
    raise e.refused("a moved threshold inside of another model is not supported; use the classifier inside of it")
