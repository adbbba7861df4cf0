"""A forest of MVAUtils as a common graph."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir

from modelhub.errors import UnreadableFile, safe_text
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_mvautils.answers import Answer, answer_of, answered, split_task
from modelhub_mvautils.root import Stored, stored
from modelhub_mvautils.trees import flavour_of, forest_of

__all__ = ["METADATA", "read"]

METADATA = "modelhub.mvautils"
"""The metadata key under which the answer and the flavour are kept: ``xgboost:classification``."""


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The forest in `path` and the answer that `options.task` or the file names.

    Raises `UnreadableFile`, `Unsupported`; `UsageError` where the file leaves open which TTree or answer is meant.
    """
    tree, wanted = split_task(options.task)
    found = stored(path, tree)
    answer, flavour = answer_of(found, wanted), flavour_of(found)
    interface = _interface(found, answer)
    forest = forest_of(found, flavour, len(interface.inputs[0].features))
    model = to_graph(answered(forest, found, flavour, answer).checked(found.where), interface)
    model.metadata_props[METADATA] = f"{flavour.name}:{answer.name}"
    return model


def _interface(found: Stored, answer: Answer) -> Interface:
    """Names where the file has them; MVAUtils itself counts the variables up to the last one that is cut on."""
    used = int(found.variable.max(initial=-1)) + 1
    told = found.title.get("max_feature_idx", "")
    count = max(used, int(told) + 1) if told.isascii() and told.isdecimal() and len(told) < 6 else max(used, 1)
    if found.names and len(found.names) < used:
        raise UnreadableFile(f"{found.where}: cuts on variable {used - 1}, and varList names {len(found.names)}")
    features, described = tuple(map(Feature, found.names)), _described(found.title.get("feature_infos", ""))
    if not features and len(described) == count:
        features = described
    names = [feature.name for feature in features]
    if len(set(names)) < len(names):
        raise UnreadableFile(f"{found.where}: names two variables {safe_text(_twice(names))!r}")
    invented = not features
    features = features or tuple(Feature(f"x{i}") for i in range(count))
    labels = tuple(f"class_{i}" for i in range(answer.classes)) if answer.name == "multiclass" else (answer.name,)
    written = tuple(found.title.get("labels", "").split(","))
    labels = written if len(written) == len(labels) and all(written) else labels
    return Interface((Input("inputs", features),), (Output("outputs", labels),), invented=invented)


_NUMBER = r"(-?\d[\d.]{0,30}(?:e[+-]?\d{1,3})?)"
_DESCRIBED = re.compile(rf"'([^'\\]{{1,200}})': {{'min_value': {_NUMBER}, 'max_value': {_NUMBER}, 'values': \[\]}}")


def _described(text: str) -> tuple[Feature, ...]:
    """Names and ranges in a title made of LightGBM's dump_model(): a Python dict as text, without constant variables.

    Only complete lists are of use, as the caller checks; what is not as LightGBM writes it is left out.
    """
    found = []
    for name, low, high in _DESCRIBED.findall(text):
        try:
            found.append(Feature(name, minimum=float(low), maximum=float(high)))
        except ValueError:
            return ()
    return tuple(found)


def _twice(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
