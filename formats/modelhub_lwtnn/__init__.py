"""lwtnn: the JSON that the C++ library lwtnn runs (github.com/lwtnn/lwtnn), sequential and graph files, in and out.

    schema.py        the JSON as dataclasses, and its spelling
    parse.py         the JSON into the dataclasses, strictly        (cursor.py, parse_layers.py, wiring.py)
    engine.py        a numpy evaluator by the engine's rules        (recurrent.py, activations.py)
    driver.cc        the engine itself, asked from outside          (library.py, process.py)
    runtime.py       both as engines of the check                   (questions.py)
    reader.py        the dataclasses into the common graph          (operators.py)
    writer.py        the common graph into the dataclasses
    lwtnn.schema.json   a JSON Schema of the files, for everybody

Importing this is cheap: everything is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions, WriteOptions

__all__ = ["Exporter", "Importer", "Library", "Runtime"]


class Importer:
    """Reads both kinds of lwtnn file."""

    suffixes = (".json",)

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a JSON object with layers and inputs at its top, found without parsing the numbers."""
        from modelhub_lwtnn.detect import is_lwtnn

        return is_lwtnn(path)

    def read(self, path: Path, options: ReadOptions) -> ir.Model:  # noqa: ARG002
        """The network as a common graph in float64. Raises `UnreadableFile` and `Unsupported`."""
        from modelhub_lwtnn.reader import read_model

        return read_model(path)


class Exporter:
    """Writes lwtnn JSON; `options.form` is "graph" or "sequential"."""

    suffix = ".json"
    forms = ("graph", "sequential")
    masks = False

    def write(self, model: ir.Model, path: Path, options: WriteOptions) -> None:
        """Write `model` to `path`. Raises `Unsupported` with everything lwtnn cannot say."""
        from modelhub_lwtnn.writer import write

        write(model, path, options)


class Runtime:
    """Runs lwtnn files in our own numpy evaluator (`engine.py`), which needs nothing installed."""

    extra = "lwtnn"
    precisions = ("float64",)

    def installed(self) -> bool:
        """Whether the engine is there: always."""
        return True

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:  # noqa: ARG002
        """The network in `path`, ready to run. Raises `Inconclusive` for float32: lwtnn computes in double."""
        from modelhub_lwtnn.runtime import evaluator

        return evaluator(path, interface, precision)


class Library:
    """Runs lwtnn files in lwtnn itself, the C++ library, where one is installed (`library.py`)."""

    extra = "lwtnn"
    precisions = ("float64",)

    def installed(self) -> bool:
        """Whether the user says where it is: ``LWTNN_PREFIX``, or ``lwtnn-config`` on the path."""
        from modelhub_lwtnn.library import mentioned

        return mentioned() is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:  # noqa: ARG002
        """The network in `path`, ready to run. Raises `Inconclusive` where no driver can be compiled."""
        from modelhub_lwtnn.runtime import real

        return real(path, interface, precision)
