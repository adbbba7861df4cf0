"""ONNX files into the common graph: checked, raised to the common operator set, named."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from modelhub.errors import UnreadableFile, Unsupported, notice, safe_text
from modelhub.files import read_bytes
from modelhub.graph.builder import OPSET
from modelhub.graph.naming import invent
from modelhub.protocols import ReadOptions
from modelhub_onnx.classes import scores_only
from modelhub_onnx.lowering import lower
from modelhub_onnx.trees import check_trees

__all__ = ["parse", "read"]


def read(path: Path, options: ReadOptions) -> ir.Model:  # noqa: ARG001 - an ONNX file has nothing to choose
    """The model in `path`, raised to operator set `OPSET` where it is older.

    Raises `UnreadableFile` when the file is no valid ONNX model or keeps weights outside of itself, and `Unsupported`
    for operators of domains that are not ONNX's.
    """
    proto = parse(path)
    given = scores_only(proto, str(path))
    if given.changed:
        notice(f"{path.name}: {given}")
    foreign = sorted({f"{node.op_type} of {node.domain}" for node in proto.graph.node if _foreign(node, proto)})
    if foreign:
        raise Unsupported(
            f"{path} cannot be read",
            [f"{safe_text(name)}: not an ONNX operator; export the model without this extension" for name in foreign],
        )
    proto = _ordered(proto, path)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # which names what is no text
        raise UnreadableFile(f"{path}: not a valid ONNX model: {safe_text(error, 160)}") from None
    check_trees(proto, str(path))
    if _opset(proto) < OPSET:
        proto = _raise(proto, path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises many kinds on malformed protos
        raise UnreadableFile(f"{path}: {safe_text(error, 160)}") from None
    # Until IR version 4 every weight had to be listed as an input too, whose value a caller might replace.
    for weight in [value for value in model.graph.inputs if value.name in model.graph.initializers]:
        model.graph.inputs.remove(weight)
    _name_nodes(model.graph)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        _shortest_epsilons(graph)
    lower(model)
    if any(given.labels.values()):
        _label(model, given.labels)
    return model


def _label(model: ir.Model, labels: dict[str, tuple[str, ...]]) -> None:
    """Call the components of outputs by the names of their classes."""
    record = invent(model)
    outputs = []
    for output in record.outputs:
        names = labels.get(output.tensor, ())
        fit = len(names) == len(output.labels) and all(names)
        outputs.append(replace(output, labels=names) if fit else output)
    replace(record, outputs=tuple(outputs)).store(model)


def _shortest_epsilons(graph: ir.Graph) -> None:
    """Take every `epsilon` for the shortest decimal that rounds to it: 1e-05, not 9.999999747378752e-06.

    The file holds it in float32 where the author wrote a decimal, by which every other format of the model computes.
    Rounded back it is the same number, so an engine in float32 sees no change.
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        epsilon = node.attributes.get("epsilon")
        if epsilon is not None and epsilon.type == ir.AttributeType.FLOAT:
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", float(str(np.float32(epsilon.as_float()))))


def _name_nodes(graph: ir.Graph) -> None:
    """Give every node a name of its own, for messages and for what is spelled out of it: ONNX asks for none."""
    taken = {node.name for node in graph}
    seen: set[str | None] = {None, ""}
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    for node in graph:
        stem = node.name or node.op_type
        while node.name in seen:
            fresh = f"{stem}_{next(numbers[stem])}"
            node.name = fresh if fresh not in taken else node.name
        seen.add(node.name)


def parse(path: Path) -> onnx.ModelProto:
    """The protobuf message in `path`, with every weight inside and as long as its shape says."""
    data = read_bytes(path)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise UnreadableFile(f"{path}: not a valid ONNX file (protobuf does not decode)") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise UnreadableFile(f"{path}: not an ONNX model (no graph or no operator set in it)")
    _check_names(proto, path)
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UnreadableFile(
                f"{path}: the weights of {safe_text(tensor.name)!r} lie in another file; save the model in one file "
                "(onnx.save_model with save_as_external_data=False)"
            )
        _check_size(tensor, path)
    return proto


def _check_names(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse names that are not UTF-8: depending on its version, protobuf gives them as bytes or fails on them late."""
    try:
        names: list[object] = [value.name for value in (*proto.graph.input, *proto.graph.output)]
        for node in proto.graph.node:
            names += [*node.input, *node.output, node.name, node.op_type, node.domain]
        valid = all(isinstance(name, str) for name in names)
    except UnicodeDecodeError:
        valid = False
    if not valid:
        raise UnreadableFile(f"{path}: a name in the file is not UTF-8 text")


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the graph, its subgraphs and functions."""
    todo = [(proto.graph.initializer, proto.graph.node)]
    todo += [((), function.node) for function in proto.functions]
    while todo:
        initializers, nodes = todo.pop()
        yield from initializers
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                graphs = [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
                todo += [(graph.initializer, graph.node) for graph in graphs]


def _check_size(tensor: onnx.TensorProto, path: Path) -> None:
    """Refuse a tensor whose payload is not what its shape claims, before anyone allocates the claim."""
    where = f"{path}: tensor {safe_text(tensor.name)!r}"
    if any(dim < 0 for dim in tensor.dims):
        raise UnreadableFile(f"{where} has a negative size")
    if not tensor.HasField("raw_data"):
        return  # typed fields hold one item each: protobuf has bounded them, the checker compares the count
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        raise UnreadableFile(f"{where} has the unknown type {tensor.data_type}") from None
    numbers = math.prod(tensor.dims)
    packed = tensor.data_type in _FOUR_BITS
    expected = (numbers + 1) // 2 if packed else numbers * width
    if expected != len(tensor.raw_data):
        raise UnreadableFile(f"{where} claims {expected} bytes and holds {len(tensor.raw_data)}")


_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1)


def _foreign(node: onnx.NodeProto, proto: onnx.ModelProto) -> bool:
    """Whether a node is of no domain that onnxruntime knows, and is no function of the file."""
    own = {(function.domain, function.name) for function in proto.functions}
    return node.domain not in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft") and (node.domain, node.op_type) not in own


def _ordered(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """`proto` with its nodes in an order of computation: engines take any order, ONNX's tools do not."""
    known = {"", *(value.name for value in proto.graph.input), *(tensor.name for tensor in proto.graph.initializer)}
    for node in proto.graph.node:
        if not known.issuperset(node.input):
            break
        known.update(node.output)
    else:
        return proto
    try:
        model = ir.from_proto(proto)
        model.graph.sort()
        return ir.to_proto(model)
    except Exception as error:  # onnx_ir raises many kinds on malformed protos and on circles
        raise UnreadableFile(f"{path}: {safe_text(error, 160)}") from None


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
