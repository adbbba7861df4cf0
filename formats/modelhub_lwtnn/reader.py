"""lwtnn JSON -> common graph, in float64, for the decimals of the file are doubles.

The entrance (default for NaN, offset, scale) is written by `modelhub.graph.naming.attach`, like that of every model.
An output on a `sequence` node is two graph outputs: its last step, and as `<name>_steps` the whole sequence.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path

import onnx_ir as ir

from modelhub.graph import naming
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.records import distinct
from modelhub_lwtnn.operators import Later, Operators
from modelhub_lwtnn.parse import read
from modelhub_lwtnn.schema import Conv1d, Embedding, GraphNetwork, Network, Node, SequentialNetwork
from modelhub_lwtnn.wiring import answers, as_graph, least_steps, order

__all__ = ["read_model", "to_graph"]


def read_model(path: Path) -> ir.Model:
    """The network in `path` as a common graph. Raises `UnreadableFile`, and `Unsupported` where ONNX has no form."""
    return to_graph(read(path))


def to_graph(network: Network) -> ir.Model:
    """`network` as a common graph with its interface record."""
    graph = as_graph(network)
    asked = answers(graph)
    remarks = network.miscellaneous if isinstance(network, SequentialNetwork) else {}
    inputs = _inputs(graph, remarks.get("sort_order", remarks.get("sort_by")))
    b = Builder()
    walk = _Walk(graph, b, [b.input(record.tensor, _shape(record), "float64") for record in inputs])
    walk.run([answer.node for answer in asked])
    for answer in asked:
        value = (walk.series if answer.sequence else walk.vectors)[answer.node]()
        middle = [walk.steps[answer.node]] if answer.sequence else []
        b.output(value, _tensor(answer.name, "output"), ["N", *middle, len(answer.labels)], "float64")
    model = b.finish()
    outputs = [
        Output(answer.name, answer.labels, sequence=answer.sequence, tensor=str(value.name))
        for answer, value in zip(asked, model.graph.outputs, strict=True)
    ]
    bare = [replace(record, features=tuple(Feature(f.name) for f in record.features)) for record in inputs]
    Interface(tuple(bare), tuple(outputs)).store(model)
    naming.attach(model, Interface(tuple(inputs), tuple(outputs)))
    return model


def _inputs(graph: GraphNetwork, sort: str | None) -> list[Input]:
    """The input records, scalars first; a name that scalars and sequences share gets two tensors.

    `sort` is the order of the steps, which the remarks of a sequential file may tell (lwtnn: lwtnn-benchmark-rnn).
    """
    records = [Input(group.name, group.variables, tensor=_tensor(group.name, "input")) for group in graph.inputs]
    for index, (group, least) in enumerate(zip(graph.input_sequences, least_steps(graph), strict=True)):
        variables = _with_categories(graph, index, group.variables)
        tensor = _tensor(group.name, "input")
        records.append(Input(group.name, variables, sequence=True, tensor=tensor, sort=sort, min_length=least))
    return distinct(records)


def _tensor(name: str, otherwise: str) -> str:
    """`name` as a tensor's: without the slash, which parts scopes inside the graph."""
    return name.replace("/", "_") or otherwise


def _shape(record: Input) -> list[str | int]:
    steps = [f"T_{record.tensor}"] if record.sequence else []
    return ["N", *steps, len(record.features)]


def _with_categories(graph: GraphNetwork, index: int, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The variables of sequence `index`, with the number of categories at one that goes raw into an embedding."""
    variables = list(features)
    for node in graph.nodes:
        layer = None if node.layer is None else graph.layers[node.layer]
        source = graph.nodes[node.sources[0]]
        if isinstance(layer, Embedding) and source.type == "input_sequence" and source.sources[0] == index:
            table = layer.tables[0]
            feature = variables[table.index]
            if (feature.offset, feature.scale) == (0.0, 1.0):
                count = min(table.weights.shape[1], feature.categories or table.weights.shape[1])
                variables[table.index] = replace(feature, categories=count)
    return tuple(variables)


class _Walk:
    """Writes the nodes of a network, sources first; what a node gives is fetched when it is first needed."""

    def __init__(self, graph: GraphNetwork, builder: Builder, inputs: list[ir.Value]) -> None:
        self._graph = graph
        self._b = builder
        self._inputs = inputs
        self._operators = Operators(builder)
        self.vectors: dict[int, Later] = {}
        """Nodes as [N, F]."""
        self.series: dict[int, Later] = {}
        """Nodes as [N, T, F]."""
        self.steps: dict[int, str | None] = {}
        """The name of T; None where it is nobody else's."""

    def run(self, wanted: list[int]) -> None:
        """Write `wanted` and all they depend on."""
        for index in order(self._graph.nodes, wanted):
            node = self._graph.nodes[index]
            match node.type:
                case "input":
                    self.vectors[index] = self._given(node.sources[0])
                case "input_sequence":
                    group = len(self._graph.inputs) + node.sources[0]
                    self.series[index] = self._given(group)
                    self.steps[index] = f"T_{self._inputs[group].name}"
                case "sequence":
                    self._sequence(index, node)
                case "time_distributed":
                    x = self.series[node.sources[0]]()
                    self._put(self.series, index, self._compute(node, x, series=True))
                    self.steps[index] = self.steps[node.sources[0]]
                case _:
                    self._put(self.vectors, index, self._vector(index, node))

    def _given(self, index: int) -> Later:
        return lambda: self._inputs[index]

    def _put(self, results: dict[int, Later], index: int, value: ir.Value) -> None:
        results[index] = lambda: value

    def _place(self, node: Node) -> str:
        return f"layers[{node.layer}]"

    def _compute(self, node: Node, x: ir.Value, *, series: bool) -> ir.Value:
        return self._operators.compute(self._place(node), self._graph.layers[node.layer or 0], x, series=series)

    def _sequence(self, index: int, node: Node) -> None:
        layer = self._graph.layers[node.layer or 0]
        every, last = self._operators.scan(self._place(node), layer, self.series[node.sources[0]]())
        self.series[index], self.vectors[index] = every, last
        shortens = isinstance(layer, Conv1d) and layer.padding == "valid" and layer.weights.shape[2] > 1
        self.steps[index] = None if shortens else self.steps[node.sources[0]]

    def _vector(self, index: int, node: Node) -> ir.Value:
        """The nodes that give a vector: feed_forward, sum, concatenate, add."""
        if node.type == "sum":
            x = self.series[node.sources[0]]()
            with self._b.scope(f"nodes[{index}]"):
                return self._b.op("ReduceSum", x, self._b.ints(1), keepdims=0)
        parts = [self.vectors[source]() for source in node.sources]
        if node.type == "feed_forward":
            return self._compute(node, parts[0], series=False)
        with self._b.scope(f"nodes[{index}]"):
            if node.type == "concatenate":
                return self._b.op("Concat", *parts, axis=1)
            return reduce(lambda a, b: self._b.op("Add", a, b), parts)
