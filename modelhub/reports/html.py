"""One HTML page that needs nothing else: no script, no font, no image from anywhere, and a policy that says so."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from modelhub.equivalence.kinds import KINDS
from modelhub.reports import plots
from modelhub.reports.records import Case, Leg, Row, read_text
from modelhub.reports.view import Outcome, View

if TYPE_CHECKING:
    import jinja2

__all__ = ["html"]

SENTENCES = {
    "identical": "every number is the same to the last bit",
    "equivalent": "every difference is within what rounding explains",
    "suspect": "some differences are larger than rounding is likely to make them",
    "different": "the two do not compute the same",
    "inconclusive": "the check could not be completed and proves nothing",
}
ROWS = 10
"""Worst rows that are shown of one pair."""


def html(outcomes: Sequence[Outcome]) -> str:
    """The page for all pairs. Texts from files are escaped; the content security policy allows this style only."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        outcomes=outcomes,
        style=Markup(style),
        style_hash=f"sha256-{digest}",
        sentences=SENTENCES,
        plots=plots,
        probes=_probes,
        kinds=_kinds,
        worst=_worst,
        undecided=_undecided,
        inputs=_inputs,
        sampled=lambda view: any(leg.scatter for leg in view.legs),
    )


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))


def _probes(view: View) -> list[tuple[str, int, list[Case | None]]]:
    """A row for each probe: its name, events, and its case on each leg that compared anything."""
    legs = [{case.name: case for case in leg.cases} for leg in view.legs if leg.cases]
    names = list(dict.fromkeys(name for leg in legs for name in leg))
    return [
        (name, max(leg[name].events for leg in legs if name in leg), [leg.get(name) for leg in legs]) for name in names
    ]


def _kinds(view: View) -> list[tuple[str, str]]:
    """The probes of a report, and what each is; those that this version does not know are left out."""
    ran = dict.fromkeys(case.probe for leg in view.legs for case in leg.cases)
    return [(probe, KINDS[probe]) for probe in ran if probe in KINDS]


def _worst(view: View) -> list[tuple[Leg, Row]]:
    """The rows that are worst against their tolerance, of all legs."""
    rows = [(leg, row) for leg in view.legs for row in leg.rows if row.difference != 0]
    return sorted(rows, key=lambda pair: -pair[1].difference / max(pair[1].tolerance, 5e-324))[:ROWS]


def _undecided(view: View) -> list[tuple[Leg, Row]]:
    """The undecidable events that are told by name."""
    return [(leg, row) for leg in view.legs for case in leg.cases for row in case.undecided]


def _inputs(view: View, row: Row) -> list[str]:
    """The inputs of a row, one line for each input or step, every number beside the name of its variable."""
    if not isinstance(row.inputs, dict):
        return []
    names = {name: [feature[0] for feature in features] for name, _, features in view.inputs}
    lines = []
    for name, values in row.inputs.items():
        tensor = read_text(name)
        known = names.get(tensor, [])
        if isinstance(values, list) and all(isinstance(step, list) for step in values):
            lines += [f"{tensor}, step {number}: {_named(known, step)}" for number, step in enumerate(values)]
        else:
            lines.append(f"{tensor}: {_named(known, values)}")
    return lines


def _named(names: Sequence[str], values: Any) -> str:
    told = [
        f"{v:.9g}" if isinstance(v, float) else read_text(str(v))
        for v in (values if isinstance(values, list) else [values])
    ]
    if len(names) == len(told):
        told = [f"{name} = {value}" for name, value in zip(names, told, strict=True)]
    return ", ".join(told)
