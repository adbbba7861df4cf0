"""The registry: publish, look up, fetch, point aliases, verify; each group of verbs has a file of its own."""

from __future__ import annotations

from modelhub_registry.comparing import Comparing
from modelhub_registry.oci_server import OciServer
from modelhub_registry.publishing import Publishing
from modelhub_registry.reverifying import Reverifying
from modelhub_registry.trust import Trust

__all__ = ["Registry"]


class Registry(Publishing, OciServer, Reverifying, Comparing, Trust):
    """The registry in a folder or at a URL, by default $MODELHUB_REGISTRY, else ~/.modelhub/registry.

    Nothing is set up before: the first `push` makes it. Without `database`, a URL, the index is SQLite in the folder,
    which must then lie on a file system on which SQLite can lock (a local disk, not AFS). Safe for any number of
    processes at once. A reference is ``name``, ``name@3``, ``name@alias`` or ``name@sha256:<hex>``. Every method raises
    `RegistryError`, with what to do about it.
    """

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
