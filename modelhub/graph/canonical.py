"""The passes that give every graph one spelling, so that a writer meets each layer in one form only.

Each pass keeps the function: the same inputs give the same outputs before and after (tests/graph/test_canonical.py).
Blocks of domain `modelhub` stay as calls; every other function is dissolved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from modelhub.graph.builder import DOMAIN, IR_VERSION, LAYERS
from modelhub.graph.forest_attributes import without_long_attributes

__all__ = ["canonical", "const", "infer_shapes", "inline_all"]


def canonical(model: ir.Model) -> ir.Model:
    """Bring `model` to the one spelling, in place, and return it."""
    common.InlinePass(criteria=lambda function: function.domain != DOMAIN)(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, IR_VERSION)  # before version 4 every initializer had to be an input
    common.TopologicalSortPass()(model)
    infer_shapes(model)
    for step in (drop_no_ops, join_matmul_add):
        step(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(model)
    return model


def inline_all(model: ir.Model) -> ir.Model:
    """Dissolve every function, the blocks of domain `modelhub` too, in place."""
    common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(model)
    return model


def infer_shapes(model: ir.Model) -> None:
    """Fill in shapes and dtypes where ONNX's inference can tell them; what it cannot tell stays unknown."""
    log = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it prints a traceback where it gives up
    _type_trees(model)
    try:
        with without_long_attributes(model):
            common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        log.setLevel(level)


def _type_trees(model: ir.Model) -> None:
    """Give sums of trees the dtype of their thresholds and their width: onnx 1.23 infers nothing for TreeEnsemble."""
    for node in model.graph:
        if (node.domain, node.op_type) != ("ai.onnx.ml", "TreeEnsemble") or not node.inputs or node.inputs[0] is None:
            continue
        x, result, splits = node.inputs[0], node.outputs[0], node.attributes.get("nodes_splits")
        if result.type is None and splits is not None and splits.type == ir.AttributeType.TENSOR:
            result.type = ir.TensorType(splits.as_tensor().dtype)
        targets = node.attributes.get("n_targets")
        if result.shape is None and x.shape is not None and targets is not None:
            result.shape = ir.Shape([x.shape[0], targets.as_int()])


def const(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value that is an initializer and no graph input, else None."""
    if value is None or value.is_graph_input() or not value.is_initializer():
        return None
    return value.const_value


def drop_no_ops(model: ir.Model) -> None:
    """Remove what only passes its input on.

    Before and after::

        x ──► Identity / Dropout / Cast to its own type / Reshape to its own shape / Transpose(0, 1, …) ──► y
        x ──► y

    An Identity stays where it makes one value two outputs, or an input an output.
    """
    for node in list(model.graph):
        test = _NO_OPS.get(node.op_type) if node.domain == "" else None
        if test is None or not test(node) or any(output.uses() for output in node.outputs[1:]):
            continue
        value, result = node.inputs[0], node.outputs[0]
        if value is None or any(output.is_graph_output() for output in node.outputs[1:]):
            continue
        if result.is_graph_output():
            if value.is_graph_input() or value.is_initializer() or value.is_graph_output():
                continue
            value.name, result.name = result.name, f"{result.name}_before"
            value.shape = result.shape if result.shape is not None else value.shape  # as declared, with its names
            value.type = value.type if value.type is not None else result.type
        _stands_for(value, result)
        result.replace_all_uses_with(value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _stands_for(value: ir.Value, other: ir.Value) -> None:
    """Note that `value` is from now on what `other` was to the layers of the source."""
    layers = other.meta.get(LAYERS, [])
    if layers:
        value.meta[LAYERS] = [*value.meta.get(LAYERS, []), *layers]


def _dropout_rests(node: ir.Node) -> bool:
    """Whether a Dropout is out of training: no third input, or a constant false one."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return True
    tensor = const(training)
    return tensor is not None and not tensor.numpy().any()


def _cast_to_itself(node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and value.dtype is not None and value.dtype.value == node.attributes["to"].as_int()


def _same_static_shape(node: ir.Node) -> bool:
    """Whether input and output have one shape, with at most one axis that is not a number, and that one by name."""
    value, result = node.inputs[0], node.outputs[0]
    if value is None or value.shape is None or result.shape is None or len(value.shape) != len(result.shape):
        return False
    unknown = 0
    for a, b in zip(value.shape, result.shape, strict=True):
        if isinstance(a, int) and isinstance(b, int):
            if a != b:
                return False
        else:
            unknown += 1
    # With all other sizes equal, a reshape keeps the last one too. An expand might not: its names must agree.
    return unknown == 0 or (unknown == 1 and node.op_type in ("Reshape", "Flatten"))


def _transposes_nothing(node: ir.Node) -> bool:
    perm = node.attributes.get("perm")
    return perm is not None and list(perm.as_ints()) == sorted(perm.as_ints())


_NO_OPS: dict[str, Callable[[ir.Node], bool]] = {
    "Cast": _cast_to_itself,
    "Dropout": _dropout_rests,
    "Expand": _same_static_shape,
    "Flatten": _same_static_shape,
    "Identity": lambda _: True,
    "Reshape": _same_static_shape,
    "Transpose": _transposes_nothing,
}


def join_matmul_add(model: ir.Model) -> None:
    """Write a dense layer as one operator.

    Before and after, x being [N, in], W and b constants [in, out] and [out]::

        x ──► MatMul(W) ──► Add(b) ──► y                x ──► Gemm(W, b) ──► y
        x ──► MatMul(W) ──► y                           x ──► Gemm(W) ──► y
    """
    for node in list(model.graph):
        if node.op_type != "MatMul" or node.domain != "":
            continue
        x, weight = node.inputs
        tensor = const(weight)
        if x is None or x.shape is None or len(x.shape) != 2 or tensor is None or len(tensor.shape) != 2:
            continue
        last, bias = node, _bias_after(node, tensor.shape[1])
        inputs = [x, weight]
        if bias is not None:
            last, value = bias
            inputs.append(value)
        gemm = ir.node("Gemm", inputs, name=node.name)
        result, new = last.outputs[0], gemm.outputs[0]
        new.name, new.shape, new.type = result.name, result.shape, result.type
        _stands_for(new, result)
        model.graph.insert_after(last, gemm)
        result.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove([last] if last is node else [last, node], safe=True)


def _bias_after(node: ir.Node, width: object) -> tuple[ir.Node, ir.Value] | None:
    """The Add that alone follows `node` and adds a constant [width] (or [1, width]), with that constant."""
    result = node.outputs[0]
    uses = list(result.uses())
    if len(uses) != 1 or result.is_graph_output():
        return None
    user = uses[0].node
    if user.op_type != "Add" or user.domain != "":
        return None
    other = user.inputs[1 - uses[0].idx]
    tensor = const(other)
    if other is None or tensor is None or tuple(tensor.shape) not in ((width,), (1, width)):
        return None
    return user, other
