"""How pages are made: the templates beside this file, with what they need; the one style sheet; the safety of texts.

Every text that a page shows goes through `safe_text` and is escaped, wherever it comes from: there is no way round it
for a template but `Markup`, which only our own drawings are.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

import modelhub
import modelhub.reports
from modelhub.errors import safe_text
from modelhub_registry.render import change

__all__ = ["ICON", "STYLE", "STYLE_TAG", "page", "wants_html"]

LONGEST = 20_000
"""Characters of one text on a page."""

STYLE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (Path(modelhub.reports.__file__).with_name("page.css"), Path(__file__).with_name("style.css"))
)
"""The style sheet: that of the reports' own page, so that their plots look the same here, and ours."""
STYLE_TAG = hashlib.sha256(STYLE.encode()).hexdigest()

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2f6fde"/>'
    '<path d="M3.5 12V4L8 8.5 12.5 4v8" fill="none" stroke="#fff" stroke-width="1.8"/></svg>'
)


def wants_html(request: Request) -> bool:
    """Whether it is a browser that asks, for a page."""
    return "text/html" in request.headers.get("accept", "")


def page(request: Request, template: str, status: int = 200, **shown: Any) -> HTMLResponse:
    """A page as the answer to a request."""
    text = _templates().get_template(template).render(
        style_tag=STYLE_TAG[:12], modelhub_version=modelhub.__version__, path=request.url.path, **shown
    )  # fmt: skip
    return HTMLResponse(text, status, {"Cache-Control": "private, no-cache", "Vary": "Accept"})


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size, "number": number, "plain": plain, "moment": moment, "part": part, "query": query,
        "lines": lambda text: str(text).splitlines(), "change": change,
    }  # fmt: skip
    return environment


def _clean(value: Any) -> Any:
    """A text without what a screen would obey (control characters, direction marks); `Markup` is ours."""
    return safe_text(value, LONGEST) if type(value) is str else value


def part(text: object) -> str:
    """A text as a part of a path."""
    return quote(str(text), safe="@:")


def query(fields: dict[str, Any]) -> Markup:
    """Fields as the query of an address, those without a value left out."""
    told = urlencode({key: value for key, value in fields.items() if value not in (None, "")})
    return Markup(f"?{told}".replace("&", "&amp;")) if told else Markup()


def size(count: int) -> str:
    """Bytes in three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def number(value: Any) -> str:
    """A number of the interface record; nothing for None."""
    return f"{value:.9g}" if isinstance(value, int | float) and not isinstance(value, bool) else plain(value)


def plain(value: Any) -> str:
    """A JSON value as a reader wants it: texts as they are, the rest as JSON, nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def moment(text: str) -> str:
    """A time, to the minute."""
    return text[:16].replace("T", " ")
