"""A registry by its address: a folder or a store here, or one that a server serves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from modelhub.errors import RegistryError
from modelhub_registry.place import default_place

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry

__all__ = ["open_registry"]


def open_registry(place: str | os.PathLike[str] | None = None, database: str | None = None) -> Registry:
    """The registry at `place`, as `Registry` takes it; at ``http://`` or ``https://`` a `Client`, with the same verbs.

    What a client cannot do, such as `gc`, it refuses with where to do it.
    """
    address = os.fspath(default_place() if place is None else place)
    if not address.startswith(("http://", "https://")):
        from modelhub_registry.catalog import Registry

        return Registry(address, database)
    if database is not None:
        raise RegistryError("a registry behind a server has no database of yours: leave --database away")
    try:
        from modelhub_registry.client import Client
    except ImportError as error:
        raise RegistryError(f'{address} needs {error.name}: pip install "modelhub-hep[client]"') from None
    return cast("Registry", Client(address))
