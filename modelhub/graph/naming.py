"""Names for a graph: invented where the source has none, or taken from a record the user gives (`--interface`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from modelhub.errors import UsageError
from modelhub.graph.interface import Feature, Input, Interface, Output, entrance

__all__ = ["attach", "invent"]

R = TypeVar("R", Input, Output)


def invent(model: ir.Model) -> Interface:
    """A record for a graph that has none: tensor names, variables and labels counted from 0."""
    inputs, outputs = [], []
    for value in model.graph.inputs:
        width, sequence = _width(value)
        name = value.name or ""
        inputs.append(Input(name, tuple(Feature(f"{name}_{i}") for i in range(width)), sequence=sequence))
    for value in model.graph.outputs:
        width, sequence = _width(value)
        outputs.append(Output(value.name or "", tuple(f"out_{i}" for i in range(width)), sequence=sequence))
    return Interface(tuple(inputs), tuple(outputs), invented=True)


def _width(value: ir.Value) -> tuple[int, bool]:
    """How many components the last axis has (1 where it is dynamic or absent), and whether a step axis precedes it."""
    dims = list(value.shape or ())
    last = dims[-1] if len(dims) > 1 else 1
    return (last if isinstance(last, int) else 1), len(dims) == 3


def attach(model: ir.Model, given: Interface) -> Interface:
    """Give the graph the names and labels of `given`, and do its scaling at the graph's entrance.

    Before and after, for a scaled input::

        jets ──► network          jets ──► IsNaN/Where(default) ──► Add(offset) ──► Mul(scale) ──► network

    Inputs and outputs are matched by name where all names are known, else by order; their order stays that of
    the source, so an engine that runs the source can go by position. Raises `UsageError`
    where the counts do not fit, or where the model scales an input already and `given` would do so again.
    Returns the record now stored in the model.
    """
    have = Interface.of(model)
    inputs = [_refit(old, new) for old, new in _pairs("input", have.inputs, given.inputs)]
    outputs = list(have.outputs)
    if given.outputs:
        outputs = [_relabel(old, new) for old, new in _pairs("output", have.outputs, given.outputs)]
    for value, old, new in zip(list(model.graph.inputs), have.inputs, inputs, strict=True):
        value.name = new.tensor
        if not old.scaled and new.scaled:
            _scale(model.graph, value, new)
    for value, output in zip(model.graph.outputs, outputs, strict=True):
        value.name = output.tensor
    interface = Interface(tuple(inputs), tuple(outputs))
    interface.store(model)
    return interface


def _refit(old: Input, new: Input) -> Input:
    if len(new.features) != len(old.features):
        raise UsageError(
            f"input {old.name!r} takes {len(old.features)} variables, the interface lists {len(new.features)} "
            f"for {new.name!r}"
        )
    if (
        old.scaled
        and new.scaled
        and any(
            (a.offset, a.scale, a.default) != (b.offset, b.scale, b.default)
            for a, b in zip(old.features, new.features, strict=True)
        )
    ):
        raise UsageError(f"input {old.name!r} is scaled inside the model already; the interface may only rename it")
    if old.scaled and not new.scaled:
        features = tuple(replace(a, name=b.name) for a, b in zip(old.features, new.features, strict=True))
        new = replace(new, features=features)
    # What the source knows and the user does not say stays: it follows from the network.
    new = replace(
        new,
        features=tuple(
            replace(b, categories=a.categories if b.categories is None else b.categories)
            for a, b in zip(old.features, new.features, strict=True)
        ),
        min_length=max(old.min_length, new.min_length),
        max_length=old.max_length if new.max_length is None else new.max_length,
    )
    return replace(new, sequence=old.sequence)


def _relabel(old: Output, new: Output) -> Output:
    if len(new.labels) != len(old.labels):
        raise UsageError(
            f"output {old.name!r} has {len(old.labels)} components, the interface names {len(new.labels)} labels"
        )
    return replace(new, sequence=old.sequence)


def _pairs(what: str, have: Sequence[R], given: Sequence[R]) -> list[tuple[R, R]]:
    """Records of the graph beside records of the user: by name if all names are known, else in order."""
    if len(have) != len(given):
        raise UsageError(f"the model has {len(have)} {what}s, the interface describes {len(given)}")
    by_name = {record.name: record for record in given}
    if len(by_name) == len(given) and all(record.name in by_name for record in have):
        return [(record, by_name[record.name]) for record in have]
    # lwtnn lists scalar inputs and sequences apart, the graph may have them mixed: order counts within a kind.
    kinds = {kind: iter([r for r in given if r.sequence == kind]) for kind in (False, True)}
    if sum(r.sequence for r in have) == sum(r.sequence for r in given):
        return [(record, next(kinds[record.sequence])) for record in have]
    return list(zip(have, given, strict=True))


def _scale(graph: ir.Graph, value: ir.Value, record: Input) -> None:
    """Put the scaling of `record` between graph input `value` and everything that uses it."""
    dtype = value.dtype
    if dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        raise UsageError(f"input {record.name!r} holds {dtype}, not floating-point numbers: it cannot be scaled")
    offset, scale, default = entrance(record, str(dtype.numpy()))
    uses = list(value.uses())
    nodes: list[ir.Node] = []

    def constant(name: str, array: np.ndarray) -> ir.Value:
        initializer = ir.Value(
            name=f"{record.tensor}/{name}",
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=f"{record.tensor}/{name}"),
        )
        graph.register_initializer(initializer)
        return initializer

    def step(op_type: str, *inputs: ir.Value, name: str, result: ir.DataType = dtype) -> ir.Value:
        node = ir.node(op_type, list(inputs), name=f"{record.tensor}/{name}")
        node.outputs[0].name = f"{record.tensor}/{name}_out"
        node.outputs[0].shape = value.shape
        node.outputs[0].type = ir.TensorType(result)
        nodes.append(node)
        return node.outputs[0]

    now = value
    if not np.isnan(default).all():
        missing = step("IsNaN", now, name="missing", result=ir.DataType.BOOL)
        now = step("Where", missing, constant("default", default), now, name="replace")
    if offset.any():
        now = step("Add", now, constant("offset", offset), name="shift")
    if (scale != 1).any():
        now = step("Mul", now, constant("scale", scale), name="stretch")
    for user, index in uses:
        user.replace_input_with(index, now)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = now
    graph.insert_before(graph[0], nodes) if len(graph) else graph.extend(nodes)
