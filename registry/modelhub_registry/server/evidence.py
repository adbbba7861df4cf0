"""What a version's page says of its interface and its evidence. A damaged report is told, and not in the way."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi.responses import HTMLResponse
from markupsafe import Markup

import modelhub.reports
from modelhub.errors import ModelhubError, safe_text
from modelhub.files import parse_json
from modelhub.graph.interface import Interface
from modelhub.reports import plots
from modelhub.reports.html import html
from modelhub.reports.view import Outcome, View
from modelhub_registry.errors import AbsentError
from modelhub_registry.records import Evidence, Version
from modelhub_registry.server.guard import Served

__all__ = ["Shown", "gaps", "interface", "reports", "whole"]

LARGEST = 8 << 20
"""Bytes of a report that is read for a version's page."""
MOST = 12
"""Reports that are read for it; of the rest it tells the verdict."""


@dataclass(frozen=True)
class Shown:
    """A report on a version's page: its name, what the manifest says of it, and what stands in it where it was read."""

    name: str
    evidence: Evidence
    view: View | None = None
    why: str = ""
    """Why it was not read."""

    @property
    def ratios(self) -> Markup:
        """The plot of differences; empty where nothing differs."""
        return plots.ratios(self.view.legs) if self.view else Markup()

    @property
    def coverage(self) -> Markup:
        """The plot of what the probes reached."""
        return plots.coverage(self.view.coverage) if self.view else Markup()


def gaps(registry: Served, version: Version) -> Sequence[str]:
    """Why the evidence would not let it pass the gate, one line each. Whether its files are sound is not looked at."""
    missing = version.judged.gaps()
    try:
        return [*missing, *registry.expired(version)]
    except ModelhubError as error:
        return [*missing, str(error)]


def interface(version: Version) -> Interface | str | None:
    """The interface record, None where there is none; why it cannot be shown, where it cannot."""
    if version.manifest.interface is None:
        return None
    try:
        return Interface.from_json(version.manifest.interface, "the interface record")
    except ModelhubError as error:
        return str(error)


def reports(registry: Served, version: Version) -> list[Shown]:
    """The reports that count today."""
    judged = version.judged
    shown: list[Shown] = []
    for evidence in judged.reports:
        name = judged.report_name(evidence)
        if len(shown) >= MOST or evidence.size > LARGEST:
            shown.append(Shown(name, evidence, why=f"{evidence.size:,} bytes: fetch it to read it"))
            continue
        try:
            shown.append(Shown(name, evidence, _view(registry, evidence, name)))
        except ModelhubError as error:
            shown.append(Shown(name, evidence, why=safe_text(error, 300)))
    return shown


def _view(registry: Served, evidence: Evidence, name: str) -> View:
    return View(parse_json(registry.blob(evidence.sha256, LARGEST), name), name)


def whole(registry: Served, version: Version, name: str) -> HTMLResponse:
    """The page that `modelhub check --html` writes of a report, which has its own style and says so in its policy."""
    judged = version.judged
    for evidence in judged.reports:
        if judged.report_name(evidence) == name:
            text = html([Outcome(f"{version.ref}, {name}", _view(registry, evidence, name))])
            return HTMLResponse(text, headers={"Content-Security-Policy": _policy()})
    raise AbsentError(f"{version.ref} has no report {safe_text(name)!r}")


def _policy() -> str:
    style = Path(modelhub.reports.__file__).with_name("page.css").read_bytes()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
