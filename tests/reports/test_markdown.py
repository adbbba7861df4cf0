"""The Markdown summary: what it tells, and that texts from files mean nothing in it."""

from __future__ import annotations

import re

from report_making import ERROR, astray, bad, good, hostile, outcome, waived

from modelhub.reports.markdown import markdown


def test_a_row_for_each_pair_with_its_verdict() -> None:
    outcomes = [outcome(good(), "good"), outcome(bad(), "bad"), outcome(waived(), "waived"), ERROR]
    rows = [line for line in markdown(outcomes).splitlines() if line.startswith("| ")][1:]
    assert [re.sub(r"\s+", " ", row).split(" | ")[1:3] for row in rows] == [
        ["`good`", "equivalent"],
        ["`bad`", "different"],
        ["`waived`", "different, waived"],
        ["`broken`", "error"],
    ]


def test_a_good_pair_needs_no_details() -> None:
    assert "###" not in markdown([outcome(good())])


def test_findings_waivers_errors_and_notes_are_told() -> None:
    text = markdown([outcome(bad(), "bad"), outcome(waived(), "w", notes=("a waiver covers nothing",)), ERROR])
    assert "**different** `graph-target, float32` `normal`" in text
    assert "312 times the tolerance" in text
    assert "waived until `2999-12-31`" in text
    assert "`known since 2026` (`ada`)" in text
    assert "`a waiver covers nothing`" in text
    assert "error: `net.pt2: No such file or directory`" in text


def test_leaves_are_told() -> None:
    text = markdown([outcome(astray(), "astray")])
    assert "- leaves: `source – target, float32: 5,843 rows in 100 trees, always in the same leaf`" in text
    assert "**different** `graph-target` `leaves`: `5,843 rows in 100 trees, 3 times in another leaf; tree 7" in text


def test_texts_from_files_stand_in_code_spans() -> None:
    text = markdown([outcome(hostile(), "a `b` | ``c``"), outcome(hostile(), "a ` ![i](http://evil.example) b")])
    bare = re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", text)
    for word in ("script", "evil", "![", "http", "\x1b", "\u202e"):
        assert word not in bare
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 6


def test_long_lists_are_cut_and_say_so() -> None:
    for report in (bad(), waived()):
        leg = report["legs"][-1]
        leg["probes"] = [leg["probes"][0] | {"probe": f"probe {number}"} for number in range(50)]
        text = markdown([outcome(report)])
        assert text.count("312 times the tolerance") == 20
        assert "and 31 more" in text
