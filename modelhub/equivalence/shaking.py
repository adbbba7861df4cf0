"""A graph whose every intermediate is shaken by a few roundings: Monte Carlo arithmetic, in onnxruntime.

Behind each operator that rounds, its result y becomes  y + λ δ ξ,  where ξ is random with variance 1 and δ is how far
float32 may round there, operator by operator (`roundings`); float64, where all engines keep a double.

No derivative of any operator is needed, and what is not linear (a softmax in saturation, a unit that switches) is seen
as it is. Parker, "Monte Carlo Arithmetic", 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelhub.equivalence.narrowing import asked_by_trees, narrowed, narrows
from modelhub.equivalence.pen import Pen
from modelhub.equivalence.roundings import EXACT, ROUNDED, relative
from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import infer_shapes, inline_all
from modelhub.graph.forest_classic import decider
from modelhub.graph.forest_forms import with_table
from modelhub.graph.functions import QUIET
from modelhub.graph.precision import to_precision

__all__ = ["Shaken", "shaken"]

RANDOM = 21
"""The last operator set whose RandomUniformLike onnxruntime 1.32 has; what later ones changed in others are types."""

DECIDE = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "ArgMax", "ArgMin", "TopK")
STEP = ("Floor", "Ceil", "Round", "Sign")


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
    kept:      whether some of it is computed in float64 in every file.
    unknown:   whether it holds operators of which nothing is known here.
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
    kept: bool = False
    unknown: bool = False


def shaken(model: ir.Model, seed: int, precision: str = "float32", *, keeps: bool = True) -> Shaken:
    """The shaken float64 graph of `model`, which is left as it is; the same random numbers for the same seed.

    By roundings of `precision`; if `keeps` by those of float64 in nodes that keep it whatever the precision of a file.
    Sums of trees that keep it do not count: the classic form of an ONNX file rounds them (`forest_classic`).
    """
    model = inline_all(model.clone())
    decisive = {node.name for node in model.graph if _decides(node)}
    relus = [node.name for node in model.graph if node.op_type == "Relu" and node.domain == ""]
    sigmoids = [node.name for node in model.graph if node.op_type in ("Sigmoid", "Tanh") and node.domain == ""]
    narrowing = {node.name for node in model.graph if narrows(node)}
    sums = _sums(model)
    to_precision(model, "float64")
    infer_shapes(model)
    model.graph.opset_imports[""] = min(model.graph.opset_imports.get("", RANDOM), RANDOM)
    result = Shaken(model)
    asked = asked_by_trees(model)
    pen = Pen(model.graph, seed)
    for graph in list(model.graphs()):
        inner = graph is not model.graph
        for node in list(graph):
            if not inner:
                _tap(result, pen, node, node.name in decisive, node.name in relus, node.name in sigmoids)
            y, kept = node.outputs[0], KEPT in node.metadata_props
            shake = ROUNDED.get(node.op_type) if node.domain in ("", "ai.onnx.ml") else None
            unit = "float64" if kept and keeps and node.name not in sums else precision
            if narrowed(node, asked):
                shake, unit, result.narrows = relative(1.0), "float32", True
            elif node.name in narrowing and y not in asked:
                shake, unit = relative(1.0), precision
            if shake is None and node.op_type not in EXACT and QUIET not in node.metadata_props:
                result.unknown |= _real(node, inner) or node.domain != ""  # engines have these in float32 only
            if shake is None or QUIET in node.metadata_props or not _real(node, inner):
                continue
            pen.at(graph, node, unit)
            uses, outer = list(y.uses()), y.is_graph_output()
            moved = shake(pen, node, y)
            if moved is None:
                continue
            result.roundings += pen.roundings
            result.clamped |= node.op_type == "Sigmoid"
            result.kept |= kept
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


def _sums(model: ir.Model) -> set[str | None]:
    """The nodes that add up trees: where nothing is decided about the sum, some files round what keeps float64."""
    last = [with_table(node)[-1] for node in model.graph if node.op_type == "TreeEnsemble"]
    return {node.name for node in last if decider(node.outputs[0]) is None}


def _real(node: ir.Node, inner: bool) -> bool:
    """Whether the node computes with real numbers; inside loops, where types are unknown, it does."""
    y = node.outputs[0]
    if y.dtype is not None:
        return y.dtype == ir.DataType.DOUBLE
    known = {value.dtype for value in node.inputs if value is not None and value.dtype is not None}
    return ir.DataType.DOUBLE in known or (inner and not known)


def _decides(node: ir.Node) -> bool:
    if node.domain != "":
        return False
    to = node.attributes.get("to")
    whole = node.op_type == "Cast" and to is not None and ir.DataType(to.as_int()).is_integer()
    return whole or node.op_type in (*DECIDE, *STEP)


def _tap(result: Shaken, pen: Pen, node: ir.Node, decides: bool, relu: bool, sigmoid: bool) -> None:
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


def _output(pen: Pen, value: ir.Value, dtype: ir.DataType | None) -> str:
    pen.taps += 1
    value.name = f"tap/{pen.taps}"
    value.type = ir.TensorType(dtype or ir.DataType.DOUBLE)
    pen.main.outputs.append(value)
    return value.name


def _ever(pen: Pen, x: ir.Value, compare: str, bound: float) -> str:
    """Whether each unit (last axis, the others are kept with size 1) is beyond `bound` in any event: 0 or 1."""
    there = pen("Cast", pen(compare, x, pen.constant(bound)), to=ir.DataType.FLOAT.value)
    axes = pen.constant(np.arange(len(x.shape or ()) - 1), "int64")
    ever = pen("Sign", pen("ReduceSum", there, axes, keepdims=1))
    return _output(pen, ever, ir.DataType.FLOAT)


def _margin(pen: Pen, node: ir.Node, x: ir.Value) -> ir.Value | None:
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
