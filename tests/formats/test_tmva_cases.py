"""Every public weight file with its reference outputs: `outputs.csv` is TMVA::Reader's rule, ties included."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from tmva_writing import both, session

from modelhub.errors import Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_onnx.writer import write
from modelhub_tmva import Importer

CASES = (
    *("adaboost_4.2.0_scripts", "adaboost_4.2.1_root6.33_example", "adaboost_6transf_4.2.1_lol1"),
    *("adaboost_decorr_4.2.0", "adaboost_fishercuts_4.1.3", "adaboost_norm_gauss_4.2.1_karolsowa", "fisher_4.2.0"),
    *("grad_4.2.0_scripts", "grad_4.2.1_FML", "grad_4.2.1_root6.18", "grad_UseYesNoLeafFalse_mlglue_combMVA"),
    *("ld_4.2.1", "mlp_multiclass_4.2.1", "mlp_norm_4.2.0", "mlp_regression_4.2.1", "syn_adaboost_fishernodes"),
    *("syn_adaboost_purityleaf", "syn_adaboostr2_regression", "syn_adaboostr2_regression_4trees", "syn_bagging"),
    *("syn_bagging_regression", "syn_grad_preselection", "syn_grad_regression", "syn_grad_regression_normtarget"),
    *("syn_multiclass_grad3", "syn_realadaboost_name"),
)

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")


def table(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def folder(cases: Path, name: str) -> Path:
    if not (cases / "tmva" / name).is_dir():
        pytest.skip(f"no case {name}")
    return cases / "tmva" / name


@pytest.mark.parametrize("tie", [None, ">"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_reader(cases: Path, name: str, tie: str | None) -> None:
    case = folder(cases, name)
    x = table(case / "inputs.csv").astype(np.float32)
    want = table(case / ("outputs_gt.csv" if tie else "outputs.csv")).reshape(len(x), -1)
    graph, evaluator = both(case / "model.weights.xml", x, tie=tie)
    for y in (graph, evaluator):
        assert y.dtype == np.float32
        assert y.shape == want.shape
        # rounding once to float32 is all that may happen
        assert np.abs(y - want).max() <= 6e-8 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("name", CASES)
def test_the_written_file_is_as_good(cases: Path, name: str, tmp_path: Path) -> None:
    """The ONNX writer turns a graph to one precision; what TMVA does in float64 must stay."""
    import onnx_ir as ir

    case = folder(cases, name)
    x = table(case / "inputs.csv").astype(np.float32)
    want = table(case / "outputs.csv").reshape(len(x), -1)
    size = max(1.0, np.abs(want).max())
    model = Importer().read(case / "model.weights.xml", ReadOptions())
    for precision, allowed in (("float32", 6e-8), ("float64", 1e-6)):
        write(model.clone(), tmp_path / "model.onnx", WriteOptions(precision=precision))
        y = session(ir.load(tmp_path / "model.onnx"))(x.astype(precision))
        assert y.dtype == precision
        assert np.abs(y - want).max() <= allowed * size


def test_random_rows_agree_with_the_compiled_class(cases: Path) -> None:
    """TMVA's own C++, whose numbers have six digits: the first 200 rows lie on no cut."""
    checked = 0
    for case in sorted((cases / "tmva").iterdir()):
        # in that case integer variables meet cuts, and the compiled class asks `>`
        if not (case / "outputs_makeclass.csv").is_file() or case.name == "grad_4.2.1_root6.18":
            continue
        x = table(case / "inputs.csv").astype(np.float32)
        graph, _ = both(case / "model.weights.xml", x)
        rows = min(200, len(x))
        assert np.abs(graph - table(case / "outputs_makeclass.csv"))[:rows].max() <= 1e-5, case.name
        checked += 1
    assert checked >= 8


def test_the_record_holds_names_and_ranges(cases: Path) -> None:
    path = folder(cases, "ld_4.2.1") / "model.weights.xml"
    record = Interface.of(Importer().read(path, ReadOptions())).inputs[0]
    assert [feature.name for feature in record.features] == ["var1+var2", "var1-var2", "var3", "var4"]
    entry = re.search(r'Expression="var3".*?Min="([^"]+)" Max="([^"]+)"', path.read_text())
    assert entry is not None
    assert (record.features[2].minimum, record.features[2].maximum) == (float(entry[1]), float(entry[2]))


def test_what_is_decided_for_the_user_is_told(cases: Path) -> None:
    path = folder(cases, "syn_realadaboost_name") / "model.weights.xml"
    with pytest.warns(Notice, match="RealAdaBoost"):
        Importer().read(path, ReadOptions())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Importer().read(folder(cases, "syn_bagging") / "model.weights.xml", ReadOptions())


@pytest.mark.parametrize("name", ["grad", "adaboost"])
def test_the_fixtures_as_worked_out_by_their_script(fixtures: Path, name: str) -> None:
    folder = fixtures / "tmva" / name
    expected = json.loads((folder / "expected.json").read_text())
    for y in both(folder / "model.weights.xml", np.array(expected["events"], np.float32)):
        np.testing.assert_allclose(y[:, 0], expected["response"], rtol=0, atol=6e-8)
