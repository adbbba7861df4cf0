"""A weight file in one pass of expat: trees into arrays while they stream by, all the rest into small elements.

Nothing of the text is kept but what a method needs. Nodes of a `<BinaryTree>`, by far the most of a large file, never
become objects: each leaves its numbers in the arrays of a `Grove`. Refused while reading: any DOCTYPE (ROOT writes
none), elements outside the closed table, nesting and numbers of elements beyond the limits.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.files import LIMITS, head

__all__ = ["OLD_TEXT", "Element", "Grove", "begins", "parse"]

CHUNK = 1 << 20

MAX_DEPTH = 20_000
"""Levels of nodes inside a tree."""

MAX_LEVELS = 64
"""Levels of any other element."""

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


class Grove:
    """The trees of one `<Weights>` as the file has them: compact arrays in the order of the file.

    Nodes are numbered as they come; those whose `type` is 0 are splits, the others leaves, each counted by themselves.
    """

    __slots__ = ("cut", "feature", "fisher", "negated", "purity", "response", "roots", "type", "up", "weight")

    def __init__(self) -> None:
        self.type = array("b")
        """`nType`: 0 goes on, anything else ends here."""
        self.up = array("i")
        """Twice the parent, and one more for a right child; -1 for roots."""

        self.feature = array("i")
        """[splits]"""
        self.cut = array("f")
        """[splits]"""
        self.negated = array("b")
        """[splits] 1 where `cType` is 0: the outcome of the cut is turned round."""
        self.fisher: dict[int, tuple[float, ...]] = {}
        """Split -> coefficients, the offset last."""

        self.response = array("f")
        """[leaves] NaN where the file has none."""
        self.purity = array("f")
        """[leaves] NaN where the file has none."""

        self.roots = array("i")
        """[trees] a node."""
        self.weight = array("f")
        """[trees] boostWeight."""

    def leaves(self) -> NDArray[np.bool_]:
        """[nodes] which nodes end a walk."""
        return np.asarray(np.frombuffer(self.type, np.int8) != 0)

    def children(self, where: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """[nodes] the left and the right child of every node, -1 for none; a second one raises `UnreadableFile`."""
        up = np.frombuffer(self.up, np.int32)
        nodes = np.flatnonzero(up >= 0).astype(np.int32)
        both = np.full(2 * len(up), -1, np.int32)
        both[up[nodes]] = nodes
        if (both[up[nodes]] != nodes).any():
            twice = int(up[nodes][np.argmax(both[up[nodes]] != nodes)])
            raise UnreadableFile(f"{where}: node {twice // 2} of the trees has two children at pos={'lr'[twice % 2]!r}")
        return both[::2], both[1::2]


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
        self.parser.StartElementHandler, self.parser.EndElementHandler = _tree_handlers(self, self.grove)
        self.parser.CharacterDataHandler = None

    def leave_tree(self) -> None:
        """A `</BinaryTree>`: back to the handlers of the rest."""
        self.parser.ordered_attributes = False
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.pieces.append


def _tree_handlers(builder: _Builder, grove: Grove) -> tuple[Callable[[str, list[str]], None], Callable[[str], None]]:
    """What expat calls for each `<Node>` and its end, for one tree.

    A million times: so everything they need is a local name, and words become numbers by the list when the tree ends.
    """
    path: list[int] = []  # twice the nodes from the root of the tree down to the one being read
    first, count = len(grove.type), grove.type.__len__
    add_type, add_up, go_down, go_up = grove.type.append, grove.up.append, path.append, path.pop
    variables: list[str] = []
    cuts: list[str] = []
    ctypes: list[str] = []
    responses: list[str] = []
    purities: list[str] = []
    usual, names, values, kinds = USUAL_NODE, slice(0, None, 2), slice(1, None, 2), {"0": 0, "1": 1, "-1": -1}

    def start(name: str, attributes: list[str]) -> None:
        if name != "Node":
            builder.unknown(name)
        if attributes[names] == usual:
            position, _, coefficients, variable, cut, ctype, response, _, purity, kind = attributes[values]
        else:
            position, coefficients, variable, cut, ctype, response, purity, kind = _unusual(attributes)
        place = count()
        if not path:
            if position != "s" or place != first:
                raise builder.fail("a tree must have one root, at pos='s'")
            add_up(-1)
        elif position == "l":
            add_up(path[-1])
        elif position == "r":
            add_up(path[-1] + 1)
        else:
            raise builder.fail(f"a node at pos={safe_text(position)!r} inside a tree, not 'l' or 'r'")
        if len(path) >= MAX_DEPTH:
            raise builder.fail(f"a tree deeper than {MAX_DEPTH} levels")
        go_down(2 * place)
        number = kinds[kind] if kind in kinds else int(kind)
        add_type(number)
        if number:
            responses.append(response)
            purities.append(purity)
            return
        if coefficients != "0":
            wanted = dict(zip(attributes[names], attributes[values], strict=True))
            split = len(grove.feature) + len(variables)
            grove.fisher[split] = tuple(float(wanted[f"fC{i}"]) for i in range(int(coefficients)))
        variables.append(variable)
        cuts.append(cut)
        ctypes.append(ctype)

    def end(name: str) -> None:
        if name == "Node":
            go_up()
            return
        if count() == first:
            raise builder.fail("a <BinaryTree> without nodes")
        grove.feature.extend(map(int, variables))
        grove.cut.extend(map(float, cuts))
        grove.negated.extend(map(_NEGATED.__getitem__, ctypes))
        grove.response.extend(map(float, responses))
        grove.purity.extend(map(float, purities))
        builder.leave_tree()

    return start, end


USUAL_NODE = ["pos", "depth", "NCoef", "IVar", "Cut", "cType", "res", "rms", "purity", "nType"]
"""The attributes of a node as TMVA has written them since 4.1 (where they are others, they are looked up by name)."""

_NEGATED = {"1": 0, "0": 1}


def _unusual(attributes: list[str]) -> tuple[str, str, str, str, str, str, str, str]:
    """What `start` needs of a node whose attributes are not the usual ones in the usual order."""
    named = dict(zip(attributes[::2], attributes[1::2], strict=True))
    kind = named["nType"]
    purity = named["purity"] if "purity" in named else _purity(named)
    if kind.strip() != "0":
        return named["pos"], "0", "", "", "", named.get("res", "nan"), purity, kind
    return named["pos"], named.get("NCoef", "0"), named["IVar"], named["Cut"], named["cType"], "", "", kind


def _purity(attributes: dict[str, str]) -> str:
    """The purity from nS and nB in float32, for the old layout (DecisionTreeNode::ReadAttributes); NaN without."""
    if "nS" not in attributes or "nB" not in attributes:
        return "nan"
    signal, background = array("f", [float(attributes["nS"]), float(attributes["nB"])])
    total = array("f", [signal + background])[0]
    return repr(signal / total if total > 0 else -1.0)
