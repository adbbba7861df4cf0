"""What a weight file says about itself before any number counts: method, options, variables, classes, targets."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub_tmva.answer import INFO, Answer, answer_of
from modelhub_tmva.stream import Element

__all__ = ["Setup", "Variable", "about", "integer", "number", "numbers", "setup_of", "unsupported"]

CLASSIFICATION, REGRESSION, MULTICLASS = "classification", "regression", "multiclass"

TRUE, FALSE = {"1", "true", "ktrue", "t"}, {"0", "false", "kfalse", "f"}
"""How TMVA reads a switch, in any case (Option<Bool_t>::SetValueLocal)."""


@dataclass(frozen=True)
class Variable:
    """One input variable, spectator or target. TMVA::Reader never evaluates the expression, it is a name."""

    expression: str
    label: str
    title: str
    unit: str
    internal: str
    kind: str
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Setup:
    """One method, ready to be understood: the state of a `<MethodSetup>` or of a `<SubMethod>`."""

    where: str
    method: str
    """"BDT", "MLP", ..."""
    title: str
    analysis: str
    """"classification", "regression" or "multiclass"."""
    info: dict[str, str]
    options: dict[str, str]
    variables: tuple[Variable, ...]
    spectators: tuple[Variable, ...]
    targets: tuple[Variable, ...]
    classes: tuple[str, ...]
    transforms: tuple[Element, ...]
    weights: Element
    answer: Answer

    def option(self, name: str, default: str) -> str:
        """The value of an option, `default` where the file is silent."""
        return self.options.get(name, default)

    def switch(self, name: str, default: bool) -> bool:
        """The value of an option that is on or off; TMVA writes it as a word."""
        if name not in self.options:
            return default
        text = self.options[name].strip().lower()
        if text not in TRUE | FALSE:
            raise UnreadableFile(f"{self.where}: option {name} is {safe_text(text)!r}, neither True nor False")
        return text in TRUE

    def release(self, name: str) -> tuple[int, int, int] | None:
        """The "TMVA" or "ROOT" release that trained, e.g. (6, 24, 8), None where the file does not say."""
        text = self.info.get(f"{name} Release", "")
        code = re.search(r"\[(\d{1,9})\]", text)
        if code:
            value = int(code[1])
            return value >> 16, value >> 8 & 255, value & 255
        dotted = re.match(r"\s*(\d{1,4})[./](\d{1,4})[./](\d{1,4})", text)
        return (int(dotted[1]), int(dotted[2]), int(dotted[3])) if dotted else None


def unsupported(where: str, *reasons: str) -> Unsupported:
    """The refusal of a file that is sound but says what this reader does not know."""
    return Unsupported(f"{where} cannot be read as a TMVA method", reasons)


def number(element: Element, name: str, where: str, default: float | None = None) -> float:
    """A numeric attribute; it may be infinite or NaN, as in TMVA's own files."""
    text = element.attributes.get(name)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        what = "is missing" if text is None else f"is {safe_text(text)!r}, not a number"
        raise UnreadableFile(f"{where}: line {element.line}: attribute {name} of <{element.name}> {what}") from None


def integer(element: Element, name: str, where: str, default: int | None = None) -> int:
    """An attribute that is a whole number."""
    value = number(element, name, where, default)
    if not (math.isfinite(value) and value == int(value) and abs(value) < 1 << 53):
        raise UnreadableFile(f"{where}: line {element.line}: attribute {name} of <{element.name}> is no whole number")
    return int(value)


def numbers(element: Element, count: int, where: str) -> NDArray[np.float64]:
    """The `count` numbers in the text of an element."""
    words = element.text.split()
    if len(words) != count:
        raise UnreadableFile(
            f"{where}: line {element.line}: <{element.name}> holds {len(words)} numbers, {count} are announced"
        )
    try:
        return np.array([float(word) for word in words], np.float64)
    except ValueError as error:
        raise UnreadableFile(f"{where}: line {element.line}: <{element.name}>: {safe_text(error)}") from None


def setup_of(element: Element, where: str) -> Setup:
    """The setup in a `<MethodSetup>` or `<SubMethod>` (MethodBase::ReadStateFromXML)."""
    method, _, title = element.attributes.get("Method", "").partition("::")
    if not method:
        raise UnreadableFile(f"{where}: line {element.line}: no method is named")
    info = {
        child.attributes.get("name", ""): child.attributes.get("value", "") for child in _inside(element, "GeneralInfo")
    }
    options: dict[str, str] = {}
    for option in _inside(element, "Options"):
        name = option.attributes.get("name", "")
        if options.setdefault(name, option.text) != option.text:
            raise UnreadableFile(f"{where}: line {option.line}: option {safe_text(name)} has two values")
    analysis = info.get("AnalysisType", CLASSIFICATION).lower()
    if analysis not in (CLASSIFICATION, REGRESSION, MULTICLASS):
        raise unsupported(where, f"AnalysisType {safe_text(analysis)!r}")
    weights = element.find("Weights")
    if weights is None:
        raise UnreadableFile(f"{where}: {safe_text(method)}: there is no <Weights>")
    variables = _variables(element, "Variables", "NVar", "VarIndex", where)
    if not variables:
        raise UnreadableFile(f"{where}: {safe_text(method)}: there are no <Variables>")
    targets = _variables(element, "Targets", "NTrgt", "TargetIndex", where)
    if targets and "AnalysisType" not in info:
        raise unsupported(where, "regression targets, and no AnalysisType that says what they are for")
    answer = answer_of(info, len(variables), analysis, where)
    if answer != Answer() and (element.name, method) != ("MethodSetup", "BDT"):
        raise UnreadableFile(f"{where}: <{element.name}> of a {safe_text(method)} holds an entry {INFO!r} for a BDT")
    return Setup(
        where=where,
        method=method,
        title=title or method,
        analysis=analysis,
        info=info,
        options=options,
        variables=variables,
        spectators=_variables(element, "Spectators", "NSpec", "SpecIndex", where),
        targets=targets,
        classes=_classes(element, where),
        transforms=_transforms(element, where),
        weights=weights,
        answer=answer,
    )


def _inside(element: Element, name: str) -> Sequence[Element]:
    group = element.find(name)
    return group.children if group is not None else ()


def _variables(element: Element, group: str, count: str, index: str, where: str) -> tuple[Variable, ...]:
    """The variables of a group in the order of their indices, which must be 0, 1, 2, ..."""
    found = element.find(group)
    if found is None:
        return ()
    announced = integer(found, count, where, len(found.children))
    places = [integer(child, index, where, place) for place, child in enumerate(found.children)]
    if announced != len(places) or sorted(places) != list(range(len(places))):
        raise UnreadableFile(
            f"{where}: line {found.line}: <{group}> announces {announced} entries and holds {len(places)}, "
            f"or their {index} does not count from 0"
        )
    ordered: dict[int, Element] = dict(zip(places, found.children, strict=True))
    return tuple(_variable(ordered[place], where) for place in sorted(ordered))


def _variable(element: Element, where: str) -> Variable:
    get = element.attributes.get
    expression = get("Expression") or get("Label") or get("Internal")
    if not expression:
        raise UnreadableFile(f"{where}: line {element.line}: a <{element.name}> without Expression")
    low, high = number(element, "Min", where, math.nan), number(element, "Max", where, math.nan)
    known = math.isfinite(low) and math.isfinite(high) and low <= high and (low, high) != (0.0, 0.0)
    return Variable(
        expression,
        get("Label", expression),
        get("Title", ""),
        get("Unit", ""),
        get("Internal", ""),
        get("Type", ""),
        low if known else None,
        high if known else None,
    )


def _classes(element: Element, where: str) -> tuple[str, ...]:
    """Class names by index; class0, class1, ... where the file only counts them (TMVA 4.0)."""
    group = element.find("Classes")
    if group is None:
        return ()
    announced = integer(group, "NClass", where, len(group.children))
    if not group.children:
        if not 0 <= announced <= 1000:
            raise UnreadableFile(f"{where}: line {group.line}: {announced} classes are announced, none is named")
        return tuple(f"class{i}" for i in range(announced))
    places = [integer(child, "Index", where, place) for place, child in enumerate(group.children)]
    if announced != len(places) or sorted(places) != list(range(len(places))):
        raise UnreadableFile(f"{where}: line {group.line}: <Classes> announces {announced}, holds {len(places)}")
    named = dict(zip(places, group.children, strict=True))
    return tuple(named[place].attributes.get("Name", f"class{place}") for place in sorted(named))


def _transforms(element: Element, where: str) -> tuple[Element, ...]:
    group = element.find("Transformations")
    if group is None:
        return ()
    announced = integer(group, "NTransformations", where, len(group.children))
    if announced != len(group.children) or any(child.name != "Transform" for child in group.children):
        raise UnreadableFile(
            f"{where}: line {group.line}: {announced} transformations are announced, {len(group.children)} are there"
        )
    return tuple(group.children)


def about(setup: Setup, digest: str) -> dict[str, Any]:
    """What is kept of the file in the graph's metadata, ready for JSON."""

    def entry(variable: Variable) -> dict[str, Any]:
        return {
            "expression": variable.expression,
            "label": variable.label,
            "title": variable.title,
            "unit": variable.unit,
            "internal": variable.internal,
            "type": variable.kind,
        }

    return {
        "method": f"{setup.method}::{setup.title}",
        "analysis": setup.analysis,
        "info": setup.info,
        "options": setup.options,
        "variables": [entry(v) for v in setup.variables],
        "spectators": [entry(v) for v in setup.spectators],
        "targets": [entry(v) for v in setup.targets],
        "classes": list(setup.classes),
        "sha256": digest,
    }
