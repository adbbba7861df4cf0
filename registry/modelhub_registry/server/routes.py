"""The API for programs, under /api/v1. What it answers is what the Python interface gives, as JSON (`wire.py`).

A file's ETag is its SHA-256; what can change (aliases move, reports are attached) has the SHA-256 of the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from modelhub.errors import ModelhubError, RegistryError
from modelhub_registry import names, wire
from modelhub_registry.errors import AbsentError, DamageError, GateError
from modelhub_registry.server.guard import Audit, Options, Served, acting, allowed
from modelhub_registry.server.schemas import PROBLEM
from modelhub_registry.server.uploads import PUBLISH, REPORTS, Upload
from modelhub_registry.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["api"]


def _text(description: str, pattern: str, example: str, longest: int) -> Any:
    """A part of a path. The pattern is for the document: `names.py` refuses what does not fit, and says it better."""
    return Path(description=description, max_length=longest, examples=[example], json_schema_extra={"pattern": pattern})


_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_WHICH = "btag, btag@3, btag@prod, btag@newest-passing or btag@sha256:…"
Ref = Annotated[
    str, _text(_WHICH, f"^{_NAME}(@([1-9][0-9]{{0,8}}|newest-passing|sha256:[0-9a-f]{{8,64}}))?$", "btag", 300)
]
Name = Annotated[str, _text("The name of a model.", f"^{_NAME}$", "btag", 128)]
Alias = Annotated[str, _text("An alias.", "^[A-Za-z][A-Za-z0-9._-]{0,127}$", "prod", 128)]
Role = Annotated[str, _text("A role, such as source or export:onnx.", "^[a-z][a-z0-9_:-]{0,100}$", "source", 200)]
File = Annotated[str, _text("The name of a report.", "^[A-Za-z0-9_][A-Za-z0-9._+=@() -]{0,150}$", "a.report.json", 200)]
Digest = Annotated[str, Path(description="A SHA-256, or its first 8 digits or more.", pattern="^[0-9a-f]{8,64}$")]
Whole = Annotated[str, Path(description="A SHA-256.", pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Desk:
    """What all routes need."""

    registry: Served
    options: Options
    tokens: Tokens
    audit: Audit


@contextmanager
def told() -> Iterator[None]:
    """A refusal of the registry as an answer."""
    try:
        yield
    except AbsentError as error:
        raise HTTPException(404, str(error)) from None
    except (DamageError, GateError) as error:
        raise HTTPException(409, str(error)) from None
    except ModelhubError as error:
        raise HTTPException(400, str(error)) from None


def api(desk: Desk) -> APIRouter:
    """All routes below /api/v1."""
    router = APIRouter(prefix="/api/v1", responses=PROBLEM)
    _reading(router, desk)
    _files(router, desk)
    _writing(router, desk)
    return router


def _reading(router: APIRouter, desk: Desk) -> None:
    registry = desk.registry
    may = [Depends(allowed("read", desk.options, desk.tokens, desk.audit))]

    @router.get("/versions", dependencies=may, summary="All versions, those of one model, or those a question fits")
    def versions(
        request: Request,
        name: Annotated[str | None, Query(max_length=128)] = None,
        where: Annotated[str | None, Query(max_length=4000, description="epoch=2026 and auc>0.9")] = None,
        limit: Annotated[int, Query(ge=1, le=100_000)] = 100_000,
    ) -> Response:
        with told():
            if where is not None:
                question = where if name is None else f"name={names.name(name)} and ({where})"
                found: Sequence[Any] = registry.search(question, limit)
            else:
                found = registry.list(name)[:limit]
            return answer(request, [wire.summary(line) for line in found])

    @router.get("/versions/{ref}", dependencies=may, summary="A version: manifest, evidence, aliases and their moves")
    def details(request: Request, ref: Ref) -> Response:
        with told():
            return answer(request, wire.details(registry.show(ref)))

    @router.get("/versions/{ref}/version", dependencies=may, summary="A version alone: the quick look-up")
    def version(request: Request, ref: Ref) -> Response:
        with told():
            return answer(request, wire.version(registry.version(ref)))

    @router.get("/versions/{ref}/lineage", dependencies=may, summary="What it was made from and into, with the proof")
    def lineage(request: Request, ref: Ref) -> Response:
        with told():
            return answer(request, wire.lineage(registry.lineage(ref)))

    @router.get("/models/{name}/aliases", dependencies=may, summary="The aliases of a model and their versions")
    def aliases(request: Request, name: Name) -> Response:
        with told():
            return answer(request, registry.aliases(name))

    @router.get("/which/{digest}", dependencies=may, summary="The versions that hold a file, and as what")
    def which(request: Request, digest: Digest) -> Response:
        with told():
            return answer(request, [wire.found(hit) for hit in registry.which(f"sha256:{digest}")])


def _files(router: APIRouter, desk: Desk) -> None:
    registry = desk.registry
    may = [Depends(allowed("read", desk.options, desk.tokens, desk.audit))]

    @router.get("/versions/{ref}/files/{role}", dependencies=may, summary="The file of a role")
    def file(request: Request, ref: Ref, role: Role) -> Response:
        with told():
            artifact = registry.version(ref).manifest.artifact(role)
            return blob(request, artifact.sha256, artifact.filename)

    @router.get("/versions/{ref}/reports/{name}", dependencies=may, summary="A report, by its name")
    def report(request: Request, ref: Ref, name: File) -> Response:
        with told():
            judged = registry.version(ref).judged
            for evidence in judged.reports:
                if judged.report_name(evidence) == name:
                    return blob(request, evidence.sha256, name)
            raise AbsentError(f"{ref} has no report {names.shown(name)}")

    @router.get("/blobs/{digest}", dependencies=may, summary="A file by its SHA-256")
    def by_digest(request: Request, digest: Whole) -> Response:
        with told():
            if not registry.holds(digest):
                raise AbsentError(f"there is no file with the SHA-256 {digest}")
            return blob(request, digest, digest)

    def blob(request: Request, sha256: str, filename: str) -> Response:
        headers = {
            "ETag": f'"{sha256}"',
            "Cache-Control": "private, no-cache",
            "Content-Disposition": f'attachment; filename="{filename}"',
        }
        if f'"{sha256}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        path, remove = registry.fetched(sha256)
        after = BackgroundTask(remove)
        return FileResponse(path, media_type="application/octet-stream", headers=headers, background=after)


def _writing(router: APIRouter, desk: Desk) -> None:
    registry = desk.registry

    def may(scope: str) -> list[Any]:
        return [Depends(allowed(scope, desk.options, desk.tokens, desk.audit))]

    async def do(request: Request, work: Callable[[], Any], said: str, status: int = 200) -> Response:
        """Do it as the holder of the token, and note it down, also where it is refused."""

        def as_holder() -> Any:
            with acting(request), told():
                return work()

        try:
            result = await run_in_threadpool(as_holder)
        except HTTPException as error:
            desk.audit.note(request, error.status_code, str(error.detail))
            raise
        desk.audit.note(request, status, said)
        return Response(_spelled(result), status, media_type="application/json")

    @router.post(
        "/models/{name}/versions",
        dependencies=may("publish"),
        status_code=201,
        openapi_extra=PUBLISH,
        summary="Publish a version: all of it or nothing",
    )
    async def publish(request: Request, name: Name) -> Response:
        async with Upload() as upload:

            def work() -> Any:
                made = registry.push(
                    name,
                    upload.files,
                    upload.reports,
                    metadata=upload.json("metadata"),
                    interface=upload.json("interface"),
                    again=upload.again,
                )
                return wire.version(made)

            await _taken(request, upload)
            return await do(request, work, f"publish {name}", 201)

    @router.post(
        "/versions/{ref}/reports", dependencies=may("publish"), openapi_extra=REPORTS, summary="Attach reports"
    )
    async def attach(request: Request, ref: Ref) -> Response:
        async with Upload() as upload:

            def work() -> Any:
                if not upload.reports:
                    raise RegistryError("the form has no report")
                return wire.version(registry.attach(ref, upload.reports))

            await _taken(request, upload)
            return await do(request, work, f"attach to {ref}")

    @router.put("/models/{name}/aliases/{alias}", dependencies=may("promote"), summary="Point an alias to a version")
    async def move(
        request: Request,
        name: Name,
        alias: Alias,
        ref: Annotated[str, Body(max_length=300, description="A reference to a version of this model.")],
        force: Annotated[bool, Body()] = False,
        reason: Annotated[str | None, Body(max_length=1000)] = None,
    ) -> Response:
        def work() -> Any:
            if names.reference(ref).name != names.name(name):
                raise RegistryError(f"{names.shown(ref)} is no version of {name}")
            return wire.version(registry.alias(ref, alias, force=force, reason=reason))

        said = f"{name}@{alias} to {ref}" + (f", forced: {reason}" if force else "")
        return await do(request, work, said)

    @router.delete("/models/{name}/aliases/{alias}", dependencies=may("promote"), summary="Remove an alias")
    async def remove(
        request: Request,
        name: Name,
        alias: Alias,
        reason: Annotated[str | None, Query(max_length=1000)] = None,
    ) -> Response:
        work = lambda: {"was": registry.unalias(name, alias, reason=reason)}  # noqa: E731
        return await do(request, work, f"remove {name}@{alias}: {reason}")

    async def _taken(request: Request, upload: Upload) -> None:
        try:
            with told():
                await upload.take(request)
        except HTTPException as error:
            desk.audit.note(request, error.status_code, str(error.detail))
            raise


def _spelled(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def answer(request: Request, document: Any) -> Response:
    """A JSON answer with the SHA-256 of its text as ETag; 304 to who has it already."""
    body = _spelled(document)
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
