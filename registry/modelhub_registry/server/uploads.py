"""Files that come in: a multipart form, streamed to the disk, then handed to the registry as paths.

    curl -H "Authorization: Bearer $TOKEN" -F file=@net.pt2 -F file=@net.json -F report=@report.json \\
         -F 'metadata={"epoch": 2026}' http://127.0.0.1:8765/api/v1/models/btag/versions

The first `file` is the source, the others are exports, as `modelhub registry push` takes them; `file:<role>` names the
role. Nothing is published unless all of it has come in.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from modelhub.errors import RegistryError
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.intake import Given

__all__ = ["PUBLISH", "REPORTS", "Upload"]

_BINARY = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _BINARY}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


PUBLISH = _form(
    {
        "file": {**_FILES, "description": "The source first, then exports; file:<role> names a role."},
        "report": {**_FILES, "description": "Reports of `modelhub check`."},
        "metadata": {"type": "string", "description": "A JSON object."},
        "interface": {"type": "string", "description": "The interface record as JSON; else that of the reports."},
        "again": {"type": "boolean", "description": "A new version also of known content."},
    },
    ["file"],
)
"""What the OpenAPI document says of a publish."""

REPORTS = _form({"report": _FILES}, ["report"])


@dataclass
class Upload:
    """A form on the disk, in a folder that goes when the `async with` block ends."""

    files: list[Given] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    async def __aenter__(self) -> Upload:
        self._folder = TemporaryDirectory(prefix="modelhub-upload-")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._folder.cleanup()

    async def take(self, request: Request) -> None:
        """Read the request's form. Raises `RegistryError` for what is no such form."""
        try:
            async with request.form(max_files=600, max_fields=16, max_part_size=16 << 20) as form:
                for key, value in form.multi_items():
                    if isinstance(value, UploadFile):
                        self._file(key, value)
                    elif key in self.fields:
                        raise RegistryError(f"the form has {key} twice")
                    elif key in ("metadata", "interface", "again"):
                        self.fields[key] = value
                    else:
                        raise RegistryError(f"the form has no field {names.shown(key)}")
        except (MultiPartException, HTTPException) as error:
            raise RegistryError(f"not a form: {getattr(error, 'message', None) or error}") from None

    def _file(self, key: str, value: UploadFile) -> None:
        place = Path(self._folder.name) / str(len(self.files) + len(self.reports))
        place.mkdir()
        path = place / names.filename(value.filename)
        with path.open("wb") as out:
            shutil.copyfileobj(value.file, out)
        what, _, role = key.partition(":")
        if what == "file":
            self.files.append((names.role(role), path) if role else path)
        elif key == "report":
            self.reports.append(path)
        else:
            raise RegistryError(f"the form has no field {names.shown(key)}")

    def json(self, key: str) -> dict[str, Any] | None:
        """The JSON object in a field, None where there is none."""
        text = self.fields.get(key)
        if text is None:
            return None
        data = parse_json(text.encode(), key)
        if not isinstance(data, dict):
            raise RegistryError(f"{key} must be a JSON object")
        return data

    @property
    def again(self) -> bool:
        """Whether known content is to become a new version."""
        text = self.fields.get("again", "false")
        if text not in ("true", "false"):
            raise RegistryError("again must be true or false")
        return text == "true"
