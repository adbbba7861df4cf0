"""What a weight file written by modelhub says beyond TMVA: what its response stands for, and what NaN is to become.

TMVA::Reader takes no notice of either: it answers with the response, and -999 to a NaN. They are duties of the code
that calls it, and the one entry of `<GeneralInfo>` that tells them makes the file again the model it was written from::

    <Info name="modelhub" value='{"answer": "probability", "labels": ["signal"], "missing": [null, -1.5]}'/>
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text
from modelhub.files import parse_json

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.builder import Builder

__all__ = ["INFO", "RESPONSE", "Answer", "answer_of"]

INFO = "modelhub"
"""The name of the entry."""

RESPONSE, PROBABILITY, PROBABILITIES, COMPLEMENT = "response", "probability", "probabilities", "complement"

FORMULAS = {
    RESPONSE: "response",
    PROBABILITY: "(response + 1) / 2",
    PROBABILITIES: "1 - p and p, where p = (response + 1) / 2",
    COMPLEMENT: "1 - response and response",
}


@dataclass(frozen=True)
class Answer:
    """How the model's outputs follow from the response [N, 1] of a classification, and its inputs from raw ones."""

    kind: str = RESPONSE
    """One of `FORMULAS`."""
    labels: tuple[str, ...] = ()
    """Of the outputs; empty where TMVA's own names do."""
    missing: tuple[float | None, ...] = ()
    """What a NaN in each variable becomes (None: it stays); empty where all stay."""

    @property
    def formula(self) -> str:
        """The outputs in words."""
        return FORMULAS[self.kind]

    @property
    def plain(self) -> bool:
        """Whether TMVA::Reader gives the model's outputs by itself."""
        return self.kind == RESPONSE and not any(number is not None for number in self.missing)

    def info(self) -> str:
        """The value of the entry."""
        said: dict[str, Any] = {"answer": self.kind}
        if self.labels:
            said["labels"] = list(self.labels)
        if any(number is not None for number in self.missing):
            said["missing"] = list(self.missing)
        return json.dumps(said, allow_nan=False)

    def filled(self, x: NDArray[Any]) -> NDArray[Any]:
        """`x` [N, variables] with NaN replaced."""
        if not self.missing:
            return x
        numbers = np.array([math.nan if number is None else number for number in self.missing], x.dtype)
        return np.where(np.isnan(x), numbers, x)

    def outputs(self, response: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs [N, 1 or 2] of a response [N, 1]; of any other the response itself."""
        p = response if self.kind in (RESPONSE, COMPLEMENT) else (response + 1) / 2
        return np.concatenate([1 - p, p], axis=1) if self.kind in (PROBABILITIES, COMPLEMENT) else p

    def apply(self, b: Builder, response: ir.Value) -> ir.Value:
        """`outputs` as operators, in float64."""
        one = b.constant(np.array([1], np.float64), "one") if self.kind != RESPONSE else None
        p = response
        if self.kind in (PROBABILITY, PROBABILITIES):
            p = b.op("Mul", b.op("Add", response, one), b.constant(np.array([0.5], np.float64), "half"))
        return b.op("Concat", b.op("Sub", one, p), p, axis=1) if self.kind in (PROBABILITIES, COMPLEMENT) else p


def answer_of(info: dict[str, str], variables: int, analysis: str, where: str) -> Answer:
    """What the entry of `info` says, the plain `Answer` where there is none. Raises `UnreadableFile`."""
    if INFO not in info:
        return Answer()
    said = parse_json(info[INFO].encode(), f"{where}: entry {INFO!r}")
    if not isinstance(said, dict) or set(said) - {"answer", "labels", "missing"}:
        raise UnreadableFile(f"{where}: the entry {INFO!r} is not one that modelhub writes: {safe_text(said)}")
    kind, labels, missing = said.get("answer"), said.get("labels", []), said.get("missing", [])
    if not isinstance(kind, str) or kind not in FORMULAS or (kind != RESPONSE and analysis != "classification"):
        raise UnreadableFile(f"{where}: the entry {INFO!r} calls the answer of a {analysis} {safe_text(kind)!r}")
    width = 2 if kind in (PROBABILITIES, COMPLEMENT) else 1
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UnreadableFile(f"{where}: the entry {INFO!r}: the labels are no list of texts")
    if labels and (analysis != "classification" or len(labels) != width):
        raise UnreadableFile(f"{where}: the entry {INFO!r} has {len(labels)} labels for {width} outputs")
    if not isinstance(missing, list) or len(missing) not in (0, variables) or not all(map(_number_or_none, missing)):
        raise UnreadableFile(f"{where}: the entry {INFO!r}: missing is no list of a number or null for each variable")
    return Answer(kind, tuple(labels), tuple(None if n is None else float(n) for n in missing))


def _number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2.0**128)
