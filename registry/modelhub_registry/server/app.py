"""The application: guards around the API and the pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import modelhub
from modelhub.errors import ModelhubError, safe_text
from modelhub_registry.server.guard import Audit, Capped, Options, Secured, Served
from modelhub_registry.server.looks import page, wants_html
from modelhub_registry.server.pages import pages
from modelhub_registry.server.routes import Desk, api
from modelhub_registry.server.schemas import described
from modelhub_registry.tokens import Tokens

__all__ = ["create_app"]


def create_app(registry: Served, options: Options) -> FastAPI:
    """The ASGI application that serves `registry`."""
    app = FastAPI(
        title="modelhub registry",
        version=modelhub.__version__,
        description="Trained models, what was made from them, and the evidence. Writing needs a token.",
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere
        redoc_url=None,
    )
    desk = Desk(registry, options, Tokens(options.tokens), Audit(options.audit))
    app.include_router(api(desk))
    app.include_router(pages(desk, lambda: _openapi(app)))

    @app.get("/healthz", summary="Whether the server is up", response_class=Response)
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(safe_text(part, 40) for part in first["loc"])
        return _refusal(request, 422, f"{where}: {safe_text(first['msg'], 200)}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # one route of an address does not know of the others
            headers["Allow"] = ", ".join(sorted(_methods(_openapi(app), request.url.path)))
        return _refusal(request, error.status_code, error.detail, headers)

    @app.exception_handler(ModelhubError)
    async def failed(request: Request, error: ModelhubError) -> Response:
        return _refusal(request, 500, str(error))

    @app.exception_handler(OSError)
    async def unable(request: Request, error: OSError) -> Response:  # a full disk, for an upload or for the audit log
        reason = error.strerror or type(error).__name__
        return _refusal(request, 500, f"the server cannot write or read: {safe_text(reason)}; look at its disk")

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Secured)
    app.add_middleware(Capped, largest=options.largest)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(options.hosts), www_redirect=False)
    return app


TITLES = {
    400: "That cannot be answered",
    401: "A token is needed",
    403: "The token does not allow this",
    404: "There is no such thing",
    409: "What is stored stands against it",
    422: "That cannot be answered",
}


def _refusal(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal: a page for a browser, JSON for a program."""
    if not wants_html(request):
        return JSONResponse({"detail": detail}, status, headers and dict(headers))
    answer = page(
        request, "error.html", status, title=TITLES.get(status, "That went wrong"), code=status, detail=detail
    )
    answer.headers.update(headers or {})
    return answer


def _methods(document: dict[str, Any], path: str) -> set[str]:
    """What may be done at an address of the API; a page can be read."""
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path):
            return {method.upper() for method in operations}
    return {"GET"}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = described(FastAPI.openapi(app))
    return app.openapi_schema
