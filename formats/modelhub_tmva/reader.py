"""TMVA weight files into the common graph: transformations, method, inverse transformations, names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelhub.errors import notice, safe_text
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.protocols import ReadOptions
from modelhub_tmva import bdt, bdt_graph, nets, nets_graph, transforms_graph
from modelhub_tmva.answer import Answer
from modelhub_tmva.category import Part, parts_of
from modelhub_tmva.setup import MULTICLASS, REGRESSION, Setup, Variable, about, setup_of, unsupported
from modelhub_tmva.stream import parse
from modelhub_tmva.transforms import chain

__all__ = ["METADATA", "read"]

METADATA = "modelhub.tmva"
"""The metadata key under which the file's own description is kept, as JSON."""

VARIABLES, SPECTATORS, CATEGORIES, RESPONSE = "variables", "spectators", "categories", "response"
"""The names of the graph's inputs (the middle two for Category only) and of its output."""


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The method in the weight file `path`. Raises `UnreadableFile`, `Unsupported`."""
    root, digest = parse(path)
    setup = setup_of(root, str(path))
    b = Builder()
    x = b.input(VARIABLES, ["N", len(setup.variables)])
    inputs = [Input(VARIABLES, tuple(feature(variable) for variable in setup.variables))]
    kept = about(setup, digest)
    if setup.method == "Category":
        parts = parts_of(setup)
        inputs += category_inputs(setup, parts)
        values = [b.input(record.name, ["N", len(record.features)]) for record in inputs[1:]]
        y = by_category(b, parts, [x, *values], options.tie)
        kept["categories"] = [{"method": f"{p.setup.method}::{p.setup.title}", "cut": p.cut} for p in parts]
    else:
        y = respond(b, setup, x, options.tie)
    b.output(y, RESPONSE, ["N", len(labels(setup))])
    output = Output(RESPONSE, labels(setup))
    model = b.finish(Interface(tuple(inputs), (output,)), name=setup.title)
    model.metadata_props[METADATA] = json.dumps(kept)
    if not setup.answer.plain:
        _tell(setup)
        if setup.answer.missing:
            attach(model, Interface((_filled(inputs[0], setup.answer), *inputs[1:]), (output,)))
    return model


def _tell(setup: Setup) -> None:
    """That the graph is the model which the file was written from, and TMVA::Reader gives the response only."""
    notice(
        f"{setup.where} was written by modelhub and is read as the model it was written from: outputs are "
        f"{setup.answer.formula}{', NaN is replaced by numbers' if setup.answer.missing else ''}; "
        "TMVA::Reader itself gives the response, and -999 to a NaN"
    )


def _filled(record: Input, answer: Answer) -> Input:
    """The input whose NaN are replaced as `answer` says."""
    features = (replace(f, default=number) for f, number in zip(record.features, answer.missing, strict=True))
    return replace(record, features=tuple(features))


def respond(b: Builder, setup: Setup, x: ir.Value, tie: str | None) -> ir.Value:
    """The response [N, outputs] float32 of one method to events `x` [N, variables] float32 as the user gives them."""
    if setup.method not in _METHODS:
        raise unsupported(setup.where, f"method {safe_text(setup.method)} in a category; known: {', '.join(_METHODS)}")
    transforms = chain(setup)
    event = transforms_graph.apply(b, transforms, x, len(setup.variables))
    with b.scope(setup.title):
        y = _METHODS[setup.method](b, setup, event, tie)
    if setup.analysis == REGRESSION:
        y = transforms_graph.undo(b, transforms, y, len(labels(setup)))
    return y


_METHODS: dict[str, Callable[[Builder, Setup, ir.Value, str | None], ir.Value]] = {
    "BDT": lambda b, setup, x, tie: bdt_graph.respond(b, bdt.bdt_of(setup, tie), setup.answer, x),
    "MLP": lambda b, setup, x, _: nets_graph.net(b, nets.mlp_of(setup), x),
    "DNN": lambda b, setup, x, _: nets_graph.net(b, nets.net_of(setup), x),
    "DL": lambda b, setup, x, _: nets_graph.net(b, nets.net_of(setup), x),
    "Fisher": lambda b, setup, x, _: nets_graph.line(b, nets.fisher_of(setup), x),
    "LD": lambda b, setup, x, _: nets_graph.line(b, nets.ld_of(setup), x),
}


def category_inputs(setup: Setup, parts: tuple[Part, ...]) -> list[Input]:
    """What a Category takes besides the variables: spectators that a category uses, and the flags of all."""
    flags = tuple(Feature(f"{setup.title}_cat{place + 1}") for place in range(len(parts)))
    wanted = any((part.columns >= len(setup.variables)).any() for part in parts)
    spectators = tuple(feature(variable) for variable in setup.spectators)
    cuts = "; ".join(f"{flag.name} is {safe_text(part.cut)}" for flag, part in zip(flags, parts, strict=True))
    notice(f"{setup.where}: the input {CATEGORIES!r} takes 1 or 0 for each category: {cuts}")
    return [*([Input(SPECTATORS, spectators)] if wanted else []), Input(CATEGORIES, flags)]


def by_category(b: Builder, parts: tuple[Part, ...], inputs: list[ir.Value], tie: str | None) -> ir.Value:
    """The response [N, 1] of the one category whose flag is above 0.5; 0 where none is, NaN where several are.

    TMVA stops with an error in the last case (MethodCategory::GetMvaValue), for which a graph has no words.
    """
    *events, flags = inputs
    event = events[0] if len(events) == 1 else b.op("Concat", *events, axis=1)
    responses = []
    for place, part in enumerate(parts):
        with b.scope(f"category_{place + 1}"):
            x = b.op("Gather", event, b.constant(part.columns, "columns"), axis=1)
            responses.append(respond(b, part.setup, x, tie))
    zero, one, half, nan = (b.constant(np.array([value], np.float32), "number") for value in (0, 1, 0.5, np.nan))
    chosen = b.op("Greater", flags, half)
    answer = b.op("ReduceSum", b.op("Where", chosen, b.op("Concat", *responses, axis=1), zero), b.ints(1), keepdims=1)
    count = b.op("ReduceSum", b.op("Where", chosen, one, zero), b.ints(1), keepdims=1)
    return b.op("Where", b.op("Greater", count, one), nan, answer)


def labels(setup: Setup) -> tuple[str, ...]:
    """What the components of the response are called."""
    if setup.analysis == MULTICLASS:
        return setup.classes
    if setup.answer.labels:
        return setup.answer.labels
    if setup.analysis == REGRESSION:
        return tuple(target.expression for target in setup.targets) or (setup.title,)
    return (setup.title,)


def feature(variable: Variable) -> Feature:
    """A variable as the interface record has it; the name is the expression, which the caller evaluates."""
    return Feature(variable.expression, minimum=variable.minimum, maximum=variable.maximum)
