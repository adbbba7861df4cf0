"""Decision trees while they stream by: what each node of a file leaves behind, and the handlers that take it up."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text

__all__ = ["Grove", "handlers"]

MAX_DEPTH = 20_000
"""Levels of nodes inside a tree."""


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


class Reading(Protocol):
    """What the handlers need of the reading that goes on around them."""

    def fail(self, what: str) -> UnreadableFile:
        """The error for a file that is no weight file, at the line being read."""

    def unknown(self, name: str) -> None:
        """Refuse an element by name."""

    def leave_tree(self) -> None:
        """The tree has ended."""


def handlers(reading: Reading, grove: Grove) -> tuple[Callable[[str, list[str]], None], Callable[[str], None]]:
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
            reading.unknown(name)
        if attributes[names] == usual:
            position, _, coefficients, variable, cut, ctype, response, _, purity, kind = attributes[values]
        else:
            position, coefficients, variable, cut, ctype, response, purity, kind = _unusual(attributes)
        place = count()
        if not path:
            if position != "s" or place != first:
                raise reading.fail("a tree must have one root, at pos='s'")
            add_up(-1)
        elif position == "l":
            add_up(path[-1])
        elif position == "r":
            add_up(path[-1] + 1)
        else:
            raise reading.fail(f"a node at pos={safe_text(position)!r} inside a tree, not 'l' or 'r'")
        if len(path) >= MAX_DEPTH:
            raise reading.fail(f"a tree deeper than {MAX_DEPTH} levels")
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
            raise reading.fail("a <BinaryTree> without nodes")
        grove.feature.extend(map(int, variables))
        grove.cut.extend(map(float, cuts))
        grove.negated.extend(map(_NEGATED.__getitem__, ctypes))
        grove.response.extend(map(float, responses))
        grove.purity.extend(map(float, purities))
        reading.leave_tree()

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
