"""Questions about metadata: what they mean, what they refuse, and that nothing in them becomes SQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.errors import RegistryError
from modelhub_registry import Registry, index, query, search
from modelhub_registry.sqlite import memory

METADATA = [
    {"epoch": 2026, "auc": 0.93, "final": True, "tags": ["calibrated", "mc23"], "note": "GN2 'fast'"},
    {"epoch": 2026, "auc": 0.89, "final": False, "tags": ["mc23a"], "training": {"epochs": 100, "on": "mc23_13p6TeV"}},
    {"epoch": 2025, "auc": "unknown", "runs": [1, 2, 3.5], "name": "old", "date": "2025-12-31"},
    {"Epoch": None, "big": 10**400},
]


@pytest.fixture
def asked(registry: Registry, files, report):
    for k, metadata in enumerate(METADATA):
        registry.push("btag", files(f"f{k}", net_pt=f"weights {k}"), metadata=metadata)
    source, json_, onnx = files("t", net_pt="weights 0", net_json="{}", net_onnx="graph")
    registry.push("tau", [source, json_, onnx], [report(source, json_), report(source, onnx, "different")])
    registry.alias("btag@2", "dev")

    def ask(question: str) -> list[str]:
        return [s.ref.replace("btag@", "b").replace("tau@", "t") for s in registry.search(question)]

    return ask


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("epoch=2026 and auc>0.9", "b1"),
        ("epoch = 2026.0", "b1 b2"),
        ("epoch=2026 and not auc>0.9", "b2"),
        ("auc >= 0.89 or epoch < 2026", "b1 b2 b3"),
        ("auc = unknown", "b3"),
        ("auc != 0.93", "b2 b3"),
        ("not auc = 0.93", "b2 b3 b4 t1"),
        ("auc < zzz", "b3"),  # texts compare with texts only
        ("final=true", "b1"),
        ("final=false", "b2"),
        ("final=1", ""),
        ("epoch=true", ""),
        ("tags has calibrated", "b1"),
        ("tags = mc23a or tags = calibrated", "b1 b2"),
        ("note has GN2", ""),
        ("epoch has 2026", ""),  # a number is no list
        ("runs has 3.5", "b3"),
        ("runs > 3", "b3"),
        ("training.epochs=100", "b2"),
        ("training.on like 'mc23%'", "b2"),
        ("training.on like 'MC23\\_13%'", "b2"),
        ("training.on like 'mc23\\%'", ""),
        ("note = \"GN2 'fast'\"", "b1"),
        ("note = 'GN2 ''fast'''", "b1"),
        ("epoch in (2025, 2027)", "b3"),
        ("auc in (unknown, 0.93)", "b1 b3"),
        ("name=tau", "t1"),
        ("meta.name=old", "b3"),
        ("name in (btag, tau) and version=1", "b1 t1"),
        ("version > 2", "b3 b4"),
        ("date >= 2025-12-01 and date < 2026-01-01", "b3"),
        ("created >= 2020-01-01 and name=tau", "t1"),
        ("created < 2020-01-01", ""),
        ("verdict=different", "t1"),
        ("verdict in (unchecked, identical) and version=1", "b1"),
        ("export=onnx", "t1"),
        ("export like '%'", "t1"),
        ("role=report", "t1"),
        ("alias=dev", "b2"),
        ("not alias=dev and epoch=2026", "b1"),
        ("(epoch=2026 or epoch=2025) and not (final=true or final=false)", "b3"),
        ("epoch=2025 or epoch=2026 and auc>0.9", "b1 b3"),  # and binds closer
        ("NOT epoch=2026 AND epoch=2025", "b3"),
        ("Epoch=2026", ""),
        ("nothing=1", ""),
        ("big > 1", ""),
    ],
)
def test_meaning(asked, question: str, found: str) -> None:
    assert asked(question) == found.split()


@pytest.mark.parametrize(
    "question",
    [
        "", "epoch", "epoch=", "=1", "epoch==1", "epoch=1 and", "epoch=1 auc=2", "(epoch=1", "epoch=1)", "epoch in 1",
        "epoch in ()", "epoch in (1,)", "not", "and", "a like 1", "a=1e999", "version=x", "version=true", "1=1",
        "a='x", "name='x' -- drop", "x" * 5000, "(" * 50 + "a=1" + ")" * 50, "not " * 50 + "a=1", "a=\u2028", "ä=1",
        "a;b=1", "a=\0", "a=" + "x" * 500, "name=true",
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_one_line(asked, question: str) -> None:
    with pytest.raises(RegistryError) as caught:
        asked(question)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_values_are_parameters(asked) -> None:
    for value in ("x' OR '1'='1", "'; DROP TABLE versions; --", "%", "x\\"):
        quoted = value.replace("'", "''")
        for field in ("name", "note", "alias", "export", "sha256"):
            assert asked(f"{field} = '{quoted}'") == []
            assert asked(f"{field} in ('{quoted}')") == []
    assert len(asked("version > 0")) == 5


@given(st.text(max_size=60))
def test_any_text_is_a_question_or_refused(text: str) -> None:
    try:
        tree = query.parse(text)
    except RegistryError:
        return
    assert tree == query.parse(text)


def test_search_walks_through_no_table() -> None:
    """One hit among 100 000 versions costs what one among ten costs."""
    with memory() as db:
        for question in ("epoch = 2026 and auc > 0.9", "name = btag and note = 'x'", "tags has a"):
            asked = search.asked(query.parse(question))
            text = f"{index._SHOWN} WHERE {asked.where} ORDER BY {asked.order}"
            plan = [row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {text}", asked.values)]
            assert plan
            assert not [step for step in plan if step.startswith("SCAN")], plan


def test_facts_follow_a_reindex(asked, registry: Registry) -> None:
    before = [tuple(row) for row in all_facts(registry)]
    assert len(before) > 10
    registry.reindex()
    assert [tuple(row) for row in all_facts(registry)] == before
    assert registry.verify() == []


def all_facts(registry: Registry):
    with registry._reading() as db:
        return db.rows("SELECT * FROM facts ORDER BY name, number, key, place")


def test_lineage_both_ways(registry: Registry, files, report) -> None:
    source, json_, onnx = files("t", net_pt="weights", net_json="{}", net_onnx="graph")
    registry.push("a", [source, json_, ("graph", onnx)], [report(source, json_)])
    registry.push("b", [("source", onnx)])
    found = registry.lineage("a@1")
    assert [(s.source, s.target, s.verdict) for s in found.steps] == [("source", "export:json", "equivalent")]
    assert [(f.version.ref, f.role) for f in found.shared] == [("b@1", "source")]
    assert [(f.version.ref, f.role) for f in registry.sharing("b@1")] == [("a@1", "graph")]
