"""The TTree of an MVAUtils forest: one entry is one tree, whose nodes stand in preorder in vectors.

MVAUtils::BDT looks at the title of the TTree (``creator=lgbm;node_type=lgbm_simple;...``) and at the branches `vars`,
`values` and, by flavour, `default_left` or `offset` (Root/BDT.cxx, Root/Forest*.cxx). uproot reads them, held to the
classes it knows by itself (it would write Python for others from what the file says of them), and every block of the
file unpacks into the memory it announces and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.data.unpacking import bounded
from modelhub.errors import ModelhubError, UnreadableFile, Unsupported, UsageError, safe_text
from modelhub.files import LIMITS, head
from modelhub_mvautils import MACRO

__all__ = ["Stored", "options_of", "stored"]

NODES = 50_000_000
"""Nodes of all trees together."""

DTYPES = {"vars": "iu", "values": "f", "default_left": "b", "offset": "f"}
"""Of the branches MVAUtils reads, the kinds of number they may hold."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A forest as the file has it."""

    where: str
    title: dict[str, str]
    names: tuple[str, ...]
    """Of the variables; empty where the file has none."""
    sizes: NDArray[np.int64]
    """[trees] how many nodes each has."""
    variable: NDArray[np.int32]
    """[nodes] -1 at leaves."""
    value: NDArray[np.float32]
    """[nodes] the cut, at leaves the answer."""
    default_left: NDArray[np.bool_] | None
    """[nodes]"""
    weight: NDArray[np.float32] | None
    """[trees] the branch `offset`."""


def stored(path: Path, wanted: str) -> Stored:
    """The forest in `path`; `wanted` names its TTree where the file has several, else it is empty.

    Raises `UnreadableFile`, `Unsupported`, `UsageError`.
    """
    if head(path, len(MACRO)) == MACRO:
        from modelhub_mvautils.macro import stored_in_macro

        return stored_in_macro(path)
    try:
        import uproot
    except ImportError:
        raise UsageError(f'{path} is a ROOT file: pip install "modelhub-hep[mvautils]"') from None
    try:
        with bounded(LIMITS.expanded), uproot.open({str(path): None}) as directory:
            directory.file._streamers = {}  # no class is made from the file's own description
            return _forest(directory, path, wanted)
    except ModelhubError:
        raise
    except Exception as error:  # uproot raises nearly every class there is
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnreadableFile(f"{path}: not a readable ROOT file: {safe_text(reason, 160)}") from None


def _forest(directory: Any, path: Path, wanted: str) -> Stored:
    classes = directory.classnames(recursive=True, cycle=False)
    trees = [name for name, kind in classes.items() if kind == "TTree"]
    if wanted and wanted not in trees:
        raise UsageError(f"{path} holds no TTree {safe_text(wanted)!r}; those there: {_listed(trees)}")
    candidates = [wanted] if wanted else trees
    found = [(name, tree) for name in candidates if {"vars", "values"} <= set((tree := directory[name]).keys())]
    if not found:
        raise Unsupported(
            f"{path} holds no forest of MVAUtils",
            [f"no TTree with the branches vars and values, among {_listed(candidates)}"],
        )
    if len(found) > 1:
        raise UsageError(
            f"{path} holds {len(found)} forests; name one with --task TREE:ANSWER: {_listed([n for n, _ in found])}"
        )
    name, tree = found[0]
    where = f"{path}:{safe_text(name)}"
    if tree.num_entries < 1:
        raise UnreadableFile(f"{where}: holds no trees")
    sizes, variable = _jagged(tree, "vars", where)
    same, value = _jagged(tree, "values", where)
    if not np.array_equal(sizes, same):
        raise UnreadableFile(f"{where}: the vectors vars and values are not equally long")
    default_left = None
    if "default_left" in tree.keys():  # noqa: SIM118
        same, flags = _jagged(tree, "default_left", where)
        if not np.array_equal(sizes, same):
            raise UnreadableFile(f"{where}: the vectors vars and default_left are not equally long")
        default_left = flags.astype(np.bool_)
    return Stored(
        where,
        options_of(str(tree.title), where),
        _names(directory, classes, name),
        sizes,
        variable.astype(np.int32),
        value.astype(np.float32),
        default_left,
        _weights(tree, where),
    )


def _jagged(tree: Any, name: str, where: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The lengths [trees] and the joined numbers of a branch of vectors."""
    rows = tree[name].array(library="np")
    if rows.dtype != object or not all(isinstance(row, np.ndarray) and row.ndim == 1 for row in rows):
        raise UnreadableFile(f"{where}: the branch {name} holds no vectors of numbers")
    sizes = np.array([len(row) for row in rows], np.int64)
    if sizes.sum() > NODES:
        raise UnreadableFile(f"{where}: {int(sizes.sum())} nodes, more than the limit of {NODES}")
    joined = np.concatenate(rows)
    if joined.dtype.kind not in DTYPES[name]:
        raise UnreadableFile(f"{where}: the branch {name} holds vectors of {joined.dtype}")
    return sizes, joined


def _weights(tree: Any, where: str) -> NDArray[np.float32] | None:
    if "offset" not in tree.keys():  # noqa: SIM118
        return None
    weights = tree["offset"].array(library="np")
    if weights.dtype.kind not in DTYPES["offset"] or weights.ndim != 1:
        raise UnreadableFile(f"{where}: the branch offset holds no numbers")
    return np.asarray(weights, np.float32)


def options_of(title: str, where: str) -> dict[str, str]:
    """``key=value;key=value`` (BDT.cxx, parseOptions): a key alone is its own value, one given twice an error."""
    options: dict[str, str] = {}
    for item in title.split(";"):
        key, equals, value = item.partition("=")
        if key in options:
            raise UnreadableFile(f"{where}: its title gives {safe_text(key)!r} twice, which MVAUtils refuses")
        options[key] = value if equals else key
    return options


def _names(directory: Any, classes: dict[str, str], tree: str) -> tuple[str, ...]:
    """The labels in the TNamed `varList` beside the tree, which the converter from TMVA writes."""
    beside = "/".join([*tree.split("/")[:-1], "varList"])
    if classes.get(beside) != "TNamed":
        return ()
    entries = [entry.strip() for entry in str(directory[beside].member("fTitle")).split(",")]
    return tuple(entry.partition(":=")[0].strip() for entry in entries if entry)


def _listed(names: list[str]) -> str:
    shown = ", ".join(safe_text(name, 40) for name in names[:20])
    return (shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more") or "none"
