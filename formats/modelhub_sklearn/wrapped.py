"""XGBoost's and LightGBM's estimators, alone or inside of others: scikit-learn's classes around a Booster.

The Booster inside is read by the importer of its own format, found as every plug-in is, through one further method:

    booster(state, where, estimator=True) -> ir.Model

`state` is the pickled state of the Booster (bytes of XGBoost, text of LightGBM) and `estimator` says that it is asked
as its scikit-learn estimator asks it: the rounds up to the best one, probabilities where there are classes. The graph
has one input [N, features] and one output [N, columns], as a file of that format would give it. That of LightGBM takes
`margin=True` too, for the scores before the link, as LGBMClassifier has a `decision_function`. A runtime may have

    accepts(state, where)

which raises `Inconclusive` for a Booster that the engine installed here would misunderstand.

Source: xgboost/sklearn.py, lightgbm/sklearn.py.
"""

from __future__ import annotations

from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from modelhub import plugins
from modelhub.graph.interface import Interface
from modelhub.graph.precision import to_precision
from modelhub_sklearn.boosting import both_classes
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts

__all__ = ["NAMES", "SINGLE", "check_engine", "interface"]

XGBOOST, LIGHTGBM = "xgboost.sklearn.", "lightgbm.sklearn."
XGB_CLASSIFIERS = tuple(f"{XGBOOST}{name}" for name in ("XGBClassifier", "XGBRFClassifier"))
XGB_OTHERS = tuple(f"{XGBOOST}{name}" for name in ("XGBRegressor", "XGBRFRegressor", "XGBRanker", "XGBModel"))
LGBM_CLASSIFIER = f"{LIGHTGBM}LGBMClassifier"
LGBM_OTHERS = tuple(f"{LIGHTGBM}{name}" for name in ("LGBMRegressor", "LGBMRanker", "LGBMModel"))
BOOSTERS = ("xgboost.core.Booster", "lightgbm.basic.Booster")

SINGLE = (*XGB_CLASSIFIERS, *XGB_OTHERS, BOOSTERS[0])
"""Those that compute in float32, whatever stands around them."""

NAMES = (*SINGLE, LGBM_CLASSIFIER, *LGBM_OTHERS, BOOSTERS[1])

_GRAPHS: WeakKeyDictionary[Estimator, dict[bool, ir.Model]] = WeakKeyDictionary()
"""Boosters that were read already: their names are asked for before their trees."""


def interface(e: Estimator) -> Interface:
    """The names the Booster itself knows."""
    return Interface.of(_graph(e))


def check_engine(e: Estimator) -> None:
    """Ask the engine of every Booster inside whether it understands it. Raises `Inconclusive`."""
    for inside in e.walk():
        engine: Any = plugins.runtime(inside.name.partition(".")[0]) if inside.name in BOOSTERS else None
        if engine is not None and hasattr(engine, "accepts"):
            engine.accepts(dict(inside.attributes), inside.place)


def _graph(e: Estimator, *, margin: bool = False) -> ir.Model:
    """The Booster's graph in float64, as its importer reads it."""
    read = _GRAPHS.setdefault(e, {})
    if margin not in read:
        alone = e.name in BOOSTERS
        booster = e if alone else e.part("_Booster")
        if booster.name not in BOOSTERS:
            raise e.broken("'_Booster' is no Booster; is the estimator fitted?")
        importer = cast("Any", plugins.importer(booster.name.partition(".")[0]))
        options = {"margin": True} if margin else {}
        model = importer.booster(dict(booster.attributes), e.place, estimator=not alone, **options)
        read[margin] = to_precision(model, "float64")
    return read[margin]


def _predicted(e: Estimator, x: Rows, *, margin: bool = False) -> Rows:
    """What the Booster predicts for rows `x`: its graph, operator by operator.

    XGBoost rounds the rows to float32 and computes in it, so a float32 file may do so too, in the middle of a model
    that keeps float64 elsewhere::

        x (float64) ──► [ Cast(float32) ──► Cast ──► the Booster's graph ──► Cast(float32) ] ──► Cast ──► y (float64)
    """
    if e.name not in SINGLE:
        return _copied(_graph(e, margin=margin), e, x)
    with x.b.kept(False):
        rounded = x.op("Cast", to=ir.DataType.FLOAT.value).op("Cast", to=ir.DataType.DOUBLE.value)
        y = _copied(_graph(e), e, rounded).op("Cast", to=ir.DataType.FLOAT.value)
    return y.op("Cast", to=ir.DataType.DOUBLE.value)


def _copied(model: ir.Model, e: Estimator, x: Rows) -> Rows:
    """The operators of `model` once more, on rows `x`."""
    b, graph = x.b, model.graph
    (entry,), (result,) = graph.inputs, graph.outputs
    width = len(Interface.of(model).inputs[0].features)
    if width != x.width:
        raise e.broken(f"is fitted to {width} features and gets {x.width}")
    found: dict[ir.Value, ir.Value] = {entry: x.value}
    for value in graph.initializers.values():
        assert value.const_value is not None
        found[value] = b.constant(value.const_value.numpy(), (value.name or "constant").rpartition("/")[2])
    for node in graph:
        given = [None if value is None else found[value] for value in node.inputs]
        attributes: dict[str, Any] = dict(node.attributes.items())
        outputs = b.ops(node.op_type, *given, outputs=len(node.outputs), domain=node.domain, **attributes)
        for old, new in zip(node.outputs, outputs, strict=True):
            new.type = old.type
            found[old] = new
    return Rows(b, found[result], len(Interface.of(model).outputs[0].labels))


def _missing(e: Estimator, x: Rows) -> Rows:
    """XGBoost's other word for a missing value, compared in float32 as the rows are."""
    marker = e.array("missing", finite=False).reshape(-1) if e.has("missing") else np.full(1, np.nan)
    if len(marker) != 1:
        raise e.broken("'missing' is not one number")
    if np.isnan(marker[0]):
        return x
    single = x.b.op("Cast", x.value, to=ir.DataType.FLOAT.value)
    same = x.b.op("Equal", single, x.b.constant(marker.astype(np.float32), "missing"))
    return x.where(same, np.full(1, np.nan))


@converts("predict_proba", *XGB_CLASSIFIERS, decides=True)
def xgb_classifier(e: Estimator, x: Rows) -> Rows:
    """The probability of the second class becomes those of both."""
    y = _predicted(e, _missing(e, x))
    return both_classes(y) if y.width == 1 else y


@converts("predict", *XGB_OTHERS, decides=True)
def xgb_regressor(e: Estimator, x: Rows) -> Rows:
    """What the Booster predicts."""
    return _predicted(e, _missing(e, x))


@converts("predict_proba", LGBM_CLASSIFIER, decides=True)
def lgbm_classifier(e: Estimator, x: Rows) -> Rows:
    """The probability of the second class becomes those of both."""
    _refuse_other_ways(e)
    if e.has("_objective") and not isinstance(e.get("_objective"), str):
        raise e.refused("an objective of one's own gives scores, no probabilities; save the Booster's text instead")
    y = _predicted(e, x)
    return both_classes(y) if y.width == 1 else y


@converts("decision_function", LGBM_CLASSIFIER, decides=True)
def lgbm_decision(e: Estimator, x: Rows) -> Rows:
    """The scores before the link (since LightGBM 4.7): what calibration and voting by pairs ask for first."""
    _refuse_other_ways(e)
    return _predicted(e, x, margin=True)


@converts("predict", *LGBM_OTHERS, decides=True)
def lgbm_regressor(e: Estimator, x: Rows) -> Rows:
    """What the Booster predicts."""
    _refuse_other_ways(e)
    return _predicted(e, x)


def _refuse_other_ways(e: Estimator) -> None:
    """Further parameters of the estimator that change how it predicts."""
    others = e.attributes.get("_other_params")
    names = [str(name) for name in others] if isinstance(others, dict) else []
    told = [name for name in names if name.startswith("pred") or "iteration_predict" in name]
    if told:
        raise e.refused(f"the parameter {told[0][:40]!r} changes how it predicts; train without it")


@converts("predict", *BOOSTERS, decides=True)
def booster(e: Estimator, x: Rows) -> Rows:
    """What the Booster predicts."""
    return _predicted(e, x)
