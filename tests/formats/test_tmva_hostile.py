"""Hostile and damaged weight files: one clear error each, in bounded time and memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
from tmva_writing import at, forest, leaf, setup, split, tree, written

from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.files import Limits
from modelhub.protocols import ReadOptions
from modelhub_tmva import Importer, stream

STUMP = split(0, 1.5, leaf(kind=-1), leaf(kind=1))
GOOD = setup(forest([tree(STUMP)]), 1)
LEFT, RIGHT = at(leaf(kind=-1), "l"), at(leaf(kind=1), "r")
HEAD = STUMP[: STUMP.index("><") + 1]

BILLION = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "lol"}">' for i in range(12))


def read(path: Path) -> None:
    Importer().read(path, ReadOptions())


def refused(path: Path, error: type[ModelhubError], what: str) -> None:
    with pytest.raises(error, match=what) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) <= 2
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


def test_the_good_file_is_read(tmp_path: Path) -> None:
    read(written(tmp_path, GOOD))


@pytest.mark.parametrize(
    "doctype",
    [
        f"<!DOCTYPE MethodSetup [{BILLION}]>",
        '<!DOCTYPE MethodSetup SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE MethodSetup [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE MethodSetup>",
    ],
)
def test_any_doctype(tmp_path: Path, doctype: str) -> None:
    refused(written(tmp_path, doctype + GOOD.replace("Test", "&l11;", 1)), UnreadableFile, "DOCTYPE")


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (HEAD + LEFT + "</Node>", "has not two children"),
        (HEAD + "</Node>", "has not two children"),
        (HEAD + LEFT + RIGHT + RIGHT + "</Node>", "two children at pos='r'"),
        (HEAD + LEFT + at(leaf(), "m") + "</Node>", "pos='m'"),
        (at(STUMP, "r"), "one root"),
        (STUMP + STUMP, "one root"),
        ("", "without nodes"),
        (STUMP.replace('IVar="0"', 'IVar="1"'), "beyond the 1"),
        (STUMP.replace('IVar="0"', 'IVar="-1"'), "beyond the 1"),
        (STUMP.replace('IVar="0"', f'IVar="{1 << 40}"'), "fits"),
        (STUMP.replace('IVar="0"', f'IVar="{"9" * 5000}"'), "fits"),
        (STUMP.replace('IVar="0"', 'IVar="one"'), "'one'"),
        (STUMP.replace('Cut="1.5"', 'Cut="nan"'), "cut that is no finite number"),
        (STUMP.replace('Cut="1.5"', 'Cut="1e99"'), "cut that is no finite number"),
        (STUMP.replace('Cut="1.5"', 'Cut=""'), "fits"),
        (STUMP.replace('Cut="1.5"', ""), "'Cut' is missing"),
        (STUMP.replace('cType="1"', 'cType="2"', 1), "'2'"),
        (STUMP.replace('nType="0"', ""), "'nType' is missing"),
        (STUMP.replace('NCoef="0"', 'NCoef="2000000000"', 1), "'fC0' is missing"),
        (STUMP.replace('NCoef="0"', 'NCoef="1" fC0="1"', 1), "1 Fisher coefficients, not 2"),
        (STUMP.replace('NCoef="0"', 'NCoef="2" fC0="1" fC1="inf"', 1), "no finite number"),
    ],
)
def test_nodes(tmp_path: Path, node: str, what: str) -> None:
    refused(written(tmp_path, setup(forest([tree(node)]), 1)), UnreadableFile, what)


def test_leaves(tmp_path: Path) -> None:
    text = setup(forest([tree(leaf(float("inf")))], 1), 1)
    refused(written(tmp_path, text), UnreadableFile, "a leaf whose res")
    text = setup(forest([tree(leaf().replace('res="0.0"', ""))], 1), 1)
    refused(written(tmp_path, text), UnreadableFile, "a leaf whose res is missing")
    text = setup(forest([tree(leaf(), float("nan"))]), 1)
    refused(written(tmp_path, text), UnreadableFile, "boostWeight")


@pytest.mark.parametrize(
    ("old", "new", "error", "what"),
    [
        ("<Weights", "<Weight", Unsupported, "<Weight>"),
        ("<BinaryTree", "<Forest/><BinaryTree", Unsupported, "<Forest>"),
        ("<Node", "<Leaf", Unsupported, "<Leaf>"),
        ('NVar="1"', 'NVar="2"', UnreadableFile, "announces 2"),
        ('NVar="1"', f'NVar="{10**18}"', UnreadableFile, "NVar"),
        ('NVar="1"', 'NVar="1e400"', UnreadableFile, "whole number"),
        ('VarIndex="0"', 'VarIndex="7"', UnreadableFile, "count from 0"),
        ('VarIndex="0"', 'VarIndex="-0.5"', UnreadableFile, "whole number"),
        ('NClass="2"', 'NClass="3"', UnreadableFile, "announces 3"),
        ('NTransformations="0"', 'NTransformations="1"', UnreadableFile, "1 transformations"),
        ('Expression="x0" Label="x0" Title="" Unit="" Internal="v0"', "", UnreadableFile, "without Expression"),
        ("<Options>", '<Options><Option name="BoostType">Grad</Option><Option name="BoostType">X</Option>',
         UnreadableFile, "two values"),
        ('Method="BDT::Test"', 'Method="&#x1F;"', UnreadableFile, "well-formed"),
        ('Method="BDT::Test"', 'Method="B\u202eDT::T"', Unsupported, r"method B\\u202eDT"),
        ('Method="BDT::Test"', "", UnreadableFile, "no method"),
        ("<Options>", '<Options><Option name="BoostType">Grad</Option>', UnreadableFile, "AnalysisType"),
        ('<Info name="AnalysisType" value="Classification"/>', "", Unsupported, "no AnalysisType"),
        ('type="DecisionTree"', 'type="Shrub"', Unsupported, "Shrub"),
        ('boostWeight="1.0"', "", UnreadableFile, "boostWeight"),
        ("</MethodSetup>", "", UnreadableFile, "well-formed"),
        ("</MethodSetup>", "</MethodSetup><MethodSetup/>", UnreadableFile, "well-formed"),
        ("MethodSetup", "Transform", UnreadableFile, "begins with <Transform>"),
    ],
)  # fmt: skip
def test_elements(tmp_path: Path, old: str, new: str, error: type[ModelhubError], what: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new) if old == "MethodSetup" else GOOD.replace(old, new, 1)
    if new == "<Leaf":
        text = GOOD.replace("<Node", "<Leaf").replace("</Node", "</Leaf")
    if new == '<Options><Option name="BoostType">Grad</Option>':
        text = text.replace(' AnalysisType="0"', "")
    if what == "no AnalysisType":
        text = text.replace(
            "<Transf", '<Targets NTrgt="1"><Target TargetIndex="0" Expression="y"/></Targets><Transf', 1
        )
    if new == "<Weight":
        text = text.replace("</Weights", "</Weight")
    refused(written(tmp_path, text), error, what)


def test_a_million_levels_of_nodes(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.xml"
    before, after = GOOD.split(STUMP)
    path.write_text(
        before + HEAD.replace(' pos="s"', ' pos="s"') + HEAD.replace('pos="s"', 'pos="l"') * 1_000_000 + after
    )
    refused(path, UnreadableFile, "deeper than 20000 levels")


def test_a_million_levels_of_elements(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.xml"
    path.write_text('<MethodSetup Method="BDT::B">' + "<Weights>" * 1_000_000)
    refused(path, UnreadableFile, "nested too deeply")
    path.write_text('<MethodSetup Method="BDT::B"><MVAPdfs>' + "<PDF>" * 1_000_000)
    refused(path, UnreadableFile, "nested too deeply")


def test_a_flood_of_elements_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.xml"
    path.write_text('<MethodSetup Method="BDT::B"><Options>' + "<Option/>" * 1_000_000)
    tracemalloc.start()
    refused(path, UnreadableFile, "too many elements")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


def test_twenty_thousand_levels_are_read_and_then_refused_for_onnxruntime(tmp_path: Path) -> None:
    node = HEAD.replace('pos="s"', 'pos="r"')
    levels = 19_990
    text = HEAD + LEFT + (node + LEFT) * levels + RIGHT + "</Node>" * (levels + 1)
    refused(written(tmp_path, setup(forest([tree(text)]), 1)), Unsupported, "too deep for onnxruntime")


def test_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.weights.xml.gz"
    packed = gzip.compress(GOOD.encode())
    path.write_bytes(packed[:-9])
    refused(path, UnreadableFile, "ends too early")
    path.write_bytes(packed[:20] + b"\xff" * 40 + packed[60:])
    refused(path, UnreadableFile, "gzip")
    path.write_bytes(packed + b"\x00garbage")
    refused(path, UnreadableFile, "gzip")
    path.write_bytes(gzip.compress(GOOD[:30].encode() + b" " * (50 << 20)))
    monkeypatch.setattr(stream, "LIMITS", Limits(expanded=10 << 20))
    refused(path, UnreadableFile, "expands beyond the limit")


@pytest.mark.parametrize(
    "content", [b"", b"   \n ", b"\x00\x01", b"<", b"{}", b"<?xml version='1.0'?>", b"\x1f\x8b\x08"]
)
def test_what_is_no_weight_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.weights.xml"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read(path)
    assert not (content and Importer().recognises(path))


def test_text_weight_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.txt"
    path.write_text("#GEN -*-*-*-*-*-*-*-*-*-*-*- general info -*-*-*-*-*-*-*-*-*-*-*-\n\nMethod : BDT::BDT\n")
    assert Importer().recognises(path)
    refused(path, Unsupported, "before 4.0.2")


def test_other_methods_are_refused_before_their_bulk(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.xml"
    path.write_text('<MethodSetup Method="KNN::near"><Weights>' + "<Event/>" * 10)
    refused(path, Unsupported, "method KNN::near; known: BDT")


def test_other_xml_is_left_to_others(tmp_path: Path) -> None:
    path = tmp_path / "other.xml"
    path.write_text('<?xml version="1.0"?>\n<method>FastBDT</method>')
    assert not Importer().recognises(path)
    assert Importer().recognises(written(tmp_path, GOOD))
