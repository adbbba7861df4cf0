"""Reports for the tests of renderers, written by hand after the schema, good and bad."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from modelhub.reports.view import Outcome, View

PROBES = ("normal", "wide", "zero", "missing")


def good() -> dict[str, Any]:
    """A check of trees that went well; every leg compared every probe."""
    files = {"source": ("tmva", "model.weights.xml"), "graph": ("onnx", "graph.onnx"), "target": ("onnx", "grad.onnx")}
    return {
        "version": 2,
        "verdict": "equivalent",
        "seed": 20260101,
        "parties": {
            role: {
                "format": format,
                "file": file,
                "sha256": str(number) * 64,
                "engines": [f"{format} engine 1.0 float32"],
            }
            for number, (role, (format, file)) in enumerate(files.items())
        },
        "interface": {
            "version": 1,
            "inputs": [
                {"name": "variables", "features": [{"name": "pt", "offset": 0.0, "scale": 1.0, "default": -9.0}]}
            ],
            "outputs": [{"name": "response", "labels": ["grad"]}],
        },
        "legs": [_leg(between, 1e-9 * (number + 1)) for number, between in enumerate(combinations(files, 2))],
        "record": [],
        "parameters": [],
        "skipped": ["sequences at length 0: the engine refuses them"],
        "coverage": [{"what": "tree nodes both ways", "reached": 9, "of": 10, "floor": 0.5}],
        "software": {"modelhub": "0.1.0", "numpy": "2.0.0"},
        "host": {"system": "Linux", "machine": "x86_64"},
        "created": "2026-11-23T08:27:47+00:00",
        "digest": "sha256:" + "0123456789abcdef" * 4,
    }


def _leg(between: tuple[str, str], difference: float) -> dict[str, Any]:
    worst = {"output": "response", "event": 57, "component": [0], "a": 0.65, "b": 0.65 + difference}
    worst |= {"difference": difference, "tolerance": 1e-6}
    return {
        "between": list(between),
        "precision": "float32",
        "verdict": "equivalent",
        "probes": [
            {"probe": probe, "kind": probe, "length": None, "events": 64, **worst}
            | {"ratio": difference / 1e-6, "limit": 30.0, "undecidable": 0}
            for probe in PROBES
        ],
        "ulps": [200, 50, 5, 1],
        "scatter": [[10.0**-n, 10.0 ** -(n + 2)] for n in range(6)],
        "rows": [{"probe": "wide", "length": None, **worst, "inputs": {"x": [0.5, 1.5e-7]}}],
    }


def astray() -> dict[str, Any]:
    """One in which some rows end in another leaf, and no output differs."""
    report = good()
    for leg in report["legs"]:
        leg["leaves"] = {"rows": 5843, "trees": 100, "elsewhere": 0, "cases": []}
    place = {"tree": 7, "a": 9, "b": 4, "usual": 5, "probe": "threshold", "length": None, "event": 1234}
    leg["leaves"] |= {"elsewhere": 3, "cases": [place]}
    leg["verdict"] = report["verdict"] = "different"
    return report


def bad() -> dict[str, Any]:
    """One whose last leg is different on one probe, suspect on another, and which reached too little."""
    report = good()
    leg = report["legs"][-1]
    leg["probes"][0] |= {"ratio": 312.0, "limit": 30.0, "difference": 0.5}
    leg["probes"][1] |= {"ratio": 7.0, "limit": 30.0, "difference": 1e-6}
    leg["verdict"] = report["verdict"] = "different"
    report["coverage"] = [{"what": "tree nodes both ways", "reached": 3, "of": 10, "floor": 0.5}]
    return report


def waived() -> dict[str, Any]:
    """The same with every finding waived."""
    report = bad()
    words = {"reason": "known since 2026", "owner": "ada", "expires": "2999-12-31"}
    report["waivers"] = [{"finding": verdict, **words} for verdict in ("different", "suspect", "inconclusive")]
    return report


def hostile() -> dict[str, Any]:
    """The good one with texts that mean something to HTML, XML, Markdown or a terminal."""
    text = "<script>alert(1)</script> | `x` ![i](http://evil.example/p.png) \x1b[31m ]]> \u202e \ufffe & '\""
    report = good()
    for party in report["parties"].values():
        party["file"] = text
        party["engines"] = [text]
    report["record"] = [text]
    report["coverage"] = [{"what": text, "reached": 1, "of": 2, "floor": 0.9}]
    report["legs"][0]["probes"][0] |= {"probe": text, "output": text, "ratio": 99.0, "difference": 1.0}
    report["verdict"] = "different"
    return report


def first_version() -> dict[str, Any]:
    """The good one as the first version of the schema had it."""
    report = good()
    report["version"] = 1
    report["coverage"] = ["tree: of 56 splits 41 met their threshold"]
    del report["host"]
    for leg in report["legs"]:
        del leg["ulps"], leg["scatter"], leg["rows"]
        for probe in leg["probes"]:
            del probe["kind"], probe["ratio"], probe["limit"], probe["undecidable"]
    return report


def outcome(report: dict[str, Any], name: str = "pair", **words: Any) -> Outcome:
    return Outcome(name, View(report, name), **words)


ERROR = Outcome("broken", error="net.pt2: No such file or directory", code=5)
