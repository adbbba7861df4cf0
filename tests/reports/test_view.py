"""What a report's JSON comes to: findings, waivers, exit codes, and refusals of what is no report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_making import astray, bad, first_version, good, outcome, waived

from modelhub.equivalence.report import schema
from modelhub.errors import UnreadableFile
from modelhub.reports.view import Outcome, View, covers, load


@pytest.mark.parametrize("make", [good, bad, waived, astray])
def test_the_reports_of_these_tests_are_reports(make: Any) -> None:
    jsonschema.Draft202012Validator(schema()).validate(make())


def test_a_good_report_has_no_findings() -> None:
    view = View(good(), "good")
    assert view.findings == ()
    assert outcome(good()).exit_code == 0
    assert outcome(good()).status in ("identical", "equivalent")
    assert view.max_ratio <= 1


def test_findings_name_verdict_leg_and_probe() -> None:
    report = bad()
    probes = [probe["probe"] for probe in report["legs"][-1]["probes"]]
    found = {(f.verdict, f.leg, f.probe) for f in View(report, "bad").findings}
    assert found == {
        ("different", "graph-target", probes[0]),
        ("suspect", "graph-target", probes[1]),
        ("inconclusive", "coverage", "tree nodes both ways"),
    }


def test_rows_in_another_leaf_are_a_finding() -> None:
    of = outcome(astray())
    assert of.view is not None
    (finding,) = of.view.findings
    assert (finding.verdict, finding.leg, finding.probe) == ("different", "graph-target", "leaves")
    assert finding.text == (
        "5,843 rows in 100 trees, 3 times in another leaf; tree 7, threshold, event 1234: leaf 9 against 4, "
        "where other rows come from leaf 5"
    )
    assert of.exit_code == 1
    assert len(of.view.leaves) == 3
    assert of.view.leaves[0] == "source – graph, float32: 5,843 rows in 100 trees, always in the same leaf"


def only(verdict: str) -> dict[str, Any]:
    """A report with one finding of that verdict."""
    report = good()
    if verdict == "inconclusive":
        report["legs"][-1] |= {"verdict": verdict, "missing": "target: keras is not installed", "probes": []}
    else:
        ratio = {"suspect": 7.0, "different": 31.0}[verdict]
        report["legs"][-1]["verdict"] = verdict
        report["legs"][-1]["probes"][0] |= {"ratio": ratio, "limit": 30.0, "difference": 0.1}
    report["verdict"] = verdict
    return report


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("different", "different", 1),
        ("different", "suspect", 1),
        ("suspect", "different", 0),
        ("suspect", "suspect", 1),
        ("inconclusive", "different", 6),
        ("inconclusive", "suspect", 6),
    ],
)
def test_exit_codes(verdict: str, fail_on: str, code: int) -> None:
    assert outcome(only(verdict), fail_on=fail_on).exit_code == code
    report = only(verdict)
    report["waivers"] = [{"finding": verdict, "reason": "r", "owner": "o", "expires": "2999-01-01"}]
    passed = outcome(report, fail_on=fail_on)
    assert (passed.exit_code, passed.status) == (0, "waived")


@pytest.mark.parametrize("ratio", [1.0, 1.0000001, 30.0, 30.1, "nan", "inf"])
def test_a_case_is_judged_by_ratio_and_limit(ratio: Any) -> None:
    report = good()
    report["legs"][0]["probes"][0] |= {"ratio": ratio, "limit": 30.0, "difference": 1.0}
    verdict = View(report, "x").legs[0].cases[0].verdict
    expected = {1.0: "equivalent", 1.0000001: "suspect", 30.0: "suspect"}
    assert verdict == expected.get(ratio, "different")


def test_a_leg_that_differs_by_more_than_its_probes_say_is_a_finding() -> None:
    report = good()
    report["legs"][1]["verdict"] = report["verdict"] = "different"
    (finding,) = View(report, "x").findings
    assert (finding.verdict, finding.leg) == ("different", "source-target")


def test_numbers_are_told_in_all_their_digits() -> None:
    report = bad()
    report["legs"][-1] |= {"precision": "float64"}
    report["legs"][-1]["probes"][0] |= {"a": 0.1, "b": 0.1 + 2**-54}
    assert "0.10000000000000001 against 0.10000000000000006" in View(report, "x").findings[0].text


def test_numbers_that_no_probe_shows_are_a_finding_of_their_own() -> None:
    report = good()
    report["verdict"], report["parameters"] = "suspect", ["layers[2].weights[17][3]: 0.1 against 0.2"]
    (finding,) = View(report, "x").findings
    assert (finding.verdict, finding.leg, finding.text) == ("suspect", "parameters", report["parameters"][0])


def test_a_verdict_that_nothing_explains_is_still_a_finding() -> None:
    report = good()
    report["verdict"] = "different"
    assert outcome(report).exit_code == 1


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"leg": "graph-target"}, True),
        ({"leg": "source-target"}, False),
        ({"probe": "wide"}, False),
        ({"finding": "suspect"}, False),
    ],
)
def test_a_waiver_covers_what_it_names(change: dict[str, str], fits: bool) -> None:
    (finding,) = View(only("different"), "x").findings
    assert finding.probe != "wide"
    assert covers({"finding": "different", **change}, finding) is fits


def test_an_error_has_its_own_code() -> None:
    broken = Outcome("x", error="gone", code=5)
    assert (broken.exit_code, broken.status) == (5, "error")


def test_reports_of_the_first_version_are_read() -> None:
    new, old = View(good(), "new"), View(first_version(), "old")
    assert [leg.worst.ratio for leg in old.legs if leg.worst] == pytest.approx(
        [leg.worst.ratio for leg in new.legs if leg.worst]
    )
    assert old.coverage[0].share is None
    assert not old.findings


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"version": 3}',
        b'{"version": 2}',
        b"\xff",
        b"{",
        json.dumps({**good(), "legs": [1]}).encode(),
        json.dumps({**good(), "verdict": "splendid"}).encode(),
        json.dumps({**good(), "parties": {"source": "x"}}).encode(),
        json.dumps({**good(), "seed": "12x"}).encode(),
        json.dumps({**good(), "waivers": [{"finding": "different"}, 3]}).encode(),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"report\.json"):
        load(path)
