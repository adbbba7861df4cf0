"""A graph whose every intermediate is shaken by a few roundings: Monte Carlo arithmetic, in onnxruntime.

Behind each operator that rounds, its result y becomes  y + λ δ ξ,  where ξ is random with variance 1 and δ is how far
float32 may round there (float64, where all engines keep a double)::

    Add, Sub        u (|a| + |b|)                       also when an engine has folded one into another
    Mul, Div        2u |y|                              a constant may be rounded too
    Exp, Tanh, ...  c u |y|, c u where an engine is exact only against 1 (sigmoid)
    a sum of K terms t (MatMul, Gemm, Einsum, ReduceSum, ...; in recurrent layers once a step)
                    u √(K Σt² + K y²/3)

The last is the error of K additions of which each rounds its partial sum: in a random order these walk like √Σt² and
drift to y (Higham, Mary 2019, "A new approach to probabilistic rounding error analysis", with Σ over the partial
sums written out). Operators that only move, choose or compare numbers round nothing.

No derivative of any operator is needed, and what is not linear (a softmax in saturation, a unit that switches) is seen
as it is. Parker, "Monte Carlo Arithmetic", 1997.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.equivalence.compare import ROUNDOFF
from modelhub.equivalence.narrowing import asked_by_trees, narrowed, narrows
from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import infer_shapes, inline_all
from modelhub.graph.functions import QUIET
from modelhub.graph.precision import to_precision

__all__ = ["LAMBDA", "Shaken", "shaken"]

LAMBDA = 6.0
"""How many roundings' worth each intermediate is shaken by: what stays within it is six standard deviations wide."""

DECIDE = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "ArgMax", "ArgMin", "TopK")
STEP = ("Floor", "Ceil", "Round", "Sign")

RELATIVE = {
    "Atan": 4.0, "Cos": 4.0, "Cosh": 4.0, "Div": 2.0, "Exp": 4.0, "Log": 4.0, "Mul": 2.0, "Pow": 6.0, "Reciprocal": 2.0,
    "Sin": 4.0, "Sinh": 4.0, "Softmax": 6.0, "Sqrt": 1.0, "Tan": 4.0, "Tanh": 8.0, "InstanceNormalization": 8.0,
    "LpNormalization": 4.0,
}  # fmt: skip
"""Roundings of an operator, in units of its result."""

AGAINST_ONE = {"Erf": 4.0, "LogSoftmax": 4.0, "Sigmoid": 4.0, "Softplus": 4.0, "Gelu": 4.0, "Asinh": 4.0, "Acosh": 4.0}
"""Roundings of an operator in units of its result or 1, whichever is larger."""

SUMS = (
    "ReduceSum",
    "ReduceMean",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "CumSum",
    "AveragePool",
)


@dataclass
class Shaken:
    """The shaken model and what its outputs are.

    model:     outputs of the graph, then the `taps`.
    decisions: outputs that hold how far each hard decision is from falling the other way.
    relus:     for each layer of ReLU a pair of outputs: which units were on in some event, and which off.
    sigmoids:  the same for saturation: near 0, near 1.
    forests:   for each TreeEnsemble its node, and the output that holds its rows.
    taps:      all of these outputs in order.
    roundings: how many roundings one event goes through, and again at each further step.
    clamped:   whether there is a sigmoid.
    narrows:   whether the graph itself rounds to float32 on its way, also where it runs in float64.
    """

    model: ir.Model
    decisions: list[str] = field(default_factory=list)
    relus: list[tuple[str, str]] = field(default_factory=list)
    sigmoids: list[tuple[str, str]] = field(default_factory=list)
    forests: list[tuple[ir.Node, str]] = field(default_factory=list)
    taps: list[str] = field(default_factory=list)
    roundings: float = 1.0
    clamped: bool = False
    narrows: bool = False


def shaken(model: ir.Model, seed: int) -> Shaken:
    """The shaken float64 graph of `model`, which is left as it is; the same random numbers for the same seed."""
    model = inline_all(model.clone())
    decisive = {node.name for node in model.graph if _decides(node)}
    relus = [node.name for node in model.graph if node.op_type == "Relu" and node.domain == ""]
    sigmoids = [node.name for node in model.graph if node.op_type in ("Sigmoid", "Tanh") and node.domain == ""]
    narrowing = {node.name for node in model.graph if narrows(node)}
    to_precision(model, "float64")
    infer_shapes(model)
    result = Shaken(model)
    asked = asked_by_trees(model)
    pen = _Pen(model.graph, seed)
    for graph in list(model.graphs()):
        inner = graph is not model.graph
        for node in list(graph):
            if not inner:
                _tap(result, pen, node, node.name in decisive, node.name in relus, node.name in sigmoids)
            shake = _SHAKEN.get(node.op_type) if node.domain in ("", "ai.onnx.ml") else None
            y, kept = node.outputs[0], KEPT in node.metadata_props
            if narrowed(node, asked):
                shake, kept, result.narrows = _relative(1.0), False, True
            elif node.name in narrowing and y not in asked:
                shake, kept = _relative(1.0), False
            if shake is None or QUIET in node.metadata_props or not _real(node, inner):
                continue
            pen.at(graph, node, "float64" if kept else "float32")
            uses, outer = list(y.uses()), y.is_graph_output()
            moved = shake(pen, node, y)
            if moved is None:
                continue
            result.roundings += pen.roundings
            result.clamped |= node.op_type == "Sigmoid"
            noisy = pen("Add", y, moved)
            noisy.type, noisy.shape = y.type, y.shape
            for user, index in uses:
                user.replace_input_with(index, noisy)
            if outer:
                graph.outputs[list(graph.outputs).index(y)] = noisy
                y.name, noisy.name = f"{y.name}/still", y.name
            pen.put()
    own = len(model.graph.outputs) - pen.taps
    result.taps = [value.name or "" for value in list(model.graph.outputs)[own:]]
    return result


class _Pen:
    """Writes nodes behind a node of some graph; constants go into the model's own graph."""

    def __init__(self, main: ir.Graph, seed: int) -> None:
        self.main = main
        self.seed = seed
        self.count = 0
        self.taps = 0
        self.roundings = 0.0
        self._constants: dict[Any, ir.Value] = {}

    def at(self, graph: ir.Graph, node: ir.Node, precision: str = "float32") -> None:
        """Go on behind `node`, which is rounded to `precision`."""
        self.graph, self.node, self.roundings, self.unit = graph, node, 0.0, ROUNDOFF[precision]
        self.nodes: list[ir.Node] = []

    def put(self) -> None:
        """Put what was written into the graph."""
        self.graph.insert_after(self.node, self.nodes)

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        self.count += 1
        node = ir.node(op_type, list(inputs), attributes, name=f"shaken/{op_type}_{self.count}")
        node.outputs[0].name = f"shaken/{self.count}"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: Any, dtype: str = "float64") -> ir.Value:
        """A number or array."""
        array = np.asarray(value, dtype)
        key = (dtype, array.shape, array.tobytes()) if array.size < 9 else None
        if key is None or key not in self._constants:
            self.count += 1
            name = f"shaken/constant_{self.count}"
            tensor = ir.tensor(array, name=name)
            made = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self.main.register_initializer(made)
            if key is None:
                return made
            self._constants[key] = made
        return self._constants[key]

    def random(self, like: ir.Value, size: float) -> ir.Value:
        """Uniform random numbers with standard deviation λ u `size`."""
        self.count += 1
        half = sqrt(3.0) * LAMBDA * self.unit * size
        return self(
            "RandomUniformLike", like, dtype=ir.DataType.DOUBLE.value, low=-half, high=half,
            seed=float((self.seed + self.count) % (1 << 22)),
        )  # fmt: skip


def _real(node: ir.Node, inner: bool) -> bool:
    """Whether the node computes with real numbers; inside loops, where types are unknown, it does."""
    y = node.outputs[0]
    if y.dtype is not None:
        return y.dtype == ir.DataType.DOUBLE
    known = {value.dtype for value in node.inputs if value is not None and value.dtype is not None}
    return ir.DataType.DOUBLE in known or (inner and not known)


def _size(value: ir.Value) -> float:
    """Numbers of one event and step."""
    dims = list(value.shape or ())[1:]
    return float(prod(dim for dim in dims if isinstance(dim, int)))


def _relative(count: float) -> Callable[[_Pen, ir.Node, ir.Value], ir.Value]:
    def shake(pen: _Pen, _: ir.Node, y: ir.Value) -> ir.Value:
        pen.roundings = count * _size(y)
        return pen("Mul", y, pen.random(y, count))

    return shake


def _against_one(count: float) -> Callable[[_Pen, ir.Node, ir.Value], ir.Value]:
    def shake(pen: _Pen, _: ir.Node, y: ir.Value) -> ir.Value:
        pen.roundings = count * _size(y)
        return pen("Mul", pen("Max", pen("Abs", y), pen.constant(1.0)), pen.random(y, count))

    return shake


def _sum_of_two(pen: _Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """u (|a| + |b|)."""
    pen.roundings = _size(y)
    total = pen("Abs", node.inputs[0])  # type: ignore[arg-type]
    for value in node.inputs[1:]:
        total = pen("Add", total, pen("Abs", value))  # type: ignore[arg-type]
    return pen("Mul", total, pen.random(y, 1.0))


def _squared(pen: _Pen, value: ir.Value) -> ir.Value:
    tensor = value.const_value
    return pen("Mul", value, value) if tensor is None else pen.constant(tensor.numpy().astype(np.float64) ** 2)


def _walk(pen: _Pen, y: ir.Value, squares: ir.Value, terms: ir.Value) -> ir.Value:
    """√(K Σt² + K y²/3) λ u ξ."""
    drift = pen("Mul", pen("Mul", y, y), pen.constant(1 / 3))
    return pen("Mul", pen("Sqrt", pen("Mul", terms, pen("Add", squares, drift))), pen.random(y, 1.0))


def _product(pen: _Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """MatMul, Gemm, Einsum and Conv: the same operator on squares gives Σt²."""
    operands = [value for value in node.inputs if value is not None]
    attributes = dict(node.attributes)
    for name in ("alpha", "beta"):
        if name in attributes:
            attributes[name] = ir.AttrFloat32(name, attributes[name].as_float() ** 2)
    squares = pen(node.op_type, *[_squared(pen, value) for value in operands], **attributes)
    fixed = next((v.const_value for v in operands if v.const_value is not None and len(v.const_value.shape) > 1), None)
    if fixed is not None and node.op_type in ("MatMul", "Gemm"):
        second = operands[1].const_value is fixed
        across = node.attributes["transB" if second else "transA"].as_int() if _flag(node, second) else 0
        inner = fixed.shape[-1 if across == second else -2]
        terms = pen.constant(float(str(inner)) + 1)
        pen.roundings = 2.0 * fixed.size + _size(y)  # each term is multiplied and added
    elif fixed is not None:
        terms = pen.constant(float(max(fixed.size // max(int(_size(y)), 1), 2)))
        pen.roundings = 2.0 * fixed.size
    else:
        terms = _length(pen, operands[0])
        pen.roundings = _size(y) * 16
    return _walk(pen, y, squares, terms)


def _flag(node: ir.Node, second: bool) -> bool:
    return ("transB" if second else "transA") in node.attributes


def _length(pen: _Pen, value: ir.Value) -> ir.Value:
    """The number of entries of the last axis."""
    return pen("Cast", pen("Shape", value, start=-1), to=ir.DataType.DOUBLE.value)


def _reduction(pen: _Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """K = numbers in / numbers out; Σt² from y itself: at most y² where the terms agree in sign, else as measured."""
    x = node.inputs[0]
    assert x is not None
    count = pen("Div", pen("Cast", pen("Size", x), to=ir.DataType.DOUBLE.value),
                pen("Max", pen("Cast", pen("Size", y), to=ir.DataType.DOUBLE.value), pen.constant(1.0)))  # fmt: skip
    pen.roundings = _size(x)
    if node.op_type in ("ReduceSum", "ReduceMean"):
        rest = [value for value in node.inputs[1:] if value is not None]
        squares = pen(node.op_type, pen("Mul", x, x), *rest, **dict(node.attributes))
        if node.op_type == "ReduceMean":
            squares = pen("Div", squares, count)
        return _walk(pen, y, squares, count)
    scale = pen("Mul", pen("Abs", y), pen("Sqrt", pen("Max", count, pen.constant(1.0))))
    return pen("Mul", scale, pen.random(y, 2.0))


def _forest(pen: _Pen, node: ir.Node, y: ir.Value) -> ir.Value | None:
    """A sum over K trees: √K |y| for the drift, K times the root mean square leaf for the walk.

    An engine may start from the base value that is added behind the trees, as XGBoost does (src/predictor/predictor.cc,
    InitOutPredictions): then its partial sums are as large as y and base together.
    """
    roots = node.attributes.get("tree_roots")
    weights = node.attributes.get("leaf_weights")
    if roots is None or weights is None:
        return None
    trees = len(roots.as_ints())
    leaves = weights.as_tensor().numpy().astype(np.float64)
    walk = trees * float(np.sqrt(np.mean(leaves**2))) if leaves.size else 0.0
    pen.roundings = float(trees)
    largest = pen("Abs", y)
    for base in _added(y):
        largest = pen("Max", largest, pen("Abs", pen("Add", y, base)))
    drift = pen("Mul", largest, pen.constant(sqrt(trees)))
    return pen("Mul", pen("Add", drift, pen.constant(walk)), pen.random(y, 1.0))


def _added(y: ir.Value) -> list[ir.Value]:
    """The constants that are added to a value."""
    added = [use.node for use in y.uses() if use.node.op_type == "Add" and use.node.domain == ""]
    return [value for node in added for value in node.inputs if value is not None and value.const_value is not None]


_SHAKEN: dict[str, Callable[[_Pen, ir.Node, ir.Value], ir.Value | None]] = {
    **{name: _relative(count) for name, count in RELATIVE.items()},
    **{name: _against_one(count) for name, count in AGAINST_ONE.items()},
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum_of_two),
    **dict.fromkeys(("MatMul", "Gemm", "Einsum", "Conv"), _product),
    **dict.fromkeys(SUMS, _reduction),
    "TreeEnsemble": _forest,
}


def _decides(node: ir.Node) -> bool:
    if node.domain != "":
        return False
    to = node.attributes.get("to")
    whole = node.op_type == "Cast" and to is not None and ir.DataType(to.as_int()).is_integer()
    return whole or node.op_type in (*DECIDE, *STEP)


def _tap(result: Shaken, pen: _Pen, node: ir.Node, decides: bool, relu: bool, sigmoid: bool) -> None:
    """Make what is to be seen of `node` an output."""
    pen.at(pen.main, node)
    x = node.inputs[0] if node.inputs else None
    if node.op_type == "TreeEnsemble" and x is not None:
        result.forests.append((node, _output(pen, pen("Identity", x), x.dtype)))
    elif x is None or x.dtype != ir.DataType.DOUBLE or x.const_value is not None:
        return
    elif decides:
        margin = _margin(pen, node, x)
        if margin is not None:
            result.decisions.append(_output(pen, margin, ir.DataType.DOUBLE))
    elif relu and _by_unit(x):
        result.relus.append((_ever(pen, x, "Greater", 0.0), _ever(pen, x, "LessOrEqual", 0.0)))
    elif sigmoid and _by_unit(x):
        y = node.outputs[0]
        low = 0.0 if node.op_type == "Sigmoid" else -1.0
        result.sigmoids.append((_ever(pen, y, "Less", low + 0.01), _ever(pen, y, "Greater", 0.99)))
    pen.put()


def _by_unit(x: ir.Value) -> bool:
    """Whether the last axis holds the units of a layer, and is of fixed size."""
    return x.shape is not None and len(x.shape) > 1 and isinstance(x.shape[-1], int)


def _output(pen: _Pen, value: ir.Value, dtype: ir.DataType | None) -> str:
    pen.taps += 1
    value.name = f"tap/{pen.taps}"
    value.type = ir.TensorType(dtype or ir.DataType.DOUBLE)
    pen.main.outputs.append(value)
    return value.name


def _ever(pen: _Pen, x: ir.Value, compare: str, bound: float) -> str:
    """Whether each unit (last axis, the others are kept with size 1) is beyond `bound` in any event: 0 or 1."""
    there = pen("Cast", pen(compare, x, pen.constant(bound)), to=ir.DataType.FLOAT.value)
    axes = pen.constant(np.arange(len(x.shape or ()) - 1), "int64")
    ever = pen("Sign", pen("ReduceSum", there, axes, keepdims=1))
    return _output(pen, ever, ir.DataType.FLOAT)


def _margin(pen: _Pen, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """How far the decision is from falling the other way, 0 at the edge."""
    if node.op_type in ("Floor", "Ceil", "Cast"):
        return pen("Sub", x, pen("Round", x))
    if node.op_type == "Round":
        return pen("Sub", pen("Sub", x, pen("Floor", x)), pen.constant(0.5))
    if node.op_type == "Sign":
        return pen("Identity", x)
    if node.op_type in ("ArgMax", "ArgMin", "TopK"):
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else (-1 if node.op_type == "TopK" else 0)
        size = x.shape[axis] if x.shape is not None else None
        if not isinstance(size, int) or size < 2:
            return None
        largest = node.op_type == "ArgMax" or (
            node.op_type == "TopK" and ("largest" not in node.attributes or node.attributes["largest"].as_int() == 1)
        )
        k = 2
        if node.op_type == "TopK":
            count = node.inputs[1].const_value if node.inputs[1] is not None else None
            k = size if count is None else min(int(count.numpy().ravel()[0]) + 1, size)
        best = ir.node("TopK", [x, pen.constant([k], "int64")], {"axis": axis, "largest": int(largest)}, num_outputs=2)
        best.name = f"shaken/best_{pen.count}"
        for index, value in enumerate(best.outputs):
            value.name = f"{best.name}_{index}"
        pen.nodes.append(best)
        edges = [pen.constant([n], "int64") for n in (0, k - 1, 1, k)]
        at = pen.constant([axis], "int64")
        sorted_ = best.outputs[0]
        gaps = pen("Sub", pen("Slice", sorted_, edges[0], edges[1], at), pen("Slice", sorted_, edges[2], edges[3], at))
        return pen("ReduceMin", pen("Abs", gaps), at, keepdims=1)
    other = node.inputs[1]
    return None if other is None or other.dtype != ir.DataType.DOUBLE else pen("Sub", x, other)
