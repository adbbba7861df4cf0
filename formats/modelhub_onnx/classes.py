"""Classifiers as skl2onnx and onnxmltools write them: only what they give as numbers is taken.

Their files answer twice, with the class and with the scores of all classes, and these often in dictionaries::

                 ┌──► label ──────────────────► output_label  [N]                  left out
    x ──► trees ─┤
                 └──► scores ──► ZipMap ──────► output_probability, {0: p, 1: p}   [N, classes], labels "0", "1"

The class is that of the largest score and tells nothing new; a dictionary is the scores under other names.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from modelhub.errors import Unsupported, safe_text
from modelhub.graph.interface import KEY

__all__ = ["Given", "scores_only"]

ML = "ai.onnx.ml"

CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")

LABELS = ("classlabels_int64s", "classlabels_strings", "classlabels_ints")
"""Attributes that hold the names of classes, in ZipMap and in classifiers."""

WHOLE = (
    onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
    onnx.TensorProto.BOOL,
)  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What was done to a file's outputs.

    labels:   the names of the classes, for the outputs that have as many components as there are of them.
    left_out: outputs that hold classes.
    unpacked: outputs that were dictionaries.
    """

    labels: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was."""
        return bool(self.left_out or self.unpacked)

    def __str__(self) -> str:
        """What a user is to know of it."""
        told = [f"{safe_text(name)} gives an array in place of dictionaries" for name in self.unpacked]
        told += [f"{safe_text(name)}, the class itself, is left out" for name in self.left_out]
        return "; ".join(told)


def scores_only(proto: onnx.ModelProto, where: str) -> Given:
    """Leave classes out of the outputs of `proto`, and scores outside of dictionaries, in place.

    A file that carries our own record is as it should be. Raises `Unsupported` where nothing is left.
    """
    if any(entry.key == KEY for entry in proto.metadata_props):
        return Given({})
    graph = proto.graph
    labels = {}
    unpacked = []
    makers = {name: node for node in graph.node for name in node.output}
    for value in graph.output:
        maker = makers.get(value.name)
        if maker is None:
            continue
        if (maker.domain, maker.op_type) == (ML, "ZipMap") and len(maker.input) == 1:
            labels[value.name] = _labels(maker)
            _unzip(maker, value, graph, len(labels[value.name]))
            unpacked.append(value.name)
    known = {_labels(node) for node in graph.node if node.domain == ML and node.op_type in CLASSIFIERS}
    if len(known) == 1:
        labels = dict.fromkeys((value.name for value in graph.output), *known) | labels
    learned = any(node.domain == ML for node in graph.node)
    classes = [value for value in graph.output if _text(value) or (learned and _class(value))]
    if len(classes) == len(graph.output):
        if any(map(_text, classes)):
            raise Unsupported(f"{where} cannot be read", ["it gives only text; export the model with its scores"])
        classes = []
    for value in classes:
        graph.output.remove(value)
    return Given(labels, tuple(value.name for value in classes), tuple(unpacked))


def _labels(node: onnx.NodeProto) -> tuple[str, ...]:
    """The names of the classes, as text."""
    for attribute in node.attribute:
        if attribute.name in LABELS and (attribute.ints or attribute.strings):
            return (*map(str, attribute.ints), *(text.decode("utf-8", "replace") for text in attribute.strings))
    return ()


def _unzip(node: onnx.NodeProto, value: onnx.ValueInfoProto, graph: onnx.GraphProto, width: int) -> None:
    """Give out what `node`, a ZipMap, makes dictionaries of: float32 [N, width]."""
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]
    shape = graph.input[0].type.tensor_type.shape if graph.input else onnx.TensorShapeProto()
    events = shape.dim[0] if shape.dim else onnx.TensorShapeProto.Dimension()
    value.type.Clear()
    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    value.type.tensor_type.shape.dim.append(events)
    value.type.tensor_type.shape.dim.append(onnx.TensorShapeProto.Dimension(dim_value=width or None))


def _text(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == onnx.TensorProto.STRING


def _class(value: onnx.ValueInfoProto) -> bool:
    """Whether it is one whole number per event, as far as the file tells its shape."""
    kind = value.type.tensor_type
    dims = kind.shape.dim
    single = not kind.HasField("shape") or len(dims) == 1 or (len(dims) == 2 and dims[1].dim_value == 1)
    return kind.elem_type in WHOLE and single
