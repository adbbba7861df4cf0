"""Transformers that are linear in each column or mix columns linearly, and their inverses.

Source: sklearn/preprocessing/_data.py, sklearn/impute/_base.py, sklearn/decomposition/_base.py.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__ = ["NOTHING", "divided"]

DATA = "sklearn.preprocessing._data."
IMPUTE = "sklearn.impute._base."


def _shift_and_scale(e: Estimator, width: int) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """What is subtracted and what is divided by, [width] each; None where nothing is."""
    kind = e.name.removeprefix(DATA)
    shift = {"StandardScaler": ("with_mean", "mean_"), "RobustScaler": ("with_centering", "center_")}.get(kind)
    scale = {"StandardScaler": "with_std", "RobustScaler": "with_scaling"}.get(kind)
    return (
        e.array(shift[1], width) if shift is not None and e.flag(shift[0]) else None,
        e.array("scale_", width) if scale is None or e.flag(scale) else None,
    )


SCALERS = tuple(f"{DATA}{name}" for name in ("StandardScaler", "RobustScaler", "MaxAbsScaler"))


NOTHING = 10 * float(np.finfo(np.float64).eps)
"""A norm below it counts as none."""


@converts("transform", *SCALERS)
def scaler(e: Estimator, x: Rows) -> Rows:
    """(x - shift) / scale, as far as asked for; `clip` of MaxAbsScaler."""
    shift, scale = _shift_and_scale(e, x.width)
    if shift is not None:
        x = x.op("Sub", shift)
    if scale is not None:
        x = x.op("Div", scale)
    return _clipped(x, -1.0, 1.0) if e.flag("clip") else x


def _clipped(x: Rows, low: float, high: float) -> Rows:
    """Between `low` and `high`; NaN stays NaN, which ONNX's Min and Max promise too."""
    return x.op("Max", low).op("Min", high)


@converts("inverse_transform", *SCALERS)
def scaler_back(e: Estimator, x: Rows) -> Rows:
    """X * scale + shift."""
    shift, scale = _shift_and_scale(e, x.width)
    if scale is not None:
        x = x.op("Mul", scale)
    return x if shift is None else x.op("Add", shift)


@converts("transform", f"{DATA}MinMaxScaler")
def min_max(e: Estimator, x: Rows) -> Rows:
    """X * scale + min, clipped to the range where asked for."""
    x = x.op("Mul", e.array("scale_", x.width)).op("Add", e.array("min_", x.width))
    if not e.flag("clip"):
        return x
    low, high = e.array("feature_range", 2)
    return _clipped(x, float(low), float(high))


@converts("inverse_transform", f"{DATA}MinMaxScaler")
def min_max_back(e: Estimator, x: Rows) -> Rows:
    """(x - min) / scale."""
    return x.op("Sub", e.array("min_", x.width)).op("Div", e.array("scale_", x.width))


@converts("transform", f"{DATA}Normalizer")
def normalizer(e: Estimator, x: Rows) -> Rows:
    """Each row divided by its norm."""
    kind = e.text("norm")
    if kind not in ("l1", "l2", "max"):
        raise e.refused(f"the norm {kind[:20]!r} is not known")
    if kind == "l2":
        norm = x.op("Mul", x).total().op("Sqrt")
    elif kind == "l1":
        norm = x.op("Abs").total()
    else:
        norm = Rows(x.b, x.b.op("ReduceMax", x.op("Abs").value, x.b.ints(1), keepdims=1), 1)
    return divided(x, norm)


def divided(x: Rows, norm: Rows) -> Rows:
    """Rows divided by their norms [N, 1]; those of next to nothing stay (sklearn's _handle_zeros_in_scale)."""
    none = x.b.op("Less", norm.value, x.b.constant(np.full(1, NOTHING), "nothing"))
    return x.op("Div", norm.where(none, np.ones(1)))


@converts("transform", f"{DATA}Binarizer", decides=True)
def binarizer(e: Estimator, x: Rows) -> Rows:
    """1 above the threshold, else 0."""
    return x.number(x.b.op("Greater", x.value, x.b.constant(np.array(e.number("threshold")), "threshold")))


@converts("transform", f"{IMPUTE}SimpleImputer", decides=True)
def imputer(e: Estimator, x: Rows) -> Rows:
    """What is missing replaced by a statistic; columns without one dropped; indicators of what was missing behind."""
    statistic = e.array("statistics_", x.width, finite=False)
    if not e.flag("keep_empty_features") and np.isnan(statistic).any():
        kept = np.flatnonzero(~np.isnan(statistic))
    else:
        kept = np.arange(x.width)
        if np.isnan(statistic).any():
            raise e.broken("a column without statistic")
    if not len(kept):
        raise e.refused("no column is left")
    missing = _missing(e, x)
    rows = x.where(missing, np.where(np.isnan(statistic), 0, statistic)).take(kept)
    if not e.flag("add_indicator"):
        return rows
    indicator = e.part("indicator_")
    columns = indicator.columns(indicator.get("features_"), "features_", x.width)
    return side_by_side([rows, x.number(missing).take(columns)]) if len(columns) else rows


def _missing(e: Estimator, x: Rows) -> ir.Value:
    """[N, width] what counts as missing: NaN, or a number that stands for it."""
    marker = e.array("missing_values", finite=False).reshape(-1)
    if len(marker) != 1:
        raise e.broken("'missing_values' is not one number")
    if np.isnan(marker[0]):
        return x.b.op("IsNaN", x.value)
    return x.b.op("Equal", x.value, x.b.constant(marker, "missing"))


@converts("transform", f"{IMPUTE}MissingIndicator", decides=True)
def missing_indicator(e: Estimator, x: Rows) -> Rows:
    """1 where a value is missing."""
    return x.number(_missing(e, x)).take(e.columns(e.get("features_"), "features_", x.width))


DECOMPOSITION = "sklearn.decomposition."


@converts("transform", f"{DECOMPOSITION}_pca.PCA", f"{DECOMPOSITION}_incremental_pca.IncrementalPCA")
def principal_components(e: Estimator, x: Rows) -> Rows:
    """X @ components.T - mean @ components.T, divided by the standard deviation where whitened.

    The constant is computed in the precision it was fitted in, as scikit-learn does at every call.
    """
    components = e.array("components_", None, x.width)
    mean = e.array("mean_", x.width)
    kind = np.result_type(*(np.asarray(e.get(key)).dtype for key in ("components_", "mean_")))
    shift = mean.astype(kind) @ components.T.astype(kind)
    y = x.times(components.T, -shift.astype(np.float64))
    if not e.flag("whiten"):
        return y
    scale = np.sqrt(e.own("explained_variance_", len(components)))
    return y.op("Div", np.maximum(scale, np.finfo(scale.dtype).eps))


@converts("inverse_transform", f"{DECOMPOSITION}_pca.PCA", f"{DECOMPOSITION}_incremental_pca.IncrementalPCA")
def principal_components_back(e: Estimator, x: Rows) -> Rows:
    """X @ components + mean."""
    components = e.array("components_", x.width, None)
    if e.flag("whiten"):
        components = components * np.sqrt(e.array("explained_variance_", x.width))[:, np.newaxis]
    return x.times(components, e.array("mean_", components.shape[1]))


@converts("transform", f"{DECOMPOSITION}_truncated_svd.TruncatedSVD")
def truncated_svd(e: Estimator, x: Rows) -> Rows:
    """X @ components.T."""
    return x.times(e.array("components_", None, x.width).T)


@converts("transform", f"{DECOMPOSITION}_fastica.FastICA")
def independent_components(e: Estimator, x: Rows) -> Rows:
    """(x - mean) @ components.T."""
    if e.attributes.get("whiten") is not False and e.has("mean_"):
        x = x.op("Sub", e.array("mean_", x.width))
    return x.times(e.array("components_", None, x.width).T)
