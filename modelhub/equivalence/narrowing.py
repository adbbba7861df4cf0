"""Where a graph itself rounds a double to float32: TMVA's networks do so between layers, other engines need not."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["asked_by_trees", "narrowed", "narrows"]


def narrows(node: ir.Node) -> bool:
    """Whether the node rounds a double to float32."""
    x = node.inputs[0] if node.op_type == "Cast" and node.domain == "" else None
    return x is not None and x.dtype == ir.DataType.DOUBLE and node.attributes["to"].as_int() == ir.DataType.FLOAT


def narrowed(node: ir.Node, asked: set[ir.Value]) -> bool:
    """Whether a computed double is rounded to float32 by a Cast that is kept: some engines do so, others do not.

    What trees are asked about (`asked`) is left alone: there the rounding decides, and is the same in all engines.
    """
    y = node.outputs[0]
    if y.dtype != ir.DataType.DOUBLE or node.op_type in ("Cast", "Identity"):
        return False
    casts = [user.outputs[0] for user, _ in y.uses() if user.op_type == "Cast"]
    return any(value.dtype == ir.DataType.FLOAT and value not in asked for value in casts)


def asked_by_trees(model: ir.Model) -> set[ir.Value]:
    """All values that the trees of a graph depend on."""
    asked: set[ir.Value] = set()
    for node in reversed(model.graph):
        if node.op_type.startswith("TreeEnsemble") or any(y in asked for y in node.outputs):
            asked.update(x for x in node.inputs if x is not None)
    return asked
