"""`registry.json`: says that a folder is a registry, and how this one is set up. People may edit it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.errors import RegistryError, UnreadableFile, UsageError
from modelhub.files import atomic_write, parse_json, read_bytes
from modelhub_registry import names

__all__ = ["Settings", "default_root"]

KIND = "modelhub.registry"
VERSION = 1


def default_root() -> Path:
    """The folder $MODELHUB_REGISTRY, else ~/.modelhub/registry."""
    told = os.environ.get("MODELHUB_REGISTRY")
    return Path(told) if told else Path.home() / ".modelhub" / "registry"


@dataclass(frozen=True)
class Settings:
    """protected: aliases, in lower case, that move only on passing reports. blobs: URL of blobs and logs, or None."""

    protected: tuple[str, ...] = ("prod",)
    blobs: str | None = None

    @classmethod
    def load(cls, root: Path) -> Settings | None:
        """The settings of the registry in `root`, None when the folder holds none. Raises `RegistryError`."""
        path = root / "registry.json"
        if not path.exists():
            return None
        try:
            return cls._of(parse_json(read_bytes(path, 1 << 20), str(path)))
        except (UnreadableFile, RegistryError) as error:
            raise RegistryError(f"{path}: not the settings of a registry: {error}") from None

    @classmethod
    def _of(cls, data: Any) -> Settings:
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise RegistryError(f"it is no JSON object of kind {KIND}")
        if data.get("version") != VERSION:
            raise RegistryError(f"it is not of version {VERSION}, which this modelhub knows")
        protected, blobs = data.get("protected"), data.get("blobs")
        if not isinstance(protected, list) or not isinstance(blobs, str | None) or len(data) != 4:
            raise RegistryError("it must have kind, version, protected (a list of aliases) and blobs (a URL or null)")
        return cls(tuple(names.alias(word).lower() for word in protected), blobs)

    def store(self, root: Path) -> None:
        """Write the settings of a new registry."""
        text = {"kind": KIND, "version": VERSION, "protected": list(self.protected), "blobs": self.blobs}
        try:
            root.mkdir(parents=True, exist_ok=True)
            with atomic_write(root / "registry.json") as path:
                path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        except (OSError, UsageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RegistryError(f"{root}: cannot make a registry here: {reason}") from error
