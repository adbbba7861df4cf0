"""Where do two models differ? By name: in the interface records, and in the parameters they hold."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub import plugins
from modelhub.conversion import read
from modelhub.errors import ModelhubError, Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import WriteOptions

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["parameter_differences", "record_differences"]

SHOWN = 10
"""How many places are told before the rest is counted."""


def record_differences(ours: Interface, theirs: Interface) -> list[str]:
    """What two records call differently: the variables of each input in order, the labels of each output.

    Offsets and scales are not compared here: they may rightly move between record and network, and a wrong
    one shows in the numbers.
    """
    if ours.invented or theirs.invented:
        return []
    found = []
    for kind in (False, True):
        mine = [record for record in ours.inputs if record.sequence == kind]
        others = [record for record in theirs.inputs if record.sequence == kind]
        if len(mine) != len(others):
            found.append(f"{len(mine)} {'sequence' if kind else 'scalar'} inputs, {len(others)} in the target")
        for a, b in zip(mine, others, strict=False):
            names = [[f.name for f in record.features] for record in (a, b)]
            found += _unequal(f"input {a.name!r}, variable", *names)
    for a_out in ours.outputs:
        match = next((o for o in theirs.outputs if o.name == a_out.name), None)
        if match is None and len(ours.outputs) == 1 and theirs.outputs:
            match = theirs.outputs[0]
        if match is None:
            found.append(f"output {a_out.name!r} is not in the target")
        else:
            found += _unequal(f"output {a_out.name!r}, label", list(a_out.labels), list(match.labels))
    return found


def _unequal(what: str, a: list[str], b: list[str]) -> list[str]:
    if len(a) != len(b):
        return [f"{what}s: {len(a)} in the source, {len(b)} in the target"]
    return [
        f"{what} {i}: {x!r} in the source, {y!r} in the target"
        for i, (x, y) in enumerate(zip(a, b, strict=True))
        if x != y
    ]


def parameter_differences(model: ir.Model, target: Path, target_format: str) -> list[str]:
    """Which numbers in `target` are not those that writing `model` anew gives, by their place in the target.

    The graph is written once more in every form the format has, and what has the target's layout is compared with it
    tensor by tensor. Empty when the layouts do not match: then there is nothing to compare one by one.
    """
    exporter = plugins.exporter(target_format)
    forms: tuple[str | None, ...] = tuple(exporter.forms) or (None,)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="modelhub-") as folder:
        warnings.simplefilter("ignore", Notice)
        theirs = _tensors(read(target, format=target_format))
        for form in forms:
            again = Path(folder) / f"again{exporter.suffix}"
            try:
                exporter.write(model.clone(), again, WriteOptions(form=form))
                ours = _tensors(read(again, format=target_format))
            except ModelhubError:
                continue
            if {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}:
                return _places(ours, theirs)
    return []


def _tensors(model: ir.Model) -> dict[str, NDArray[Any]]:
    values = model.graph.initializers.values()
    return {v.name or "": v.const_value.numpy() for v in values if v.const_value is not None}


def _places(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> list[str]:
    """One line per number that differs, the largest relative difference first."""
    found: list[tuple[float, str]] = []
    for name, a in ours.items():
        b = theirs[name]
        for index in np.argwhere((a != b) & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else a != b):
            x, y = a[tuple(index)], b[tuple(index)]
            relative = float(abs(x - y) / max(abs(float(x)), abs(float(y)), 5e-324))
            place = "".join(f"[{i}]" for i in index)
            found.append((relative, f"{name}{place}: {x} from the source, {y} in the target (relative {relative:.1e})"))
    found.sort(key=lambda item: -item[0])
    lines = [text for _, text in found[:SHOWN]]
    return lines if len(found) <= SHOWN else [*lines, f"and {len(found) - SHOWN} more"]
