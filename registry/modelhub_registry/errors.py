"""The registry's refusals that a caller may want to tell from others; all are a `RegistryError`."""

from __future__ import annotations

from modelhub.errors import RegistryError

__all__ = ["AbsentError", "DamageError", "GateError"]


class AbsentError(RegistryError):
    """There is no such model, version, alias or file."""


class GateError(RegistryError):
    """The evidence does not allow a protected alias to move."""


class DamageError(RegistryError):
    """What is stored is not what was stored: bytes are missing, or others."""
