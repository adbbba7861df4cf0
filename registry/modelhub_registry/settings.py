"""`registry.json`: says that a place is a registry, and how this one is set up. People may edit it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile, UsageError
from modelhub.files import atomic_write, parse_json
from modelhub_registry import names
from modelhub_registry.stores import Folder, Store, staged

__all__ = ["Settings"]

KIND = "modelhub.registry"
VERSION = 1
KEY = "registry.json"
LIMIT = 1 << 20


@dataclass(frozen=True)
class Settings:
    """protected: aliases, in lower case, that move only on passing reports, none older than `report_days` (or None).

    blobs: URL of blobs and logs, None where they lie beside registry.json. database: URL of the index, None where it is
    SQLite beside registry.json, or named by each user (a URL with a password does not belong into this file).
    """

    protected: tuple[str, ...] = ("prod",)
    blobs: str | None = None
    database: str | None = None
    report_days: int | None = 365

    @classmethod
    def load(cls, home: Store) -> Settings | None:
        """The settings of the registry there, None when there is none. Raises `RegistryError`."""
        data = b""
        try:
            for piece in home.read(KEY):
                data += piece
                if len(data) > LIMIT:
                    break
        except KeyError:
            return None
        try:
            if len(data) > LIMIT:
                raise RegistryError(f"larger than {LIMIT} bytes")
            return cls._of(parse_json(data, KEY))
        except (UnreadableFile, RegistryError) as error:
            raise RegistryError(f"{home.where}/{KEY}: not the settings of a registry: {error}") from None

    @classmethod
    def _of(cls, data: Any) -> Settings:
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise RegistryError(f"it is no JSON object of kind {KIND}")
        if data.get("version") != VERSION:
            raise RegistryError(f"it is not of version {VERSION}, which this modelhub knows")
        protected, blobs, database = data.get("protected"), data.get("blobs"), data.get("database")
        known = {"kind", "version", "protected", "blobs", "database", "report_days"}
        urls = isinstance(blobs, str | None) and isinstance(database, str | None)
        days = data.get("report_days", cls.report_days)
        lasting = days is None or (type(days) is int and days > 0)
        if not isinstance(protected, list) or not urls or not lasting or not data.keys() <= known:
            raise RegistryError(
                "it must have kind, version, protected (a list of aliases), and may have blobs and database (URLs) and "
                "report_days (a number of days)"
            )
        return cls(tuple(names.alias(word).lower() for word in protected), blobs, database, days)

    def save(self, home: Store) -> None:
        """Write the settings of a new registry."""
        text = json.dumps({"kind": KIND, "version": VERSION, **asdict(self)}, indent=1) + "\n"
        if not isinstance(home, Folder):
            with staged(home, [text.encode()]) as ready:
                home.prepare([(ready, KEY)])()
                home.place([(ready, KEY)])
            return
        try:
            home.root.mkdir(parents=True, exist_ok=True)
            with atomic_write(home.root / KEY) as path:  # a file for people, not read-only as blobs are
                path.write_text(text, encoding="utf-8")
        except (OSError, UsageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RegistryError(f"{home.where}: cannot make a registry here: {reason}") from error
