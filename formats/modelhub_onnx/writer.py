"""The common graph as an ONNX file: plain operators, one precision, the interface record in its metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from modelhub.errors import Unsupported, UsageError, notice, safe_text
from modelhub.files import atomic_write
from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import drop_no_ops, infer_shapes
from modelhub.graph.forest_classic import classic, tail_of
from modelhub.graph.forest_forms import with_table
from modelhub.graph.precision import to_precision
from modelhub.protocols import WriteOptions
from modelhub_onnx.tails import keep_small_probabilities

__all__ = ["FORMS", "write"]

FORMS = ("classic",)
"""What a user may ask for: trees as TreeEnsembleRegressor (ai.onnx.ml 3), for engines that know no TreeEnsemble."""

TREES_OPSET = 21
"""The operator set TreeEnsemble (ai.onnx.ml 5) came with: whoever asks for an older one has an older engine."""

LARGEST = (2 << 30) - 1
"""Protobuf's own limit for one message, in bytes."""


def write(model: ir.Model, path: Path, options: WriteOptions) -> None:
    """Write `model` with its functions dissolved, in float32 unless `options.precision` says float64.

    The IR version is the lowest the operator sets allow: old engines refuse a newer one unseen.

    `options.opset` asks for another operator set, by ONNX's own version converter. Raises `Unsupported` where that
    fails or the model is beyond protobuf's 2 GiB.
    """
    if options.form not in (None, *FORMS):
        raise UsageError(f"ONNX files have the form {' or '.join(FORMS)} or none, not {safe_text(options.form)!r}")
    precision = options.precision or "float32"
    if precision not in ("float32", "float64"):
        raise UsageError(f"ONNX is written in float32 or float64, not {safe_text(precision)!r}")
    to_precision(model, precision)
    infer_shapes(model)  # a Cast is seen to be none by its types
    drop_no_ops(model)
    old = options.form == "classic" or (options.opset is not None and options.opset < TREES_OPSET)
    if old or (precision == "float32" and options.opset is None and _faster_as_classic(model)):
        _classic_trees(model, precision, path)
    if precision == "float32":
        keep_small_probabilities(model)
    model.producer_name = "modelhub"
    proto = ir.to_proto(model)
    if proto.ByteSize() > LARGEST:
        raise Unsupported(f"{path} would be larger than 2 GiB, which ONNX cannot hold in one file")
    if options.opset is not None:
        proto = _to_opset(proto, options.opset, path)
    proto.ir_version = onnx.helper.find_min_ir_version_for(list(proto.opset_import))
    data = proto.SerializeToString(deterministic=True)
    onnx.checker.check_model(data)
    if any(node.op_type == "GRU" for node in proto.graph.node):
        notice("onnxruntime 1.32 ends the whole process when a GRU is given an empty sequence: skip such events")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _faster_as_classic(model: ir.Model) -> bool:
    """Whether onnxruntime runs the forests faster in the classic operator (benchmarks/README.md).

    It does where leaves hold several numbers each, which a TreeEnsemble looks up in a table, and where a softmax
    follows the sums, which the classic operator takes itself. Not asked for forests that keep float64.
    """
    trees = [node for node in model.graph if (node.domain, node.op_type) == ("ai.onnx.ml", "TreeEnsemble")]
    if any(KEPT in node.metadata_props for node in trees):
        return False
    return any(len(with_table(node)) > 1 or _softmax_follows(node) for node in trees)


def _softmax_follows(node: ir.Node) -> bool:
    targets = node.attributes.get("n_targets")
    return targets is not None and "post_transform" in tail_of(node.outputs[0], targets.as_int()).attributes


def _classic_trees(model: ir.Model, precision: str, path: Path) -> None:
    if precision == "float32":
        classic(model)
    elif any(node.op_type == "TreeEnsemble" for node in model.graph):
        raise Unsupported(
            f"{path} cannot be written in float64",
            ["TreeEnsembleRegressor sums in float32; write TreeEnsemble (no --form, no --opset), or float32"],
        )


def _to_opset(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    from onnx import version_converter

    try:
        return version_converter.convert_version(proto, opset)
    except Exception as error:
        raise Unsupported(
            f"{path} cannot be written in operator set {opset}", [f"onnx.version_converter: {safe_text(error, 160)}"]
        ) from None
