"""Columns that stay (sklearn/feature_selection)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import METHODS, Rows, apply, converts, offers

__all__: list[str] = []

MODULE = "sklearn.feature_selection."
UNIVARIATE = f"{MODULE}_univariate_selection."
SEARCHES = tuple(f"{MODULE}_rfe.{name}" for name in ("RFE", "RFECV"))


def _kept(e: Estimator, x: Rows, mask: NDArray[np.bool_]) -> Rows:
    if not mask.any():
        raise e.refused("no column is left")
    return x.take(np.flatnonzero(mask))


def _best(e: Estimator, width: int, count: int) -> NDArray[np.bool_]:
    """The columns of the highest scores; the later of equals (stable sort)."""
    mask = np.zeros(width, np.bool_)
    if count:
        mask[np.argsort(_scores(e, width), kind="mergesort")[-count:]] = True
    return mask


def _scores(e: Estimator, width: int) -> NDArray[np.float64]:
    scores = e.array("scores_", width, finite=False)
    return np.where(np.isnan(scores), np.finfo(np.float64).min, scores)


def _percentile(e: Estimator, width: int, percentile: float) -> NDArray[np.bool_]:
    """Those above the percentile of the scores, and the first of those that equal it, as long as there is room."""
    if percentile in (0, 100):
        return np.full(width, percentile == 100)
    scores = _scores(e, width)
    threshold = np.percentile(scores, 100 - percentile)
    mask = np.asarray(scores > threshold)
    ties = np.flatnonzero(scores == threshold)
    if len(ties):
        mask[ties[: int(width * percentile / 100) - int(mask.sum())]] = True
    return mask


def _by_chance(e: Estimator, width: int, mode: str, alpha: float) -> NDArray[np.bool_]:
    """Those whose p-value is below `alpha`, as a rate of false positives, false discoveries or any error."""
    chance = e.array("pvalues_", width, finite=False)
    if mode == "fdr":
        ordered = np.sort(chance)
        selected = ordered[ordered <= alpha / width * np.arange(1, width + 1)]
        return np.asarray(chance <= selected.max()) if selected.size else np.zeros(width, np.bool_)
    return np.asarray(chance < (alpha / width if mode == "fwe" else alpha))


@converts("transform", f"{UNIVARIATE}SelectKBest", when=lambda e: e.has("scores_") and e.has("k"))
def select_best(e: Estimator, x: Rows) -> Rows:
    """The k columns of the highest scores, in their order."""
    return x if e.choice("k") == "all" else _kept(e, x, _best(e, x.width, e.whole("k")))


@converts("transform", f"{UNIVARIATE}SelectPercentile", when=lambda e: e.has("scores_"))
def select_percentile(e: Estimator, x: Rows) -> Rows:
    """A share of the columns, those of the highest scores."""
    return _kept(e, x, _percentile(e, x.width, e.number("percentile")))


@converts("transform", *(f"{UNIVARIATE}Select{mode}" for mode in ("Fpr", "Fdr", "Fwe")))
def select_by_chance(e: Estimator, x: Rows) -> Rows:
    """The columns whose scores are not by chance."""
    return _kept(e, x, _by_chance(e, x.width, e.short.removeprefix("Select").lower(), e.number("alpha")))


@converts("transform", f"{UNIVARIATE}GenericUnivariateSelect")
def select_in_a_mode(e: Estimator, x: Rows) -> Rows:
    """One of the ways above."""
    mode = e.text("mode")
    match mode:
        case "k_best":
            return x if e.choice("param") == "all" else _kept(e, x, _best(e, x.width, e.whole("param")))
        case "percentile":
            return _kept(e, x, _percentile(e, x.width, e.number("param")))
        case "fpr" | "fdr" | "fwe":
            return _kept(e, x, _by_chance(e, x.width, mode, e.number("param")))
        case _:
            raise e.refused(f"the mode {mode[:20]!r} is not known")


@converts("transform", f"{MODULE}_variance_threshold.VarianceThreshold")
def variance_threshold(e: Estimator, x: Rows) -> Rows:
    """The columns that vary by more than the threshold."""
    return _kept(e, x, e.array("variances_", x.width, finite=False) > e.number("threshold"))


def _support(e: Estimator, x: Rows) -> Rows:
    return _kept(e, x, e.array("support_", x.width) != 0)


@converts("transform", *SEARCHES, f"{MODULE}_sequential.SequentialFeatureSelector")
def supported(e: Estimator, x: Rows) -> Rows:
    """The columns that a search kept."""
    return _support(e, x)


def _searched(method: str) -> None:
    @converts(method, *SEARCHES, when=lambda e: offers(e.part("estimator_"), method))
    def predicted(e: Estimator, x: Rows) -> Rows:
        return apply(e.part("estimator_"), _support(e, x), method)


for _method in METHODS[:3]:
    _searched(_method)


@converts("transform", f"{MODULE}_from_model.SelectFromModel")
def select_from_model(e: Estimator, x: Rows) -> Rows:
    """The columns whose importance (coefficients of a linear model, or of a list of trees) reaches the threshold."""
    if e.choice("importance_getter") != "auto":
        raise e.refused("an importance_getter other than 'auto' is not supported")
    inner = e.part("estimator_") if e.has("estimator_") else e.part("estimator")
    if not inner.has("coef_"):
        raise e.refused(
            f"the importances of a {inner.short} are not among the numbers that are stored; take the columns with a "
            "ColumnTransformer instead"
        )
    weight = inner.array("coef_")
    scores = np.abs(weight) if weight.ndim == 1 else np.linalg.norm(weight, axis=0, ord=e.number("norm_order"))
    if len(scores) != x.width:
        raise e.broken(f"{len(scores)} importances for {x.width} columns")
    mask = np.ones(x.width, np.bool_)
    if e.has("max_features"):
        mask[:] = False
        mask[np.argsort(-scores, kind="mergesort")[: e.whole("max_features")]] = True
    mask[scores < _threshold(e, inner, scores)] = False
    return _kept(e, x, mask)


def _sparse(inner: Estimator) -> bool:
    """Whether a model was trained to have coefficients of 0 (sklearn/feature_selection/_from_model.py)."""
    if inner.choice("penalty") == "l1" or "Lasso" in inner.short:
        return True
    key = {"ElasticNet": "l1_ratio", "LogisticRegression": "l1_ratio"}.get(inner.short, "l1_ratio_")
    if inner.short not in ("ElasticNet", "LogisticRegression", "ElasticNetCV", "LogisticRegressionCV"):
        return False
    return inner.has(key) and bool(np.isclose(inner.array(key), 1.0).all())


def _threshold(e: Estimator, inner: Estimator, scores: NDArray[np.float64]) -> float:
    """A number, or "mean", "median" or a multiple of them; without any the mean, or next to 0 for a lasso."""
    wish = e.attributes.get("threshold")
    if isinstance(wish, int | float):
        return float(wish)
    if wish is None:
        if _sparse(inner):
            return 1e-5
        wish = "mean"
    factor, _, reference = str(wish).rpartition("*")
    try:
        scale = float(factor) if factor else 1.0
    except ValueError:
        scale = np.nan
    if reference.strip() not in ("mean", "median") or not np.isfinite(scale):
        raise e.refused(f"the threshold {str(wish)[:30]!r} is not known")
    return scale * float(np.mean(scores) if reference.strip() == "mean" else np.median(scores))
