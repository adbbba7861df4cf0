"""How the nodes of a network hang together: kinds, order, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelhub.errors import notice
from modelhub_lwtnn.schema import (
    Conv1d,
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

__all__ = [
    "OUTPUT",
    "SERIES",
    "VECTOR",
    "Answer",
    "Cycle",
    "answers",
    "as_graph",
    "least_steps",
    "order",
    "recurrent",
    "sources",
]

VECTOR = frozenset({"input", "feed_forward", "concatenate", "add", "sum", "sequence"})
"""Node types that give one vector per event; `sequence` gives its last step (lwtnn: Graph::build_node, m_nodes)."""

SERIES = frozenset({"input_sequence", "sequence", "time_distributed"})
"""Node types that give a sequence (m_seq_nodes)."""

OUTPUT = "outputs"
"""The name given to the one input (`inputs`) and the one output of a sequential file, which names none."""

STEPS = "_steps"
"""What the name of a sequence ends in where a vector has the plain name."""


class Cycle(Exception):
    """A node that depends on itself. Never met by users: `parse.py` says it with a JSON path."""

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

    A `sequence` node answers as a vector under the output's name and as a sequence as `<name>_steps`, any other
    sequence as `<name>_steps` alone. What a file written from such answers calls so already keeps its name, and with
    the vector beside it is that pair and nothing more: reading and writing again and again adds no outputs.
    """
    kinds = {name: network.nodes[output.node].type for name, output in network.outputs.items()}
    vectors = {name for name, kind in kinds.items() if kind in VECTOR}
    series = {name for name, kind in kinds.items() if kind in SERIES}
    called_so = {
        name for name in series if name.endswith(STEPS) and (name not in vectors or name.removesuffix(STEPS) in vectors)
    }
    taken = set(kinds)
    result: list[Answer] = []
    for name, output in network.outputs.items():
        if name in vectors - called_so:
            result.append(Answer(name, output.labels, output.node, sequence=False))
        if name in series and not (name in vectors and name + STEPS in called_so):
            steps = name if name in called_so else _fresh(name + STEPS, taken)
            result.append(Answer(steps, output.labels, output.node, sequence=True))
    return result


def _fresh(wish: str, taken: set[str]) -> str:
    """`wish`, numbered where it is taken; taken from now on."""
    name, count = wish, 2
    while name in taken:
        name, count = f"{wish}_{count}", count + 1
    taken.add(name)
    return name


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


def least_steps(network: GraphNetwork) -> list[int]:
    """The shortest sequence lwtnn can run, for each group of `input_sequences`: 0 but for some convolutions.

    A `valid` convolution needs its reach in steps, one with softmax needs one step (lwtnn: Conv1dLayer::scan).
    """
    needs = [0] * len(network.nodes)
    groups = [0] * len(network.input_sequences)
    for index in reversed(order(network.nodes)):
        node = network.nodes[index]
        need = needs[index]
        if node.type == "input_sequence":
            groups[node.sources[0]] = max(groups[node.sources[0]], need)
        elif node.type in ("sequence", "time_distributed"):
            layer = None if node.layer is None else network.layers[node.layer]
            if isinstance(layer, Conv1d) and layer.activation.function == "softmax":
                need = max(need, 1)
            if isinstance(layer, Conv1d) and layer.padding == "valid":
                need = max(need, 1) + (layer.weights.shape[2] - 1) * layer.dilation
            needs[node.sources[0]] = max(needs[node.sources[0]], need)
    return groups


def sources(node: Node) -> tuple[int, ...]:
    """The nodes `node` reads; none for inputs, whose `sources` count groups."""
    return () if node.type in ("input", "input_sequence") else node.sources
