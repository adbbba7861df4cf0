"""A registry as an OCI image layout (opencontainers/image-spec 1.1), which oras, skopeo and crane read and push.

    oci-layout, index.json, blobs/sha256/<hex>

Every version is an image manifest of artifact type `TYPE`: its config is our manifest, byte for byte, its layers are
the files and reports, titled as `oras pull` will call them. Its tags are ``btag.3`` and, for aliases, ``btag.prod``,
since a layout has one list of tags for all models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile
from modelhub.files import head, parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.records import Version, canonical, sha256
from modelhub_registry.stores import chunks
from modelhub_registry.transfer import Arrived, Transfer
from modelhub_registry.tree import Exported, save, write

__all__ = ["TYPE", "Oci"]

TYPE = "application/vnd.modelhub.version.v1"
CONFIG = "application/vnd.modelhub.manifest.v1+json"
FILE = "application/octet-stream"
REPORT = "application/vnd.modelhub.report.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
TAG = "org.opencontainers.image.ref.name"
LIMIT = 64 << 20
"""Bytes of an index or manifest."""


def image(version: Version) -> bytes:
    """The image manifest of a version: the same version gives the same bytes."""
    manifest, judged = version.manifest, version.judged
    layers = [_layer(FILE, a.sha256, a.size, a.filename, a.role) for a in manifest.artifacts]
    for report in dict.fromkeys([*map(_key, manifest.reports), *map(_key, version.attached)]):
        counts = next((r for r in judged.reports if r.sha256 == report[0]), None)
        title = judged.report_name(counts) if counts is not None else f"{report[0]}.report.json"
        layers.append(_layer(REPORT, *report, title, "report"))
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": TYPE,
            "config": {
                "mediaType": CONFIG,
                "digest": f"sha256:{version.digest}",
                "size": len(manifest.to_bytes()),
            },
            "layers": layers,
            "annotations": {
                "org.opencontainers.image.created": manifest.provenance.created,
                "org.opencontainers.image.version": str(version.number),
                "modelhub.name": version.name,
                "modelhub.verdict": version.verdict,
                "modelhub.attached": ",".join(r.sha256 for r in version.attached),
            },
        }
    )


def _key(report: Any) -> tuple[str, int]:
    return report.sha256, report.size


def _layer(media: str, digest: str, size: int, title: str, role: str) -> dict[str, Any]:
    notes = {TITLE: title, "modelhub.role": role}
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size, "annotations": notes}


class Oci(Transfer):
    """The verbs of OCI layouts."""

    def export_oci(self, to: str | os.PathLike[str], question: str | None = None) -> Exported:
        """Write all versions, or those a question is true of, as an OCI image layout; what it holds already stays."""
        root = names.path(to)
        found = self.list() if question is None else self.search(question)
        tagged = {entry["annotations"][TAG]: entry for entry in _index(root)["manifests"]} if _is(root) else {}
        files, written = 0, write(root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for summary in found:
            version = self.version(summary.ref)
            data = image(version)
            entry = {"mediaType": MANIFEST, "artifactType": TYPE, "digest": f"sha256:{sha256(data)}", "size": len(data)}
            for tag in (str(version.number), *summary.aliases):
                full = f"{version.name}.{tag}"
                tagged[full] = {**entry, "annotations": {TAG: full}}
            written += write(root / "blobs" / "sha256" / sha256(data), data)
            digests = {version.digest, *(layer["digest"].partition(":")[2] for layer in json.loads(data)["layers"])}
            files += 1 + len(digests)
            written += sum(save(self._blobs, root / "blobs" / "sha256" / digest, digest) for digest in sorted(digests))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [tagged[tag] for tag in sorted(tagged)]}
        written += write(root / "index.json", canonical(index))
        return Exported(files + 2, written)

    def import_oci(self, root: str | os.PathLike[str]) -> Sequence[Arrived]:
        """Take in the versions of an OCI layout; images of other kinds are passed over. Every file is verified."""
        folder = names.path(root)
        images: dict[str, tuple[str, int, str, list[str]]] = {}
        tags: dict[str, list[str]] = {}
        for entry in _index(folder)["manifests"]:
            digest = _digest(entry)
            document = _document(folder, digest)
            if document.get("artifactType") != TYPE:
                continue
            notes = document.get("annotations") or {}
            name, number = names.name(notes.get("modelhub.name")), str(notes.get("org.opencontainers.image.version"))
            later = [names.digest(one) for one in str(notes.get("modelhub.attached") or "").split(",") if one]
            images[digest] = (name, int(number) if number.isdecimal() else 0, _digest(document["config"]), later)
            tag = str((entry.get("annotations") or {}).get(TAG, "")).removeprefix(f"{name}.")
            if not tag.isdecimal():
                tags.setdefault(digest, []).append(names.alias(tag))
        arrived = []
        here: dict[str, Version] = {}
        for digest, (name, count, manifest, later) in sorted(images.items(), key=lambda item: item[1][:2]):
            here[digest] = self.adopt(manifest, lambda one: _blob(folder, one), later)
            arrived.append(Arrived(f"{name}@{count}", here[digest].ref, here[digest].new))
        for digest, aliases in tags.items():
            for alias in aliases:
                self._point(here[digest].ref, alias)
        return arrived


def _is(root: Path) -> bool:
    return (root / "index.json").exists()


def _index(root: Path) -> Mapping[str, Any]:
    document = _parsed(root / "index.json")
    entries = document.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RegistryError(f"{root}: not an OCI layout: index.json has no list of manifests")
    return document


def _document(root: Path, digest: str) -> Mapping[str, Any]:
    path = root / "blobs" / "sha256" / digest
    document = _parsed(path)
    if sha256(read_bytes(path, LIMIT)) != digest:
        raise RegistryError(f"{path}: damaged")
    return document


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        document = parse_json(read_bytes(path, LIMIT), str(path))
    except UnreadableFile as error:
        raise RegistryError(str(error)) from None
    if not isinstance(document, dict):
        raise RegistryError(f"{path}: not a JSON object")
    return document


def _digest(entry: Any) -> str:
    told = entry.get("digest") if isinstance(entry, dict) else None
    return names.digest(told.removeprefix("sha256:") if isinstance(told, str) else told)


def _blob(root: Path, digest: str) -> Iterator[bytes]:
    path = root / "blobs" / "sha256" / digest
    head(path)
    return chunks(path)
