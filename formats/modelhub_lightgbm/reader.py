"""LightGBM text models to the common graph."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from modelhub.errors import UnreadableFile
from modelhub.files import read_bytes
from modelhub.graph.forest import Forest
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub_lightgbm.forest import forest
from modelhub_lightgbm.objectives import link
from modelhub_lightgbm.text import Fields, split

__all__ = ["load", "read"]


def read(path: Path) -> ir.Model:
    """The model in `path` as a common graph: one input, one output, what `Booster.predict` gives."""
    found, interface = load(path)
    return to_graph(found, interface)


def load(path: Path) -> tuple[Forest, Interface]:
    """The forest in `path`, and the names of what goes in and comes out."""
    where = str(path)
    text = split(read_bytes(path), where)
    header = text.header
    features = header.integer("max_feature_idx") + 1
    outputs = header.integer("num_tree_per_iteration")
    if not 1 <= features <= 1 << 20 or not 1 <= outputs <= 1 << 16:
        raise UnreadableFile(f"{where}: a model of {features} features and {outputs} outputs")
    found = forest(text, features, outputs, link(header.lines.get("objective", ""), where), where)
    return found, _interface(header, features, found, where)


def _interface(header: Fields, features: int, found: Forest, where: str) -> Interface:
    """Names from the header; LightGBM's own Column_0, Column_1, ... count as none."""
    names = header.lines.get("feature_names", "").split()
    if len(names) != features:
        raise UnreadableFile(f"{where}: {len(names)} feature names for {features} features")
    if found.outputs > 1:
        labels = tuple(f"class_{i}" for i in range(found.outputs))
    else:
        labels = ("probability" if found.link.kind == "sigmoid" else "prediction",)
    return Interface(
        (Input("inputs", tuple(Feature(name) for name in names)),),
        (Output("outputs", labels),),
        invented=names == [f"Column_{i}" for i in range(features)],
    )
