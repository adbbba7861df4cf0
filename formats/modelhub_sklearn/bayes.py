"""Naive Bayes: joint log likelihoods, linear or quadratic in the row, then softmax (sklearn/naive_bayes.py)."""

from __future__ import annotations

import numpy as np

from modelhub.graph.forest import Link
from modelhub_sklearn.boosting import linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

MODULE = "sklearn.naive_bayes."


@converts("predict_proba", f"{MODULE}GaussianNB")
def gaussian(e: Estimator, x: Rows) -> Rows:
    """Class by class: log prior - sum(log(2 pi var) + (x - mean)^2 / var) / 2."""
    count = len(e.classes)
    mean = e.array("theta_", count, x.width)
    # until 1.0 the variance was called sigma_
    variance = e.own("var_" if e.has("var_") else "sigma_", count, x.width)
    prior = e.own("class_prior_", count)
    if not ((variance > 0).all() and (prior > 0).all()):
        raise e.broken("a variance or a prior that is not above 0")
    rows = [
        x.op("Sub", mean[k]).op("Div", np.sqrt(variance[k].astype(np.float64))).op("Pow", 2.0).total().op("Mul", -0.5)
        for k in range(count)
    ]
    sums = [np.log(2.0 * np.pi * row).sum() for row in variance]
    constant = np.log(prior).astype(np.float64) - 0.5 * np.array(sums, np.float64)
    return linked(side_by_side(rows).op("Add", constant), Link("softmax"))


@converts("predict_proba", f"{MODULE}MultinomialNB")
def multinomial(e: Estimator, x: Rows) -> Rows:
    """Linear in the row: x @ log p + log prior."""
    count = len(e.classes)
    weight, prior = e.array("feature_log_prob_", count, x.width), e.array("class_log_prior_", count)
    return linked(x.times(weight.T, prior), Link("softmax"))


@converts("predict_proba", f"{MODULE}ComplementNB")
def complement(e: Estimator, x: Rows) -> Rows:
    """Linear in the row: x @ weights; the prior counts for a single class only."""
    count = len(e.classes)
    return linked(x.times(e.array("feature_log_prob_", count, x.width).T), Link("softmax"))


@converts("predict_proba", f"{MODULE}BernoulliNB", decides=True)
def bernoulli(e: Estimator, x: Rows) -> Rows:
    """Linear in 0 and 1: x @ (log p - log(1-p)) + log prior + sum log(1-p)."""
    count = len(e.classes)
    log = e.array("feature_log_prob_", count, x.width)
    with np.errstate(divide="ignore"):
        other = np.log(1 - np.exp(log))
    if not np.isfinite(other).all():
        raise e.refused("a feature that is always 1 in a class has no finite likelihood; train with smoothing")
    if e.has("binarize"):
        limit = x.b.constant(np.array(e.number("binarize")), "binarize")
        x = x.number(x.b.op("Greater", x.value, limit))
    bias = e.array("class_log_prior_", count) + other.sum(axis=1)
    return linked(x.times((log - other).T, bias), Link("softmax"))


@converts("predict_proba", f"{MODULE}CategoricalNB", decides=True)
def categorical(e: Estimator, x: Rows) -> Rows:
    """Class by class: log prior + sum over the columns of log p of the category, the whole part of the number.

    A category that was not met in training has no likelihood: NaN, where scikit-learn gives an error.
    """
    count = len(e.classes)
    tables = e.items("feature_log_prob_")
    if len(tables) != x.width:
        raise e.broken(f"categories of {len(tables)} columns, and there are {x.width}")
    total = None
    for index, table in enumerate(tables):
        log = Estimator(e.name, {"feature_log_prob_": table}, e.where).array("feature_log_prob_", count, None).T
        whole = x.column(index).op("Floor")
        found = whole.number(x.b.op("Equal", whole.value, x.b.constant(np.arange(float(len(log))), "codes")), len(log))
        nobody = x.b.op("Equal", found.total().value, x.b.constant(np.zeros(1), "zero"))
        part = found.times(log).where(nobody, np.full(1, np.nan))
        total = part if total is None else total.op("Add", part)
    assert total is not None
    return linked(total.op("Add", e.array("class_log_prior_", count)), Link("softmax"))
