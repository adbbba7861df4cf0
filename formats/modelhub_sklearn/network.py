"""Multi-layer perceptrons (sklearn/neural_network/_multilayer_perceptron.py, _forward_pass_fast)."""

from __future__ import annotations

from modelhub.graph.forest import Link
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts

__all__: list[str] = []

MODULE = "sklearn.neural_network._multilayer_perceptron."

ACTIVATIONS = {
    "identity": "",
    "logistic": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "exp": "Exp",
    "softmax": "Softmax",
}
"""scikit-learn's name and the operator."""


def _activated(e: Estimator, key: str, x: Rows) -> Rows:
    name = e.text(key)
    if name not in ACTIVATIONS:
        raise e.refused(f"the activation {name[:40]!r} is not known")
    if name == "softmax":
        return linked(x, Link("softmax"))
    return x.op(ACTIVATIONS[name]) if ACTIVATIONS[name] else x


def _forward(e: Estimator, x: Rows) -> Rows:
    weights, biases = e.items("coefs_"), e.items("intercepts_")
    if len(weights) != len(biases) or not weights:
        raise e.broken(f"{len(weights)} weights and {len(biases)} intercepts")
    for index in range(len(weights)):
        layer = Estimator(e.name, {"weight": weights[index], "bias": biases[index]}, e.where)
        weight = layer.array("weight", x.width, None)
        with x.b.scope(f"layer_{index}"):
            x = x.times(weight, layer.array("bias", weight.shape[1]))
            x = _activated(e, "activation" if index < len(weights) - 1 else "out_activation_", x)
    return x


@converts("predict_proba", f"{MODULE}MLPClassifier")
def classifier(e: Estimator, x: Rows) -> Rows:
    """A sigmoid gives the second class; where a row may have several labels, each has a sigmoid."""
    y = _forward(e, x)
    return both_classes(y) if y.width == 1 else y


@converts("predict", f"{MODULE}MLPRegressor")
def regressor(e: Estimator, x: Rows) -> Rows:
    """The last layer."""
    return _forward(e, x)
