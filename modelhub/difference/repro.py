"""A folder that shows a difference to anybody: both model files, the graphs, one input, and a script of ten lines.

The script needs numpy and onnxruntime, no modelhub: it runs the graphs, in float64, on the one event. What each engine
answered to it stands in a text beside it. Where an engine differs from the graph of its own file, there is one graph.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from modelhub.errors import Notice, UsageError, safe_text
from modelhub.graph.precision import to_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelhub.difference.diff import Diff

__all__ = ["write_repro"]

SCRIPT = '''\
"""{title}

Wants numpy and onnxruntime; run it in this folder.
"""

import numpy as np
import onnxruntime

given = np.load("input.npz")  # one event, for each graph under its own names
for side in {sides}:
    session = onnxruntime.InferenceSession(f"graph_of_{{side}}.onnx", providers=["CPUExecutionProvider"])
    answers = session.run(None, {{slot.name: given[f"{{side}}/{{slot.name}}"] for slot in session.get_inputs()}})
    for slot, answer in zip(session.get_outputs(), answers):
        print(side, slot.name, answer[0].tolist())
'''


def write_repro(found: Diff, folder: Path, files: Sequence[tuple[str, Path]]) -> list[str]:
    """Write the folder, in one step, and return the names of what is in it.

    files: what to copy: the side it belongs to ("source" or "target") and the path. Raises `UsageError` where `folder`
    exists already, or where nothing was found to show.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already; name a new folder for --repro")
    if not found.graphs:
        raise UsageError("the two graphs differ on no input that was tried: there is nothing to reproduce")
    names = [path.name for _, path in files]
    with tempfile.TemporaryDirectory(prefix=".repro-", dir=folder.absolute().parent) as name:
        scratch = Path(name) / "repro"
        scratch.mkdir()
        for side, path in files:
            shutil.copyfile(path, scratch / (path.name if names.count(path.name) == 1 else f"{side}_{path.name}"))
        inputs = {}
        for side, model, arrays in found.graphs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Notice)
                double = to_precision(model.clone(), "float64")
                common.RemoveUnusedNodesPass()(double)  # of what was spelled out, the constants
            (scratch / f"graph_of_{side}.onnx").write_bytes(ir.to_proto(double).SerializeToString())
            for value in double.graph.inputs:
                dtype = value.dtype.numpy() if value.dtype is not None else np.float64
                inputs[f"{side}/{value.name}"] = np.asarray(arrays[value.name or ""]).astype(dtype)
        np.savez(scratch / "input.npz", **inputs)  # type: ignore[arg-type]
        lines = [f"{who}, {output}: {' '.join(map(repr, values))}\n" for who, output, values in found.answers]
        (scratch / "answers.txt").write_text("".join(lines), encoding="utf-8")
        sides = json.dumps([side for side, *_ in found.graphs])
        (scratch / "repro.py").write_text(SCRIPT.format(title=_title(found), sides=sides), encoding="utf-8")
        scratch.rename(folder)
    return sorted(path.name for path in folder.iterdir())


def _title(found: Diff) -> str:
    """What the script shows."""
    source, target = safe_text(found.source), safe_text(found.target)
    if len(found.graphs) > 1:
        return f"{target} does not compute what {source} computes."
    side, *_ = found.graphs[0]
    return f"The graph read from {source if side == 'source' else target} does not compute what its engine does."
