"""Keras files of every version: read with zip, JSON and HDF5 alone; run by Keras itself where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions

__all__ = ["Importer", "Runtime"]


class Importer:
    """Reads `.keras` archives, whole-model `.h5` files, and architecture JSON with `--weights`."""

    suffixes: Sequence[str] = (".keras", ".h5", ".hdf5", ".json")

    def recognises(self, path: Path) -> bool:
        """Whether `path` is of Keras, by the members, attributes or keys that Keras writes."""
        from modelhub_keras.recognise import recognises

        return recognises(path)

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The model in `path` as a common graph; imports neither Keras nor a framework."""
        from modelhub_keras.reader import read

        return read(path, options)


class Runtime:
    """Keras 3 with any backend; tf_keras, where installed, for files Keras 3 can no longer open."""

    extra = "keras"
    precisions: Sequence[str] = ("float64", "float32")

    def installed(self) -> bool:
        """Whether Keras and one of its backends are there."""
        from modelhub_keras.runtime import installed

        return installed()

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The model in `path` as Keras runs it, taking raw inputs."""
        from modelhub_keras.runtime import load

        return load(path, interface, precision, options)
