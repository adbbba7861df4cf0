"""The pytest plug-in: `assert_equivalent` in a test is the check that `modelhub check` is on the command line.

    def test_the_export(assert_equivalent):
        assert_equivalent("net.pt2", "net.json", interface="variables.json")

    @pytest.mark.equivalence(seed=3, fail_on="suspect")   # defaults of the test; -m "not equivalence" leaves it out
    def test_another(assert_equivalent): ...

    pytest --equivalence-report reports/ --equivalence-seed 1

Nothing of modelhub's graph or of a framework is imported before a test asks for the fixture.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from modelhub.equivalence.report import Report

__all__ = ["assert_equivalent"]

FIXTURE = "assert_equivalent"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plug-in."""
    group = parser.getgroup("equivalence", "equivalence of model files")
    group.addoption("--equivalence-seed", type=int, metavar="N", help="Seed of the probes, for every check.")
    group.addoption("--equivalence-report", metavar="DIR", help="Write the report of every check into this folder.")


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers",
        "equivalence(seed, fail_on): runs model files against each other; its keywords are the test's defaults.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the fixture, so that -m equivalence finds it."""
    for item in items:
        if FIXTURE in getattr(item, "fixturenames", ()) and item.get_closest_marker("equivalence") is None:
            item.add_marker("equivalence")


@pytest.fixture
def assert_equivalent(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function that fails the test unless the target file computes what the source file computes.

    Called with source and target, and by keyword what a pair of modelhub.yaml may say (`source_format`,
    `target_format`, `interface`, `weights`, `trust`, `tie`, `task`, `data`, `columns`, `events`, `preset`, `seed`,
    `floors`), and
    `fail_on` ("different" or "suspect"). Returns the report. An inconclusive check fails: it proves nothing.
    """
    marker = request.node.get_closest_marker("equivalence")
    defaults = dict(marker.kwargs) if marker is not None else {}
    made = 0

    def run(source: str | Path, target: str | Path, **given: Any) -> Report:
        nonlocal made
        report, problem = _checked(
            source, target, request.config.getoption("--equivalence-seed"), {**defaults, **given}
        )
        made += 1
        _kept(request, report, made)
        if problem:
            pytest.fail(problem, pytrace=False)
        return report

    return run


def _checked(source: str | Path, target: str | Path, seed: int | None, given: dict[str, Any]) -> tuple[Report, str]:
    """The report, and what keeps it from passing ("" when nothing does)."""
    from modelhub.equivalence.config import Pair
    from modelhub.equivalence.suite import check_pair
    from modelhub.reports.view import Outcome, View

    fail_on = given.pop("fail_on", "different")
    if fail_on not in ("different", "suspect"):
        raise ValueError(f"fail_on is 'different' or 'suspect', not {fail_on!r}")
    if seed is not None:
        given["seed"] = seed
    given |= {key: Path(given[key]) for key in ("interface", "weights") if given.get(key) is not None}
    report = check_pair(Pair(Path(target).name, Path(source), Path(target), **given))
    view = View(report.to_json(), "the report")
    outcome = Outcome(Path(target).name, view, fail_on=fail_on)
    if outcome.exit_code == 0:
        return report, ""
    lines = [f"{view.title}: {view.verdict}", *(f"  {f.where or f.verdict}: {f.text}" for f in view.open[:10])]
    return report, "\n".join(lines)


def _kept(request: pytest.FixtureRequest, report: Report, number: int) -> None:
    """The report as a file where a folder was named, and its digest in pytest's own JUnit file."""
    written = report.to_json()
    request.node.user_properties += [("equivalence", written["verdict"]), ("equivalence_digest", written["digest"])]
    folder = request.config.getoption("--equivalence-report")
    if folder:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.nodeid).strip("-")[-120:]
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{name}-{number}.json").write_text(report.dumps(), encoding="utf-8")
