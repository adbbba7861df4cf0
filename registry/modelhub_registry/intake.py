"""What comes in with a publish: files staged and hashed, each with a role, and the reports about them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub import plugins
from modelhub.errors import PluginError, RegistryError, UnknownFormat
from modelhub.files import head, parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.blobs import Blobs
from modelhub_registry.evidence import LIMIT, evidence
from modelhub_registry.records import Artifact, Evidence
from modelhub_registry.stores import Item, Staged, Wait, chunks, staged

__all__ = ["Content", "Given", "collect", "digest", "interface", "prepared"]

Given = str | os.PathLike[str] | tuple[str, str | os.PathLike[str]]
"""A path, or a pair (role, path)."""


@dataclass(frozen=True)
class Content:
    """Artifacts and reports of a version to be, and the interface records the reports tell.

    Their bytes are `items`, staged and on their way into the store; `waits` tell when they are there.
    """

    artifacts: tuple[Artifact, ...]
    reports: tuple[Evidence, ...]
    items: tuple[Item, ...]
    waits: tuple[Wait, ...]
    records: tuple[dict[str, Any], ...]

    def interface(self) -> dict[str, Any] | None:
        """The one record that all reports tell, None where none tells any."""
        if any(record != self.records[0] for record in self.records):
            raise RegistryError("the reports tell of different interface records; say which one with --interface")
        return self.records[0] if self.records else None


def collect(
    stack: ExitStack, blobs: Blobs, given: Iterable[Given], reports: Iterable[str | os.PathLike[str]]
) -> Content:
    """Stage and prepare everything; the files go when `stack` ends. Raises `UnreadableFile` for a file that is none."""
    told: list[Evidence] = []
    items: list[Item] = []
    waits: list[Wait] = []

    def stage(source: Iterable[bytes]) -> Staged:
        blob = stack.enter_context(staged(blobs.store, source))
        items.append(blobs.item(blob))
        waits.append(blobs.store.prepare(items[-1:]))
        stack.push(_after(waits[-1]))
        return blob

    records: list[dict[str, Any]] = []
    for report in map(names.path, reports):
        data = read_bytes(report, LIMIT)
        told.append(evidence(data, str(report)))
        if record := parse_json(data, str(report)).get("interface"):
            records.append(interface(record))
        stage([data])
    artifacts: list[Artifact] = []
    for one in given:
        role, path = (names.role(one[0]), names.path(one[1])) if isinstance(one, tuple) else ("", names.path(one))
        filename = names.filename(path.name)
        head(path)
        blob = stage(chunks(path))
        form = _format(path)  # while the disk is at work
        role = role or _role(blob.sha256, path, form, told, artifacts)
        artifacts.append(Artifact(role, form, filename, blob.sha256, blob.size))
    return Content(tuple(artifacts), tuple(told), tuple(items), tuple(waits), tuple(records))


def prepared(
    stack: ExitStack, blobs: Blobs, sources: Sequence[Callable[[], Iterable[bytes]]], digests: Sequence[str]
) -> tuple[list[Item], list[Wait]]:
    """Bytes from elsewhere, staged and prepared, each of which must have its digest. Raises `RegistryError`."""
    items: list[Item] = []
    waits: list[Wait] = []
    for source, wanted in zip(sources, digests, strict=True):
        blob = stack.enter_context(staged(blobs.store, source()))
        if blob.sha256 != wanted:
            raise RegistryError(f"what came as sha256:{wanted} is damaged: it hashes to {blob.sha256[:16]}…")
        items.append(blobs.item(blob))
        waits.append(blobs.store.prepare(items[-1:]))
        stack.push(_after(waits[-1]))
    return items, waits


def _after(wait: Wait) -> Callable[..., None]:
    """For the end of a failed publish: nothing that is still being written is taken away."""

    def end(*_: object) -> None:
        with suppress(RegistryError):
            wait()

    return end


def _format(path: Path) -> str:
    """The format of a file: the one importer that recognises it, else its suffix, for any file may be kept."""
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
