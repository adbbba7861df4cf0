"""Where a registry is: a folder or a URL, and the database of its index.

    /data/models                                    a folder; the index is the SQLite file index.sqlite in it
    root://eos.cern.ch//eos/experiment/models       any store that fsspec speaks, with a database by URL:
      + postgresql://models@db.cern.ch/models         --database, $MODELHUB_DATABASE, or `database` in registry.json

The place holds `registry.json` (`settings.py`), which may also send blobs and logs, or the index, elsewhere. So a
folder with nothing but a registry.json is a name for a registry on servers.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelhub.errors import RegistryError
from modelhub_registry import names
from modelhub_registry.database import Database, open_database
from modelhub_registry.settings import Settings
from modelhub_registry.sqlite import Fill, SQLite
from modelhub_registry.stores import Folder, Store

__all__ = ["Place", "default_place"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")


def default_place() -> str:
    """What $MODELHUB_REGISTRY says, else ~/.modelhub/registry."""
    if told := os.environ.get("MODELHUB_REGISTRY"):
        return told
    try:
        return str(Path.home() / ".modelhub" / "registry")
    except RuntimeError:  # neither $HOME nor an entry for this user
        raise RegistryError("there is no home folder for a registry: name one with MODELHUB_REGISTRY") from None


def _open_store(place: str) -> Store:
    if not _URL.match(place):
        return Folder(names.path(place))
    if place.startswith("file://"):
        return Folder(names.path(unquote(urlsplit(place).path)))
    if place.startswith(("oci://", "oci+http://")):
        raise RegistryError(
            f"{names.shown(place)} is a server of containers, not a registry: "
            "`modelhub registry mirror` brings versions there, `pull` takes them from there"
        )
    from modelhub_registry.remote import Remote

    return Remote(place)


@dataclass
class Place:
    """A place that may hold a registry; `database` is a URL given by the user."""

    home: Store
    database: str | None

    @classmethod
    def of(cls, place: str | os.PathLike[str], database: str | None) -> Place:
        """The place a user names. Raises `RegistryError`."""
        return cls(_open_store(os.fspath(place)), database or os.environ.get("MODELHUB_DATABASE") or None)

    @property
    def folder(self) -> Path | None:
        """The local folder, where it is one."""
        return self.home.root if isinstance(self.home, Folder) else None

    def settings(self) -> Settings | None:
        """What registry.json says, None when there is none."""
        return Settings.load(self.home)

    def store(self, settings: Settings) -> Store:
        """Where blobs and logs are."""
        return self.home if settings.blobs is None else _open_store(settings.blobs)

    def index(self, settings: Settings | None, fill: Fill, follow: Fill) -> Database:
        """The database of the index; what the user says goes before what registry.json says."""
        url = self.database or (settings.database if settings else None)
        if url is not None:
            return open_database(url, fill, follow)
        if self.folder is None:
            raise RegistryError(
                f"{self.home.where}: say which database holds the index, with --database or MODELHUB_DATABASE, as in "
                "postgresql://user@host/name or sqlite:////folder/index.sqlite"
            )
        return SQLite(self.folder / "index.sqlite", fill, follow)
