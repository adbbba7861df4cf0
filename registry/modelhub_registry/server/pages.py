"""The pages for people: models, versions, graphs, comparisons, the API. They run no script and load nothing elsewhere.

/                                    models; with ?where= the versions a question is true of
/models/{name}                       versions and aliases of a model, and every move of an alias
/models/{name}/{number}              a version; an alias or a digest in place of the number leads there
/models/{name}/{number}/graph        its graph as a drawing
/models/{name}/{number}/reports/{r}  a report of its check in whole
/compare?a=btag@1&b=btag@2           two versions side by side
/api                                 the API
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from modelhub.errors import RegistryError, safe_text
from modelhub_registry.errors import AbsentError
from modelhub_registry.lookup import steps_of
from modelhub_registry.records import Artifact, Version
from modelhub_registry.server import browsing, evidence
from modelhub_registry.server.drawing import Arrow, Box, draw
from modelhub_registry.server.guard import allowed
from modelhub_registry.server.looks import ICON, STYLE, STYLE_TAG, page, part
from modelhub_registry.server.routes import Desk, told
from modelhub_registry.server.sketch import BOXES, Sketches

__all__ = ["pages"]

Name = Annotated[str, Path(max_length=128)]
Which = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Query(ge=1, le=browsing.LAST)]
WHERE = 4000


def pages(desk: Desk, document: Callable[[], dict[str, Any]]) -> APIRouter:
    """All routes of pages; `document` gives the OpenAPI document."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    may = [Depends(allowed("read", desk.options, desk.tokens, desk.audit))]
    _still(router)
    _lists(router, desk, may)
    _versions(router, desk, may)

    @router.get("/api", dependencies=may)
    def api(request: Request) -> Response:
        return page(request, "api.html", document=document(), base=_base(request))

    return router


def _still(router: APIRouter) -> None:
    """The style sheet and the icon, which are no secret; their address changes when they do."""
    kept = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{STYLE_TAG}"'}

    @router.get("/static/style.css")
    async def style() -> Response:
        return Response(STYLE, media_type="text/css", headers=kept)

    @router.get("/static/icon.svg")
    async def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml", headers=kept)


def _lists(router: APIRouter, desk: Desk, may: list[Any]) -> None:
    registry = desk.registry

    @router.get("/", dependencies=may)
    def models(request: Request, where: Annotated[str, Query(max_length=WHERE)] = "", p: Number = 1) -> Response:
        if not where.strip():
            with told():
                return page(request, "models.html", found=browsing.model_list(registry, p), where="", p=p)
        try:
            found = browsing.by_question(registry, where, p)
        except RegistryError as error:
            return page(request, "search.html", 400, where=where, wrong=str(error), found=None, p=p)
        return page(request, "search.html", where=where, wrong="", found=found, p=p)

    @router.get("/models/{name}", dependencies=may)
    def model(request: Request, name: Name, p: Number = 1, moves: Number = 1) -> Response:
        with told():
            found, pointers = browsing.versions_of(registry, name, p)
            history = browsing.moves_of(registry, name, moves)
            return page(request, "model.html", name=name, found=found, pointers=pointers, history=history)

    @router.get("/compare", dependencies=may)
    def compare(
        request: Request,
        a: Annotated[str, Query(max_length=300)] = "",
        b: Annotated[str, Query(max_length=300)] = "",
    ) -> Response:
        if not (a.strip() and b.strip()):
            return page(request, "compare.html", a=a, b=b, found=None, wrong="")
        try:
            found = registry.compare(a.strip(), b.strip())
        except RegistryError as error:
            status = 404 if isinstance(error, AbsentError) else 400
            return page(request, "compare.html", status, a=a, b=b, found=None, wrong=str(error))
        return page(request, "compare.html", a=found.a.ref, b=found.b.ref, found=found, wrong="")


def _versions(router: APIRouter, desk: Desk, may: list[Any]) -> None:
    registry = desk.registry
    sketches = Sketches(registry)

    def named(name: str, which: str, below: str = "") -> tuple[Version, Response | None]:
        """The version, and the way to its own address where it was asked for by another name."""
        version = registry.version(f"{name}@{which}")
        if which == str(version.number):
            return version, None
        return version, RedirectResponse(f"/models/{part(version.name)}/{version.number}{below}", 307)

    @router.get("/models/{name}/{which}", dependencies=may)
    def version(request: Request, name: Name, which: Which) -> Response:
        with told():
            found, elsewhere = named(name, which)
            if elsewhere is not None:
                return elsewhere
            details = registry.show(found.ref)
            return page(
                request,
                "version.html",
                version=found,
                judged=found.judged,
                details=details,
                base=_base(request),
                gaps=evidence.gaps(registry, found),
                reports=evidence.reports(registry, found),
                interface=evidence.interface(found),
                steps=steps_of(found),
                lineage=_lineage(found),
                shared=browsing.sharing(
                    registry, found.name, found.number, [a.sha256 for a in found.manifest.artifacts]
                ),
            )

    @router.get("/models/{name}/{which}/graph", dependencies=may)
    def graph(
        request: Request, name: Name, which: Which, role: Annotated[str | None, Query(max_length=200)] = None
    ) -> Response:
        with told():
            found, elsewhere = named(name, which, "/graph")
            if elsewhere is not None:
                return elsewhere
            artifact = found.manifest.artifact(role) if role else _drawable(found)
        shown: dict[str, Any] = {"version": found, "artifact": artifact, "most": BOXES}
        try:
            sketch = sketches.of(found, artifact)
        except RegistryError as error:
            return page(request, "graph.html", sketch=None, wrong=safe_text(error, 400), **shown)
        nodes = _nodes(sketch)
        drawn = _drawn(sketch, nodes, artifact)
        return page(request, "graph.html", sketch=sketch, nodes=nodes.values(), drawn=drawn, wrong="", **shown)

    @router.get("/models/{name}/{which}/reports/{report}", dependencies=may)
    def report(name: Name, which: Which, report: Annotated[str, Path(max_length=200)]) -> Response:
        with told():
            return evidence.whole(registry, registry.version(f"{name}@{which}"), report)


def _base(request: Request) -> str:
    """The address that the browser reached the server by."""
    return str(request.base_url).rstrip("/")


def _drawable(version: Version) -> Artifact:
    """The file whose graph says most: what was written as ONNX, else another, else the source."""
    order = ("export:onnx", "graph", "export", "source")
    files = [a for a in version.manifest.artifacts if not a.role.endswith(":weights")]
    places = {
        a.role: [a.role.startswith(kind) for kind in order].index(True) for a in files if a.role.startswith(order)
    }
    if not places:
        raise AbsentError(f"{version.ref} holds no file with a graph")
    return min((a for a in files if a.role in places), key=lambda a: places[a.role])


@dataclass(frozen=True)
class Node:
    """A node as the table beside the drawing has it: what it is called and is, and what it reads."""

    title: str
    what: str
    parameters: int
    reads: str


def _nodes(sketch: dict[str, Any]) -> dict[str, Node]:
    titles: dict[str, str] = {}
    reads: dict[str, list[str]] = {}
    for key, operator, layer, _, kind in sketch["boxes"]:
        titles[key] = layer.removesuffix(f"/{operator}") or operator if kind == "node" else operator
    for source, target, shape in sketch["arrows"]:
        reads.setdefault(target, []).append(f"{titles[source]} ({shape})")
    return {
        key: Node(
            titles[key], operator if kind == "node" else f"{kind} {layer}", parameters, ", ".join(reads.get(key, ()))
        )
        for key, operator, layer, parameters, kind in sketch["boxes"]
    }


def _drawn(sketch: dict[str, Any], nodes: dict[str, Node], artifact: Artifact) -> Markup:
    boxes = []
    for (key, *_, kind), node in zip(sketch["boxes"], nodes.values(), strict=True):
        what = node.what if kind == "node" else node.what.partition(" ")[2]
        said = [what if what != node.title else "", f"{node.parameters:,} parameters" if node.parameters else ""]
        boxes.append(Box(key, node.title, ", ".join(filter(None, said)), kind))
    return draw(boxes, [Arrow(*arrow) for arrow in sketch["arrows"]], f"The graph of {artifact.filename}")


def _lineage(version: Version) -> Markup:
    """Source, graph and exports, each conversion with its verdict."""
    judged = version.judged
    boxes = [Box(a.role, a.role, a.filename, "input" if a.is_source else "output") for a in judged.artifacts]
    arrows = {}
    for step in steps_of(version):
        if step.graph is None:
            arrows[step.source, step.target] = Arrow(step.source, step.target, step.verdict, step.verdict)
            continue
        middle = f"graph {step.graph}"
        if middle not in {box.key for box in boxes}:
            boxes.append(Box(middle, "graph", f"sha256:{step.graph[:12]}…", "node"))
        arrows[step.source, middle] = Arrow(step.source, middle)
        arrows[middle, step.target] = Arrow(middle, step.target, step.verdict, step.verdict)
    return draw(boxes, list(arrows.values()), f"What {version.ref} was made from, and into")
