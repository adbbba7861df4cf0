"""A weight file in one pass of expat: trees into arrays while they stream by, all the rest into small elements.

Nothing of the text is kept but what a method needs. Nodes of a `<BinaryTree>`, by far the most of a large file, never
become objects: each leaves its numbers in the arrays of a `Grove`. Refused while reading: any DOCTYPE (ROOT writes
none), elements outside the closed table, nesting and numbers of elements beyond the limits.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.files import LIMITS, head
from modelhub_tmva.grove import Grove, handlers

__all__ = ["METHODS", "OLD_TEXT", "Element", "begins", "parse"]

METHODS = ("BDT", "MLP", "DNN", "DL", "Fisher", "LD", "Category")
"""The methods that are read. Others are refused at the first element, before their bulk is."""

CHUNK = 1 << 20

MAX_LEVELS = 64
"""Levels of elements other than nodes of trees."""

MAX_ELEMENTS = 200_000
"""How many elements other than nodes of trees."""

GZIP = b"\x1f\x8b"

OLD_TEXT = b"#GEN -*-*-"
"""How the text files of TMVA before 4.0.2 begin."""

TEXT = {
    "Option",
    "Neuron",
    "Matrix",
    "Statistics",
    "Eigenvectors",
    "Histogram",
    "HistogramBinning",
    "Weights",
    "Biases",
}
"""Elements whose text counts."""

KNOWN = TEXT | {
    *("MethodSetup", "GeneralInfo", "Info", "Options", "Variables", "Variable", "Spectators", "Spectator"),
    *("Classes", "Class", "Targets", "Target", "Transformations", "Transform", "Selection", "Input", "Output"),
    *("Ranges", "Range", "PDF", "BinaryTree", "SubMethod", "Layout", "Layer", "Coefficient"),
    *("DenseLayer", "ReshapeLayer"),
}
"""The closed table; `CumulativePDF_cls<i>` belongs to it too."""

SKIPPED = {"MVAPdfs", "InverseHessian"}
"""Elements that do not take part in the response: the output's distribution in training, and its error estimate."""


@dataclass(slots=True)
class Element:
    """One element that is not a node of a tree."""

    name: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""
    grove: Grove | None = None
    """The trees inside, for a `<Weights>` that has any."""

    def find(self, name: str) -> Element | None:
        """The first child called `name`."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> list[Element]:
        """All children called `name`."""
        return [child for child in self.children if child.name == name]


def begins(path: Path) -> bytes:
    """The first few hundred bytes of the text in `path`, inflated where needed, white space in front stripped."""
    start = head(path, 4096)
    if start.startswith(GZIP):
        try:
            start = zlib.decompressobj(31).decompress(start, 4096)
        except zlib.error:
            return b""
    return start.lstrip()


_RAW_CODE = re.compile(rb'(ActivationFunction=")([\x01-\x07])(?=")')
"""MethodDNN once wrote the number of an activation as the character of that number, which is no XML."""


def parse(path: Path) -> tuple[Element, str]:
    """The root element of `path` and the SHA-256 of its bytes. Raises `UnreadableFile`, `Unsupported`."""
    if begins(path).startswith(OLD_TEXT):
        raise Unsupported(
            f"{path} is a text weight file of TMVA before 4.0.2; train again, or convert it with that TMVA"
        )
    digest = hashlib.sha256()
    builder = _Builder(str(path))
    parser = builder.parser
    try:
        first = True
        for piece in _text(path, digest):
            data = piece.lstrip() if first else piece
            first = first and not data
            if b"ActivationFunction" in data:
                data = _RAW_CODE.sub(lambda found: found[1] + b"%d" % found[2][0], data)
            if data:
                parser.Parse(data, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise UnreadableFile(f"{path}: not well-formed XML, line {error.lineno}: {what}") from None
    except (ValueError, OverflowError, LookupError) as error:
        line = parser.CurrentLineNumber
        raise UnreadableFile(f"{path}: line {line}: {builder.blame(error)}") from None
    if builder.root is None:
        raise UnreadableFile(f"{path}: the file holds no element")
    return builder.root, digest.hexdigest()


def _text(path: Path, digest: hashlib._Hash) -> Iterator[bytes]:
    """The text of `path` in pieces, inflated where it begins as gzip; bounded while inflating."""
    compressed = head(path, 2) == GZIP
    inflate = zlib.decompressobj(31)
    total = 0
    try:
        with path.open("rb") as file:
            while raw := file.read(CHUNK):
                digest.update(raw)
                if not compressed:
                    yield raw
                    continue
                while raw:
                    if inflate.eof:  # gzip files may be joined end to end
                        inflate = zlib.decompressobj(31)
                    piece = inflate.decompress(raw, CHUNK)
                    raw = inflate.unconsumed_tail or inflate.unused_data
                    total += len(piece)
                    if total > LIMITS.expanded:
                        raise UnreadableFile(f"{path}: expands beyond the limit of {LIMITS.expanded} bytes")
                    yield piece
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    except zlib.error as error:
        raise UnreadableFile(f"{path}: not a readable gzip file: {safe_text(error)}") from None
    if compressed and not inflate.eof:
        raise UnreadableFile(f"{path}: the gzip file ends too early")


class _Builder:
    """The handlers of expat, in two sets: a lean one for nodes of trees, which runs a million times, and the rest."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.root: Element | None = None
        self.open: list[Element] = []
        self.pieces: list[str] = []
        self.count = 0
        self.skipping = 0
        self.grove = Grove()
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartDoctypeDeclHandler = self.doctype
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.pieces.append
        self.parser = parser

    def blame(self, error: Exception) -> str:
        """What went wrong, in the words of the file."""
        if isinstance(error, KeyError):
            return f"the attribute {safe_text(error.args[0])!r} is missing"
        return f"not a number that fits: {safe_text(error)}"

    def fail(self, what: str) -> UnreadableFile:
        """The error for a file that is no weight file, at the line being read."""
        return UnreadableFile(f"{self.where}: line {self.parser.CurrentLineNumber}: {what}")

    def doctype(self, *_: object) -> None:
        """No weight file has a DOCTYPE; with one come entities, and with them bombs."""
        raise self.fail("holds a DOCTYPE, which no TMVA weight file has; not read")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element opens."""
        if self.skipping or (name in SKIPPED and self.open):
            self.skipping += 1
            if self.skipping > MAX_LEVELS:
                raise self.fail("elements are nested too deeply")
            return
        self.count += 1
        if self.count > MAX_ELEMENTS or len(self.open) >= MAX_LEVELS:
            raise self.fail("too many elements, or nested too deeply")
        if name == "BinaryTree":
            self.plant(attributes)
            return
        if name not in KNOWN and not name.startswith("CumulativePDF_cls"):
            self.unknown(name)
        element = Element(name, self.parser.CurrentLineNumber, attributes)
        if self.open:
            self.open[-1].children.append(element)
        elif name == "MethodSetup":
            method = attributes.get("Method", "").partition("::")[0]
            if method and method not in METHODS:
                raise Unsupported(
                    f"{self.where} cannot be read as a TMVA method",
                    [f"method {safe_text(attributes['Method'])}; known: {', '.join(METHODS)}"],
                )
            self.root = element
        else:
            raise self.fail(f"begins with <{safe_text(name)}>, a TMVA weight file with <MethodSetup>")
        self.open.append(element)
        self.pieces.clear()

    def unknown(self, name: str) -> None:
        """Refuse an element by name, and name the method it belongs to."""
        method = safe_text(self.root.attributes.get("Method", "?")) if self.root else "?"
        raise Unsupported(
            f"{self.where} holds what this reader does not know",
            [f"<{safe_text(name)}> in line {self.parser.CurrentLineNumber}, of the method {method}"],
        )

    def end(self, name: str) -> None:
        """An element closes; only here its text is complete."""
        if self.skipping:
            self.skipping -= 1
            self.pieces.clear()
            return
        element = self.open.pop()
        if name in TEXT and not element.children:
            element.text = "".join(self.pieces)
        self.pieces.clear()

    def plant(self, attributes: dict[str, str]) -> None:
        """A tree begins: nodes from here on."""
        parent = self.open[-1] if self.open else None
        if parent is None or parent.name != "Weights":
            raise self.fail("a <BinaryTree> outside <Weights>")
        if parent.grove is None:
            parent.grove = Grove()
        self.grove = parent.grove
        kind = attributes.get("type", "DecisionTree")
        if kind != "DecisionTree":
            raise Unsupported(f"{self.where}: a <BinaryTree> of type {safe_text(kind)!r}, not DecisionTree")
        self.grove.weight.append(float(attributes["boostWeight"]))
        self.grove.roots.append(len(self.grove.type))
        self.parser.ordered_attributes = True
        self.parser.StartElementHandler, self.parser.EndElementHandler = handlers(self, self.grove)
        self.parser.CharacterDataHandler = None

    def leave_tree(self) -> None:
        """A `</BinaryTree>`: back to the handlers of the rest."""
        self.parser.ordered_attributes = False
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.pieces.append
