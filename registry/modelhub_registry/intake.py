"""What comes in with a publish: files staged and hashed, each with a role, and the reports about them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub import plugins
from modelhub.errors import PluginError, RegistryError, UnknownFormat
from modelhub.files import head, parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.evidence import LIMIT, evidence
from modelhub_registry.records import Artifact, Evidence
from modelhub_registry.stores import Staged, Store, chunks, staged

__all__ = ["Content", "Item", "collect", "digest", "interface"]

Item = str | os.PathLike[str] | tuple[str, str | os.PathLike[str]]
"""A path, or a pair (role, path)."""


@dataclass(frozen=True)
class Content:
    """Artifacts and reports of a version to be, their bytes, staged, and the interface records the reports tell."""

    artifacts: tuple[Artifact, ...]
    reports: tuple[Evidence, ...]
    blobs: tuple[Staged, ...]
    records: tuple[dict[str, Any], ...]

    def interface(self) -> dict[str, Any] | None:
        """The one record that all reports tell, None where none tells any."""
        if any(record != self.records[0] for record in self.records):
            raise RegistryError("the reports tell of different interface records; say which one with --interface")
        return self.records[0] if self.records else None


def collect(
    stack: ExitStack, store: Store, items: Iterable[Item], reports: Iterable[str | os.PathLike[str]]
) -> Content:
    """Stage everything in `store`; the files go when `stack` ends. Raises `UnreadableFile` for a file that is none."""
    told: list[Evidence] = []
    blobs: list[Staged] = []
    records: list[dict[str, Any]] = []
    for report in map(names.path, reports):
        data = read_bytes(report, LIMIT)
        told.append(evidence(data, str(report)))
        if record := parse_json(data, str(report)).get("interface"):
            records.append(interface(record))
        blobs.append(stack.enter_context(staged(store, [data])))
    artifacts: list[Artifact] = []
    for item in items:
        role, path = (names.role(item[0]), names.path(item[1])) if isinstance(item, tuple) else ("", names.path(item))
        filename = names.filename(path.name)
        form = _format(path)
        blob = stack.enter_context(staged(store, chunks(path)))
        blobs.append(blob)
        role = role or _role(blob.sha256, path, form, told, artifacts)
        artifacts.append(Artifact(role, form, filename, blob.sha256, blob.size))
    return Content(tuple(artifacts), tuple(told), tuple(blobs), tuple(records))


def _format(path: Path) -> str:
    """The format of a file: the one importer that recognises it, else its suffix, for any file may be kept."""
    head(path)
    try:
        return plugins.detect(path)
    except PluginError:
        raise
    except UnknownFormat:
        return names.key(path.suffix.lower().lstrip(".") or "unknown")


def _role(sha256: str, path: Path, form: str, reports: list[Evidence], before: list[Artifact]) -> str:
    """The role of a file that came without: as the reports call it, else the first is the source, others exports."""
    export = f"export:{path.suffix.lower().lstrip('.') or form}"
    roles = {"source": "source", "weights": "source:weights", "graph": "graph", "target": export}
    told = {roles[party] for report in reports for party, digest in report.covers.items() if digest == sha256}
    if len(told) == 1:
        return names.role(told.pop())
    if not any(artifact.is_source for artifact in before):
        return "source"
    if form in plugins.names(plugins.IMPORTERS) and form not in map(
        plugins.canonical, plugins.names(plugins.EXPORTERS)
    ):
        raise RegistryError(
            f"{path}: nothing writes {form}, so it cannot be an export; give the source first, or role=path"
        )
    return names.role(export)


def digest(path: Path) -> str:
    """The SHA-256 of a file. Raises `UnreadableFile`."""
    head(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def interface(record: object) -> dict[str, Any]:
    """An interface record, checked and in modelhub's own form; lwtnn's variables files are taken as they are."""
    from modelhub.graph.interface import Interface

    return Interface.from_json(
        dict(record) if isinstance(record, Mapping) else record, "the interface record"
    ).to_json()
