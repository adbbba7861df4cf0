"""`modelhub check --config`: outcomes, waivers and exit codes as a CI job meets them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from ci_models import config

import modelhub as modelhub_package
from modelhub.equivalence import suite
from modelhub.equivalence.config import Pair, read_config
from modelhub.equivalence.report import Report
from modelhub.equivalence.suite import exit_code
from modelhub.errors import UsageError
from modelhub.reports.view import Outcome

WAIVER = "waivers:\n  - {{pair: {}, finding: {}, reason: agreed, owner: ada, expires: {}}}"
FUTURE = "2999-12-31"


@pytest.fixture
def checked(models: Path, modelhub):
    """Run `modelhub check --config` on a text with these arguments; returns the finished process."""

    def run(text: str, *args: object):
        (models / "modelhub.yaml").write_text(text)
        return modelhub("check", "--config", models / "modelhub.yaml", *args)

    return run


def pairs(done) -> dict[str, dict]:
    return {pair["name"]: pair for pair in json.loads(done.stdout)["pairs"]}


def test_green_writes_every_report_and_the_same_digest_twice(checked, tmp_path: Path) -> None:
    files = ("--report-dir", "out", "--junit", "out.xml", "--summary", "out.md", "--html", "out.html")
    one = checked(config("bdt"), "--json", *files)
    assert one.returncode == 0, one.stderr
    assert "[1/1] bdt: " in one.stderr
    stored = json.loads((tmp_path / "out" / "bdt.json").read_text())
    assert pairs(one)["bdt"]["digest"] == stored["digest"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bdt.json", "index.html"]
    seconds = re.findall(r'<testsuite [^>]*time="([0-9.]+)"', (tmp_path / "out.xml").read_text())
    assert [0 < float(each) < 300 for each in seconds] == [True]
    for name in ("out.xml", "out.md", "out.html"):
        assert "bdt" in (tmp_path / name).read_text()
    two = checked(config("bdt"), "--json")
    assert pairs(two)["bdt"]["digest"] == stored["digest"]


def test_one_red_pair_makes_the_run_red_and_stops_no_other(checked) -> None:
    done = checked(config("wrong", "bdt"), "--json")
    assert done.returncode == 1, done.stderr
    assert [pair["exit_code"] for pair in pairs(done).values()] == [1, 0]
    assert {f["leg"] for f in pairs(done)["wrong"]["findings"]} == {"source-target", "graph-target"}


def test_the_table_tells_verdicts_and_findings(checked) -> None:
    done = checked(config("wrong", "bdt"))
    assert re.search(r"^wrong +different", done.stderr, re.MULTILINE), done.stderr
    assert re.search(r"^bdt +(identical|equivalent)", done.stderr, re.MULTILINE)
    assert "different, source-target, float32:" in done.stderr


def test_a_waiver_passes_what_it_names_and_every_report_tells(checked, tmp_path: Path) -> None:
    text = config("wrong", more=WAIVER.format("wrong", "different", FUTURE))
    done = checked(text, "--report-dir", "out", "--junit", "out.xml", "--summary", "out.md")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^wrong +waived", done.stderr, re.MULTILINE)
    stored = json.loads((tmp_path / "out" / "wrong.json").read_text())
    assert stored["verdict"] == "different"  # a waiver changes no verdict
    assert stored["waivers"] == [{"finding": "different", "reason": "agreed", "owner": "ada", "expires": FUTURE}]
    for name in ("out.xml", "out.md", "out/index.html"):
        told = (tmp_path / name).read_text()
        assert all(word in told for word in ("agreed", "ada", FUTURE)), name


@pytest.fixture(scope="module")
def wrong(models: Path) -> Report:
    """The report of the pair that is different."""
    return modelhub_package.check(models / "bdt.xml", models / "wrong.onnx")


DIFFERENT = WAIVER.format("wrong", "different", FUTURE)


@pytest.mark.parametrize(
    ("waiver", "code", "told"),
    [
        (DIFFERENT, 0, None),
        (WAIVER.format("wrong", "different", "2027-01-31"), 0, None),
        (WAIVER.format("wrong", "different", "2027-01-30"), 1, "has expired"),
        (WAIVER.format("wrong", "suspect", FUTURE), 1, "covers nothing"),
        (DIFFERENT.replace("reason", "leg: source-graph, reason"), 1, "covers nothing"),
        (DIFFERENT.replace("reason", "leg: source-target, reason"), 1, None),
        (DIFFERENT.replace("reason", "probe: nothing, reason"), 1, "covers nothing"),
    ],
)
def test_a_waiver_holds_for_what_it_names_until_its_day(
    waiver: str, code: int, told: str | None, wrong: Report, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "check_pair", lambda pair, progress: replace(wrong, waivers=[]))
    (models / "modelhub.yaml").write_text(config("wrong", more=waiver))
    (result,) = suite.run(read_config(models / "modelhub.yaml"), fail_on="different", today=date(2027, 1, 31))
    assert result.outcome.exit_code == code
    assert [told in note for note in result.outcome.notes] == ([] if told is None else [True])


def test_what_cannot_be_read_is_an_outcome_like_another(checked, models: Path, tmp_path: Path) -> None:
    (models / "broken.onnx").write_bytes(b"no onnx")
    text = config("bdt") + "  - {name: broken, source: bdt.xml, target: broken.onnx}\n"
    text += "  - {name: missing, source: nowhere.xml, target: bdt.onnx}\n"
    done = checked(text, "--json", "--junit", "out.xml")
    found = pairs(done)
    assert [found[name]["status"] for name in ("bdt", "broken", "missing")] == [
        found["bdt"]["verdict"],
        "error",
        "error",
    ]
    assert found["missing"]["exit_code"] == 5
    assert done.returncode == found["broken"]["exit_code"] in (3, 5)
    assert "nowhere.xml" in (tmp_path / "out.xml").read_text()


@pytest.mark.parametrize(
    ("codes", "one"), [([], 0), ([0, 0], 0), ([0, 6], 6), ([5, 1, 6], 1), ([6, 5, 0], 5), ([0, 3, 5], 3), ([6, 70], 70)]
)
def test_one_code_stands_for_all(codes: list[int], one: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outcome, "exit_code", property(lambda outcome: outcome.code))
    assert exit_code([Outcome("x", code=code) for code in codes]) == one


def test_a_floor_not_reached_is_inconclusive_and_can_be_waived(checked) -> None:
    text = config("bdt", more="floors: {tree leaves: 1.0}")
    done = checked(text)
    assert done.returncode == 6, done.stderr
    assert "tree leaves" in done.stderr
    waiver = WAIVER.format("bdt", "inconclusive", FUTURE).replace("reason", "leg: coverage, reason")
    assert checked(f"{text}{waiver}\n").returncode == 0


def test_real_events_are_run_besides_the_probes(checked, models: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = {name: rng.uniform(0, 4, 50).astype("f4") for name in ("pt", "eta", "iso")}
    np.savez(models / "events.npz", **columns)
    text = config("bdt").replace("target:", "events: 40, columns: {abs(eta): eta}, data: events.npz, target:")
    done = checked(text, "--report-dir", "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "bdt.json").read_text())["data"]["events"] == 40
    assert "events.npz: 40 events" in (tmp_path / "out" / "index.html").read_text()


def test_a_floor_of_nothing_known_is_refused(models: Path) -> None:
    with pytest.raises(UsageError, match="tree leafs"):
        suite.check_pair(Pair("x", models / "bdt.xml", models / "bdt.onnx", floors={"tree leafs": 1.0}))


def test_a_bad_configuration_is_a_refusal_with_its_line(checked) -> None:
    done = checked(config("bdt").replace("source:", "sauce:"))
    assert done.returncode == 2
    assert "line 3: unknown key 'sauce'; did you mean 'source'?" in done.stderr


@pytest.mark.parametrize("args", [["a", "b"], ["--seed", "3"], ["--report", "x"], ["--from", "tmva"], ["--trust"]])
def test_the_configuration_says_all(checked, args: list[str]) -> None:
    done = checked(config("bdt"), *args)
    assert done.returncode == 2
    assert "--config" in done.stderr


def test_two_files_or_a_configuration(modelhub) -> None:
    assert modelhub("check").returncode == 2
    assert modelhub("check", "only-one").returncode == 2


def test_two_files_write_the_same_kinds_of_report(models: Path, modelhub, tmp_path: Path) -> None:
    files = ("--report-dir", "out", "--junit", "out.xml", "--summary", "out.md", "--html", "out.html")
    done = modelhub("check", models / "bdt.xml", models / "wrong.onnx", *files)
    assert done.returncode == 1, done.stderr
    assert "<failure" in (tmp_path / "out.xml").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "report.json"]

    again = modelhub(
        "report", tmp_path / "out" / "report.json", "--html", "b.html", "--junit", "b.xml", "--summary", "b.md"
    )
    assert again.returncode == 0, again.stderr
    for one, two in (("out.html", "b.html"), ("out.xml", "b.xml"), ("out.md", "b.md")):
        assert (tmp_path / one).read_text() == (tmp_path / two).read_text()


def test_rendering_needs_a_report_and_a_place(modelhub, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    assert modelhub("report", "report.json").returncode == 2
    done = modelhub("report", "report.json", "--html", "x.html")
    assert done.returncode == 5
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("args", [["--junit", "no/where.xml"], ["--html", "."], ["--report-dir", "taken"]])
def test_a_place_that_cannot_be_written_is_told_before_anything_runs(modelhub, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    done = modelhub("check", "--config", "nothing.yaml", *args)
    assert done.returncode == 2
    assert "folder" in done.stderr


def test_a_summary_goes_where_nothing_can_be_replaced(models: Path, modelhub) -> None:
    done = modelhub("check", models / "bdt.xml", models / "bdt.onnx", "--summary", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## modelhub check")
