"""XGBoost files to the common graph: which layout, which trees count, which names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelhub.errors import UnreadableFile, Unsupported, notice, safe_text
from modelhub.files import parse_json, read_bytes
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Link
from modelhub.graph.forest_onnx import apply_link, to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub_xgboost import document, legacy, old_binary
from modelhub_xgboost.forest import best_trees, counted_trees, forest, margin_base
from modelhub_xgboost.model import Model
from modelhub_xgboost.objectives import Objective, objective
from modelhub_xgboost.ubjson import parse as parse_ubjson

__all__ = ["graph", "load", "objective_of", "read"]


def read(path: Path) -> ir.Model:
    """The model in `path` as a common graph: one input, one output, what `Booster.predict` gives."""
    return graph(load(path), str(path))


def graph(model: Model, where: str) -> ir.Model:
    """The common graph of a model; `where` names its file in errors."""
    if not 1 <= model.features <= 1 << 20 or model.outputs > 1 << 16:
        raise UnreadableFile(f"{where}: a model of {model.features} features and {model.outputs} outputs")
    goal = objective_of(model, where)
    interface = _interface(model, goal.link, where)
    if model.weights is not None:
        return _linear(model, goal, interface, where)
    _tell_about_early_stopping(model, where)
    return to_graph(forest(model, goal, where), interface)


def _tell_about_early_stopping(model: Model, where: str) -> None:
    """Say which rounds count where training went on after the best one."""
    if model.trees is None or best_trees(model) == len(model.trees.sizes):
        return
    best = safe_text(model.attributes.get("best_iteration", "unknown"))
    if counted_trees(model) < len(model.trees.sizes):
        notice(f"{where}: only the rounds up to the best one ({best}) count, as for the estimator that wrote the file")
    else:
        notice(
            f"{where}: training stopped early and round {best} was the best, but every round counts, as in "
            "Booster.predict. To keep the best only, save booster[: booster.best_iteration + 1]"
        )


def load(path: Path) -> Model:
    """What the file says, by its first bytes: JSON, UBJSON or the old binary."""
    data = read_bytes(path)
    where = str(path)
    if data[:1] != b"{":
        if not old_binary(data[:256]):
            raise UnreadableFile(f"{path}: neither JSON nor UBJSON nor the old binary of XGBoost")
        return legacy.learner(data, where)
    if data[1:2] in b"Liu":
        return document.learner(parse_ubjson(data, where), where)
    return document.learner(parse_json(data, where), where)


def objective_of(model: Model, where: str) -> Objective:
    """The model's objective. Raises `Unsupported` where it is not one of XGBoost's own."""
    found = objective(model.objective, model.version, model.outputs)
    if found is None:
        raise Unsupported(
            f"{where}: the objective {safe_text(model.objective)!r} is not one of XGBoost's own; "
            "save the model with the objective whose link it needs, e.g. reg:squarederror for none"
        )
    return found


def _interface(model: Model, link: Link, where: str) -> Interface:
    """Names from the file; XGBoost's own f0, f1, ... where it has none."""
    if len(model.feature_names) not in (0, model.features):
        raise UnreadableFile(f"{where}: {len(model.feature_names)} feature names for {model.features} features")
    names = model.feature_names or tuple(f"f{i}" for i in range(model.features))
    if link.kind == "argmax":
        labels: tuple[str, ...] = ("class",)
    elif model.outputs == 1:
        labels = ("probability" if link.kind == "sigmoid" else "prediction",)
    else:
        labels = tuple(f"{'class' if link.kind == 'softmax' else 'target'}_{i}" for i in range(model.outputs))
    return Interface(
        (Input("inputs", tuple(Feature(name) for name in names)),),
        (Output("outputs", labels),),
        invented=not model.feature_names,
    )


def _linear(model: Model, goal: Objective, interface: Interface, where: str) -> ir.Model:
    """gblinear: bias and base score, plus weight times value; a missing value adds nothing.

    Every output gets the *first* base score, as in src/gbm/gblinear.cc (PredictBatchInternal) up to version 3.4.
    """
    weights = model.weights
    if weights is None or not np.isfinite(weights).all():
        raise UnreadableFile(f"{where}: a weight is not a finite number")
    b = Builder()
    x = b.input("inputs", ["N", model.features])
    zero = b.constant(np.array(0, np.float32), "zero")
    x = b.op("Cast", b.op("Where", b.op("IsNaN", x), zero, x), to=ir.DataType.DOUBLE.value)
    bias = weights[-1] + margin_base(model, goal, where)[0]
    margin = b.op("Gemm", x, b.constant(weights[:-1], "weight"), b.constant(bias, "bias"))
    y = b.op("Cast", apply_link(b, goal.link, margin), to=ir.DataType.FLOAT.value)
    b.output(y, "outputs", ["N", len(interface.outputs[0].labels)])
    return b.finish(interface)
