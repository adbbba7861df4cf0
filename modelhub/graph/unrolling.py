"""Recurrent operators as a Scan over their steps: the same formulas, in operators that exist in float64.

Formulas and gate orders: ONNX operator specification of LSTM (i, o, f, c), GRU (z, r, h) and RNN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from modelhub.graph.scribe import Scribe

__all__ = ["gru", "lstm", "rnn"]

Array = np.ndarray
Activation = Callable[[Scribe, ir.Value], ir.Value]
Cell = Callable[[Scribe, ir.Value, list[ir.Value], Array, Array, list[Activation]], list[ir.Value]]
"""(op, x·Wᵀ [events, gates·units], states, R [gates·units, units], recurrent bias, activations) -> new states."""


def lstm(op: Scribe, node: ir.Node) -> Sequence[ir.Value] | None:
    """i, o, f = σ(...), c = f∘c + i∘g(...), h = o∘g(c); without peepholes."""

    def cell(
        op: Scribe, x: ir.Value, states: list[ir.Value], recurrent: Array, bias: Array, act: list[Activation]
    ) -> list[ir.Value]:
        h, c = states
        gates = op("Add", x, op("Add", op("MatMul", h, op.constant(recurrent.T)), op.constant(bias)))
        i, o, f, g = op.many("Split", gates, outputs=4, axis=-1, num_outputs=4)
        c = op("Add", op("Mul", act[0](op, f), c), op("Mul", act[0](op, i), act[1](op, g)))
        return [op("Mul", act[0](op, o), act[2](op, c)), c]

    return _unroll(op, node, 4, ["Sigmoid", "Tanh", "Tanh"], 2, cell)


def gru(op: Scribe, node: ir.Node) -> Sequence[ir.Value] | None:
    """z, r = σ(...), h = z∘h + (1-z)∘g(...), the reset gate before or after the recurrent product."""
    attribute = node.attributes.get("linear_before_reset")
    after = attribute is not None and attribute.as_int() != 0

    def cell(
        op: Scribe, x: ir.Value, states: list[ir.Value], recurrent: Array, bias: Array, act: list[Activation]
    ) -> list[ir.Value]:
        (h,) = states
        (rz, rr, rh), (bz, br, bh) = np.split(recurrent, 3), np.split(bias, 3)
        xz, xr, xh = op.many("Split", x, outputs=3, axis=-1, num_outputs=3)

        def product(value: ir.Value, weight: Array, offset: Array) -> ir.Value:
            return op("Add", op("MatMul", value, op.constant(weight.T)), op.constant(offset))

        z = act[0](op, op("Add", xz, product(h, rz, bz)))
        r = act[0](op, op("Add", xr, product(h, rr, br)))
        inner = op("Mul", r, product(h, rh, bh)) if after else product(op("Mul", r, h), rh, bh)
        new = act[1](op, op("Add", xh, inner))
        return [op("Add", op("Mul", z, h), op("Mul", op("Sub", op.constant(1.0), z), new))]

    return _unroll(op, node, 3, ["Sigmoid", "Tanh"], 1, cell)


def rnn(op: Scribe, node: ir.Node) -> Sequence[ir.Value] | None:
    """One gate: h = f(W x + R h + b)."""

    def cell(
        op: Scribe, x: ir.Value, states: list[ir.Value], recurrent: Array, bias: Array, act: list[Activation]
    ) -> list[ir.Value]:
        inner = op("Add", op("MatMul", states[0], op.constant(recurrent.T)), op.constant(bias))
        return [act[0](op, op("Add", x, inner))]

    return _unroll(op, node, 1, ["Tanh"], 1, cell)


def _unroll(
    op: Scribe, node: ir.Node, gates: int, defaults: list[str], states: int, cell: Cell
) -> Sequence[ir.Value] | None:
    """Y [steps, directions, events, units] and the final states [directions, events, units], by one Scan a direction.

    None where the operator has what is not written out here: weights that are computed, peepholes, clipping.
    """
    given = [*node.inputs, *[None] * 8][:8]
    x, weight, recurrent, bias, lengths = given[:5]
    tensors = [value.const_value if value is not None else None for value in (weight, recurrent, bias)]
    if x is None or tensors[0] is None or tensors[1] is None or (bias is not None and tensors[2] is None):
        return None
    if given[7] is not None or "clip" in node.attributes or "input_forget" in node.attributes:
        return None
    layout = node.attributes.get("layout")
    activations = _activations(node, defaults)
    if (layout is not None and layout.as_int() != 0) or activations is None:
        return None
    w, r = (tensor.numpy().astype(np.float64) for tensor in tensors[:2] if tensor is not None)
    units = r.shape[2]
    b = np.zeros((len(w), 2 * gates * units)) if tensors[2] is None else tensors[2].numpy().astype(np.float64)
    direction = node.attributes.get("direction")
    backwards = [False, True] if len(w) == 2 else [direction is not None and direction.as_string() == "reverse"]
    mask = _one_more(op, _mask(op, x, lengths), op.constant(False, "bool"))
    columns: list[list[ir.Value]] = []
    for index, back in enumerate(backwards):
        inside, outside = np.split(b[index], 2)
        projected = op("Add", op("MatMul", x, op.constant(w[index].T)), op.constant(inside))
        initial = [_initial(op, x, given[5 + n] if n + 5 < 7 else None, index, units) for n in range(states)]
        act = activations[index * len(defaults) : (index + 1) * len(defaults)]
        projected = _one_more(op, projected, op.constant(0.0))
        columns.append(_scan(op, cell, projected, mask, initial, (r[index], outside, act), backward=back))
    edges = [op.ints(0), op.ints(-1), op.ints(0)]
    finals, outputs = list(zip(*columns, strict=True))[:states], [op("Slice", c[states], *edges) for c in columns]
    y = op("Concat", *[op("Unsqueeze", value, op.ints(1)) for value in outputs], axis=1)
    return [y, *[op("Concat", *[op("Unsqueeze", v, op.ints(0)) for v in values], axis=0) for values in finals]]


def _scan(
    op: Scribe,
    cell: Cell,
    projected: ir.Value,
    mask: ir.Value,
    initial: list[ir.Value],
    parts: tuple[Array, Array, list[Activation]],
    *,
    backward: bool,
) -> list[ir.Value]:
    """Final states and the hidden state of every step. Past the end of a sequence states rest and outputs are zero."""
    body = Scribe(op.graph, f"{op.name}/step_{len(op.nodes)}")
    old = [_inner(body, f"state_{index}") for index in range(len(initial))]
    step = _inner(body, "x")
    here = ir.Value(name=f"{body.name}/mask", type=ir.TensorType(ir.DataType.BOOL))
    new = cell(body, step, old, *parts)
    hidden = body("Where", here, new[0], body.constant(0.0))
    results = [*(body("Where", here, a, b) for a, b in zip(new, old, strict=True)), hidden]
    for value in results:
        value.type = ir.TensorType(ir.DataType.DOUBLE)
    graph = ir.Graph([*old, step, here], results, nodes=body.nodes, name=body.name)
    way = [1 if backward else 0]
    return list(
        op.many(
            "Scan",
            *initial,
            projected,
            mask,
            outputs=len(results),
            body=graph,
            num_scan_inputs=2,
            scan_input_directions=way * 2,
            scan_output_directions=way,
        )
    )


def _inner(body: Scribe, name: str) -> ir.Value:
    return ir.Value(name=f"{body.name}/{name}", type=ir.TensorType(ir.DataType.DOUBLE))


def _one_more(op: Scribe, steps: ir.Value, value: ir.Value) -> ir.Value:
    """`steps` and a step behind them that is of no sequence: onnxruntime's Scan wants one step at least."""
    shape = op("Concat", op.ints(1), op("Shape", steps, start=1), axis=0)
    return op("Concat", steps, op("Expand", value, shape), axis=0)


def _mask(op: Scribe, x: ir.Value, lengths: ir.Value | None) -> ir.Value:
    """Whether step t of event n is inside its sequence: [steps, events, 1]; all are where no lengths are given."""
    if lengths is None:
        shape = op("Concat", op("Shape", x, start=0, end=2), op.ints(1), axis=0)
        return op("Expand", op.constant(True, "bool"), shape)
    steps = op("Squeeze", op("Shape", x, start=0, end=1))
    position = op("Range", op.constant(0, "int64"), steps, op.constant(1, "int64"))
    inside = op("Less", op("Unsqueeze", position, op.ints(1)), op("Cast", lengths, to=ir.DataType.INT64))
    return op("Unsqueeze", inside, op.ints(2))


def _initial(op: Scribe, x: ir.Value, given: ir.Value | None, direction: int, units: int) -> ir.Value:
    """The state before the first step, [events, units]: as given, else zero."""
    if given is not None:
        return op("Gather", given, op.constant(direction, "int64"), axis=0)
    shape = op("Concat", op("Shape", x, start=1, end=2), op.ints(units), axis=0)
    return op("Expand", op.constant(0.0), shape)


def _activations(node: ir.Node, defaults: list[str]) -> list[Activation] | None:
    """The activations of all directions in order, with the alphas and betas the operator gives them in turn."""
    named = node.attributes.get("activations")
    directions = 2 if (d := node.attributes.get("direction")) is not None and d.as_string() == "bidirectional" else 1
    names = list(named.as_strings()) if named is not None else defaults * directions
    alphas, betas = (
        list(node.attributes[name].as_floats()) if name in node.attributes else []
        for name in ("activation_alpha", "activation_beta")
    )
    found = []
    for name in names:
        if name not in _FORMULAS:
            return None
        formula, alpha, beta = _FORMULAS[name]
        a = alphas.pop(0) if alpha is not None and alphas else alpha
        b = betas.pop(0) if beta is not None and betas else beta
        found.append(_bound(formula, float(a or 0.0), float(b or 0.0)))
    return found


Formula = Callable[[Scribe, ir.Value, float, float], ir.Value]


def _bound(formula: Formula, alpha: float, beta: float) -> Activation:
    return lambda op, x: formula(op, x, alpha, beta)


def _affine(op: Scribe, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return op("Add", op("Mul", x, op.constant(alpha)), op.constant(beta))


def _hard_sigmoid(op: Scribe, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return op("Clip", _affine(op, x, alpha, beta), op.constant(0.0), op.constant(1.0))


def _leaky(op: Scribe, x: ir.Value, alpha: float, _: float) -> ir.Value:
    return op("Where", op("Less", x, op.constant(0.0)), op("Mul", x, op.constant(alpha)), x)


def _elu(op: Scribe, x: ir.Value, alpha: float, _: float) -> ir.Value:
    low = op("Sub", op("Exp", op("Min", x, op.constant(0.0))), op.constant(1.0))
    return op("Where", op("Less", x, op.constant(0.0)), op("Mul", low, op.constant(alpha)), x)


def _scaled_tanh(op: Scribe, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return op("Mul", op("Tanh", op("Mul", x, op.constant(beta))), op.constant(alpha))


def _plain(op_type: str) -> Formula:
    return lambda op, x, *_: op(op_type, x)


_FORMULAS: dict[str, tuple[Formula, float | None, float | None]] = {
    "Affine": (_affine, 1.0, 0.0),
    "Elu": (_elu, 1.0, None),
    "HardSigmoid": (_hard_sigmoid, 0.2, 0.5),
    "LeakyRelu": (_leaky, 0.01, None),
    "Relu": (_plain("Relu"), None, None),
    "ScaledTanh": (_scaled_tanh, 1.0, 1.0),
    "Sigmoid": (_plain("Sigmoid"), None, None),
    "Softplus": (_plain("Softplus"), None, None),
    "Softsign": (_plain("Softsign"), None, None),
    "Tanh": (_plain("Tanh"), None, None),
}
"""Formula, default alpha, default beta (None: it takes none) of each activation."""
