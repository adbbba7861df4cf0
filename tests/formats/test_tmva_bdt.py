"""BDTs: one rule of TMVA per test on trees small enough to follow, then random forests against the evaluator."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from tmva_writing import at, both, events, forest, grown, leaf, setup, split, tree, written

from modelhub.errors import Notice, UnreadableFile, Unsupported, UsageError
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_tmva import Importer

STUMP = split(0, 1.5, leaf(-1.0, 0.25, -1), leaf(2.0, 0.75, 1))
COLUMN = np.array([[1.0], [1.5], [2.0], [np.nan]], np.float32)


def respond(folder: Path, text: str, x: np.ndarray, tie: str | None = None) -> list[float]:
    """The response, on which graph and evaluator agree to one rounding."""
    graph, evaluator = both(written(folder, text), x, tie=tie)
    np.testing.assert_allclose(graph, evaluator, rtol=0, atol=1.2e-7 * max(1, np.nanmax(np.abs(evaluator))))
    return graph.ravel().tolist()


def ada(*roots: str, kind: int = 0, weights: tuple[float, ...] = (), **options: object) -> str:
    weights = weights or (1.0,) * len(roots)
    trees = [tree(root, weight, i) for i, (root, weight) in enumerate(zip(roots, weights, strict=True))]
    return setup(forest(trees, kind), 1, options=options)


@pytest.mark.parametrize(("tie", "middle"), [(None, 1), ("reader", 1), (">=", 1), (">", -1)])
def test_ties(tmp_path: Path, tie: str | None, middle: int) -> None:
    assert respond(tmp_path, ada(STUMP), COLUMN, tie) == [-1, middle, 1, -1]


@pytest.mark.parametrize(
    ("root", "middle"),
    [
        ("5.34/19 [336403]", -1),
        ("5.34/20 [336404]", 1),
        ("6.00/02 [393218]", -1),
        ("6.02/00 [393728]", 1),
        ("6.24/08", 1),
    ],
)
def test_ties_as_trained(tmp_path: Path, root: str, middle: int) -> None:
    text = setup(forest([tree(STUMP)]), 1, root=root)
    assert respond(tmp_path, text, COLUMN, "training")[1] == middle


def test_ties_as_trained_need_a_version(tmp_path: Path) -> None:
    path = written(tmp_path, setup(forest([tree(STUMP)]), 1, root="?"))
    with pytest.raises(UsageError, match="which ROOT"):
        Importer().read(path, ReadOptions(tie="training"))
    with pytest.raises(UsageError, match="one of reader"):
        Importer().read(path, ReadOptions(tie="nearest"))


def test_a_cut_turned_round_sends_nan_right(tmp_path: Path) -> None:
    turned = split(0, 1.5, leaf(kind=-1), leaf(kind=1), ctype=0)
    assert respond(tmp_path, ada(turned), COLUMN) == [1, -1, -1, 1]


def test_children_are_told_by_position_not_by_order(tmp_path: Path) -> None:
    left, right = at(leaf(kind=-1), "l"), at(leaf(kind=1), "r")
    swapped = STUMP[: STUMP.index("><") + 1] + right + left + "</Node>"
    assert respond(tmp_path, ada(swapped), COLUMN) == [-1, 1, 1, -1]


def test_a_node_with_a_type_ends_the_walk(tmp_path: Path) -> None:
    pruned = STUMP.replace('nType="0"', 'nType="1"', 1).replace('purity="0.5"', 'purity="0.125"', 1)
    assert respond(tmp_path, ada(pruned), COLUMN) == [1, 1, 1, 1]
    assert respond(tmp_path, ada(pruned, UseYesNoLeaf="False"), COLUMN) == [0.125] * 4


def test_leaves_answer_by_class_purity_or_response(tmp_path: Path) -> None:
    assert respond(tmp_path, ada(STUMP), COLUMN)[0] == -1
    assert respond(tmp_path, ada(STUMP, UseYesNoLeaf="False"), COLUMN)[0] == 0.25
    assert respond(tmp_path, ada(STUMP, kind=1, BoostType="Bagging"), COLUMN)[2] == 2


def test_the_old_layout(tmp_path: Path) -> None:
    text = ada(STUMP, kind=1).replace('AnalysisType="1"', 'TreeType="1"')
    assert respond(tmp_path, text, COLUMN)[2] == 2
    text = ada(STUMP, UseYesNoLeaf="False").replace('AnalysisType="0"', 'TreeType="0"')
    text = text.replace('purity="0.25"', 'nS="1.0" nB="2.0"')
    text = text.replace('<Class Name="Signal" Index="0"/><Class Name="Background" Index="1"/>', "")
    assert respond(tmp_path, text.replace('NClass="2"', 'NClass="1"'), COLUMN)[0] == np.float32(1 / 3)


def test_a_file_of_the_bare_minimum(tmp_path: Path) -> None:
    text = (
        '<MethodSetup Method="BDT::BDT"><Variables NVar="1"><Variable Expression="pt"/></Variables>'
        f"<Weights>{tree(STUMP)}</Weights></MethodSetup>"
    )
    assert respond(tmp_path, text, COLUMN) == [-1, 1, 1, -1]
    record = Interface.of(Importer().read(tmp_path / "model.weights.xml", ReadOptions()))
    assert record.inputs[0].features[0].name == "pt"
    assert record.inputs[0].features[0].minimum is None


def test_boost_weights(tmp_path: Path) -> None:
    other = split(0, 0.0, leaf(kind=-1), leaf(kind=1))
    assert respond(tmp_path, ada(STUMP, other, weights=(3.0, 1.0)), COLUMN) == [-0.5, 1, 1, -1]
    assert respond(tmp_path, ada(STUMP, other, weights=(1.0, -1.0)), COLUMN) == [0, 0, 0, 0]


def test_gradient_boosting_ignores_them(tmp_path: Path) -> None:
    text = ada(STUMP, STUMP, kind=1, weights=(7.0, 0.5), BoostType="Grad")
    assert respond(tmp_path, text, COLUMN)[0] == np.float32(2 / (1 + math.exp(4)) - 1)


def test_regression_by_gradient_boosting_adds_the_first_weight(tmp_path: Path) -> None:
    trees = [tree(STUMP, 10.25), tree(STUMP, 10.25)]
    text = setup(forest(trees, 1), 1, analysis="Regression", options={"BoostType": "Grad"}, targets=["y"])
    assert respond(tmp_path, text, COLUMN) == [8.25, 14.25, 14.25, 8.25]


def test_adaboost_r2_is_a_mean_about_the_weighted_median(tmp_path: Path) -> None:
    """12 trees, so two places on either side; by hand: weights 1 reach above 6 with the 7th, places 4 to 8 count."""
    trees = [tree(leaf(float(value), kind=-1)) for value in (5, 3, 11, 0, 7, 1, 9, 2, 10, 4, 8, 6)]
    text = setup(forest(trees, 1), 1, analysis="Regression", options={"BoostType": "AdaBoostR2"}, targets=["y"])
    assert respond(tmp_path, text, COLUMN) == [6.0] * 4
    heavy = text.replace(
        'boostWeight="1.0" itree="0">' + leaf(5.0, kind=-1), 'boostWeight="99" itree="0">' + leaf(5.0, kind=-1)
    )
    assert heavy != text
    # the 6th tree in order (response 5) carries the median: places 3 to 7
    assert respond(tmp_path, heavy, COLUMN) == [5.0] * 4


def test_multiclass_trees_take_turns(tmp_path: Path) -> None:
    trees = [tree(leaf(value)) for value in (1.0, 2.0, 3.0, 0.5)]
    text = setup(forest(trees, 1), 1, analysis="Multiclass", options={"BoostType": "Grad"}, classes=["a", "b", "c"])
    power = np.exp([1.5, 2.0, 3.0])
    np.testing.assert_allclose(respond(tmp_path, text, COLUMN[:1]), power / power.sum(), rtol=2e-7)
    record = Interface.of(Importer().read(tmp_path / "model.weights.xml", ReadOptions()))
    assert record.outputs[0].labels == ("a", "b", "c")


def test_preselection_last_match_wins(tmp_path: Path) -> None:
    cuts = ' PreselectionLowBkgVar0="1" PreselectionLowBkgVar0Value="1.25" PreselectionLowSigVar0="1"'
    cuts += ' PreselectionLowSigVar0Value="0.5" PreselectionHighSigVar0="1" PreselectionHighSigVar0Value="3.0"'
    text = setup(forest([tree(STUMP)], 0, cuts), 1, options={"DoPreselection": "True", "UseYesNoLeaf": "False"})
    x = np.array([[0.0], [0.5], [1.0], [1.25], [1.7], [3.0], [4.0]], np.float32)
    assert respond(tmp_path, text, x) == [1, -1, -1, 0.25, 0.75, 0.75, 1]
    assert respond(tmp_path, text.replace(">True<", ">False<"), x) == [0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75]


def test_fisher_cuts_are_strict(tmp_path: Path) -> None:
    node = split(2, 0.5, leaf(kind=-1), leaf(kind=1), fisher=(2.0, -1.0, 0.25))
    text = setup(forest([tree(node)]), 2)
    x = np.array([[1.0, 1.75], [1.0, 1.7499999], [0.0, 0.0], [np.nan, 0.0]], np.float32)
    assert respond(tmp_path, text, x) == [-1, 1, -1, -1]


def test_the_number_of_trees_is_counted(tmp_path: Path) -> None:
    text = ada(STUMP).replace('NTrees="1"', 'NTrees="100"')
    with pytest.warns(Notice, match="announces 100 trees and holds 1"):
        Importer().read(written(tmp_path, text), ReadOptions())


def test_gzip_and_white_space_in_front(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.xml.gz"
    path.write_bytes(gzip.compress(b"\n  " + ada(STUMP).encode()) + gzip.compress(b"\n"))
    assert Importer().recognises(path)
    assert both(path, COLUMN)[0].ravel().tolist() == [-1, 1, 1, -1]


@pytest.mark.parametrize(
    ("options", "analysis", "kind", "what"),
    [
        ({"BoostType": "Dart"}, "Classification", 0, "Dart"),
        ({"UseWeightedTrees": "False"}, "Classification", 0, "UseWeightedTrees"),
        ({"BoostType": "AdaBoost"}, "Multiclass", 1, "multiclass"),
        ({"BoostType": "Grad"}, "Regression", 0, "responses"),
        ({}, "Ranking", 0, "ranking"),
        ({}, "Classification", 3, "AnalysisType 3"),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, options: dict[str, object], analysis: str, kind: int, what: str
) -> None:
    path = written(tmp_path, setup(forest([tree(STUMP)], kind), 1, analysis=analysis, options=options))
    with pytest.raises(Unsupported, match=what):
        Importer().read(path, ReadOptions())


def test_a_switch_that_is_neither_on_nor_off(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="UseYesNoLeaf"):
        Importer().read(written(tmp_path, ada(STUMP, UseYesNoLeaf="Maybe")), ReadOptions())


@pytest.mark.parametrize("tie", [None, ">"])
@pytest.mark.parametrize("fisher", [0.0, 0.3])
@pytest.mark.parametrize(
    ("analysis", "boost", "kind"),
    [
        ("Classification", "AdaBoost", 0),
        ("Classification", "RealAdaBoost", 0),
        ("Classification", "Bagging", 0),
        ("Classification", "Grad", 1),
        ("Multiclass", "Grad", 1),
        ("Regression", "Grad", 1),
        ("Regression", "AdaBoostR2", 1),
        ("Regression", "Bagging", 1),
    ],
)
def test_random_forests(tmp_path: Path, analysis: str, boost: str, kind: int, fisher: float, tie: str | None) -> None:
    rng = np.random.default_rng(len(analysis) + len(boost))
    trees = [tree(grown(rng, 3, 5, fisher), float(np.float32(rng.random())), i) for i in range(25)]
    options = {"BoostType": boost, "UseYesNoLeaf": "False"}
    targets = ["y"] if analysis == "Regression" else []
    text = setup(forest(trees, kind), 3, analysis=analysis, options=options, classes=["a", "b", "c"], targets=targets)
    graph, evaluator = both(written(tmp_path, text), events(1, 800, 3), tie=tie)
    assert len(np.unique(graph[:, 0])) > 100
    np.testing.assert_allclose(graph, evaluator, rtol=0, atol=1.2e-7 * max(1, np.abs(evaluator).max()))
