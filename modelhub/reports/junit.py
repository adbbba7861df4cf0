"""JUnit XML: a suite for each pair, a case for each probe on each leg, as GitLab, Jenkins and GitHub actions read it.

Written to the strictest of the schemas in use (that of Ant's junit task: children in order, every attribute, the
time without a zone, properties on suites only), which the others include. Texts that are no XML are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from xml.etree import ElementTree as ET

from modelhub.reports.view import Finding, Outcome, View

__all__ = ["junit"]


def junit(outcomes: Sequence[Outcome]) -> str:
    """The outcomes of all pairs as one document."""
    root = ET.Element("testsuites")
    for number, outcome in enumerate(outcomes):
        root.append(_suite(number, outcome))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(number: int, outcome: Outcome) -> ET.Element:
    suite = ET.Element("testsuite", {"name": _token(outcome.name), "package": "modelhub", "id": str(number)})
    properties = ET.SubElement(suite, "properties")
    if outcome.view is None:
        _case(suite, outcome.name, "check", ("error", "error", outcome.error))
    else:
        for name, value in _properties(outcome.view):
            ET.SubElement(properties, "property", {"name": _token(name), "value": _xml(value)})
        _cases(suite, outcome, outcome.view)
    kinds = [child.tag for case in suite.iter("testcase") for child in case]
    suite.attrib.update(
        {
            "timestamp": _time(outcome.view),
            "hostname": "localhost",  # the report does not tell where it was made
            "tests": str(sum(1 for _ in suite.iter("testcase"))),
            "failures": str(kinds.count("failure")),
            "errors": str(kinds.count("error")),
            "skipped": str(kinds.count("skipped")),
            "time": "0" if outcome.view is None else f"{outcome.view.seconds:.3f}",
        }
    )
    waived = [f"waived: {f.text} ({_reason(f)})" for f in outcome.waived]
    ET.SubElement(suite, "system-out").text = _xml("\n".join([*waived, *outcome.notes]))
    ET.SubElement(suite, "system-err")
    return suite


def _cases(suite: ET.Element, outcome: Outcome, view: View) -> None:
    """Every comparison a case; findings that belong to none of them are cases of their own."""
    for leg in view.legs:
        for case in leg.cases:
            finding = next((f for f in view.findings if f.case is case), None)
            _case(suite, outcome.name, f"{leg.title}: {case.name}", _result(finding, outcome))
    for finding in view.findings:
        if finding.case is None:
            name = ": ".join(part for part in (finding.where, finding.probe) if part) or finding.verdict
            _case(suite, outcome.name, name, _result(finding, outcome))


def _result(finding: Finding | None, outcome: Outcome) -> tuple[str, str, str] | None:
    """What stands inside a case: a failure, an error for what could not be compared, or that it is waived."""
    if finding is None:
        return None
    if finding.waiver is not None:
        return "skipped", finding.verdict, f"{finding.text}; waived: {_reason(finding)}"
    if finding.verdict == "inconclusive":
        return "error", finding.verdict, finding.text
    if finding.verdict == "different" or outcome.fail_on == "suspect":
        return "failure", finding.verdict, finding.text
    return None


def _case(suite: ET.Element, classname: str, name: str, result: tuple[str, str, str] | None) -> None:
    case = ET.SubElement(suite, "testcase", {"name": _token(name), "classname": _token(classname), "time": "0"})
    if result is not None:
        kind, verdict, text = result
        child = ET.SubElement(case, kind, {"message": _xml(text)})
        if kind != "skipped":
            child.set("type", verdict)
            child.text = _xml(text)


def _properties(view: View) -> list[tuple[str, str]]:
    """The numbers of a pair: worst ratio and distance, coverage, and what the report can be found by."""
    found = [
        ("verdict", view.verdict),
        ("digest", view.digest),
        ("seed", str(view.seed)),
        ("max_ratio", f"{view.max_ratio:.6g}"),
    ]
    if view.max_ulp is not None:
        found.append(("max_ulp", str(view.max_ulp)))
    found += [(f"max_ratio {g.title}", f"{g.worst.ratio:.6g}") for g in view.legs if g.worst is not None]
    found += [(f"coverage {c.what}", f"{c.share:.4f}") for c in view.coverage if c.share is not None]
    return found


def _reason(finding: Finding) -> str:
    waiver = finding.waiver or {}
    return f"{waiver.get('reason')}, {waiver.get('owner')}, until {waiver.get('expires')}"


def _time(view: View | None) -> str:
    """When the report was made, in UTC without a zone: the schema wants none."""
    try:
        made = datetime.fromisoformat(view.created if view else "")
    except ValueError:
        made = datetime(1970, 1, 1)
    return made.replace(tzinfo=None).isoformat(timespec="seconds")


def _token(text: str) -> str:
    return " ".join(_xml(text).split()) or "unnamed"


def _xml(text: str) -> str:
    """Text without the characters XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
