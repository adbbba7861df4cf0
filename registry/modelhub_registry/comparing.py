"""Two versions side by side: files, evidence, interface, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelhub_registry.lookup import Lookup
from modelhub_registry.records import Artifact, Version

__all__ = ["Comparing", "Comparison", "Line"]


@dataclass(frozen=True)
class Line:
    """One thing of both versions; None where a version does not have it."""

    what: str
    a: Any
    b: Any

    @property
    def same(self) -> bool:
        """Whether both say the same (True is not 1 here)."""
        return type(self.a) is type(self.b) and self.a == self.b


@dataclass(frozen=True)
class Comparison:
    """What two versions say, line by line; `interface` and `metadata` hold what differs only."""

    a: Version
    b: Version
    files: tuple[Line, ...]
    reports: tuple[Line, ...]
    interface: tuple[Line, ...]
    metadata: tuple[Line, ...]

    @property
    def same(self) -> bool:
        """Whether they hold the same files under the same names, and say the same of them."""
        lines = (*self.files, *self.reports, *self.interface, *self.metadata)
        return all(line.same for line in lines)


class Comparing(Lookup):
    """The verb that compares."""

    def compare(self, a: str, b: str) -> Comparison:
        """Two versions, of one model or of two, side by side."""
        one, other = self.version(a), self.version(b)
        return Comparison(
            one,
            other,
            tuple(_paired(_files(one), _files(other))),
            tuple(_paired(_reports(one), _reports(other))),
            tuple(_differing(one.manifest.interface or {}, other.manifest.interface or {})),
            tuple(_differing(one.manifest.metadata, other.manifest.metadata)),
        )


def _files(version: Version) -> dict[str, dict[str, Any]]:
    return {a.role: _told(a) for a in version.manifest.artifacts}


def _told(artifact: Artifact) -> dict[str, Any]:
    return {"format": artifact.format, "size": artifact.size, "sha256": artifact.sha256}


def _reports(version: Version) -> dict[str, str]:
    judged = version.judged
    roles = {a.sha256: a.role for a in judged.artifacts}
    return {roles[report.covers["target"]]: report.verdict for report in judged.reports}


def _paired(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Line]:
    for key in sorted(a.keys() | b.keys()):
        yield Line(key, a.get(key), b.get(key))


def _differing(a: Any, b: Any) -> Iterator[Line]:
    for line in _paired(dict(_leaves("", a)), dict(_leaves("", b))):
        if not line.same:
            yield line


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value with the way to it. What has a name in a list is found by its name, and the order is a value too."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        yield f"{path} (order)", [item["name"] for item in value]
        for item in value:
            yield from _leaves(f"{path}.{item['name']}", {key: inner for key, inner in item.items() if key != "name"})
    elif path:
        yield path, value
