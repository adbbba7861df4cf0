"""A registry as a tree of plain files, as ATLAS's PathResolver, FileInPath and any `std::ifstream` find them.

    <area>/<name>/<version>/network.json       the exports; the area is the metadata value `area`, else the one given
                            network.onnx
                            network.json.report.json
                            source/net.pt      what they were made from, and all other files, in a folder by role
                            manifest.json      the manifest, byte for byte: its SHA-256 is the version's identity
    by-hash/9c/9c56cc51….json                  which versions hold the file with this SHA-256, and what proves them
    index.json                                 every model, version and alias
    SHA256SUMS                                 for `sha256sum -c`

There is no time of export and no order of chance in it: the same registry gives the same bytes. An export into a tree
that is there adds what is new, and writes again what is no longer what it was. Nothing is removed, so paths hold.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile, UsageError
from modelhub.files import atomic_write, parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.blobs import Blobs
from modelhub_registry.records import Artifact, Version

__all__ = ["INDEX", "Exported", "Held", "places", "read_index", "save", "which", "write", "write_tree", "write_zip"]

KIND = "modelhub.tree"
INDEX = "index.json"
SUMS = "SHA256SUMS"
LIMIT = 256 << 20
"""Bytes of index.json."""


@dataclass(frozen=True)
class Exported:
    """What an export did: files in the tree, and how many of them had to be written."""

    files: int
    written: int


@dataclass(frozen=True)
class Held:
    """A version in a tree that holds a file."""

    name: str
    number: int
    digest: str
    verdict: str
    role: str
    path: str

    @property
    def ref(self) -> str:
        """The reference by number."""
        return f"{self.name}@{self.number}"


def places(version: Version) -> dict[str, tuple[str, str, int]]:
    """Role, SHA-256 and size of every file of a version, by its path within the version's folder."""
    judged = version.judged
    found: dict[str, tuple[str, str, int]] = {}
    exported: dict[str, str] = {}
    for artifact in judged.artifacts:
        path = _path(artifact)
        exported[artifact.sha256] = path
        found[path] = (artifact.role, artifact.sha256, artifact.size)
    for report in judged.reports:
        target = exported[report.covers["target"]]
        found[f"{target}.report.json"] = ("report", report.sha256, report.size)
    for report in (*version.manifest.reports, *version.attached):
        if report not in judged.reports:  # it counts no more, and is kept all the same
            found[f"reports/{report.sha256}.json"] = ("report", report.sha256, report.size)
    size = len(judged.artifacts) + len({r.sha256 for r in (*version.manifest.reports, *version.attached)})
    if len({path.lower() for path in found}) < size:
        raise RegistryError(
            f"{version.ref}: two of its files would have one path in a tree; give their roles other names"
        )
    return found


def _path(artifact: Artifact) -> str:
    first, _, rest = artifact.role.partition(":")
    suffix = PurePosixPath(artifact.filename).suffix
    if first != "export":
        return f"{artifact.role.replace(':', '-')}/{artifact.filename}"
    more = rest.replace(":", "-")
    return f"network{suffix}" if more in ("", suffix.lstrip(".").lower()) else f"network-{more}{suffix}"


def write_tree(
    blobs: Blobs, versions: Iterable[Version], aliases: Mapping[str, Mapping[str, int]], root: Path, area: str
) -> Exported:
    """Write versions, in the order of names and numbers, into the folder `root`, and tell what is in it.

    What the tree holds already and is not among `versions` stays in it, and in its index.
    """
    before = read_index(root) if (root / INDEX).exists() else {"versions": [], "aliases": {}}
    known = {(v["name"], v["number"]): v for v in before["versions"]}
    written = 0
    for version in versions:
        folder = f"{_area(version, area)}/{version.name}/{version.number}"
        files = [
            {"path": f"{folder}/{path}", "role": role, "sha256": sha256, "size": size}
            for path, (role, sha256, size) in sorted(places(version).items())
        ]
        data = version.manifest.to_bytes()
        manifest = {"path": f"{folder}/manifest.json", "role": "manifest", "sha256": version.digest, "size": len(data)}
        for file in (*files, manifest):
            written += save(blobs, root / str(file["path"]), str(file["sha256"]))
        known[version.name, version.number] = {
            "name": version.name,
            "number": version.number,
            "digest": version.digest,
            "verdict": version.verdict,
            "created": version.manifest.provenance.created,
            "attached": [vars(report) for report in version.attached],
            "files": [*files, manifest],
        }
    entries = [known[key] for key in sorted(known)]
    kept = {name: pointing for name, pointing in {**before["aliases"], **aliases}.items() if pointing}
    index = {"kind": KIND, "version": 1, "layout": "groupdata", "aliases": kept, "versions": entries}
    sums = {str(file["path"]): str(file["sha256"]) for entry in entries for file in entry["files"]}
    for path, text in (*_by_hash(entries).items(), (INDEX, _text(index))):
        sums[path] = hashlib.sha256(text).hexdigest()
        written += write(root / path, text)
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(sums.items()))
    written += write(root / SUMS, lines.encode())
    return Exported(len(sums) + 1, written)


def _area(version: Version, area: str) -> str:
    told = version.manifest.metadata.get("area", area)
    parts = told.split("/") if isinstance(told, str) else [""]
    return "/".join(names.name(part) for part in parts)


def _by_hash(entries: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    held: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        told = {key: entry[key] for key in ("name", "number", "digest", "verdict")}
        for file in entry["files"]:
            held.setdefault(file["sha256"], []).append({**told, "role": file["role"], "path": file["path"]})
    return {f"by-hash/{sha256[:2]}/{sha256}.json": _text(found) for sha256, found in held.items()}


def _text(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def save(blobs: Blobs, path: Path, sha256: str) -> int:
    """Write a blob unless it is there; 1 where it had to be written."""
    with suppress(OSError), path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
            return 0
    with _writing(path) as temporary:
        blobs.save(sha256, temporary)
    return 1


def write(path: Path, data: bytes) -> int:
    """Write a file unless it is there; 1 where it had to be written."""
    with suppress(OSError):
        if path.read_bytes() == data:
            return 0
    with _writing(path) as temporary:
        temporary.write_bytes(data)
    return 1


class _writing:  # noqa: N801 (used as a function)
    """`atomic_write`, with the folders above, and every failure as a `RegistryError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        try:
            if os.path.lexists(self._path) and not self._path.is_file():
                raise RegistryError(f"{self._path} is there and is no file; name another place")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._inner = atomic_write(self._path)
            return self._inner.__enter__()
        except (OSError, UsageError) as error:
            raise RegistryError(f"cannot write {self._path}: {getattr(error, 'strerror', None) or error}") from error

    def __exit__(self, *details: Any) -> None:
        try:
            self._inner.__exit__(*details)
            if isinstance(details[1], OSError):  # what was done in the block
                raise details[1]
        except OSError as error:
            raise RegistryError(f"cannot write {self._path}: {error.strerror or error}") from error


def write_zip(root: Path, to: Path) -> None:
    """The tree that `SHA256SUMS` tells as one zip file, the same bytes for the same tree."""
    import zipfile

    with _writing(to) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        paths = [line[66:] for line in (root / SUMS).read_text(encoding="utf-8").splitlines()]
        for path in sorted([*paths, SUMS]):
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            with file.open(info, "w", force_zip64=True) as member, (root / path).open("rb") as source:
                while piece := source.read(1 << 20):
                    member.write(piece)


def read_index(root: Path) -> dict[str, Any]:
    """The index of a tree, checked: every path stays within it. Raises `RegistryError`."""
    path = root / INDEX
    try:
        document = parse_json(read_bytes(path, LIMIT), str(path))
        if not isinstance(document, dict) or document.get("kind") != KIND or document.get("version") != 1:
            raise RegistryError(f"it is no {KIND} of version 1")
        for entry in document["versions"]:
            names.name(entry["name"])
            names.digest(entry["digest"])
            if type(entry["number"]) is not int or not isinstance(entry["verdict"], str):
                raise RegistryError("a version wants a number and a verdict")
            for file in entry["files"]:
                names.digest(file["sha256"])
                parts = file["path"].split("/")
                if any(names.filename(part) in (".", "..") for part in parts):
                    raise RegistryError(f"{names.shown(file['path'])} leaves the tree")
        for name, pointing in document["aliases"].items():
            names.name(name)
            for alias, number in pointing.items():
                names.alias(alias)
                if type(number) is not int:
                    raise RegistryError("an alias points to a number")
    except (RegistryError, UnreadableFile) as error:
        raise RegistryError(f"{path}: not the index of a tree: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise RegistryError(f"{path}: not the index of a tree: something is missing in it") from None
    return document


def which(root: Path, sha256: str) -> list[Held]:
    """The versions in a tree that hold a file, with no registry at hand."""
    path = root / "by-hash" / names.digest(sha256)[:2] / f"{sha256}.json"
    if not path.exists():
        if not (root / "by-hash").is_dir():
            raise RegistryError(f"{os.fspath(root)}: not an exported tree, it has no by-hash folder")
        return []
    try:
        return [
            Held(**{key: entry[key] for key in Held.__annotations__})
            for entry in parse_json(read_bytes(path), path.name)
        ]
    except (KeyError, TypeError, UnreadableFile) as error:
        raise RegistryError(f"{path}: damaged; export the tree again") from error
