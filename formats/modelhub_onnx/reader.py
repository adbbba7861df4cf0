"""ONNX files into the common graph: checked, raised to the common operator set, named."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.files import LIMITS, read_bytes
from modelhub.graph.builder import OPSET
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

__all__ = ["parse", "read"]


def read(path: Path, options: ReadOptions) -> ir.Model:  # noqa: ARG001 - an ONNX file has nothing to choose
    """The model in `path`, raised to operator set `OPSET` where it is older.

    Raises `UnreadableFile` when the file is no valid ONNX model or keeps weights outside of itself.
    """
    proto = parse(path)
    if _opset(proto) < OPSET:
        proto = _raise(proto, path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises many kinds on malformed protos
        raise UnreadableFile(f"{path}: {safe_text(error, 160)}") from None
    Interface.of(model).store(model)
    return model


def parse(path: Path) -> onnx.ModelProto:
    """The checked protobuf message in `path`."""
    data = read_bytes(path)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise UnreadableFile(f"{path}: not a valid ONNX file (protobuf does not decode)") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise UnreadableFile(f"{path}: not an ONNX model (no graph or no operator set in it)")
    outside = [t.name for t in _tensors(proto.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise UnreadableFile(
            f"{path}: the weights of {safe_text(outside[0])!r} lie in another file; save the model in one file "
            "(onnx.save_model with save_as_external_data=False)"
        )
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise UnreadableFile(f"{path}: not a valid ONNX model: {safe_text(error, 160)}") from None
    return proto


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Every tensor stored in a graph and its subgraphs."""
    found: list[onnx.TensorProto] = []
    todo = [(graph, 0)]
    while todo:
        current, depth = todo.pop()
        if depth > LIMITS.depth:
            raise UnreadableFile("subgraphs nested too deeply")
        found.extend(current.initializer)
        for node in current.node:
            for attribute in node.attribute:
                found.extend([attribute.t] if attribute.HasField("t") else [])
                found.extend(attribute.tensors)
                inner = [attribute.g] if attribute.HasField("g") else []
                todo.extend((g, depth + 1) for g in (*inner, *attribute.graphs))
    return found


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=OPSET)


def _raise(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """`proto` in operator set `OPSET`, by ONNX's own version converter."""
    from onnx import version_converter

    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:
        raise Unsupported(
            f"{path} is in operator set {_opset(proto)} and cannot be raised to {OPSET}",
            [f"onnx.version_converter: {safe_text(error, 160)}"],
        ) from None
