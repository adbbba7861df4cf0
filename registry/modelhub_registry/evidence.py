"""What a check's report (report.json of `modelhub check`) tells the registry: its verdict, and on which files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from modelhub.equivalence.digest import digest
from modelhub.errors import RegistryError, UnreadableFile
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.records import PARTIES, VERDICTS, Evidence, sha256

__all__ = ["LIMIT", "created", "evidence"]

KNOWN = (1, 2)
"""Versions of the report's schema."""
LIMIT = 64 << 20
"""Bytes of a report."""


def evidence(data: bytes, where: str) -> Evidence:
    """The verdict and the parties of the report in `data`; more may stand there and is left alone.

    A report carries the digest of its own text, so one that was edited by hand is refused.
    Raises `RegistryError`, which names `where`.
    """
    try:
        document = parse_json(data, where)
        if not isinstance(document, dict) or document.get("version") not in KNOWN:
            raise RegistryError(f"it is no JSON object with version {' or '.join(map(str, KNOWN))}")
        if document.get("verdict") not in VERDICTS:
            raise RegistryError(f"its verdict is none of {', '.join(VERDICTS)}")
        _untouched(document)
        parties = document.get("parties")
        if not isinstance(parties, dict):
            raise RegistryError("it names no parties")
        covers = {party: names.digest(told) for party in PARTIES if (told := _told(parties, party)) is not None}
        if not {"source", "target"} <= covers.keys():
            raise RegistryError("it does not tell the SHA-256 of source and target")
    except (RegistryError, UnreadableFile) as error:
        raise RegistryError(f"{where}: not a report of modelhub check: {error}") from None
    return Evidence(sha256(data), len(data), document["verdict"], covers)


def _told(parties: dict[str, Any], party: str) -> Any:
    """The SHA-256 a report tells of a party, None when it does not; the weights' file is told under the source."""
    record = parties.get("source" if party == "weights" else party)
    if party == "weights" and isinstance(record, dict):
        record = record.get("weights")
    return record.get("sha256") if isinstance(record, dict) else None


def _untouched(document: dict[str, Any]) -> None:
    """What the `digest` of a report covers is told by `modelhub.equivalence.digest`."""
    try:
        own = digest(document)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise RegistryError("it lacks what its digest covers") from None
    if document.get("digest") != own:
        raise RegistryError("its text does not have the digest it tells: it was changed after it was written")


def created(data: bytes, where: str) -> datetime | None:
    """When the report in `data` was made (UTC), None when it does not say so in ISO 8601 with an offset.

    The digest of a report does not cover its time; that the time is the one published is what the blob's name proves.
    """
    told = parse_json(data, where).get("created")
    try:
        when = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return when.astimezone(UTC) if when.tzinfo else None
