"""The graph in a model's file as boxes and arrows, read in a process of its own.

The file is somebody's, and the server is everybody's: so it is read as `modelhub` reads any file (no code of it runs),
by another process with bounds on its memory and its time, one at a time, and what was drawn is remembered.

    python -P -m modelhub_registry.server.sketch FILE [WEIGHTS]        prints what `_sketch` makes, as JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modelhub.errors import ModelhubError, RegistryError, safe_text

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub_registry.records import Artifact, Version
    from modelhub_registry.server.guard import Served

__all__ = ["BOXES", "Sketches"]

BOXES = 400
"""Nodes of a graph that is drawn."""
LARGEST = 256 << 20
"""Bytes of a file that is read for a drawing."""
MEMORY, SECONDS = 8 << 30, 60
REMEMBERED = 64


class Sketches:
    """Sketches of files, made when they are first asked for."""

    def __init__(self, registry: Served) -> None:
        self._registry = registry
        self._made: dict[tuple[str, ...], dict[str, Any]] = {}
        self._turn = threading.Lock()

    def of(self, version: Version, artifact: Artifact) -> dict[str, Any]:
        """The sketch of a file: see `_sketch`. Raises `RegistryError` in one line where none can be made."""
        weights = [a for a in version.manifest.artifacts if a.role == f"{artifact.role}:weights"]
        needed = [artifact, *weights]
        key = tuple(a.sha256 for a in needed)
        if key in self._made:
            return self._told(self._made[key])
        if sum(a.size for a in needed) > LARGEST:
            raise RegistryError(f"{artifact.filename} is larger than {LARGEST >> 20} MB: too large to draw its graph")
        if not self._turn.acquire(timeout=SECONDS):
            raise RegistryError("other graphs are being read: try again in a minute")
        try:
            if key not in self._made:
                self._remember(key, self._read(needed))
        finally:
            self._turn.release()
        return self._told(self._made[key])

    def _remember(self, key: tuple[str, ...], sketch: dict[str, Any]) -> None:
        self._made = {**dict(list(self._made.items())[-(REMEMBERED - 1) :]), key: sketch}

    @staticmethod
    def _told(sketch: dict[str, Any]) -> dict[str, Any]:
        if "error" in sketch:
            raise RegistryError(str(sketch["error"]))
        return sketch

    def _read(self, needed: list[Artifact]) -> dict[str, Any]:
        with TemporaryDirectory(prefix="modelhub-sketch-") as folder:
            paths = []
            for artifact in needed:
                paths.append(str(Path(folder) / artifact.filename))
                self._registry.save(artifact.sha256, Path(paths[-1]))
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            # -P: no module is taken from the folder the server happens to run in
            command = [sys.executable, "-P", "-m", "modelhub_registry.server.sketch", *paths]
            try:
                done = subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment, check=False)
            except subprocess.TimeoutExpired:
                return {"error": f"reading {needed[0].filename} took more than {SECONDS} s"}
        try:
            sketch = json.loads(done.stdout)
        except ValueError:
            return {"error": f"{needed[0].filename} cannot be read: it took too much memory or time"}
        return sketch if isinstance(sketch, dict) else {"error": "nothing was read"}


def _sketch(path: Path, weights: Path | None) -> dict[str, Any]:
    """What a drawing needs of the graph in a file.

    nodes: how many. operators: how often each. boxes: [key, operator, layer, parameters, kind], of at most `BOXES`
    nodes, and arrows: [from, to, shape], both empty where there are more.
    """
    import modelhub
    from modelhub.inspection import operator_of, shape_of, size_of
    from modelhub.protocols import ReadOptions

    graph = modelhub.read(path, options=ReadOptions(weights=weights)).graph
    nodes = list(graph)
    counts = Counter(operator_of(node) for node in nodes)
    told: dict[str, Any] = {"nodes": len(nodes), "operators": counts.most_common(40), "boxes": [], "arrows": []}
    if len(nodes) > BOXES:
        return told
    sources: dict[ir.Value, tuple[str, str]] = {}
    for number, value in enumerate(graph.inputs):
        sources[value] = (f"in{number}", shape_of(value))
        told["boxes"].append([f"in{number}", value.name or "", shape_of(value), 0, "input"])
    for number, node in enumerate(nodes):
        parameters = sum(size_of(value) for value in node.inputs if value is not None and value.is_initializer())
        told["boxes"].append([f"n{number}", operator_of(node), node.name or "", parameters, "node"])
        for value in node.outputs:
            sources[value] = (f"n{number}", shape_of(value))
        for value in dict.fromkeys(_read_by(node)):
            if value in sources and sources[value][0] != f"n{number}":
                told["arrows"].append([sources[value][0], f"n{number}", sources[value][1]])
    for number, value in enumerate(graph.outputs):
        told["boxes"].append([f"out{number}", value.name or "", shape_of(value), 0, "output"])
        if value in sources:
            told["arrows"].append([sources[value][0], f"out{number}", sources[value][1]])
    return told


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """The values a node reads, those that a graph within it takes from outside among them."""
    import onnx_ir as ir

    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            inner = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
            for graph in inner:
                for within in graph:
                    yield from _read_by(within)
                yield from graph.outputs


def _main(paths: list[Path]) -> None:
    import resource
    import warnings

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    warnings.simplefilter("ignore")
    try:
        told = _sketch(paths[0], paths[1] if len(paths) > 1 else None)
    except ModelhubError as error:
        told = {"error": safe_text(str(error).replace(f"{paths[0].parent}{os.sep}", "").splitlines()[0], 300)}
    except MemoryError:
        told = {"error": f"{paths[0].name} takes more than {MEMORY >> 30} GB to read"}
    print(json.dumps(told))


if __name__ == "__main__":
    _main([Path(argument) for argument in sys.argv[1:]])
