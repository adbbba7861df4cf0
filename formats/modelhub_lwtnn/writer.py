"""The common graph as a file of lwtnn: lowered, folded, spelt, and read back before it takes its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelhub.errors import UnreadableFile, Unsupported, UsageError, notice, safe_text
from modelhub.files import atomic_write
from modelhub.graph.interface import Interface
from modelhub.protocols import WriteOptions
from modelhub_lwtnn import parse, schema
from modelhub_lwtnn.draft import Draft
from modelhub_lwtnn.folding import evaluations, finite, fold, network
from modelhub_lwtnn.lowering import lower
from modelhub_lwtnn.sequential import sequential

__all__ = ["write"]

FORMS: dict[str, Callable[[Draft, str], schema.Network]] = {
    "graph": lambda draft, _: network(draft),
    "sequential": sequential,
}

SLOW = 10.0
"""How many times more nodes than there are the engine may compute before the user hears of it."""


def write(model: ir.Model, path: Path, options: WriteOptions) -> None:
    """Write `model` as a graph file, or as a sequential one where `options.form` says so.

    Weights are doubles whatever the graph's precision, so a float32 is written exactly. Raises `Unsupported` with
    every node that lwtnn cannot express; then nothing is written.
    """
    form = options.form or "graph"
    if form not in FORMS:
        raise UsageError(f"lwtnn JSON comes in the forms {' and '.join(FORMS)}, not {safe_text(form)!r}")
    if options.opset is not None:
        raise UsageError("lwtnn JSON has no operator sets")
    if options.precision not in (None, "float64"):
        raise UsageError(f"lwtnn JSON is written in float64, not {safe_text(options.precision)}")
    what = f"{safe_text(model.graph.name or 'the model')} cannot be written as lwtnn JSON"
    draft = fold(lower(model, Interface.of(model), what))
    _refuse_not_finite(draft, what)
    written = FORMS[form](draft, what)
    data = schema.dumps(written)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
        try:
            parse.read(temporary)
        except UnreadableFile as error:
            raise Unsupported(what, [f"lwtnn could not read it back: {error}"]) from None
    _tell_version(written)
    _tell_cost(draft)


def _refuse_not_finite(draft: Draft, what: str) -> None:
    """Refuse NaN and infinity, which JSON has no words for and the engine does not read."""
    reasons = [
        f"{step.origin}: holds NaN or infinity, which lwtnn cannot read. Look at the training."
        for step in draft.steps
        if step.layer is not None and not finite(step.layer)
    ]
    for step in draft.steps:
        if (at := step.entrance) is not None:
            bad = ~(np.isfinite(at.offset) & np.isfinite(at.scale)) | np.isinf(at.default)
            names = [safe_text(feature.name) for feature, wrong in zip(at.record.features, bad, strict=True) if wrong]
            if names:
                reasons.append(f"{step.origin}: offset, scale or default of {', '.join(names)} is NaN or infinite.")
    if reasons:
        raise Unsupported(what, reasons)


VERSIONS = {schema.SimpleRnn: "2.13", schema.Conv1d: "2.14"}
"""The release of lwtnn a layer came in, where that is late (src/parse_json.cxx at each tag)."""


def _tell_version(written: schema.Network) -> None:
    versions = {VERSIONS.get(type(layer), "") for layer in written.layers}
    if isinstance(written, schema.GraphNetwork) and any(node.type == "add" for node in written.nodes):
        versions.add("2.14")
    if newest := max(versions, default=""):
        notice(f"the file needs lwtnn {newest} or later")


def _tell_cost(draft: Draft) -> None:
    count = len(draft.steps)
    ratio = evaluations(draft.steps, [number for _, number in draft.outputs]) / max(count, 1)
    if ratio > SLOW:
        notice(
            f"lwtnn remembers no results: it will compute {count} nodes {ratio:.0f} times each on average for one event"
        )
