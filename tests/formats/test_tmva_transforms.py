"""Transformations: each by hand on numbers small enough to follow, chains against the evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tmva_writing import both, events, forest, grown, leaf, setup, transform, tree, written

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_tmva import Importer

SUM = '<Weights NCoeff="3">' + "".join(f'<Coefficient Index="{i}" Value="{v}"/>' for i, v in enumerate((0, 1, 1000)))


def summed(folder: Path, transforms: Sequence[str], x: Sequence[Sequence[float]]) -> np.ndarray:
    """x0 + 1000 x1 after the transformations, in float32: both columns are seen at once."""
    text = setup(SUM + "</Weights>", 2, method="Fisher::F", transforms=transforms)
    graph, evaluator = both(written(folder, text), np.array(x, np.float32))
    np.testing.assert_allclose(graph, evaluator, rtol=1e-7)
    return graph.ravel()


def normalize(ranges: Sequence[Sequence[tuple[float, float]]], inputs: Sequence[str], extra: str = "") -> str:
    blocks = "".join(
        f'<Class ClassIndex="{c}"><Ranges>'
        + "".join(f'<Range Index="{i}" Min="{low}" Max="{high}"/>' for i, (low, high) in enumerate(block))
        + "</Ranges></Class>"
        for c, block in enumerate(ranges)
    )
    return transform("Normalize", blocks, inputs, extra=extra)


def matrix(values: Sequence[float]) -> str:
    return f'<Matrix Rows="2" Columns="2">{" ".join(map(str, values))}</Matrix>'


def pca(mean: Sequence[float], vectors: Sequence[float], index: int = 0) -> str:
    return (
        f'<Statistics Class="Combined" ClassIndex="{index}" NRows="2">{" ".join(map(str, mean))}</Statistics>'
        f'<Eigenvectors Class="Combined" ClassIndex="{index}" NRows="2" NCols="2">'
        f"{' '.join(map(str, vectors))}</Eigenvectors>"
    )


def cumulative(edges: Sequence[float], contents: Sequence[float], method: int = 1, smooth: int = 0) -> str:
    bins = len(contents)
    return (
        f'<CumulativePDF_cls0><PDF Name="p" MinNSmooth="{smooth}" MaxNSmooth="{smooth}" InterpolMethod="{method}" '
        f'KDE_type="0" KDE_iter="1" KDE_border="1" KDE_finefactor="0.0"><Histogram Name="h" NBins="{bins}" '
        f'XMin="{edges[0]}" XMax="{edges[-1]}" HasEquidistantBins="0">{" ".join(map(str, contents))}</Histogram>'
        f'<HistogramBinning NBins="{bins}">{" ".join(map(str, edges))}</HistogramBinning></PDF></CumulativePDF_cls0>'
    )


def gauss(kind: str, *bodies: str) -> str:
    names = [f"x{i}" for i in range(len(bodies))]
    variables = "".join(f'<Variable VarIndex="{i}">{body}</Variable>' for i, body in enumerate(bodies))
    return transform("Gauss", variables, names, extra=f' FlatOrGauss="{kind}"')


def test_normalize_takes_the_block_of_all_classes(tmp_path: Path) -> None:
    blocks = [[(0, 1), (0, 1)], [(0, 2), (0, 2)], [(0, 4), (-1, 1)]]
    y = summed(tmp_path, [normalize(blocks, ["x0", "x1"])], [[0, 0], [1, 0.5], [4, -1]])
    assert y.tolist() == [-1, -0.5 + 500, 1 - 1000]


def test_normalize_without_offset(tmp_path: Path) -> None:
    step = normalize([[(-4, 2), (-1, 2)]], ["x0", "x1"], ' UseOffsetOrNot="NoOffset"')
    assert summed(tmp_path, [step], [[1, 1]]).tolist() == [500.25]


def test_decorrelation_multiplies_rows(tmp_path: Path) -> None:
    step = transform("Decorrelation", matrix([9, 9, 9, 9]) + matrix([1, 2, 3, 4]), ["x0", "x1"])
    assert summed(tmp_path, [step], [[1, 10]]).tolist() == [21 + 1000 * 43]


def test_pca_multiplies_columns_of_what_is_left_of_the_mean(tmp_path: Path) -> None:
    step = transform("PCA", pca([9, 9], [0, 0, 0, 0]) + pca([1, 2], [1, 2, 3, 4], 2), ["x0", "x1"])
    assert summed(tmp_path, [step], [[2, 12]]).tolist() == [31 + 1000 * 42]


def test_steps_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    first = transform("Decorrelation", matrix([0, 1, 1, 0]), ["x0", "x1"])
    second = normalize([[(0, 4), (0, 2)]], ["x0", "x1"])
    assert summed(tmp_path, [first, second], [[1, 3]]).tolist() == [0.5 + 1000 * 0]
    assert summed(tmp_path, [second, first], [[1, 3]]).tolist() == [2 - 1000 * 0.5]


def test_what_is_not_selected_passes(tmp_path: Path) -> None:
    assert summed(tmp_path, [normalize([[(0, 4)]], ["x1"])], [[7, 1]]).tolist() == [7 - 500]


def test_outputs_may_stand_elsewhere(tmp_path: Path) -> None:
    step = transform("Rearrange", "", ["x0", "x1"], ["x1", "x0"])
    assert summed(tmp_path, [step], [[7, 1]]).tolist() == [7001]


def test_the_layout_before_selections(tmp_path: Path) -> None:
    step = normalize([[(0, 4), (0, 2)]], ["x0", "x1"])
    old = step[: step.index("<Selection>")] + step[step.index("</Selection>") + len("</Selection>") :]
    assert summed(tmp_path, [old], [[1, 1]]).tolist() == [-0.5]


def test_uniform_joins_the_centres_of_the_bins(tmp_path: Path) -> None:
    """Centres 1, 3, 6 and contents 0.25, 0.5, 1: lines between them, and beyond until 0 or 1."""
    body = cumulative([0, 2, 4, 8], [0.25, 0.5, 1.0])
    y = summed(tmp_path, [gauss("Flat", body, body)], [[2, 3.75], [4.5, 2], [-9, 99], [0.5, 0.5]])
    np.testing.assert_allclose(y, [0.375 + 625, 0.75 + 375, 1e-9 + 1000, 0.1875 * 1001], rtol=1e-5)


def test_a_last_bin_of_no_width(tmp_path: Path) -> None:
    body = cumulative([0, 2, 4, 4], [0.25, 0.5, 1.0])
    np.testing.assert_allclose(summed(tmp_path, [gauss("Flat", body, body)], [[2, 2]]), [0.375 * 1001], rtol=1e-5)


def test_gauss_is_the_normal_quantile(tmp_path: Path) -> None:
    from statistics import NormalDist

    body = cumulative([-1, 0, 1, 2], [0.0, 0.5, 1.0])
    x = np.linspace(-0.4, 1.4, 50)
    y = summed(tmp_path, [gauss("Gauss", body, body)], [[v, 0.5] for v in x])
    want = [NormalDist().inv_cdf(0.25 + 0.5 * (v - 0.0)) for v in x]
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-4)  # the 10000 bins move the line at its ends


def test_nan_in_a_distribution(tmp_path: Path) -> None:
    """PDF::GetVal ends in TMath::Max, which turns NaN into the floor."""
    body = cumulative([0, 2, 4], [0.25, 1.0])
    assert summed(tmp_path, [gauss("Flat", body, body)], [[math.nan, math.nan]])[0] == np.float32(1e-9 * 1001)


def test_targets_are_turned_back_by_the_first_that_names_them(tmp_path: Path) -> None:
    steps = [normalize([[(0, 1), (10, 30)]], ["x0", "t:y"]), normalize([[(0, 1), (0, 2)]], ["x0", "t:y"])]
    text = setup(
        forest([tree(leaf(0.25), 0.25)], 1),
        1,
        analysis="Regression",
        options={"BoostType": "Grad"},
        targets=["y"],
        transforms=steps,
    )
    graph, evaluator = both(written(tmp_path, text), np.zeros((1, 1), np.float32))
    assert graph.tolist() == evaluator.tolist() == [[25.0]]
    plain = text.replace('Name="Normalize"', 'Name="Normalize" UseOffsetOrNot="NoOffset"', 1)
    graph, evaluator = both(written(tmp_path, plain), np.zeros((1, 1), np.float32))
    assert graph.tolist() == evaluator.tolist() == [[15.0]]


BODY = cumulative([0, 2, 4, 8], [0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("step", "error", "what"),
    [
        (transform("Whiten", "", ["x0", "x1"]), Unsupported, "Whiten"),
        (normalize([[(0, 1)]], ["x0", "x1"]), UnreadableFile, "ranges"),
        (normalize([[(0, 1)]], ["nobody"]), UnreadableFile, "nobody"),
        (normalize([[(0, 1)]], ["x0"], ' UseOffsetOrNot="Perhaps"'), Unsupported, "Perhaps"),
        (normalize([], ["x0"]), UnreadableFile, "<Class>"),
        (transform("Decorrelation", matrix([1, 2, 3]), ["x0", "x1"]), UnreadableFile, "3 numbers, 4"),
        (transform("Decorrelation", matrix([1, 2, 3, 4]), ["x0"]), UnreadableFile, "does not fit 1"),
        (transform("PCA", pca([1, 2], [1, 2, 3, "x"]), ["x0", "x1"]), UnreadableFile, "x"),
        (transform("PCA", "", ["x0", "x1"]), UnreadableFile, "Statistics"),
        (gauss("Round", BODY), Unsupported, "Round"),
        (gauss("Flat", cumulative([0, 2, 4], [0.5, 1.0], method=2)), Unsupported, "splined by method 2"),
        (gauss("Flat", cumulative([0, 2, 4], [0.5, 1.0], smooth=3)), Unsupported, "smoothed"),
        (gauss("Flat", cumulative([0, 3, 2], [0.5, 1.0])), UnreadableFile, "do not increase"),
        (gauss("Flat", cumulative([0, 1], [1.0])), UnreadableFile, "1 bins"),
        (gauss("Flat", "<CumulativePDF_cls0/>"), UnreadableFile, "without distribution"),
        (gauss("Flat", BODY.replace('NBins="3"', 'NBins="99999999999"')), UnreadableFile, "announced"),
        (transform("Rearrange", "", ["x0", "x1"], ["x0"]), Unsupported, "other outputs"),
        (transform("Rearrange", "", ["t:y", "x0"]), UnreadableFile, "none of the variables"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(tmp_path: Path, step: str, error: type[Exception], what: str) -> None:
    text = setup(SUM + "</Weights>", 2, method="Fisher::F", transforms=[step])
    with pytest.raises(error, match=what):
        Importer().read(written(tmp_path, text), ReadOptions())


def test_chains_before_trees(tmp_path: Path) -> None:
    """Decisions hang on the last bit of what the chain makes; the graph and the evaluator agree on every event."""
    rng = np.random.default_rng(5)
    names = ["x0", "x1", "x2"]
    edges = np.sort(rng.normal(size=21) * 2).round(6)
    body = cumulative(edges.tolist(), np.cumsum(rng.random(20)).round(6).tolist())
    square = " ".join(map(str, rng.normal(size=9).round(9)))
    mean = " ".join(map(str, rng.normal(size=3).round(6)))
    steps = [
        transform("Decorrelation", f'<Matrix Rows="3" Columns="3">{square}</Matrix>', names),
        transform(
            "PCA",
            f'<Statistics ClassIndex="0" NRows="3">{mean}</Statistics>'
            f'<Eigenvectors ClassIndex="0" NRows="3" NCols="3">{square}</Eigenvectors>',
            names,
        ),
        gauss("Flat", body, body, body),
        gauss("Gauss", body),
        normalize([[(-3, 3), (0, 1), (-0.5, 2)]], names),
    ]
    trees = [tree(grown(rng, 3, 5), float(np.float32(rng.random())), i) for i in range(30)]
    for count in range(1, len(steps) + 1):
        text = setup(forest(trees), 3, transforms=steps[:count], options={"UseYesNoLeaf": "False"})
        graph, evaluator = both(written(tmp_path, text), events(2, 400, 3))
        np.testing.assert_allclose(graph, evaluator, rtol=0, atol=1.2e-7)
