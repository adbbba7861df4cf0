"""The log of a model: publishes, reports and alias moves in order, one small JSON file each, never changed.

The log, with the manifests, is the truth: numbers and aliases are what the log says. An entry names the digest of the
one before, so none can be changed, swapped or taken out of the middle unseen.

Concurrency is decided by the database alone, on every store: an entry is written while the index's one write lock is
held (`database.py`) and before the index's transaction ends, so numbers are distinct and no two writers want one key.
Where a crash comes between entry and index, the next writer finds the entry and adopts it. An entry's key must be new:
if it is not, somebody writes with another index, and is told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile, safe_text
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.records import canonical, fields, moment, sha256, text
from modelhub_registry.stores import Item, Store, staged

__all__ = ["Attach", "Entry", "Event", "Head", "Log", "Move", "Publish"]

KIND = "modelhub.log-entry"
VERSION = 1
LIMIT = 1 << 20
"""Bytes of an entry."""


@dataclass(frozen=True)
class Publish:
    """Version `number` is the manifest with this SHA-256."""

    number: int
    manifest: str


@dataclass(frozen=True)
class Attach:
    """The report with this SHA-256 speaks of version `number` too; of several on one pair of files the last counts."""

    number: int
    report: str


@dataclass(frozen=True)
class Move:
    """`alias` points to version `number` from now on (None: to none any more); it pointed to `previous`.

    `forced` tells that the evidence did not allow it; then `reason` says why it was done all the same.
    """

    alias: str
    number: int | None
    previous: int | None
    forced: bool
    reason: str | None


Event = Publish | Attach | Move

_KINDS = {Publish: "publish", Attach: "report", Move: "alias"}


@dataclass(frozen=True)
class Head:
    """Where a model's log stands: entries so far, digest of the last (None: it is lost), highest version number.

    `lost` counts entries that could not be read. Each may have been a publish, so `versions` counts it as one: a number
    may be left out, never given out twice.
    """

    entries: int = 0
    last: str | None = None
    versions: int = 0
    lost: int = 0

    def skip(self) -> Head:
        """Where the log stands after an entry that cannot be read."""
        return Head(self.entries + 1, None, self.versions + 1, self.lost + 1)


@dataclass(frozen=True)
class Entry:
    """One event. `sequence` counts from 1, `after` is the digest of the entry before, `created` a UTC time."""

    name: str
    sequence: int
    after: str | None
    created: str
    by: str
    event: Event

    def _body(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "version": VERSION,
            "name": self.name,
            "sequence": self.sequence,
            "after": self.after,
            "created": self.created,
            "by": self.by,
            "event": {"type": _KINDS[type(self.event)], **vars(self.event)},
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON. It stands in the entry itself, and in the next one as `after`."""
        return sha256(canonical(self._body()))

    def to_bytes(self) -> bytes:
        """The entry as it is stored."""
        return canonical({**self._body(), "digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Entry:
        """The entry in `data`. Raises `RegistryError`, which names `where`."""
        try:
            document = parse_json(data, where)
            keys = ("name", "sequence", "after", "created", "by", "event", "kind", "version", "digest")
            name, sequence, after, created, by, event, kind, version, _ = fields(document, keys, "it")
            if kind != KIND or type(version) is not int or version != VERSION:
                raise RegistryError(f"it is no {KIND} of version {VERSION}")
            if after is not None:
                names.digest(after)
            name, sequence = names.name(name), _count(sequence)
            entry = cls(name, sequence, after, moment(created, "created"), text(by, "by"), _event(event))
            if entry.to_bytes() != data:
                raise RegistryError("it does not have the digest it tells")
        except (RegistryError, UnreadableFile) as error:
            raise RegistryError(f"{where}: damaged log entry: {error}") from None
        return entry

    def head(self, before: Head) -> Head:
        """Where the log stands after this entry."""
        number = self.event.number if isinstance(self.event, Publish) else 0
        return Head(self.sequence, self.digest, max(before.versions, number), before.lost)

    def follows(self, before: Head) -> bool:
        """Whether it can be what comes after `before`: the chain holds, numbers count up, aliases point to versions."""
        known, number = before.versions, self.event.number
        if isinstance(self.event, Move) and number is None:
            number = self.event.previous or 0
        least, most = (known + 1 - before.lost, known + 1) if isinstance(self.event, Publish) else (1, known)
        chained = self.after == before.last or (before.lost > 0 and before.last is None)
        return chained and number is not None and least <= number <= most


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise RegistryError(f"{safe_text(value)} is no number of a version or entry")
    return value


def _event(data: Any) -> Event:
    if isinstance(data, dict) and data.get("type") == "publish":
        _, number, manifest = fields(data, ("type", "number", "manifest"), "a publish")
        return Publish(_count(number), names.digest(manifest))
    if isinstance(data, dict) and data.get("type") == "report":
        _, number, report = fields(data, ("type", "number", "report"), "a report")
        return Attach(_count(number), names.digest(report))
    kind, alias, number, previous, forced, reason = fields(
        data, ("type", "alias", "number", "previous", "forced", "reason"), "an alias move"
    )
    if kind != "alias" or not isinstance(forced, bool) or (forced and reason is None):
        raise RegistryError("an event is a publish, a report, or an alias move that tells its reason when forced")
    return Move(
        names.alias(alias),
        None if number is None else _count(number),
        None if previous is None else _count(previous),
        forced,
        None if reason is None else text(reason, "reason"),
    )


class Log:
    """The logs of all models in a store."""

    folder = "log"

    def __init__(self, store: Store) -> None:
        self.store = store

    def _key(self, name: str, sequence: int) -> str:
        return f"{self.folder}/{names.name(name)}/{sequence:06d}.json"

    def key(self, entry: Entry) -> str:
        """Where in the store an entry lies."""
        return self._key(entry.name, entry.sequence)

    def append(self, entry: Entry, first: Sequence[Item] = ()) -> None:
        """Store an entry, durably, after the prepared blobs `first` that it speaks of.

        The caller holds the write lock and has looked for entries `after` its head.
        """
        with staged(self.store, [entry.to_bytes()]) as ready:
            self.store.place(first, last=(ready, self.key(entry)))

    def after(self, name: str, head: Head) -> Iterator[Entry]:
        """The entries that follow `head`. Raises `RegistryError` at a damaged one."""
        while self.store.has(self._key(name, head.entries + 1)):
            entry = self.next(name, head)
            yield entry
            head = entry.head(head)

    def next(self, name: str, head: Head) -> Entry:
        """The entry that follows `head`. Raises `RegistryError` when it is missing or damaged."""
        sequence = head.entries + 1
        key = self._key(name, sequence)
        where = f"{self.store.where}/{key}"
        data = b""
        try:
            for piece in self.store.read(key):
                data += piece
                if len(data) > LIMIT:
                    raise RegistryError(f"{where}: damaged log entry: larger than {LIMIT} bytes")
        except KeyError:
            raise RegistryError(f"{where}: the log entry is missing; put it back from a copy") from None
        entry = Entry.from_bytes(data, where)
        if (entry.name, entry.sequence) != (name, sequence) or not entry.follows(head):
            raise RegistryError(
                f"{where}: the log entry does not follow the one before: one of the two was changed or swapped"
            )
        return entry

    def names(self) -> list[str]:
        """Names of all models that have a log."""
        return [name for name in self.store.list(self.folder) if names.is_name(name)]

    def length(self, name: str) -> int:
        """The highest sequence number in the log of a model, gaps or not."""
        numbers = [key.removesuffix(".json") for key in self.store.list(f"{self.folder}/{names.name(name)}")]
        return max((int(n) for n in numbers if n.isascii() and n.isdigit()), default=0)
