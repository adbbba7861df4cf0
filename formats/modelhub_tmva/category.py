"""Category: several methods of which exactly one answers for an event, chosen by flags the caller supplies.

TMVA::Reader reads the choice from spectators called ``<title>_cat1``, ``<title>_cat2``, ...: a category holds where its
flag is above 0.5 (MethodCategory::PassesCut). The flags are an input of the graph; the cuts they stand for are
formulas of ROOT, which are not evaluated here; the graph's metadata keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text
from modelhub_tmva.setup import CLASSIFICATION, Setup, Variable, integer, setup_of, unsupported
from modelhub_tmva.stream import Element

__all__ = ["MAX_CATEGORIES", "Part", "parts_of"]

MAX_CATEGORIES = 1000


@dataclass(frozen=True, eq=False)
class Part:
    """One category: the method that answers, and which columns of the event it sees."""

    setup: Setup
    cut: str
    """The formula of the category, as text."""
    columns: NDArray[np.int64]
    """Places among the variables and, behind them, the spectators of the whole."""


def parts_of(setup: Setup) -> tuple[Part, ...]:
    """The categories of a Category (MethodCategory::ReadWeightsFromXML). Raises `UnreadableFile`, `Unsupported`."""
    where = setup.where
    if setup.analysis != CLASSIFICATION:
        raise unsupported(where, f"a {setup.analysis} by categories")
    entries = setup.weights.all("SubMethod")
    announced = integer(setup.weights, "NSubMethods", where, len(entries))
    if announced != len(entries) or not 1 <= len(entries) <= MAX_CATEGORIES:
        raise UnreadableFile(f"{where}: {announced} categories announced, {len(entries)} there")
    if [integer(entry, "Index", where, place) for place, entry in enumerate(entries)] != list(range(len(entries))):
        raise UnreadableFile(f"{where}: the categories are not in order")
    return tuple(_part(entry, setup) for entry in entries)


def _part(entry: Element, whole: Setup) -> Part:
    part = setup_of(entry, whole.where)
    if part.method == "Category" or part.analysis != CLASSIFICATION:
        raise unsupported(whole.where, f"line {entry.line}: a {part.method} for {part.analysis} as a category")
    named = [name for name in entry.attributes.get("Variables", "").split(":") if name]
    labels = named or [variable.label for variable in whole.variables]
    if len(labels) != len(part.variables):
        raise UnreadableFile(
            f"{whole.where}: line {entry.line}: category {safe_text(part.title)} names {len(labels)} variables "
            f"and its method takes {len(part.variables)}"
        )
    known = (*whole.variables, *whole.spectators)
    return Part(part, entry.attributes.get("Cut", ""), np.array([_place(label, known, whole) for label in labels]))


def _place(label: str, known: tuple[Variable, ...], whole: Setup) -> int:
    for place, variable in enumerate(known):
        if variable.label == label:
            return place
    raise UnreadableFile(f"{whole.where}: a category takes {safe_text(label)!r}, which is no variable of the whole")
