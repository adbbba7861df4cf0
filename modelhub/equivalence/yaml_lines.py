"""YAML read with the line of every value, so that an error can say where it is.

Only what JSON could say is taken in: no anchors, no tags, no key twice, dates stay texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from modelhub.errors import UnreadableFile, safe_text
from modelhub.files import read_bytes

__all__ = ["Lines", "load"]

LIMIT = 1 << 20
"""Bytes of a file."""
DEPTH = 20

Lines = dict[tuple[str | int, ...], int]
"""Where a key or an item stands: its path from the top -> its line, counted from 1."""

TYPES = {
    "tag:yaml.org,2002:str",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:timestamp",
}


def load(path: Path) -> tuple[Any, Lines]:
    """The one document in `path` and the line of each of its parts. Raises `UnreadableFile` with the line."""
    try:
        text = read_bytes(path, LIMIT).decode("utf-8-sig")
        loader = yaml.SafeLoader(text)
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UnreadableFile(f"{path}, line {_line(event)}: anchors (& and *) are not taken; write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise UnreadableFile(f"{path}, line {_line(event)}: nested too deeply")
        node = loader.get_single_node()
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}: not UTF-8 text (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise UnreadableFile(f"{path}{line}: not valid YAML: {safe_text(error.problem, 120)}") from None
    except yaml.YAMLError as error:
        raise UnreadableFile(f"{path}: not valid YAML: {safe_text(error, 120)}") from None
    if node is None:
        raise UnreadableFile(f"{path}: nothing stands in it")
    lines: Lines = {}
    return _value(node, (), lines, loader, path), lines


def _value(node: yaml.Node, at: tuple[str | int, ...], lines: Lines, loader: yaml.SafeLoader, path: Path) -> Any:
    lines.setdefault(at, _line(node))
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        found: dict[str, Any] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key in found or key_node.tag == "tag:yaml.org,2002:merge":
                what = "is given twice" if key in found else "is no plain text"
                raise UnreadableFile(f"{path}, line {_line(key_node)}: the key {safe_text(key)!r} {what}")
            lines[(*at, key)] = _line(key_node)
            found[key] = _value(value, (*at, key), lines, loader, path)
        return found
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_value(item, (*at, index), lines, loader, path) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag in TYPES:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            return loader.construct_object(node)
        except (ValueError, OverflowError):
            raise UnreadableFile(f"{path}, line {_line(node)}: not a number: {safe_text(node.value)}") from None
    raise UnreadableFile(f"{path}, line {_line(node)}: the tag {safe_text(node.tag)} is not taken")


def _line(where: Any) -> int:
    return int(where.start_mark.line) + 1
