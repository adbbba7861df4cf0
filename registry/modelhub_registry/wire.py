"""What server and client say to one another: the records of the Python interface as JSON, and back."""

from __future__ import annotations

from typing import Any

from modelhub.errors import RegistryError
from modelhub_registry.index import Found, History, Summary
from modelhub_registry.log import Move
from modelhub_registry.lookup import Details, Lineage, Step
from modelhub_registry.records import Manifest, Version, canonical, evidence_of, sha256

__all__ = [
    "details",
    "details_of",
    "found",
    "found_of",
    "lineage",
    "lineage_of",
    "summary",
    "summary_of",
    "version",
    "version_of",
]

Json = dict[str, Any]


def version(record: Version) -> Json:
    """A version with its whole manifest, so that the receiver can hash it."""
    return {
        "ref": record.ref,
        "number": record.number,
        "digest": record.digest,
        "verdict": record.verdict,
        "new": record.new,
        "manifest": record.manifest.to_json(),
        "attached": [vars(report) for report in record.attached],
    }


def version_of(data: Json) -> Version:
    """The version, its manifest checked against its digest."""
    manifest = canonical(data["manifest"])
    if sha256(manifest) != data["digest"]:
        raise RegistryError("the server sent a manifest that does not have the digest it names")
    return Version(
        int(data["number"]),
        str(data["digest"]),
        Manifest.from_bytes(manifest, "the server's answer"),
        tuple(evidence_of(entry) for entry in data["attached"]),
        bool(data["new"]),
    )


def summary(record: Summary) -> Json:
    """A line of a list."""
    return {"ref": record.ref, **vars(record)}


def summary_of(data: Json) -> Summary:
    """A line of a list."""
    fields = {key: value for key, value in data.items() if key != "ref"}
    return Summary(**{**fields, "exports": tuple(data["exports"]), "aliases": tuple(data["aliases"])})


def found(record: Found) -> Json:
    """A version that holds a file, and as what."""
    return {"role": record.role, "version": summary(record.version)}


def found_of(data: Json) -> Found:
    """A version that holds a file, and as what."""
    return Found(summary_of(data["version"]), str(data["role"]))


def details(record: Details) -> Json:
    """A version, its aliases and their moves."""
    moves = [{"created": m.created, "by": m.by, "move": vars(m.move)} for m in record.moves]
    return {"version": version(record.version), "aliases": list(record.aliases), "moves": moves}


def details_of(data: Json) -> Details:
    """A version, its aliases and their moves."""
    moves = tuple(History(m["created"], m["by"], Move(**m["move"])) for m in data["moves"])
    return Details(version_of(data["version"]), tuple(data["aliases"]), moves)


def lineage(record: Lineage) -> Json:
    """Conversions of a version, and who else holds its files."""
    return {
        "version": version(record.version),
        "steps": [vars(step) for step in record.steps],
        "shared": [found(hit) for hit in record.shared],
    }


def lineage_of(data: Json) -> Lineage:
    """Conversions of a version, and who else holds its files."""
    steps = tuple(Step(**step) for step in data["steps"])
    return Lineage(version_of(data["version"]), steps, tuple(found_of(hit) for hit in data["shared"]))
