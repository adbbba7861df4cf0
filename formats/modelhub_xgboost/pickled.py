"""The state of a pickled Booster: one UBJSON object of `Config` and `Model`.

Source: Booster.__getstate__ in xgboost/core.py, LearnerIO::Save in src/learner.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from modelhub.errors import UnreadableFile, Unsupported
from modelhub_xgboost import document
from modelhub_xgboost.model import Model
from modelhub_xgboost.reader import graph
from modelhub_xgboost.ubjson import parse

__all__ = ["booster", "learner"]


def booster(state: Mapping[str, Any], where: str, *, estimator: bool) -> ir.Model:
    """The common graph of a Booster in `state["handle"]`.

    Args:
        state: what pickle and skops keep of a Booster.
        where: the file, for errors.
        estimator: it is asked by its scikit-learn estimator: only the rounds up to the best one count, and classes get
            probabilities whether it was trained with multi:softprob or multi:softmax.

    """
    model = learner(state, where)
    return graph(_asked_by_its_estimator(model, where) if estimator else model, where)


def learner(state: Mapping[str, Any], where: str) -> Model:
    """What the bytes of a pickled Booster say."""
    data = state.get("handle")
    if not isinstance(data, bytes | bytearray) or not data:
        raise UnreadableFile(f"{where}: a Booster without its bytes; is it trained?")
    if data[:1] != b"{":
        raise Unsupported(
            f"{where}: the Booster inside was pickled by an old XGBoost; load it there, and save it with save_model"
        )
    content = parse(bytes(data), where)
    if not isinstance(content, dict) or content.keys() != {"Config", "Model"}:
        raise UnreadableFile(f"{where}: not the state of a Booster: it has other parts than 'Config' and 'Model'")
    return document.learner(content["Model"], where)


def _asked_by_its_estimator(model: Model, where: str) -> Model:
    """XGBModel._get_iteration_range and XGBClassifier.predict_proba in xgboost/sklearn.py."""
    if model.objective == "binary:logitraw":
        raise Unsupported(f"{where}: binary:logitraw gives no probabilities; train with binary:logistic")
    objective = "multi:softprob" if model.objective == "multi:softmax" else model.objective
    attributes = model.attributes if model.weights is not None else {**model.attributes, "scikit_learn": "yes"}
    return replace(model, objective=objective, attributes=attributes)
