"""What the OpenAPI document says of the answers; the manifest by its own published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modelhub_registry

__all__ = ["PROBLEM", "described"]

Json = dict[str, Any]

PROBLEM: dict[int | str, Json] = {
    code: {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for code, text in {
        400: "The registry refuses, and says why.",
        401: "A token is needed.",
        403: "The token does not allow this.",
        404: "There is no such thing.",
        409: "What is stored stands against it: damage, or the evidence.",
        413: "Too many bytes.",
        422: "A parameter is not as it must be.",
        500: "The server is not in order.",
    }.items()
}
"""How every route refuses."""

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 1}
_SHA: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_VERDICTS: Json = {
    "enum": ["identical", "equivalent", "suspect", "different", "inconclusive", "incomplete", "unchecked"]
}
_REF: Json = {"type": "string", "description": "The reference by number, as btag@3."}


def _to(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


_SUMMARY = _object(
    ref=_REF,
    name=_TEXT,
    number=_COUNT,
    digest=_SHA,
    verdict=_VERDICTS,
    source={"type": "string", "description": "The format of the source."},
    exports=_list(_TEXT),
    created=_TEXT,
    by=_TEXT,
    aliases=_list(_TEXT),
)
_VERSION = _object(
    ref=_REF,
    number=_COUNT,
    digest={**_SHA, "description": "SHA-256 of the manifest as canonical JSON: the version's identity."},
    verdict=_VERDICTS,
    new={"type": "boolean", "description": "Whether this publish made it."},
    manifest=_to("Manifest"),
    attached={"description": "Reports that came later, oldest first.", **_list(_to("Evidence"))},
)
_MOVE = _object(
    created=_TEXT,
    by=_TEXT,
    move=_object(
        alias=_TEXT,
        number=_or_null(_COUNT),
        previous=_or_null(_COUNT),
        forced={"type": "boolean", "description": "Whether it went past the gate without the evidence."},
        reason=_or_null(_TEXT),
    ),
)
_STEP = _object(source=_TEXT, target=_TEXT, report=_TEXT, verdict=_VERDICTS, graph=_or_null(_SHA))
_BYTES: Json = {"description": "The bytes, verified.", "content": {"application/octet-stream": {"schema": {}}}}

_ANSWERS: dict[tuple[str, str], tuple[str, Json]] = {
    ("get", "/versions"): ("By name and number.", _list(_to("Summary"))),
    ("get", "/versions/{ref}"): (
        "The version, the aliases that point to it, and their moves.",
        _object(version=_to("Version"), aliases=_list(_TEXT), moves=_list(_to("Move"))),
    ),
    ("get", "/versions/{ref}/version"): ("The version.", _to("Version")),
    ("get", "/versions/{ref}/lineage"): (
        "The version, its conversions, and who else holds its files.",
        _object(version=_to("Version"), steps=_list(_to("Step")), shared=_list(_to("Found"))),
    ),
    ("get", "/models/{name}/aliases"): (
        "The number each alias points to.",
        {"type": "object", "additionalProperties": _COUNT},
    ),
    ("get", "/which/{digest}"): ("Versions that hold it; empty where none does.", _list(_to("Found"))),
    ("post", "/models/{name}/versions"): ("The version, published now or before.", _to("Version")),
    ("post", "/versions/{ref}/reports"): ("The version with the reports.", _to("Version")),
    ("put", "/models/{name}/aliases/{alias}"): ("The version it points to now.", _to("Version")),
    ("delete", "/models/{name}/aliases/{alias}"): ("The number it pointed to.", _object(was=_COUNT)),
}
_FILES = ("/versions/{ref}/files/{role}", "/versions/{ref}/reports/{name}", "/blobs/{digest}")


def described(document: Json) -> Json:
    """FastAPI's document with the shapes of all answers, and with who may write."""
    components = document.setdefault("components", {})
    components["schemas"] = {**_schemas(), **_bodies(components.get("schemas", {}))}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe(method, path.removeprefix("/api/v1"), operation)
    return document


def _describe(method: str, path: str, operation: Json) -> None:
    responses = operation["responses"]
    if method != "get":
        operation["security"] = [{"token": []}]
    if (method, path) in _ANSWERS:
        said, schema = _ANSWERS[method, path]
        good = next(code for code in responses if code in ("200", "201"))
        responses[good] = {"description": said, "content": {"application/json": {"schema": schema}}}
    elif path in _FILES:
        responses["200"] = _BYTES
    else:
        responses["200"] = {"description": "It is.", "content": {"text/plain": {"schema": _TEXT}}}
    if method == "get" and path != "/healthz":
        responses["304"] = {"description": "It is as If-None-Match says you have it."}
    if "422" in responses:
        responses["422"] = PROBLEM[422]


def _schemas() -> Json:
    path = Path(modelhub_registry.__file__).with_name("manifest.schema.json")
    text = path.read_text(encoding="utf-8").replace('"#/$defs/', '"#/components/schemas/Manifest/$defs/')
    manifest = json.loads(text)
    del manifest["$schema"]
    return {
        "Problem": {
            "type": "object",
            "properties": {"detail": {"type": "string", "description": "What is wrong, and what to do."}},
            "required": ["detail"],
        },
        "Manifest": manifest,
        "Evidence": manifest["properties"]["reports"]["items"],
        "Version": _VERSION,
        "Summary": _SUMMARY,
        "Found": _object(role={"type": "string", "description": "A role, report or manifest."}, version=_to("Summary")),
        "Move": _MOVE,
        "Step": _STEP,
    }


def _bodies(schemas: Json) -> Json:
    """FastAPI's schemas of bodies; those of its own refusals are not ours."""
    return {name: schema for name, schema in schemas.items() if "ValidationError" not in name}
