"""scikit-learn models to the common graph: where they come from, which method is theirs, which names they have.

    x (float32) ──► Cast(float64) ──► estimators ──► Cast(float32) ──► y

scikit-learn computes in float64, and so does the common graph in the middle; how it is written is the writer's choice.
Where a model takes decisions about something computed (a tree behind a scaler), its middle stays float64 in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.errors import UnreadableFile, Unsupported, UsageError
from modelhub.files import head
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_sklearn import (  # every converter enters itself into the table
    adaboost,  # noqa: F401
    bayes,  # noqa: F401
    calibration,  # noqa: F401
    composing,  # noqa: F401
    discriminant,  # noqa: F401
    encoding,  # noqa: F401
    histograms,
    kernels,  # noqa: F401
    linear,  # noqa: F401
    neighbours,  # noqa: F401
    network,  # noqa: F401
    scaling,  # noqa: F401
    selecting,  # noqa: F401
    several,  # noqa: F401
    shaping,  # noqa: F401
    skops,
    splines,  # noqa: F401
    wrapped,
)
from modelhub_sklearn.boosting import starts_from_a_model
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.live import snapshot
from modelhub_sklearn.missing import refuses_missing
from modelhub_sklearn.table import Rows, apply, decides, known, method_of
from modelhub_sklearn.trees import PLAIN

__all__ = ["from_estimator", "graph", "load", "names_of", "read"]

LARGEST = 1 << 20
"""Features a model may have."""


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The model in `path` as a common graph: one input, one output, what `method_of` says."""
    return graph(load(path, options))


def from_estimator(estimator: Any, feature_names: Sequence[str] | None = None) -> ir.Model:
    """A fitted estimator as a common graph.

    Args:
        estimator: of a class of scikit-learn, or a pipeline of such.
        feature_names: names of the columns; those it was fitted with when None.

    Raises `Unsupported` for a class or a parameter that has no converter.

    """
    return graph(snapshot(estimator, "the model"), feature_names)


def load(path: Path, options: ReadOptions) -> Estimator:
    """The estimator in `path` as data. Raises `Unsupported` for a pickle that nobody vouches for."""
    if head(path).startswith(b"PK\x03\x04"):
        return skops.load(path)
    if path.suffix.lower() == ".skops":
        raise UnreadableFile(f"{path}: not a zip archive, so no skops file")
    if not options.trust:
        raise Unsupported(
            f"{path} is a pickle: loading it runs whatever code it holds. Save the model with "
            "skops.io.dump(model, 'model.skops'), or say --trust if you made this file yourself"
        )
    from modelhub_sklearn.pickles import unpickled

    return snapshot(unpickled(path), str(path))


def graph(e: Estimator, feature_names: Sequence[str] | None = None) -> ir.Model:
    """The common graph of an estimator with its best method."""
    method = method_of(e)
    names, invented = names_of(e, feature_names)
    b = Builder()
    raw = b.input("inputs", ["N", len(names)])
    with b.kept() if _keeps(e) else nullcontext():
        x = Rows(b, b.op("Cast", raw, to=ir.DataType.DOUBLE.value), len(names), not refuses_missing(e))
        y = apply(e, x, method)
    outputs = _outputs(e, method, y.width)
    answer, start = b.op("Cast", y.value, to=ir.DataType.FLOAT.value), 0
    for output in outputs:
        width = len(output.labels)
        part = answer if width == y.width else b.op("Slice", answer, b.ints(start), b.ints(start + width), b.ints(1))
        b.output(part, output.tensor, ["N", width])
        start += width
    return b.finish(Interface((Input("inputs", tuple(map(Feature, names))),), outputs, invented=invented))


def _keeps(e: Estimator) -> bool:
    """Whether the middle stays float64 in float32 files: a decision about something that was computed."""
    if e.name in histograms.NAMES:  # whose encoder is part of its trees
        return False
    if any(starts_from_a_model(inside) for inside in e.walk()):
        return True
    return decides(e) and not {inside.name for inside in e.walk()} & set(known()) <= PLAIN | set(wrapped.NAMES)


def names_of(e: Estimator, given: Sequence[str] | None = None) -> tuple[list[str], bool]:
    """Names of the columns, and whether they are invented."""
    count = _features(e)
    if given is not None:
        if len(given) != count:
            raise UsageError(f"{len(given)} feature names for {count} features")
        return [str(name) for name in given], False
    source = next((s for s in _front(e) if s.has("feature_names_in_")), None)
    inside = next((s for s in _front(e) if s.name in wrapped.NAMES), None)
    if source is None and inside is not None:
        found = [feature.name for feature in wrapped.interface(inside).inputs[0].features]
        return found, any(found == [f"{word}{i}" for i in range(count)] for word in ("f", "Column_"))
    if source is not None:
        names = np.asarray(source.get("feature_names_in_")).tolist()
        if len(names) != count or not all(isinstance(name, str) for name in names):
            raise e.broken(f"{len(names)} feature names for {count} features")
        return names, False
    return [f"x{i}" for i in range(count)], True


def _front(e: Estimator) -> list[Estimator]:
    """The estimator and those that see its rows first: the first step or member, and that one's."""
    found = [e]
    while len(found) < 32:
        last = found[-1]
        following = next((step for key in _FIRST if (step := _first(last, key)) is not None), None)
        if following is None:
            break
        found.append(following)
    return found


_FIRST = ("steps", "transformer_list", "estimators_", "regressor_", "best_estimator_", "estimator_")
"""Where estimators made of others keep those that see the row as it is."""


def _first(e: Estimator, key: str) -> Estimator | None:
    value = e.attributes.get(key)
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, list | tuple) and len(value) == 2:
        value = value[1]
    return value if isinstance(value, Estimator) else None


def _features(e: Estimator) -> int:
    """How many columns a row has."""
    for source in _front(e):
        if source.name in wrapped.NAMES:
            return len(wrapped.interface(source).inputs[0].features)
        for key in ("n_features_in_", "n_features_"):
            if source.has(key):
                count = source.whole(key)
                if not 0 < count <= LARGEST:
                    raise source.broken(f"{count} features")
                return count
    raise e.broken("it does not say how many features it has; is it fitted?")


def _outputs(e: Estimator, method: str, width: int) -> tuple[Output, ...]:
    """One output, or one for every target of a classifier, as scikit-learn gives a list of arrays there."""
    targets = [] if method == "transform" else _targets(e)
    if len(targets) > 1 and sum(map(len, targets)) == width:
        return tuple(
            Output(f"target_{index}", tuple(_label(label) for label in labels)) for index, labels in enumerate(targets)
        )
    return (Output("outputs", _labels(targets, method, width)),)


def _labels(targets: list[list[Any]], method: str, width: int) -> tuple[str, ...]:
    """What the columns are called: classes, targets, or the method."""
    if len(targets) == 1:
        if len(targets[0]) == width:
            return tuple(_label(label) for label in targets[0])
        if width == 1 and len(targets[0]) == 2:
            return (_label(targets[0][1]),)
    word = {"predict": "prediction", "transform": "component"}.get(method, method)
    word = "target" if len(targets) == width else word
    return (word,) if width == 1 else tuple(f"{word}_{i}" for i in range(width))


def _targets(e: Estimator) -> list[list[Any]]:
    """The labels of the classifier that speaks last, for every target; none for what is no classifier."""
    while not e.has("classes_"):
        steps = e.attributes.get("steps")
        last = steps[-1][1] if isinstance(steps, list) and steps else e.attributes.get("best_estimator_")
        last = e.attributes.get("estimator_") if last is None else last
        if not isinstance(last, Estimator):
            return _targets_of_members(e)
        e = last
    return e.targets


def _targets_of_members(e: Estimator) -> list[list[Any]]:
    """The labels of the members where each has a target of its own."""
    if not e.name.startswith("sklearn.multioutput.") or not e.has("estimators_"):
        return []
    return [member.classes for member in e.parts("estimators_") if member.has("classes_")]


def _label(label: Any) -> str:
    return label if isinstance(label, str) else str(int(label) if label == int(label) else label)
