"""Layers that run along a sequence, over batches of events: x is [events, steps, features], float64.

Source: lwtnn, include/lwtnn/generic/Stack.tcc (LSTMLayer, GRULayer, SimpleRNNLayer, Conv1dLayer, EmbeddingLayer).
"""

from __future__ import annotations

import numpy as np

from modelhub.errors import Inconclusive
from modelhub_lwtnn.activations import activate
from modelhub_lwtnn.schema import Array, Conv1d, Embedding, EmbeddingTable, Gate, Gru, Lstm, SimpleRnn

__all__ = ["padding", "scan"]


def scan(layer: Lstm | Gru | SimpleRnn | Conv1d | Embedding, x: Array) -> Array:
    """The whole output sequence [events, steps, units]; no steps in, no steps out.

    Raises `Inconclusive` where lwtnn itself refuses the values: a category outside its table, a sequence shorter
    than a `valid` convolution.
    """
    match layer:
        case Lstm():
            return _lstm(layer, x)
        case Gru():
            return _gru(layer, x)
        case SimpleRnn():
            return _simple_rnn(layer, x)
        case Conv1d():
            return _conv1d(layer, x)
        case Embedding():
            for table in layer.tables:
                x = _embed(table, x)
            return x


def _inputs(gate: Gate, x: Array) -> Array:
    """W x + b for all steps at once, steps first: [steps, events, units]."""
    events, steps, features = x.shape
    flat = x.transpose(1, 0, 2).reshape(steps * events, features)
    return (flat @ gate.weights.T + gate.bias).reshape(steps, events, len(gate.weights))


def _states(units: int, x: Array) -> tuple[Array, Array]:
    """Room for the output and a first state of zeros."""
    return np.empty((x.shape[0], x.shape[1], units)), np.zeros((x.shape[0], units))


def _lstm(layer: Lstm, x: Array) -> Array:
    """i, f, o = inner(.); g = act(.); C = f C' + i g; h = o act(C), all gates over step and last h."""
    given = {name: _inputs(gate, x) for name, gate in layer.gates.items()}
    out, h = _states(len(layer.gates["o"].weights), x)
    cell = np.zeros_like(h)
    for t in range(x.shape[1]):
        now = {name: given[name][t] + h @ gate.recurrent.T for name, gate in layer.gates.items()}
        i, f, o = (activate(layer.inner_activation, now[name]) for name in "ifo")
        cell = f * cell + i * activate(layer.activation, now["c"])
        h = o * activate(layer.activation, cell)
        out[:, t] = h
    return out


def _gru(layer: Gru, x: Array) -> Array:
    """z, r = inner(.); hh = act(W x + b + U (r h')); h = z h' + (1-z) hh."""
    given = {name: _inputs(gate, x) for name, gate in layer.gates.items()}
    recurrent = {name: gate.recurrent.T for name, gate in layer.gates.items()}
    out, h = _states(len(layer.gates["h"].weights), x)
    for t in range(x.shape[1]):
        z = activate(layer.inner_activation, given["z"][t] + h @ recurrent["z"])
        r = activate(layer.inner_activation, given["r"][t] + h @ recurrent["r"])
        fresh = activate(layer.activation, given["h"][t] + (r * h) @ recurrent["h"])
        h = z * h + (1.0 - z) * fresh
        out[:, t] = h
    return out


def _simple_rnn(layer: SimpleRnn, x: Array) -> Array:
    given = _inputs(layer.gate, x)
    out, h = _states(len(layer.gate.weights), x)
    for t in range(x.shape[1]):
        h = activate(layer.activation, given[t] + h @ layer.gate.recurrent.T)
        out[:, t] = h
    return out


def padding(layer: Conv1d) -> tuple[int, int]:
    """Zeros before and after the sequence (Conv1dLayer::scan).

    `same` gives the odd zero to the front, where Keras and PyTorch give it to the end.
    """
    total = (layer.weights.shape[2] - 1) * layer.dilation
    if layer.padding == "valid":
        return 0, 0
    before = total if layer.padding == "causal" else (total + 1) // 2
    return before, total - before


def _conv1d(layer: Conv1d, x: Array) -> Array:
    """y[t] = act(b + sum over k of w[k] · xp[t + k·dilation]); a softmax runs along the steps, channel by channel."""
    events, steps, _ = x.shape
    channels, _, kernel = layer.weights.shape
    before, after = padding(layer)
    length = steps + before + after - (kernel - 1) * layer.dilation
    if layer.padding == "valid" and length < 1:
        reach = (kernel - 1) * layer.dilation + 1
        raise Inconclusive(f"lwtnn cannot run a valid convolution over {reach} steps on a sequence of {steps}")
    if length == 0 and layer.activation.function == "softmax":
        raise Inconclusive("lwtnn crashes on the softmax of a convolution over an empty sequence")
    bias = np.zeros(channels) if layer.bias is None else layer.bias
    out = np.broadcast_to(bias, (events, length, channels)).copy()
    for k in range(kernel):
        shift = k * layer.dilation - before
        first, last = max(0, -shift), min(length, steps - shift)  # the steps of y that tap k feeds with more than zeros
        if first < last:
            out[:, first:last] += x[:, first + shift : last + shift] @ layer.weights[:, :, k].T
    return activate(layer.activation, out, axis=1)


def _embed(table: EmbeddingTable, x: Array) -> Array:
    """The last variable is a category; its column of the table takes its place (the only case lwtnn gets right)."""
    category = x[:, :, table.index]
    valid = (category >= 0) & (category < table.weights.shape[1]) & (category == np.floor(category))
    if not valid.all():
        raise Inconclusive(
            f"lwtnn refuses the category {category[~valid].flat[0]}: not a whole number below {table.weights.shape[1]}"
        )
    return np.concatenate([x[:, :, : table.index], table.weights.T[category.astype(np.int64)]], axis=2)
