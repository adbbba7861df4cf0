"""Sigmoids that give a probability, written so that small ones keep their digits in float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelhub.graph.canonical import const
from modelhub.graph.scribe import Scribe

__all__ = ["keep_small_probabilities"]

LIGHT = {
    "Add", "Cast", "Clip", "Concat", "Div", "Flatten", "Gather", "Identity", "Mul", "Neg", "ReduceSum", "Reshape",
    "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
"""What may follow a probability on its way out."""


def keep_small_probabilities(model: ir.Model) -> None:
    """Spell the Sigmoids at the end of a float32 graph, in place.

    onnxruntime 1.32 computes Sigmoid in float32 by a fraction of polynomials (mlas/lib/logistic.cpp) that is right to
    1e-8 but not to 1e-8 of a small value: it gives 6e-8 for sigmoid(-16), which is 1.1e-7, and 0 from -18 on.

    Before and after::

        x ──► Sigmoid ──► y                x ──► Neg ──► Exp ──► Add(1) ──► Reciprocal ──► y

    Sigmoids inside a network stay: what is behind them cannot tell.
    """
    for node in list(model.graph):
        if node.op_type != "Sigmoid" or node.domain not in ("", "ai.onnx") or not _leads_out(node):
            continue
        x, old = node.inputs[0], node.outputs[0]
        if x is None or old.dtype != ir.DataType.FLOAT:
            continue
        write = Scribe(model.graph, node.name or "Sigmoid")
        y = write("Reciprocal", write("Add", write("Exp", write("Neg", x)), write.constant(1.0, "float32")))
        for part in write.nodes:
            part.outputs[0].type, part.outputs[0].shape = old.type, old.shape
        model.graph.insert_before(node, write.nodes)
        y.name, old.name = old.name, f"{old.name}_before"
        old.replace_all_uses_with(y, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _leads_out(node: ir.Node) -> bool:
    """Whether nothing with weights stands between the node and the outputs."""
    todo, seen = [node], {node}
    while todo:
        for output in todo.pop().outputs:
            for use in output.uses():
                if use.node.op_type not in LIGHT and not _spreads(use.node):
                    return False
                if use.node not in seen:
                    seen.add(use.node)
                    todo.append(use.node)
    return True


def _spreads(node: ir.Node) -> bool:
    """Whether a node is a Gemm that makes several columns of one, as p and 1 - p."""
    weight = const(node.inputs[1]) if node.op_type == "Gemm" else None
    return weight is not None and 1 in np.shape(weight.numpy())
