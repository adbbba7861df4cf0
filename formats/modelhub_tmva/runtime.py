"""The numpy evaluator behind the runtime's door."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import modelhub
from modelhub.errors import Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_tmva.evaluator import Evaluator

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["load"]


class Engine:
    """modelhub's own evaluator; its numbers are TMVA's mix of float32 and float64, given out as float32.

    For a file that modelhub wrote it also does what the code that calls TMVA::Reader has to do (`answer`).
    """

    version = modelhub.__version__
    precision = "float32"

    def __init__(self, path: Path, interface: Interface, options: ReadOptions) -> None:
        with warnings.catch_warnings():  # what is to be told was told when the file was read into the graph
            warnings.simplefilter("ignore", Notice)
            self.evaluator = Evaluator(path, options.tie)
        self.answer = self.evaluator.setup.answer
        self.name = "modelhub TMVA evaluator"
        if not self.answer.plain:
            self.name += f" ({'NaN replaced, ' if self.answer.missing else ''}outputs are {self.answer.formula})"
        self.interface = interface

    def __call__(self, arrays: Arrays) -> Arrays:
        """The response by the name of the graph's output."""
        ready = self.interface.prepare(arrays, self.precision)
        first, *others = [ready[record.tensor] for record in self.interface.inputs]
        response = self.evaluator([self.answer.filled(first), *others])
        return {self.interface.outputs[0].tensor: self.answer.outputs(response).astype(np.float32)}


def load(path: Path, interface: Interface, options: ReadOptions) -> Engine:
    """The evaluator for the weight file `path`."""
    return Engine(path, interface, options)
