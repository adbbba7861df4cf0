"""A forest and what a graph makes of its sums, for writers of formats that hold trees and one formula behind them.

    x ──► (Cast, NaN replaced) ──► trees ──► (Add, Mul, Gemm, ...) ──► sigmoid, softmax, tanh or nothing ──► y

All that is linear between the trees and the link goes into the leaves and the base. What is none of this is refused
by name, with the nearest form that would do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import ModelhubError, Unsupported, safe_text
from modelhub.graph.forest import Compare, Forest, tree_of
from modelhub.graph.forest_forms import Found, forests
from modelhub.graph.interface import Interface

__all__ = ["Sums", "refusal", "sums_of"]

Array = NDArray[np.float64]

FLOATS = (ir.DataType.FLOAT.value, ir.DataType.DOUBLE.value)


@dataclass(frozen=True, eq=False)
class Sums:
    """The one forest of a graph, and its outputs: `link` of (what the leaves add + `base`), perhaps as [1 - p, p]."""

    forest: Forest
    """For its trees only: values, weights, base and link are here."""
    values: Array
    """[leaf rows, outputs] what a leaf adds to each output, or [leaf rows, 1]: to the one its tree feeds."""
    base: Array
    """[outputs]"""
    link: str
    """"", "Sigmoid", "Softmax" (over the outputs) or "Tanh"."""
    pair: bool
    """Whether the graph gives 1 - p and p of the one output p."""
    defaults: Array
    """[variables] what replaces NaN before the trees, NaN where nothing does."""

    @property
    def outputs(self) -> int:
        """How many sums there are."""
        return len(self.base)

    @property
    def columns(self) -> list[list[tuple[int, int]]]:
        """For each output its trees, as the root and the column of `values` that counts."""
        roots = self.forest.roots.tolist()
        if self.values.shape[1] == self.outputs:
            return [[(root, column) for root in roots] for column in range(self.outputs)]
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.outputs)]
        for root, output in zip(roots, self.forest.tree_output.tolist(), strict=True):
            found[output].append((root, 0))
        return found


def sums_of(model: ir.Model, engine: str, what: str) -> Sums:
    """The sums of `model` for `engine`, whose file is called `what` in refusals ("a TMVA weight file").

    Raises `Unsupported` with everything in the graph that is neither trees nor such a formula.
    """
    reasons: list[str] = []
    interface = Interface.of(model)
    if len(interface.inputs) != 1 or interface.inputs[0].sequence:
        reasons.append(f"it has {len(interface.inputs)} inputs or a sequence; {engine} takes one event of variables")
    if len(interface.outputs) != 1:
        reasons.append(f"it has {len(interface.outputs)} outputs; {engine} answers one question. Write ONNX")
    try:
        found = forests(model)
    except ModelhubError as error:
        raise refusal(model, what, [*reasons, str(error)]) from error
    if len(found) != 1:
        operators = sorted({safe_text(node.op_type) for node in model.graph})
        holds = f"holds {len(found)} forests" if found else f"holds no trees ({', '.join(operators)})"
        reasons.append(f"it {holds}; {engine} computes one. Write ONNX")
    elif not found[0].forest.trees:
        reasons.append("the forest holds no trees")
    elif (member := found[0].forest.compare == Compare.MEMBER)[found[0].forest.splits].any():
        names = [feature.name for feature in interface.inputs[0].features]
        asked = ", ".join(safe_text(names[i]) for i in np.unique(found[0].forest.feature[member])[:5])
        reasons.append(f"trees ask for sets of categories ({asked}); {engine}'s ask for thresholds. Write ONNX")
    if reasons:
        raise refusal(model, what, reasons)
    defaults = _front(found[0], len(interface.inputs[0].features), engine, reasons)
    tail = _Tail(found[0], engine, reasons)
    if reasons:
        raise refusal(model, what, reasons)
    values = _values(found[0].forest, tail.matrix, reasons)
    if reasons:
        raise refusal(model, what, reasons)
    return Sums(found[0].forest, values, tail.shift, tail.link, tail.pair, defaults)


def refusal(model: ir.Model, what: str, reasons: list[str]) -> Unsupported:
    """The error for a model that does not fit `what`."""
    return Unsupported(f"{safe_text(model.graph.name)} cannot be written as {what}", reasons)


def _front(found: Found, width: int, engine: str, reasons: list[str]) -> Array:
    """What replaces NaN [width] between the graph's input and the forest, where nothing else may stand."""
    defaults = np.full(width, np.nan)
    value: ir.Value | None = found.x
    while value is not None and not value.is_graph_input():
        node = value.producer()
        before = node.inputs[0] if node is not None and node.inputs else None
        if node is not None and node.op_type == "Where" and _asks_nan(node):
            constant, before = _constant(node.inputs[1]), node.inputs[2]
            if constant is not None and constant.size in (1, width):
                defaults = np.where(np.isnan(defaults), constant.ravel().astype(np.float64), defaults)
                value = before
                continue
        if node is None or node.op_type not in ("Cast", "Identity") or not _floating(node):
            name = "a constant" if node is None else f"{safe_text(node.name)} ({safe_text(node.op_type)})"
            reasons.append(
                f"{name} changes the variables before the trees; {engine}'s trees take them as they come. "
                "Train on the raw variables, which trees do not mind, or write ONNX"
            )
            break
        value = before
    return defaults


def _asks_nan(node: ir.Node) -> bool:
    """Whether a Where asks if the value it keeps is NaN."""
    asked = node.inputs[0].producer() if node.inputs[0] is not None else None
    return asked is not None and asked.op_type == "IsNaN" and asked.inputs[0] is node.inputs[2]


def _floating(node: ir.Node) -> bool:
    return node.op_type == "Identity" or node.attributes["to"].as_int() in FLOATS


def _constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


@dataclass(eq=False)
class _Tail:
    """What makes the outputs of the sums of the trees: ``link(matrix @ sums + shift)``, or [1 - p, p] of that."""

    found: Found
    engine: str
    reasons: list[str]
    link: str = ""
    """"", "Sigmoid", "Softmax" or "Tanh"."""
    pair: bool = False
    """Whether the outputs are 1 - p and p."""
    matrix: Array = field(init=False)
    """[outputs, sums]"""
    shift: Array = field(init=False)
    """[outputs]"""

    def __post_init__(self) -> None:
        sums = self.found.forest.outputs
        self.matrix, self.shift = np.eye(sums), np.zeros(sums)
        value: ir.Value | None = self.found.margin
        while value is not None and not value.is_graph_output():
            value = self._step(value)

    def _step(self, value: ir.Value) -> ir.Value | None:
        """The value behind the next operator; None where it is one that TMVA has no word for."""
        users = [use.node for use in value.uses()]
        if len(users) == 2 and not self.pair and (pair := _complemented(value, users)) is not None:
            self.pair = True
            return pair
        node = users[0] if len(users) == 1 else None
        if node is not None and self._takes(node, value):
            return node.outputs[0]
        what = f"{safe_text(node.name)} ({safe_text(node.op_type)})" if node else "a branch"
        self.reasons.append(
            f"{what} follows the sum of the trees; {self.engine} answers with a sum, its sigmoid or tanh, or softmax. "
            f"{_NEAREST.get(node.op_type if node else '', 'Write ONNX')}"
        )
        return None

    def _takes(self, node: ir.Node, value: ir.Value) -> bool:
        """Whether `node` is understood; it is taken into account then."""
        if node.op_type in ("Cast", "Identity"):
            return _floating(node)
        if self.link or self.pair:
            return False
        if node.op_type in ("Sigmoid", "Tanh", "Softmax"):
            self.link = node.op_type
            return node.op_type != "Softmax" or _last_axis(node)
        if node.op_type == "Neg":
            self.matrix, self.shift = -self.matrix, -self.shift
            return True
        if node.op_type in ("Gemm", "MatMul"):
            return self._product(node, value)
        return node.op_type in ("Add", "Sub", "Mul", "Div") and self._affine(node, value)

    def _product(self, node: ir.Node, value: ir.Value) -> bool:
        weight, *more = [_constant(v) for v in node.inputs[1:]]
        plain = not {"alpha", "beta", "transA", "transB"} & set(node.attributes)
        if (
            node.inputs[0] is not value
            or weight is None
            or weight.ndim != 2
            or not plain
            or any(c is None for c in more)
        ):
            return False
        factor = weight.astype(np.float64).T
        self.matrix, self.shift = factor @ self.matrix, factor @ self.shift
        for bias in more:
            assert bias is not None
            self.shift = self.shift + bias.astype(np.float64).ravel()
        return self._finite()

    def _affine(self, node: ir.Node, value: ir.Value) -> bool:
        first = node.inputs[0] is value
        constant = _constant(node.inputs[1 if first else 0])
        if constant is None or constant.size not in (1, len(self.shift)) or constant.ndim > 2:
            return False
        c = constant.ravel().astype(np.float64)
        match node.op_type:
            case "Add":
                self.shift = self.shift + c
            case "Sub":
                sign = 1.0 if first else -1.0
                self.matrix, self.shift = sign * self.matrix, sign * (self.shift - c)
            case "Mul":
                self.matrix, self.shift = self.matrix * c[:, np.newaxis], self.shift * c
            case _:
                if not first:
                    return False
                self.matrix, self.shift = self.matrix / c[:, np.newaxis], self.shift / c
        return self._finite()

    def _finite(self) -> bool:
        return bool(np.isfinite(self.matrix).all() and np.isfinite(self.shift).all())


_NEAREST = {
    "Exp": "Train on the logarithm of the target, or write ONNX",
    "ArgMax": "Write the model that gives the probabilities of the classes, or ONNX",
}


def _last_axis(node: ir.Node) -> bool:
    axis = node.attributes.get("axis")
    return axis is None or axis.as_int() in (-1, 1)


def _complemented(value: ir.Value, users: list[ir.Node]) -> ir.Value | None:
    """The Concat of ``1 - value`` and `value`, where that is what is made of it."""
    joint = next((node for node in users if node.op_type == "Concat"), None)
    other = next((node for node in users if node.op_type in ("Neg", "Sub")), None)
    if joint is None or other is None or len(joint.inputs) != 2 or joint.inputs[1] is not value:
        return None
    rest = other.outputs[0]
    if other.op_type == "Neg":
        uses = [use.node for use in rest.uses()]
        if len(uses) != 1 or uses[0].op_type != "Add":
            return None
        one, rest = next((v for v in uses[0].inputs if v is not rest), None), uses[0].outputs[0]
    else:
        one = other.inputs[0] if other.inputs[1] is value else None
    number = _constant(one)
    fits = number is not None and number.size == 1 and float(number.ravel()[0]) == 1.0
    return joint.outputs[0] if fits and joint.inputs[0] is rest else None


def _values(forest: Forest, matrix: Array, reasons: list[str]) -> Array:
    """What the leaves add to the outputs, which are `matrix` [outputs, sums] times what they add to the sums.

    [leaf rows, outputs], or [leaf rows, 1] where a tree still feeds the one output that was its sum.
    """
    if forest.values.shape[1] == forest.outputs:
        return forest.values @ matrix.T
    ends = np.flatnonzero(~forest.splits)
    fed = forest.tree_output[tree_of(forest)[ends]]
    row = np.zeros(len(forest.values), np.int64)
    row[forest.leaf[ends]] = fed
    diagonal = matrix.shape[0] == matrix.shape[1] and not (matrix - np.diag(np.diag(matrix))).any()
    if (row[forest.leaf[ends]] != fed).any():
        reasons.append("trees of several outputs share leaves. Write ONNX")
    return forest.values * (np.diag(matrix)[row][:, np.newaxis] if diagonal else matrix.T[row])
