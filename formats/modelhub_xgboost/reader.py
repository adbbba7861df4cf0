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
from modelhub_xgboost.forest import counted_trees, forest, margin_base
from modelhub_xgboost.model import Model
from modelhub_xgboost.objectives import OBJECTIVES, Objective
from modelhub_xgboost.ubjson import parse as parse_ubjson

__all__ = ["load", "read"]


def read(path: Path) -> ir.Model:
    """The model in `path` as a common graph: one input, one output, what `Booster.predict` gives."""
    model = load(path)
    where = str(path)
    objective = _objective(model, where)
    interface = _interface(model, objective.link)
    if model.weights is not None:
        return _linear(model, objective, interface, where)
    if model.trees is not None and counted_trees(model) < len(model.trees.sizes):
        notice(
            f"{path}: only the trees up to the best iteration count, as for the scikit-learn estimator that wrote it"
        )
    return to_graph(forest(model, objective, where), interface)


def _tell_about_early_stopping(model: Model, where: str) -> None:
    best = model.attributes.get("best_iteration")
    if best is None or model.trees is None:
        return
    if counted_trees(model) < len(model.trees.sizes):
        notice(
            f"{where}: only the rounds up to the best one, {safe_text(best)}, count, as in the estimator that wrote it"
        )
    elif model.rounds is not None and safe_text(best) != str(len(model.rounds) - 2):
        notice(
            f"{where}: training was stopped early and the best round was {safe_text(best)}; all rounds count, as in "
            "Booster.predict. Slice the booster to keep the best: booster[: booster.best_iteration + 1]"
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


def _objective(model: Model, where: str) -> Objective:
    try:
        return OBJECTIVES[model.objective]
    except KeyError:
        raise Unsupported(
            f"{where}: the objective {safe_text(model.objective)!r} is not one of XGBoost's own; "
            "save the model with the objective whose link it needs, e.g. reg:squarederror for none"
        ) from None


def _interface(model: Model, link: Link) -> Interface:
    """Names from the file; XGBoost's own f0, f1, ... where it has none."""
    if model.features < 1 or model.features > 1 << 20:
        raise UnreadableFile(f"the model has {model.features} features")
    if len(model.feature_names) not in (0, model.features):
        raise UnreadableFile(f"{len(model.feature_names)} feature names for {model.features} features")
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


def _linear(model: Model, objective: Objective, interface: Interface, where: str) -> ir.Model:
    """gblinear: bias and base score, plus weight times value; a missing value adds nothing (src/gbm/gblinear.cc)."""
    weights = model.weights
    if weights is None or not np.isfinite(weights).all():
        raise UnreadableFile(f"{where}: a weight is not a finite number")
    b = Builder()
    x = b.input("inputs", ["N", model.features])
    zero = b.constant(np.array(0, np.float32), "zero")
    x = b.op("Cast", b.op("Where", b.op("IsNaN", x), zero, x), to=ir.DataType.DOUBLE.value)
    bias = weights[-1] + margin_base(model, objective, where)
    margin = b.op("Gemm", x, b.constant(weights[:-1], "weight"), b.constant(bias, "bias"))
    y = b.op("Cast", apply_link(b, objective.link, margin), to=ir.DataType.FLOAT.value)
    b.output(y, "outputs", ["N", len(interface.outputs[0].labels)])
    return b.finish(interface)
