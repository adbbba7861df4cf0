"""JUnit XML against the rules of the schemas that CI systems hold it to."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from report_making import ERROR, bad, first_version, good, hostile, outcome, waived

from modelhub.reports.junit import junit
from modelhub.reports.view import Outcome

# The rules of the strictest schema in use (Ant's junit task, as published by Windy Road), in our own words: element ->
# children in their order with how often they may stand, and attributes with the form of their value. An attribute that
# is not listed is not allowed. Jenkins' junit-10 and GitLab take a superset.
TOKEN = r"\S(?:.*\S)?"
NUMBER = r"\d+"
RULES: dict[str, tuple[str, dict[str, str], set[str]]] = {
    "testsuites": ("(testsuite )*", {}, set()),
    "testsuite": (
        "properties (testcase )*system-out system-err ",
        {
            "name": TOKEN,
            "package": TOKEN,
            "id": NUMBER,
            "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
            "hostname": TOKEN,
            "tests": NUMBER,
            "failures": NUMBER,
            "errors": NUMBER,
            "time": r"\d+(\.\d+)?",
        },
        {"skipped"},
    ),
    "properties": ("(property )*", {}, set()),
    "property": ("", {"name": TOKEN, "value": r"(?s).*"}, set()),
    "testcase": ("(skipped |error |failure )?", {"name": TOKEN, "classname": TOKEN, "time": r"\d+(\.\d+)?"}, set()),
    "skipped": ("", {}, {"message"}),
    "error": ("", {"type": r"(?s).*"}, {"message"}),
    "failure": ("", {"type": r"(?s).*"}, {"message"}),
    "system-out": ("", {}, set()),
    "system-err": ("", {}, set()),
}


def checked(text: str) -> ET.Element:
    """The document, after every element has been held against the rules."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        children, required, optional = RULES[element.tag]
        assert re.fullmatch(children, "".join(f"{child.tag} " for child in element)), ET.tostring(element)[:300]
        assert required.keys() <= element.attrib.keys() <= required.keys() | optional, element.attrib
        for name, form in required.items():
            value = element.attrib[name]
            assert re.fullmatch(form, value), (element.tag, name, value)
            assert form != TOKEN or "  " not in value
    for number, suite in enumerate(root):
        cases = list(suite.iter("testcase"))
        assert suite.get("id") == str(number)
        assert int(suite.get("tests", "")) == len(cases)
        for kind, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(counted, "")) == sum(case.find(kind) is not None for case in cases)
    return root


ALL = [
    outcome(good(), "good"),
    outcome(bad(), "bad"),
    outcome(waived(), "waived"),
    outcome(first_version(), "old"),
    ERROR,
]


def test_the_document_keeps_the_rules() -> None:
    root = checked(junit(ALL))
    assert [suite.get("name") for suite in root] == ["good", "bad", "waived", "old", "broken"]


def test_texts_from_files_do_no_harm() -> None:
    checked(junit([outcome(hostile(), "a \x00 <b> & \ud800 c")]))


def test_names_have_single_spaces() -> None:
    (suite,) = checked(junit([outcome(good(), " a  b\n\tc ")]))
    assert suite.get("name") == "a b c"


def kinds(of: Outcome) -> dict[str, list[str]]:
    """Kind of result -> names of the cases that have it."""
    found: dict[str, list[str]] = {}
    for case in checked(junit([of])).iter("testcase"):
        kind = case[0].tag if len(case) else "passed"
        found.setdefault(kind, []).append(case.get("name", ""))
    return found


def test_a_case_for_each_probe_on_each_leg() -> None:
    report = good()
    assert kinds(outcome(report)).keys() == {"passed"}
    assert len(kinds(outcome(report))["passed"]) == sum(len(leg["probes"]) for leg in report["legs"])


def test_no_two_cases_share_a_name() -> None:
    report = good()
    report["legs"] = [report["legs"][0], *report["legs"]]
    names = kinds(outcome(report))["passed"]
    assert len(names) == len(set(names)) == 16


def test_what_differs_fails_and_what_is_missing_errs() -> None:
    found = kinds(outcome(bad()))
    probe = bad()["legs"][-1]["probes"][0]["probe"]
    assert len(found["failure"]) == 1
    assert found["failure"][0].endswith(probe)
    assert found["error"] == ["coverage: tree nodes both ways"]
    assert len(kinds(outcome(bad(), fail_on="suspect"))["failure"]) == 2


def test_what_is_waived_is_skipped_and_says_why() -> None:
    of = outcome(waived())
    assert {kind: len(names) for kind, names in kinds(of).items() if kind != "passed"} == {"skipped": 3}
    text = junit([of])
    assert "known since 2026, ada, until 2999-12-31" in text


def test_properties_tell_the_numbers() -> None:
    (suite,) = checked(junit([outcome(bad())]))
    told = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert told["max_ratio"] == "312"
    assert told["coverage tree nodes both ways"] == "0.3000"
    assert told["digest"] == bad()["digest"]
    assert "max_ulp" in told


@pytest.mark.parametrize("created", ["2026-11-23T08:17:08+00:00", "2026-11-23T08:17:08", "yesterday"])
def test_times_have_no_zone(created: str) -> None:
    checked(junit([outcome({**good(), "created": created})]))
