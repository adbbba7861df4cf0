"""The HTML page: what it shows, that it asks nobody for anything, and that texts from files are only texts."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
from report_making import ERROR, astray, bad, first_version, good, hostile, outcome, waived

from modelhub.equivalence.report import schema
from modelhub.reports import plots
from modelhub.reports.html import html
from modelhub.reports.view import View

VOID = {"meta", "br", "link", "img", "input", "hr"}
DRAWING = {"svg", "circle", "rect", "line", "text", "title"}
KNOWN = DRAWING | {
    *("html", "head", "meta", "style", "body", "header", "main", "footer", "section", "div", "span", "p", "a", "br"),
    *("h1", "h2", "h3", "ul", "li", "strong", "code", "table", "thead", "tbody", "tr", "th", "td"),
    *("figure", "figcaption", "details", "summary"),
}


class Page(HTMLParser):
    """The elements of a page, its texts, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


ALL = [
    outcome(good(), "good"),
    outcome(bad(), "bad"),
    outcome(waived(), "waived", notes=("a waiver covers nothing",)),
    outcome(first_version(), "old"),
    outcome(astray(), "astray"),
    outcome(hostile(), "<b>hostile</b>"),
    ERROR,
]


def test_nothing_on_the_page_can_ask_for_anything() -> None:
    text = html(ALL)
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= KNOWN
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "srcset", "style", "action") for name in attributes)
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|https?:|expression|javascript", style[1])


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    text = html(ALL)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_page_shows_verdicts_parties_digests_findings_and_waivers() -> None:
    text = " ".join(" ".join(Page(html(ALL)).texts).split())
    for expected in (
        "different",
        "model.weights.xml → grad.onnx",
        "0" * 64,
        "tmva engine 1.0 float32",
        good()["digest"],
        "312 times the tolerance",
        "known since 2026 (ada, until 2999-12-31)",
        "a waiver covers nothing",
        "net.pt2: No such file or directory",
        "tree nodes both ways: 3 of 10 reached",
        "of 56 splits 41 met their threshold",
        "sequences at length 0: the engine refuses them",
        "Leaves of trees",
        "source – target, float32: 5,843 rows in 100 trees, always in the same leaf",
        "graph – target, float32: 5,843 rows in 100 trees, 3 times in another leaf",
        "tree 7, threshold, event 1234: leaf 9 against 4",
    ):
        assert expected in text, expected


def test_the_inputs_of_a_row_stand_beside_their_names() -> None:
    report = good()
    names = [{"name": name, "offset": 0.0, "scale": 1.0} for name in ("d0", "z0")]
    report["interface"]["inputs"].append({"name": "tracks", "sequence": True, "features": names})
    rows = [{"variables": [0.5], "tracks": [[1e-9, 2.0], [3.0, "nan"]]}, {"other": [1, 2.5]}, {"variables": [1.0, 2.0]}]
    report["legs"][0]["rows"] = [{**report["legs"][0]["rows"][0], "inputs": inputs} for inputs in rows]
    texts = Page(html([outcome(report)])).texts
    for line in (
        "variables: pt = 0.5",
        "tracks, step 0: d0 = 1e-09, z0 = 2",
        "tracks, step 1: d0 = 3, z0 = nan",
        "other: 1, 2.5",
        "variables: 1, 2",
    ):
        assert line in texts


def test_undecidable_events_are_listed() -> None:
    report = good()
    place = {"output": "response", "component": [2], "a": 0.25, "b": 0.75, "difference": 0.5, "tolerance": 1e-6}
    report["legs"][1]["probes"][3] |= {"undecidable": 17, "undecided": [{**place, "event": event} for event in (31, 8)]}
    jsonschema.Draft202012Validator(schema()).validate(report)
    text = " ".join(" ".join(Page(html([outcome(report)])).texts).split())
    assert "(17 undecidable)" in text
    assert "Undecidable events" in text
    assert "source – target float32 missing 31 response[2] 0.25 0.75 0.5" in text
    assert "missing 8 response[2]" in text
    assert "Undecidable events" not in html([outcome(good())])


def test_engine_preset_and_real_events_are_told() -> None:
    report = good()
    report["legs"][1]["engine"] = "lwtnn 2.14"
    report["preset"] = "ftag"
    report["legs"][1]["bands"] = [[1e-7, 0.5], [1e-6, 0.0125]]
    report["data"] = {"file": "jets.h5", "events": 1234567, "content": "sha256:" + "a" * 64, "block": 1024}
    report["data"] |= {"inputs": {}, "conversions": ["pt: float16"], "left_out": {"not finite": 1200}}
    text = " ".join(" ".join(Page(html([outcome(report)])).texts).split())
    for expected in (
        "source – target, lwtnn 2.14, float32",
        "of ftag",
        "1,234,567 events",
        "pt: float16",
        "1,200 events: not",
        "differs by more than",
        "1e-06",
        "1.25 %",
    ):
        assert expected in text


def test_one_pair_has_one_page_without_a_list_of_pairs() -> None:
    page = Page(html([outcome(good(), "good")]))
    assert [tag for tag, _ in page.elements].count("section") == 1
    assert "a" not in {tag for tag, _ in page.elements}


def test_every_plot_is_there_and_labelled() -> None:
    labels = [a["aria-label"] for tag, a in Page(html([outcome(good())])).elements if a.get("role") == "img"]
    assert labels == [
        "Difference over tolerance against the size of the output",
        *(
            f"Distances in units in the last place, {x}, float32"
            for x in ("source – graph", "source – target", "graph – target")
        ),
        "Coverage",
    ]


def test_a_point_lies_where_its_numbers_say() -> None:
    report = good()
    for leg in report["legs"]:
        leg["scatter"] = []
        leg["probes"] = leg["probes"][:1]
        leg["probes"][0] |= {"a": 1.0, "ratio": 1.0, "difference": 1.0}
    elements = Page(html([outcome(report)])).elements
    points = [a for tag, a in elements if tag == "circle" and a["r"] == "2.6"]
    (limit,) = [a for tag, a in elements if a.get("class") == "limit"]
    assert len(points) == 3
    assert {point["cy"] for point in points} == {limit["y1"]}


def test_larger_outputs_lie_to_the_right_and_larger_ratios_above() -> None:
    report = good()
    for leg in report["legs"]:
        leg["scatter"] = [[1e-3, 1e-2], [1e-2, 1e-1], [1e-1, 1.0]]
    page = Page(html([outcome(report)]))
    points = [(float(a["cx"]), float(a["cy"])) for tag, a in page.elements if tag == "circle" and a["r"] == "2.6"][:3]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(points)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)  # one decade each
    assert steps[0][0] > 0 > steps[0][1]


def test_bars_are_as_long_as_their_share_and_named() -> None:
    svg = str(plots.coverage(View(bad(), "bad").coverage))
    (bar,) = [a for tag, a in Page(svg).elements if a.get("class") == "low"]
    (track,) = [a for tag, a in Page(svg).elements if a.get("class") == "track"]
    assert float(bar["width"]) / float(track["width"]) == pytest.approx(0.3, abs=1e-3)
    assert {"tree nodes both ways", "3 of 10"} <= set(Page(svg).texts)


@pytest.mark.parametrize("odd", [0.0, 5e-324, 1e308, "inf", "nan"])
def test_odd_numbers_are_drawn_or_left_out(odd: Any) -> None:
    report = good()
    report["legs"][0]["scatter"] = [[odd, 0.5], [0.5, odd], [odd, odd]]
    report["legs"][0]["ulps"] = [0, 0, 0] if odd == 0 else [1] + [0] * 60 + [3]
    for probe in report["legs"][0]["probes"]:
        probe |= {"a": odd, "ratio": odd, "difference": odd}
    Page(html([outcome(report)]))


def test_the_page_is_the_same_every_time() -> None:
    assert html(ALL) == html(ALL)


def asked_for(text: str, folder: Path) -> tuple[list[str], str]:
    """The paths a browser asks for when it shows this page, on any host, and what it says meanwhile."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/page.html" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/page.html" else b"")

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--disable-features=NetworkTimeServiceQuerying", "--enable-logging=stderr"]
        # Every name leads to this server, so that a request to anywhere is seen.
        flags += [f"--user-data-dir={folder / 'profile'}", f"--host-resolver-rules=MAP * {address}"]
        done = subprocess.run(
            ["chromium", *flags, "--dump-dom", f"http://{address}/page.html"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        server.shutdown()
    assert "</body>" in done.stdout
    return [path for path in asked if path != "/favicon.ico"], done.stderr


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_asks_for_nothing_but_the_page(tmp_path: Path) -> None:
    asked, said = asked_for(html(ALL), tmp_path)
    assert asked == ["/page.html"]
    assert "Content Security Policy" not in said  # the browser tells of what the policy forbids

    image = '<img src="http://elsewhere.example/pixel.png">'
    asked, _ = asked_for(f"<body>{image}</body>", tmp_path)
    assert asked == ["/page.html", "/pixel.png"]
    asked, said = asked_for(html(ALL).replace("<main>", f"<main>{image}"), tmp_path)
    assert asked == ["/page.html"]
    assert "Content Security Policy" in said


def test_it_says_what_the_probes_are() -> None:
    text = html([outcome(good(), "good")])
    assert "<li>wide: log-uniform, ±10^U(-3, 3) after offset and scale" in text
    assert "<li>raw:" not in text  # which did not run
