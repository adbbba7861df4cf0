"""How the nodes of a network hang together: kinds, order, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelhub.errors import notice
from modelhub_lwtnn.schema import (
    Embedding,
    GraphNetwork,
    Group,
    Gru,
    Layer,
    Lstm,
    Network,
    Node,
    OutputNode,
    SimpleRnn,
)

__all__ = ["OUTPUT", "SERIES", "VECTOR", "Answer", "Cycle", "answers", "as_graph", "order", "recurrent", "sources"]

VECTOR = frozenset({"input", "feed_forward", "concatenate", "add", "sum", "sequence"})
"""Node types that give one vector per event; `sequence` gives its last step (lwtnn: Graph::build_node, m_nodes)."""

SERIES = frozenset({"input_sequence", "sequence", "time_distributed"})
"""Node types that give a sequence (m_seq_nodes)."""

OUTPUT = "outputs"
"""The name given to the one input (`inputs`) and the one output of a sequential file, which names none."""


class Cycle(Exception):  # noqa: N818 - not an error that users meet: parse.py turns it into one
    """A node that depends on itself."""

    def __init__(self, node: int) -> None:
        self.node = node
        super().__init__(node)


@dataclass(frozen=True)
class Answer:
    """Something a network can be asked: a node seen as a vector (lwtnn: compute) or as a sequence (lwtnn: scan)."""

    name: str
    labels: tuple[str, ...]
    node: int
    sequence: bool


def answers(network: GraphNetwork) -> list[Answer]:
    """All a network can be asked, in the order of the file.

    A `sequence` node answers as a vector under the output's name and as a sequence as `<name>_steps`.
    """
    result: list[Answer] = []
    taken = set(network.outputs)
    for name, output in network.outputs.items():
        kind = network.nodes[output.node].type
        if kind in VECTOR:
            result.append(Answer(name, output.labels, output.node, sequence=False))
        if kind in SERIES:
            steps, count = f"{name}_steps", 2
            while steps in taken:
                steps, count = f"{name}_steps_{count}", count + 1
            taken.add(steps)
            result.append(Answer(steps, output.labels, output.node, sequence=True))
    return result


def recurrent(layer: Layer) -> bool:
    """Whether a sequential file runs this layer over the sequence (lwtnn: ReductionStack)."""
    return isinstance(layer, Lstm | Gru | SimpleRnn | Embedding)


def as_graph(network: Network) -> GraphNetwork:
    """`network` with nodes: a sequential file becomes the chain that lwtnn makes of it.

    With a recurrent layer in it, all recurrent layers come first whatever the order of the file, the others work on
    the last step (lwtnn: ReductionStack). An empty sequence, on which lwtnn crashes, counts as in a graph file: zeros.
    """
    if isinstance(network, GraphNetwork):
        return network
    indices = range(len(network.layers))
    series = [i for i in indices if recurrent(network.layers[i])]
    vectors = [i for i in indices if i not in set(series)]
    if series and series + vectors != list(indices):
        notice("lwtnn runs the recurrent layers of a sequential file before all others, whatever their order; so do we")
    size = len(network.variables)
    nodes = [Node("input_sequence" if series else "input", (0,), size=size)]
    for layer in series:
        nodes.append(Node("sequence", (len(nodes) - 1,), layer=layer))
    for layer in vectors:
        nodes.append(Node("feed_forward", (len(nodes) - 1,), layer=layer))
    groups = (Group("inputs", network.variables),)
    return GraphNetwork(
        inputs=() if series else groups,
        input_sequences=groups if series else (),
        nodes=tuple(nodes),
        layers=network.layers,
        outputs={OUTPUT: OutputNode(network.labels, len(nodes) - 1)},
    )


def order(nodes: Sequence[Node], wanted: Iterable[int] | None = None) -> list[int]:
    """The nodes that `wanted` (all, if None) depend on and themselves, sources first. Raises `Cycle`."""
    done: dict[int, None] = {}
    open_nodes: set[int] = set()
    for root in range(len(nodes)) if wanted is None else wanted:
        stack = [(root, False)]
        while stack:
            node, complete = stack.pop()
            if complete:
                open_nodes.discard(node)
                done[node] = None
            elif node in open_nodes:
                raise Cycle(node)
            elif node not in done:
                open_nodes.add(node)
                stack.append((node, True))
                stack += [(source, False) for source in sources(nodes[node]) if source not in done]
    return list(done)


def sources(node: Node) -> tuple[int, ...]:
    """The nodes `node` reads; none for inputs, whose `sources` count groups."""
    return () if node.type in ("input", "input_sequence") else node.sources
