"""Recurrent layers.

Gates in ONNX: LSTM i o f c, GRU z r h; each with a bias for the product with the input and one for the product with the
state, which lwtnn holds as their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelhub_lwtnn.lower_activation import hard_sigmoid_line
from modelhub_lwtnn.meaning import Meaning, Refusal, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Activation, Array, Gate, Gru, Lstm, SimpleRnn


@lowers("LSTM", reads=(0,))
def lstm(op: Op) -> Sequence[Meaning | None]:
    """i, f, o gates and the candidate c (ONNX LSTM; lwtnn LSTMLayer::step)."""
    if not op.zeros(7):
        raise Refusal("has peephole connections; lwtnn's LSTM has none. Write ONNX.")
    if op.integer("input_forget", 0):
        raise Refusal("couples its input and forget gates; lwtnn's LSTM does not. Write ONNX.")
    if op.lives(2):
        raise Refusal("gives out its cell state; lwtnn keeps it inside. Write ONNX, or use the hidden state.")
    inner, cell, hidden = _activations(op, ["Sigmoid", "Tanh", "Tanh"])
    if cell != hidden:
        raise Refusal("has different activations for cell and output; lwtnn's LSTM has one. Write ONNX.")
    gates, inner_activation = _scaled(inner, _gates(op, "iofc"), "ifo")
    return _recurrent(op, Lstm({name: gates[name] for name in "ifco"}, _plain(cell), inner_activation))


@lowers("GRU", reads=(0,))
def gru(op: Op) -> Sequence[Meaning | None]:
    """z, r gates and the candidate h, reset before the product with the state (ONNX GRU; lwtnn GRULayer::step)."""
    inner, candidate = _activations(op, ["Sigmoid", "Tanh"])
    gates = _gates(op, "zrh")
    if op.integer("linear_before_reset", 0) and not _reset_commutes(op, gates["h"]):
        raise Refusal(
            "resets after the recurrent product; lwtnn resets before it. Write ONNX, or train with reset_after=False."
        )
    gates, inner_activation = _scaled(inner, gates, "zr")
    gates, activation = _scaled(candidate, gates, "h")
    return _recurrent(op, Gru(gates, activation, inner_activation))


def _reset_commutes(op: Op, gate: Gate) -> bool:
    """Whether r (U h' + b) is U (r h'): for a diagonal U without recurrent bias."""
    biases = op.weights(3)
    units = len(gate.recurrent)
    free = biases is None or not biases[0, 5 * units :].any()
    return free and not (gate.recurrent - np.diag(np.diag(gate.recurrent))).any()


@lowers("RNN", reads=(0,))
def rnn(op: Op) -> Sequence[Meaning | None]:
    """The state is act(W x + U h' + b) (ONNX RNN; lwtnn SimpleRNNLayer::step)."""
    (activation,) = _activations(op, ["Tanh"])
    gates, scaled = _scaled(activation, _gates(op, "h"), "h")
    return _recurrent(op, SimpleRnn(gates["h"], scaled))


Kind = tuple[str, float, float]
"""An activation of a recurrent ONNX operator: name, alpha, beta."""

_DEFAULTS = {
    "affine": (1.0, 0.0),
    "elu": (1.0, 0.0),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, 0.0),
    "relu": (0.0, 0.0),
    "sigmoid": (0.0, 0.0),
    "tanh": (0.0, 0.0),
}
_ALPHA = ("affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu")
_BETA = ("affine", "hardsigmoid", "scaledtanh")


def _activations(op: Op, default: list[str]) -> list[Kind]:
    """The activations of the operator; alphas and betas go, in order, to those that have one (as in onnxruntime)."""
    names = op.texts("activations") or default
    if len(names) != len(default):
        raise Refusal(f"has {len(names)} activations instead of {len(default)}; lwtnn runs forwards only. Write ONNX.")
    alphas, betas = iter(op.numbers("activation_alpha")), iter(op.numbers("activation_beta"))
    kinds = []
    for name in (name.lower() for name in names):
        if name not in _DEFAULTS:
            raise Refusal(f"uses the activation {name}, which lwtnn does not have. Write ONNX.")
        alpha, beta = _DEFAULTS[name]
        alpha = next(alphas, alpha) if name in _ALPHA else alpha
        beta = next(betas, beta) if name in _BETA else beta
        if name == "affine" and (alpha, beta) != (1.0, 0.0):
            raise Refusal("uses the activation affine, which lwtnn does not have. Write ONNX.")
        kinds.append((name, alpha, beta))
    return kinds


def _plain(kind: Kind) -> Activation:
    """The activation where nothing can be scaled in front of it."""
    name, alpha, beta = kind
    if name == "hardsigmoid" and hard_sigmoid_line(alpha, beta) != (1.0, 0.0):
        raise Refusal("uses a hard sigmoid of another slope than lwtnn's on its state. Write ONNX.")
    known = {
        "affine": Activation("linear"),
        "elu": Activation("elu", alpha),
        "hardsigmoid": Activation("hard_sigmoid"),
        "leakyrelu": Activation("leakyrelu", alpha),
        "relu": Activation("rectified"),
        "sigmoid": Activation("sigmoid"),
        "tanh": Activation("tanh"),
    }
    return known[name]


def _scaled(kind: Kind, gates: dict[str, Gate], names: str) -> tuple[dict[str, Gate], Activation]:
    """The activation of the gates `names`, whose weights take up the slope of another hard sigmoid than lwtnn's."""
    name, alpha, beta = kind
    if name != "hardsigmoid":
        return gates, _plain(kind)
    a, b = hard_sigmoid_line(alpha, beta)
    scaled = {
        name: Gate(gate.weights * a, gate.recurrent * a, gate.bias * a + b) if name in names else gate
        for name, gate in gates.items()
    }
    return scaled, Activation("hard_sigmoid")


def _gates(op: Op, order: str) -> dict[str, Gate]:
    """The gates by letter, from W [1, gates*U, F], R [1, gates*U, U] and B [1, 2*gates*U]."""
    weights, recurrent, biases = op.weights(1), op.weights(2), op.weights(3)
    if weights is None or recurrent is None or (biases is None and op.input(3) is not None):
        raise Refusal("computes its weights from data; lwtnn has constant weights only. Write ONNX.")
    if op.text("direction", "forward") != "forward" or len(weights) != 1:
        raise Refusal(
            "runs backwards through the sequence; lwtnn runs forwards only. Write ONNX, or train on a second input "
            "that holds the reversed sequence."
        )
    if op.number("clip", 0.0):
        raise Refusal("clips its gates; lwtnn does not. Write ONNX.")
    units = recurrent.shape[2]
    w, r = (np.split(matrix[0], len(order)) for matrix in (weights, recurrent))
    b: Sequence[Array] = [np.zeros(units)] * len(order)
    if biases is not None:
        b = np.split(biases[0].reshape(2, -1).sum(axis=0), len(order))
    return {name: Gate(w[k], r[k], b[k]) for k, name in enumerate(order)}


def _recurrent(op: Op, layer: Lstm | Gru | SimpleRnn) -> Sequence[Meaning | None]:
    """A `sequence` node: Y holds every step, Y_h the last."""
    first, lengths = op.integer("layout", 0) == 0, op.array(4)
    if not (op.zeros(5) and (op.node.op_type != "LSTM" or op.zeros(6))):
        raise Refusal("starts from a state that is not zero; lwtnn starts from zero. Write ONNX.")
    if op.input(4) is not None and lengths is None and op.maker(4) != "CompactSteps":
        raise Refusal("takes the lengths of its sequences as data; lwtnn takes each at its true length. Write ONNX.")
    x = op.whole(op.data(0))
    if x.axes != (("time", "batch", "feature") if first else ("batch", "time", "feature")):
        raise Refusal(f"runs along [{', '.join(x.axes)}], which is no sequence of lwtnn's. Write ONNX.")
    source = op.steps[x.step]
    if lengths is not None and (source.length is None or any(int(n) != source.length for n in lengths.ravel())):
        raise Refusal("stops at fixed steps of its sequences; lwtnn takes each at its true length. Write ONNX.")
    gate = layer.gate if isinstance(layer, SimpleRnn) else next(iter(layer.gates.values()))
    units, features = gate.weights.shape
    if features != source.width:
        raise Refusal(f"has weights for {features} features, but gets {source.width}")
    axes = ("time", "one", "batch", "feature") if first else ("batch", "time", "one", "feature")
    every = op.add("sequence", [x.step], units, axes, layer=layer, length=source.length)
    return every, op.last(every), None
