"""The manifest: what a version is, in one immutable JSON document whose SHA-256 is the version's identity.

`manifest.schema.json` beside this file is its JSON Schema. The reader here holds the same rules, and those a schema
cannot say (one spelling, one file per role, reports about these very files), at a fraction of a validator's time: every
look-up goes through it. The version's number is not part of the manifest, so a version keeps its identity when it moves
to another registry.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile, safe_text
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.errors import AbsentError

__all__ = ["Artifact", "Evidence", "Manifest", "Provenance", "Version", "canonical", "evidence_of", "sha256"]

KIND = "modelhub.manifest"
VERSION = 1
LIMIT = 16 << 20
"""Bytes of a manifest."""

PASSING = ("identical", "equivalent")
VERDICTS = (*PASSING, "suspect", "different", "inconclusive")
PARTIES = ("source", "weights", "graph", "target")
"""Whom a report may speak of; `weights` is the second file of a source that comes in two."""
MOST = 256
"""Files in one version, and reports."""


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(document: Any) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII, numbers as Python's shortest form."""
    try:
        return _encode(document).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise RegistryError(f"not expressible in JSON: {safe_text(error, 120)}") from None


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which no file and no database can hold."""


@dataclass(frozen=True)
class Artifact:
    """One file of a version. `size` in bytes."""

    role: str
    format: str
    filename: str
    sha256: str
    size: int

    @property
    def is_source(self) -> bool:
        """Whether the model came in with this file (some formats come in two: ``source`` and ``source:weights``)."""
        return self.role.partition(":")[0] == "source"

    @property
    def is_export(self) -> bool:
        """Whether the file was written from the source."""
        return self.role.partition(":")[0] == "export"


@dataclass(frozen=True)
class Evidence:
    """A report of a check: the blob it lies in, its verdict, and the SHA-256 of each party it speaks of."""

    sha256: str
    size: int
    verdict: str
    covers: dict[str, str]


@dataclass(frozen=True)
class Provenance:
    """When (UTC, ISO 8601 with microseconds), by whom and with which modelhub a version was made."""

    created: str
    by: str
    modelhub: str


@dataclass(frozen=True)
class Manifest:
    """All that a version is. Artifacts are in the order of their roles, reports in the order of their targets."""

    name: str
    artifacts: tuple[Artifact, ...]
    provenance: Provenance
    reports: tuple[Evidence, ...] = ()
    interface: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def artifact(self, role: str) -> Artifact:
        """The file of that role. Raises `RegistryError` when there is none."""
        for artifact in self.artifacts:
            if artifact.role == role:
                return artifact
        raise AbsentError(f"{self.name} has no {safe_text(role)!r}, only {', '.join(a.role for a in self.artifacts)}")

    def report_name(self, report: Evidence) -> str:
        """What a report is called beside the files: after its target."""
        target = next(a for a in self.artifacts if a.sha256 == report.covers["target"] and not a.is_source)
        return f"{target.filename}.report.json"

    def gaps(self) -> list[str]:
        """Why the reports do not prove that every export computes what the source does, one line each; [] if they do.

        A passing report counts for an export when it covers exactly this source and this export.
        """
        sources = [a for a in self.artifacts if a.is_source]
        exports = [a for a in self.artifacts if a.is_export]
        if not sources:
            return ["it has no source to compare with"]
        if not exports:
            return ["it has no export that was checked against the source"]
        reasons = [f"{self.report_name(r)} says {r.verdict}" for r in self.reports if r.verdict not in PASSING]
        wanted = {a.sha256 for a in sources}
        covered = {
            r.covers["target"]
            for r in self.reports
            if {r.covers["source"], r.covers.get("weights", r.covers["source"])} == wanted
        }
        whole = " and ".join(a.filename for a in sources)
        reasons += [f"no report covers {whole} with {a.role} {a.filename}" for a in exports if a.sha256 not in covered]
        return reasons

    @property
    def verdict(self) -> str:
        """What the reports say together: the worst; `incomplete` where an export has none, `unchecked` without any."""
        if not self.reports:
            return "unchecked"
        told = {r.verdict for r in self.reports}
        for bad in ("different", "suspect", "inconclusive"):
            if bad in told:
                return bad
        if self.gaps():
            return "incomplete"
        return "identical" if told == {"identical"} else "equivalent"

    @property
    def content(self) -> str:
        """SHA-256 of what the version says, but for who said it and when.

        Of a report only the verdict and what it covers count: a check repeated on the same files says nothing new.
        """
        document = self.to_json()
        del document["provenance"]
        document["reports"] = [{"verdict": r.verdict, "covers": r.covers} for r in self.reports]
        return sha256(canonical(document))

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object."""
        return {
            "kind": KIND,
            "version": VERSION,
            "name": self.name,
            "artifacts": [vars(a) for a in self.artifacts],
            "reports": [vars(r) for r in self.reports],
            "interface": self.interface,
            "metadata": self.metadata,
            "provenance": vars(self.provenance),
        }

    def to_bytes(self) -> bytes:
        """The manifest as it is stored; its SHA-256 is the version's identity."""
        return canonical(self.to_json())

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """The manifest in `data`. Raises `RegistryError`, which names `where`, for what the schema does not allow."""
        try:
            manifest = _manifest(parse_json(data, where))
            if manifest.to_bytes() != data:
                raise RegistryError("it is not written in the one spelling")
        except (RegistryError, UnreadableFile) as error:
            raise RegistryError(f"{where}: not a manifest: {error}") from None
        return manifest

    def judged_by(self, attached: Sequence[Evidence]) -> Manifest:
        """The manifest with later reports in the place of earlier ones on the same pair of files."""
        if not attached:
            return self
        last = {(r.covers["source"], r.covers["target"]): r for r in (*self.reports, *attached)}
        return replace(self, reports=tuple(last.values())).ordered()

    def ordered(self) -> Manifest:
        """The same manifest in the one order of artifacts and reports."""
        return replace(
            self,
            artifacts=tuple(sorted(self.artifacts, key=lambda a: a.role)),
            reports=tuple(sorted(self.reports, key=lambda r: (r.covers["target"], r.covers["source"]))),
        )


@dataclass(frozen=True)
class Version:
    """A manifest in its registry: its number, and the SHA-256 of its bytes.

    `attached` are reports that came after it was published, oldest first; `new` tells whether the push that returned it
    made it.
    """

    number: int
    digest: str
    manifest: Manifest
    attached: tuple[Evidence, ...] = ()
    new: bool = field(default=False, compare=False)

    @property
    def judged(self) -> Manifest:
        """The manifest with the reports that count today: of several on one pair of files, the last."""
        return self.manifest.judged_by(self.attached)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def ref(self) -> str:
        """The reference by number, ``btag@3``."""
        return f"{self.name}@{self.number}"

    @property
    def verdict(self) -> str:
        """What the reports that count today say together (`Manifest.verdict`)."""
        return self.judged.verdict


def fields(data: Any, wanted: Sequence[str], what: str) -> list[Any]:
    """The values of a JSON object that must have exactly the keys `wanted`."""
    if not isinstance(data, dict) or data.keys() != set(wanted):
        raise RegistryError(f"{what} must be an object with exactly {', '.join(wanted)}")
    return [data[key] for key in wanted]


def text(value: Any, what: str, limit: int = 1000) -> str:
    """A text that is not blank, of at most `limit` characters."""
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.strip() or _SURROGATE.search(value):
        raise RegistryError(f"{what} must be a text of 1 to {limit} characters, not blank")
    return value


def moment(value: Any, what: str) -> str:
    """A time in UTC with microseconds, such as 2026-02-03T04:05:06.000007Z."""
    if not isinstance(value, str) or not re.fullmatch(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", value
    ):
        raise RegistryError(f"{what} must be a UTC time such as 2026-02-03T04:05:06.000007Z")
    return value


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 63:
        raise RegistryError("a size must be a positive number of bytes")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST:
        raise RegistryError(f"{what} must be a list of at most {MOST}")
    return value


def _manifest(data: Any) -> Manifest:
    keys = ("kind", "version", "name", "artifacts", "reports", "interface", "metadata", "provenance")
    kind, version, name, artifacts, reports, interface, metadata, provenance = fields(data, keys, "it")
    if kind != KIND:
        raise RegistryError(f"its kind is {safe_text(kind)!r}, not {KIND!r}")
    if type(version) is not int or version != VERSION:
        raise RegistryError(f"its version is {safe_text(version)}; this modelhub reads version {VERSION}")
    if interface is not None and not isinstance(interface, dict):
        raise RegistryError("interface must be an object or null")
    if not isinstance(metadata, dict):
        raise RegistryError("metadata must be an object")
    for key in metadata:
        names.key(key)
    created, by, modelhub = fields(provenance, ("created", "by", "modelhub"), "provenance")
    manifest = Manifest(
        name=names.name(name),
        artifacts=tuple(_artifact(entry) for entry in _list(artifacts, "artifacts")),
        reports=tuple(evidence_of(entry) for entry in _list(reports, "reports")),
        interface=interface,
        metadata=metadata,
        provenance=Provenance(moment(created, "created"), text(by, "by"), text(modelhub, "modelhub")),
    )
    _coherent(manifest)
    return manifest


def _artifact(data: Any) -> Artifact:
    role, form, filename, digest, size = fields(data, ("role", "format", "filename", "sha256", "size"), "an artifact")
    return Artifact(names.role(role), names.key(form), names.filename(filename), names.digest(digest), _size(size))


def evidence_of(data: Any) -> Evidence:
    """What a manifest, or the index, says of a report."""
    digest, size, verdict, covers = fields(data, ("sha256", "size", "verdict", "covers"), "a report")
    if verdict not in VERDICTS:
        raise RegistryError(f"a verdict is one of {', '.join(VERDICTS)}, not {safe_text(verdict)!r}")
    if not isinstance(covers, dict) or not {"source", "target"} <= covers.keys() <= set(PARTIES):
        raise RegistryError(f"a report covers source and target, and at most {', '.join(PARTIES)}")
    return Evidence(
        names.digest(digest), _size(size), verdict, {party: names.digest(of) for party, of in covers.items()}
    )


def _coherent(manifest: Manifest) -> None:
    """What holds between the parts: one file per role and name, reports about these files, one order."""
    if manifest != manifest.ordered():
        raise RegistryError("artifacts must be in the order of roles, reports in the order of targets")
    if not manifest.artifacts:
        raise RegistryError("a version needs at least one file")
    sources = {a.sha256 for a in manifest.artifacts if a.is_source}
    targets = {a.sha256 for a in manifest.artifacts if not a.is_source}
    for report in manifest.reports:
        covers = report.covers
        if (
            not {covers["source"], covers.get("weights", covers["source"])} <= sources
            or covers["target"] not in targets
        ):
            raise RegistryError(
                "a report speaks of other files: it compares "
                f"sha256:{covers['source'][:16]}… with sha256:{covers['target'][:16]}…"
            )
    _distinct([a.role for a in manifest.artifacts], "files have the role", "give each its own, as in role=path")
    _distinct(
        [f"{r.covers['source']} {r.covers['target']}" for r in manifest.reports], "reports compare", "keep one of them"
    )
    filenames = [a.filename.lower() for a in manifest.artifacts] + [
        manifest.report_name(r).lower() for r in manifest.reports
    ]
    _distinct(filenames, "files are called", "rename one, they are fetched into one folder")


def _distinct(items: list[str], what: str, advice: str) -> None:
    if len(set(items)) < len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise RegistryError(f"two {what} {twice}: {advice}")
