"""lwtnn files in the two engines there are: our numpy evaluator, and lwtnn itself where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub import __version__
from modelhub.errors import Inconclusive
from modelhub.graph.interface import Interface
from modelhub_lwtnn import library
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.parse import read
from modelhub_lwtnn.process import Process
from modelhub_lwtnn.questions import Questions
from modelhub_lwtnn.schema import Array, GraphNetwork
from modelhub_lwtnn.wiring import as_graph

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["LwtnnEngine", "evaluator", "real"]

Answering = Callable[[Sequence[Array], Sequence[Array]], Sequence[Array]]
"""Raw inputs (one array per scalar input, one per input sequence) -> the answers wanted."""


def evaluator(path: Path, interface: Interface, precision: str) -> LwtnnEngine:
    """The network in `path` in our evaluator. Raises `Inconclusive` where it and `interface` do not fit together."""
    _in_double(precision)
    network = as_graph(read(path))
    questions = Questions(network, interface)
    answer = partial(evaluate, network, wanted=questions.wanted)
    return LwtnnEngine("modelhub lwtnn evaluator", __version__, questions, answer)


def real(path: Path, interface: Interface, precision: str) -> LwtnnEngine:
    """The network in `path` in lwtnn itself. Raises `Inconclusive` where that is missing or cannot be compiled against.

    The file is parsed by our strict reader first: what crashes lwtnn or makes it read strange memory is refused there.
    """
    _in_double(precision)
    network = read(path)
    graph = as_graph(network)
    questions = Questions(graph, interface)
    if not isinstance(network, GraphNetwork) and any(answer.sequence for answer in questions.wanted):
        raise Inconclusive("lwtnn itself answers to a sequential file with the last step only, not with every step")
    prefix = library.mentioned()
    if prefix is None:
        raise Inconclusive("lwtnn itself is not installed: LWTNN_PREFIX or lwtnn-config on the path tells where it is")
    found = library.find(prefix)
    names = {(output.node, output.labels): name for name, output in graph.outputs.items()}
    wanted = [(names[answer.node, answer.labels], answer.sequence) for answer in questions.wanted]
    process = Process(library.driver(found), network, path.absolute(), wanted)
    return LwtnnEngine("lwtnn", found.version, questions, process)


def _in_double(precision: str) -> None:
    if precision != "float64":
        raise Inconclusive(f"lwtnn computes in float64 only, not in {precision}")


class LwtnnEngine:
    """One network in one of the engines, ready to run in float64."""

    precision = "float64"

    def __init__(self, name: str, version: str, questions: Questions, answer: Answering) -> None:
        self.name = name
        self.version = version
        self._questions = questions
        self._answer = answer

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs by tensor name, float64: [N, components], [N, T, components] for sequences.

        `arrays` are the raw inputs by tensor name. Raises `Inconclusive` where lwtnn itself refuses the values.
        """
        return self._questions.outputs(self._answer(*self._questions.inputs(arrays)))
