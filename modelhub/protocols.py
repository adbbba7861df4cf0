"""The three doors of a plug-in: all that its author has to read.

A plug-in is a Python distribution with entry points in one or more of these groups:

    [project.entry-points."modelhub.importers"]      acme = "modelhub_acme:Importer"
    [project.entry-points."modelhub.exporters"]      acme = "modelhub_acme:Exporter"
    [project.entry-points."modelhub.runtimes"]       acme = "modelhub_acme:Runtime"
    [project.entry-points."modelhub.commands"]       acme = "modelhub_acme.commands:acme"   (a click command)

The entry point's name is what the user types: `modelhub convert --from acme`. A further engine for the files of a
format is a runtime called `<format>+<engine>`; the check runs all that are installed side by side. Each class is called
without arguments. Importing `modelhub_acme` must be cheap: load onnx_ir and frameworks inside the methods.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from modelhub.graph.interface import Interface

    Arrays = Mapping[str, NDArray[np.generic]]
    """Tensor name -> array. Vectors are [events, features], sequences [events, steps, features]."""


@dataclass(frozen=True)
class ReadOptions:
    """What a user may say about the file to be read.

    weights: the second file of formats that come in two (Keras architecture JSON + weights HDF5).
    trust:   the user vouches for the file: code inside it may run. Never set by default.
    tie:     where a value that equals a cut goes, for formats whose engine changed its mind: TMVA knows "reader",
             "training", ">=" and ">"; None is what the engine does today.
    task:    what the model is asked for, for formats whose files leave that to the code that calls them: MVAUtils.
    """

    weights: Path | None = None
    trust: bool = False
    tie: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class WriteOptions:
    """What a user may say about the file to be written; None leaves the choice to the exporter.

    opset:     ONNX operator set.
    precision: "float32" or "float64".
    form:      a name the exporter knows, e.g. lwtnn's "graph" or "sequential".
    """

    opset: int | None = None
    precision: str | None = None
    form: str | None = None


class Importer(Protocol):
    """Reads files of one format into the common graph."""

    suffixes: Sequence[str]
    """File suffixes with the dot, lower case, e.g. ``(".pt2",)``."""

    def recognises(self, path: Path) -> bool:
        """Whether `path` is of this format, by its first bytes and suffix; imports no framework."""

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The model in `path` as a common graph with an interface record in its metadata.

        Raises `UnreadableFile` for a damaged or hostile file and `Unsupported` for a layer
        it does not know. Runs no code from the file unless `options.trust`.
        """


class Exporter(Protocol):
    """Writes the common graph as files of one format."""

    suffix: str
    """The suffix its files get when the user names none, e.g. ``".json"``."""
    forms: Sequence[str]
    """The names `WriteOptions.form` may have, the default first; empty where there is one form only."""
    masks: bool
    """Whether its files can leave out masked steps of a sequence; if not, it tells the user, and none are probed."""

    def write(self, model: ir.Model, path: Path, options: WriteOptions) -> None:
        """Write `model`, a copy the exporter may change, to `path`.

        All that does not fit is collected and raised once as `Unsupported`. `path` is written
        in one step (`modelhub.files.atomic_write`): a failed conversion leaves nothing behind.
        """


class Engine(Protocol):
    """A model ready to run in one engine at one precision."""

    name: str
    """The engine's own name and nothing grander, e.g. ``"onnxruntime"``."""
    version: str
    precision: str
    """"float32" or "float64": the arithmetic, and the dtype of what comes out."""

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs for a batch of events; all sequences of one input have the same length here."""


class Layered(Engine, Protocol):
    """An engine that shows what the layers of the file compute; no engine has to.

    `modelhub diff` holds these results against the graph's, where the reader has noted which layer of the file a value
    of the graph is the result of (`modelhub.graph.builder.Builder.result_of`).
    """

    def layers(self, arrays: Arrays, wanted: Container[str]) -> Sequence[tuple[str, NDArray[np.generic]]]:
        """The results of the layers in `wanted` for a batch of events, under the reader's names, first come first."""


@runtime_checkable
class TellsLeaves(Protocol):
    """What an `Engine` of trees may have besides, if it knows in which leaf of each tree an event ends."""

    def leaves(self, arrays: Arrays) -> NDArray[np.int64]:
        """Leaf numbers [events, trees] for a batch of events, in the file's order of trees.

        The check asks for no particular numbers, but for one to a leaf: it compares which events share a leaf. Raises
        `Inconclusive` where this model has no trees, or the engine does not tell.
        """


class Runtime(Protocol):
    """Runs files of one format by that format's own engine."""

    extra: str
    """The extra that installs the engine: ``pip install "modelhub-hep[<extra>]"``."""
    precisions: Sequence[str]
    """What the engine can compute in, best first, e.g. ``("float64", "float32")``."""

    def installed(self) -> bool:
        """Whether the engine is there, found without importing it."""

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The model in `path`, taking the *raw* inputs of `interface` by tensor name.

        Where the file itself knows nothing of the interface's offsets, scales and defaults
        (a torch or Keras file with `--interface`), the engine applies them first
        (`Interface.prepare`). Raises `Inconclusive` when the engine cannot run this model
        at this precision, with the reason.
        """
