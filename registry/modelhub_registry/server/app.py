"""The application: guards around the API and the pages."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import modelhub
from modelhub.errors import safe_text
from modelhub_registry.server.guard import Audit, Capped, Options, Secured, Served
from modelhub_registry.server.routes import SCHEMAS, Desk, api
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

    @app.get("/healthz", summary="Whether the server is up", response_class=Response)
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(safe_text(part, 40) for part in first["loc"])
        return JSONResponse({"detail": f"{where}: {safe_text(first['msg'], 200)}"}, 422)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Secured)
    app.add_middleware(Capped, largest=options.largest)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(options.hosts), www_redirect=False)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with our one shape of a refusal."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        document.setdefault("components", {}).setdefault("schemas", {}).update(SCHEMAS)
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path in document["paths"].values():
            for method, operation in path.items():
                if method in ("post", "put", "delete"):
                    operation["security"] = [{"token": []}]
                if "422" in operation["responses"]:
                    operation["responses"]["422"]["content"] = {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                    }
        app.openapi_schema = document
    return app.openapi_schema
