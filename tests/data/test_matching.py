"""Names of variables against names of columns: exact, or told what is missing and what comes near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_making import features, jets, model, tracks, write_h5

from modelhub.data import DataSpec, open_events
from modelhub.errors import UsageError
from modelhub.graph.interface import Input, Interface


def feeds(text: str, *inputs: Input, columns: tuple[str, ...] = ()):
    graph = model(*inputs)
    return open_events(DataSpec.parse(text, columns), graph, Interface.of(graph)).feeds


JET = Input("jet", features("pt", "eta"))
TRACKS = Input("tracks", features("d0"), sequence=True)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write_h5(tmp_path / "a.h5", jets=jets(9), tracks=tracks(np.full(9, 2), 2), hits=tracks(np.full(9, 2), 3))


def test_missing_names_are_told_with_the_nearest_and_all_there_are(sample: Path) -> None:
    with pytest.raises(UsageError) as error:
        feeds(f"{sample}:jets", Input("jet", features("pt", "Eta", "flavor", "xyz")))
    assert str(error.value) == (
        f"input jet: {sample}:jets has no column for Eta (nearest: eta), flavor (nearest: flavour), xyz. "
        "It holds: flavour, pt, eta, n, name, tag. Say --map VARIABLE=COLUMN where a name differs"
    )


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (Input("jet", features("name")), r"name \(holds \|S4, not numbers\)"),
        (Input("jet", features("pt"), sequence=True), r"pt \(is one number per event\)"),
    ],
)
def test_columns_of_another_kind_are_refused(sample: Path, record: Input, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        feeds(f"{sample}:jets", record)


def test_the_table_that_holds_the_names_is_found(sample: Path) -> None:
    assert [feed.table.name for feed in feeds(str(sample), TRACKS, JET)] == ["tracks", "jets"]


def test_two_tables_that_fit_must_be_told_apart(sample: Path) -> None:
    other = Input("constituents", features("d0"), sequence=True)
    with pytest.raises(UsageError, match=r"fits more than one table \(hits, tracks\).*FILE:constituents=TABLE"):
        feeds(str(sample), other)
    (feed,) = feeds(f"{sample}:constituents=hits", other)
    assert feed.table.name == "hits"


def test_tables_are_given_to_inputs_by_name(sample: Path) -> None:
    first, second = (Input(name, features("d0"), sequence=True) for name in ("first", "second"))
    got = feeds(f"{sample}:first=hits,second=tracks", first, second)
    assert [feed.table.name for feed in got] == ["hits", "tracks"]


def test_map_renames_for_one_input_or_for_all(sample: Path) -> None:
    jet, hits = Input("jet", features("x", "eta")), Input("hits", features("x"), sequence=True)
    got = feeds(str(sample), jet, hits, columns=("jet/x=pt", "hits/x=d0"))
    assert [feed.columns for feed in got] == [("pt", "eta"), ("d0",)]
    (feed,) = feeds(str(sample), jet, columns=("x=n",))
    assert feed.columns == ("n", "eta")


def test_map_and_table_for_what_the_model_has_not(sample: Path) -> None:
    with pytest.raises(UsageError, match="no variable 'Pt'; did you mean pt"):
        feeds(str(sample), JET, columns=("Pt=pt",))
    with pytest.raises(UsageError, match="no input 'jets'; did you mean jet"):
        feeds(f"{sample}:jets=jets", JET)


def test_columns_without_names_go_by_their_number(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", x=np.zeros((5, 2), "f4"), y=np.zeros((5, 3), "f4"))
    assert feeds(str(path), JET)[0].table.name == "x"
    with pytest.raises(UsageError, match=r"takes 1 variables; .* has 2 columns without names"):
        feeds(f"{path}:x", Input("jet", features("pt")))


def test_prefix_is_the_name_of_the_input_for_all_or_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jet_pt": [1.0], "jet_eta": [2.0], "eta": [3.0]}), tmp_path / "a.parquet")
    assert feeds(str(tmp_path / "a.parquet"), JET)[0].columns == ("jet_pt", "jet_eta")
    pq.write_table(pa.table({"jet_pt": [1.0], "eta": [3.0]}), tmp_path / "b.parquet")
    with pytest.raises(UsageError, match=r"no column for pt \(nearest: jet_pt\)"):
        feeds(str(tmp_path / "b.parquet"), JET)


def test_tables_must_hold_the_same_events(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", jets=jets(9), tracks=tracks(np.full(8, 2), 2))
    with pytest.raises(UsageError, match=r"jets has 9, .*tracks has 8"):
        feeds(str(path), JET, TRACKS)


def test_input_without_variables_is_refused(sample: Path) -> None:
    with pytest.raises(UsageError, match="input jet names no variables"):
        feeds(str(sample), Input("jet", ()))


def test_model_without_names_says_so(sample: Path) -> None:
    graph = model(Input("in", features("f0", "f1")))
    graph.metadata_props.clear()
    with pytest.raises(UsageError, match="give them with --interface"):
        open_events(DataSpec.parse(f"{sample}:jets"), graph, Interface.of(graph))
