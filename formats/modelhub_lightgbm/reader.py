"""LightGBM text models to the common graph."""

from __future__ import annotations

import math
from dataclasses import replace
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

__all__ = ["load", "parsed", "read"]


def read(path: Path) -> ir.Model:
    """The model in `path` as a common graph: one input, one output, what `Booster.predict` gives."""
    found, interface = load(path)
    return to_graph(found, interface)


def load(path: Path) -> tuple[Forest, Interface]:
    """The forest in `path`, and the names of what goes in and comes out."""
    return parsed(read_bytes(path), str(path))


def parsed(data: bytes, where: str, *, rounds: int = 0) -> tuple[Forest, Interface]:
    """The forest in a text, and the names of what goes in and comes out; of its first `rounds` only, if not 0."""
    text = split(data, where)
    header = text.header
    features = header.integer("max_feature_idx") + 1
    outputs = header.integer("num_tree_per_iteration")
    if not 1 <= features <= 1 << 20 or not 1 <= outputs <= 1 << 16:
        raise UnreadableFile(f"{where}: a model of {features} features and {outputs} outputs")
    if rounds:
        text = replace(text, trees=text.trees[: rounds * outputs])
    found = forest(text, features, outputs, link(header.lines.get("objective", ""), where), where)
    return found, _interface(header, features, found, where)


def _interface(header: Fields, features: int, found: Forest, where: str) -> Interface:
    """Names from the header; LightGBM's own Column_0, Column_1, ... count as none."""
    names = header.lines.get("feature_names", "").split()
    if len(names) != features:
        raise UnreadableFile(f"{where}: {len(names)} feature names for {features} features")
    infos = header.lines.get("feature_infos", "").split()
    if len(infos) != features:
        infos = ["none"] * features
    if found.outputs > 1:
        labels = tuple(f"class_{i}" for i in range(found.outputs))
    else:
        labels = ("probability" if found.link.kind == "sigmoid" else "prediction",)
    return Interface(
        (Input("inputs", tuple(map(_feature, names, infos))),),
        (Output("outputs", labels),),
        invented=names == [f"Column_{i}" for i in range(features)],
    )


def _feature(name: str, info: str) -> Feature:
    """A variable and, where it was a number in training, its range there: `[0.5:12]`."""
    low, _, high = info.strip("[]").partition(":")
    try:
        minimum, maximum = float(low), float(high)
    except ValueError:
        return Feature(name)
    if not (info.startswith("[") and math.isfinite(minimum) and math.isfinite(maximum)):
        return Feature(name)
    return Feature(name, minimum=minimum, maximum=maximum)
