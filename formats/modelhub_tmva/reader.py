"""TMVA weight files into the common graph: transformations, method, inverse transformations, names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from modelhub.errors import UnreadableFile, notice, safe_text
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_tmva import bdt, bdt_graph, transforms_graph
from modelhub_tmva.setup import REGRESSION, MULTICLASS, Setup, Variable, about, setup_of, unsupported
from modelhub_tmva.stream import Element, parse
from modelhub_tmva.transforms import chain

__all__ = ["METADATA", "read"]

METADATA = "modelhub.tmva"
"""The metadata key under which the file's own description is kept, as JSON."""

VARIABLES, RESPONSE = "variables", "response"
"""The names of the graph's input and output."""


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The method in the weight file `path`. Raises `UnreadableFile`, `Unsupported`."""
    root, digest = parse(path)
    setup = setup_of(root, str(path))
    b = Builder()
    x = b.input(VARIABLES, ["N", len(setup.variables)])
    y = respond(b, setup, x, options.tie)
    b.output(y, RESPONSE, ["N", len(labels(setup))])
    inputs = (Input(VARIABLES, tuple(feature(variable) for variable in setup.variables)),)
    model = b.finish(Interface(inputs, (Output(RESPONSE, labels(setup)),)), name=setup.title)
    model.metadata_props[METADATA] = json.dumps(about(setup, digest))
    return model


def respond(b: Builder, setup: Setup, x: ir.Value, tie: str | None) -> ir.Value:
    """The response [N, outputs] float32 of one method to events `x` [N, variables] float32 as the user gives them."""
    if setup.method not in _METHODS:
        raise unsupported(
            setup.where, f"method {safe_text(setup.method)} ({safe_text(setup.title)}); known: {', '.join(_METHODS)}"
        )
    transforms = chain(setup)
    event = transforms_graph.apply(b, transforms, x, len(setup.variables))
    with b.scope(setup.title):
        y = _METHODS[setup.method](b, setup, event, tie)
    if setup.analysis == REGRESSION:
        y = transforms_graph.undo(b, transforms, y, len(labels(setup)))
    return y


def _bdt(b: Builder, setup: Setup, x: ir.Value, tie: str | None) -> ir.Value:
    return bdt_graph.respond(b, bdt.bdt_of(setup, tie), x)


_METHODS: dict[str, Callable[[Builder, Setup, ir.Value, str | None], ir.Value]] = {"BDT": _bdt}


def labels(setup: Setup) -> tuple[str, ...]:
    """What the components of the response are called."""
    if setup.analysis == MULTICLASS:
        return setup.classes
    if setup.analysis == REGRESSION:
        return tuple(target.expression for target in setup.targets) or (setup.title,)
    return (setup.title,)


def feature(variable: Variable) -> Feature:
    """A variable as the interface record has it; the name is the expression, which the caller evaluates."""
    return Feature(variable.expression, minimum=variable.minimum, maximum=variable.maximum)
