"""Where do two models differ? By name: in the interface records, and in the parameters they hold."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub import plugins
from modelhub.conversion import read
from modelhub.equivalence.compare import ROUNDOFF
from modelhub.errors import ModelhubError, Notice
from modelhub.graph.interface import Input, Interface
from modelhub.protocols import WriteOptions

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["Places", "parameter_differences", "record_differences", "written_anew"]

ROUNDED = 4 * ROUNDOFF["float32"]
"""A relative difference up to which one number may be the other, rounded on another way."""

SHOWN = 10
"""How many places are told before the rest is counted."""


def record_differences(ours: Interface, theirs: Interface) -> list[str]:
    """What two records call differently: the variables of each input in order, the labels of each output.

    Offsets and scales are not compared here: they may rightly move between record and network, and a wrong
    one shows in the numbers. A default that one of them lacks is told: NaN goes in, and comes out again.
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
            found += _dropped(a, b)
    for a_out in ours.outputs:
        match = next((o for o in theirs.outputs if o.name == a_out.name), None)
        if match is None and len(ours.outputs) == 1 and theirs.outputs:
            match = theirs.outputs[0]
        if match is None:
            found.append(f"output {a_out.name!r} is not in the target")
        else:
            found += _unequal(f"output {a_out.name!r}, label", list(a_out.labels), list(match.labels))
    return found


def _dropped(a: Input, b: Input) -> list[str]:
    """Defaults that only one side has, where the other does not take them into its network either."""
    if not (a.scaled and b.scaled):
        return []
    return [
        f"input {a.name!r}, variable {x.name!r}: default {_told(x.default)} in the source, "
        f"{_told(y.default)} in the target"
        for x, y in zip(a.features, b.features, strict=False)
        if (x.default is None) != (y.default is None)
    ]


def _told(default: float | None) -> str:
    return "none" if default is None else str(default)


def _unequal(what: str, a: list[str], b: list[str]) -> list[str]:
    if len(a) != len(b):
        return [f"{what}s: {len(a)} in the source, {len(b)} in the target"]
    return [
        f"{what} {i}: {x!r} in the source, {y!r} in the target"
        for i, (x, y) in enumerate(zip(a, b, strict=True))
        if x != y
    ]


@dataclass(frozen=True)
class Places:
    """Where two files hold different numbers: one line each, the largest relative difference first."""

    lines: tuple[str, ...] = ()
    largest: float = 0.0

    @property
    def rounded(self) -> bool:
        """Whether rounding the numbers to float32 explains all of it."""
        return self.largest <= ROUNDED


def parameter_differences(model: ir.Model, target: Path, target_format: str) -> Places:
    """Which numbers in `target` are not those that writing `model` anew gives, by their place in the target.

    What has the target's layout is compared with it tensor by tensor (`written_anew`). Empty when the layouts do not
    match: then there is nothing to compare one by one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        theirs = read(target, format=target_format)
    again = written_anew(model, theirs, target_format)
    if again is None or _layout(again) != _layout(theirs):
        return Places()
    return _places(_tensors(again), _tensors(theirs))


def written_anew(model: ir.Model, theirs: ir.Model, target_format: str) -> ir.Model | None:
    """`model` written in the target's format and read back: in the form whose layout has most in common with `theirs`.

    None where nothing can be written, or where no form has half of the tensors.
    """
    if target_format not in plugins.names(plugins.EXPORTERS):
        return None
    exporter = plugins.exporter(target_format)
    forms: tuple[str | None, ...] = (None, *exporter.forms)
    double = any(value.dtype == value.dtype.DOUBLE for value in theirs.graph.outputs if value.dtype is not None)
    precision = "float64" if double else "float32"
    wanted = set(_layout(theirs).items())
    best, most = None, len(wanted) / 2
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="modelhub-") as folder:
        warnings.simplefilter("ignore", Notice)
        for form in forms:
            file = Path(folder) / f"again{exporter.suffix}"
            try:
                exporter.write(model.clone(), file, WriteOptions(form=form, precision=precision))
                again = read(file, format=target_format)
            except ModelhubError:
                continue
            common = len(wanted & set(_layout(again).items()))
            if common > most or (best is None and common >= most):
                best, most = again, common
    return best


def _layout(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in _tensors(model).items()}


def _tensors(model: ir.Model) -> dict[str, NDArray[Any]]:
    """Every number the file holds, by name: constants, and what trees keep in attributes."""
    values = model.graph.initializers.values()
    found = {v.name or "": v.const_value.numpy() for v in values if v.const_value is not None}
    for index, node in enumerate(model.graph):
        if node.domain == "ai.onnx.ml":
            for name, attribute in node.attributes.items():
                array = _array(attribute)
                if array is not None:
                    found[f"{node.name or f'{node.op_type} {index}'}.{name}"] = array
    return found


def _array(attribute: ir.Attr) -> NDArray[Any] | None:
    """The numbers of an attribute, if that is what it holds."""
    kind = attribute.type.name
    if kind == "TENSOR":
        return np.asarray(attribute.as_tensor().numpy())
    return np.asarray(attribute.value) if kind in ("FLOATS", "INTS") else None


def _places(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> Places:
    found: list[tuple[float, str]] = []
    for name, a in ours.items():
        b = theirs[name]
        for index in np.argwhere((a != b) & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else a != b):
            x, y = a[tuple(index)], b[tuple(index)]
            relative = abs(float(x) - float(y)) / max(abs(float(x)), abs(float(y)), 5e-324)
            place = "".join(f"[{i}]" for i in index)
            relative = relative if np.isfinite(relative) else np.inf  # a number on one side only
            size = f" (relative {relative:.1e})" if np.isfinite(relative) else ""
            found.append((relative, f"{name}{place}: {x} from the source, {y} in the target{size}"))
    found.sort(key=lambda item: -item[0])
    lines = [text for _, text in found[:SHOWN]]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return Places((*lines, *more), found[0][0] if found else 0.0)
