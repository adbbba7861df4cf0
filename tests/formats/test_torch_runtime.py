"""Torch as reference engine: float64, files with the example's sizes burnt in, and nothing executed from the file."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_torch_hostile import PROGRAM, Bomb, nodes, rewritten
from test_torch_read import CASES, batches
from torch_checking import EXACT, ROUGH, close, export

import modelhub
from modelhub.errors import Inconclusive
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_torch import Runtime

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::modelhub.errors.Notice"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def engine(path: Path, precision: str = "float64", trust: bool = False):
    return Runtime().load(path, Interface.of(modelhub.read(path)), precision, ReadOptions(trust=trust))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "kind", "tolerance"), [("float32", "out32", ROUGH), ("float64", "out", EXACT)])
def test_shipped_cases(fixtures: Path, case: str, precision: str, kind: str, tolerance: float) -> None:
    run = engine(fixtures / "torch" / case / "net.pt2", precision)
    assert (run.name, run.version, run.precision) == ("torch", torch.__version__, precision)
    for batch in batches(fixtures / "torch" / case):
        got = run(batch["in"])
        assert set(got) == set(batch[kind])
        for name, array in got.items():
            assert array.dtype == precision
            close(array, batch[kind][name], tolerance)


def test_inputs_go_by_position_and_are_scaled_first(fixtures: Path) -> None:
    features = tuple(Feature(f"v{i}", offset=0.5 * i, scale=2.0, default=-1.0) for i in range(4))
    tracks = tuple(Feature(f"t{i}") for i in range(6))
    interface = Interface(
        (Input("kinematics", features), Input("particles", tracks, sequence=True)), (Output("p", ("b", "c", "u")),)
    )
    run = Runtime().load(fixtures / "torch/two_inputs/net.pt2", interface, "float64", ReadOptions())
    plain = engine(fixtures / "torch/two_inputs/net.pt2")
    rng = np.random.default_rng(0)
    jet, particles = rng.normal(size=(5, 4)), rng.normal(size=(5, 3, 6))
    jet[0, 2] = np.nan
    ready = (np.where(np.isnan(jet), -1.0, jet) + 0.5 * np.arange(4)) * 2.0
    got = run({"kinematics": jet, "particles": particles})["p"]
    close(got, plain({"jet": ready, "tracks": particles})["flavour"], 1e-15)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, jet):
        return self.layers(jet).view(jet.shape[0], 2, 2).sum(-1) + torch.zeros(jet.shape[0], 2, dtype=torch.float32)


@pytest.mark.parametrize("rows", [1, 3, 4])
@pytest.mark.parametrize("decompose", [False, True])
def test_burnt_in_events_go_in_portions(tmp_path: Path, rows: int, decompose: bool) -> None:
    torch.manual_seed(0)
    module = Tagger().eval()
    path = export(module, (torch.randn(rows, 6),), tmp_path / "net.pt2", dynamic=False, decompose=decompose)
    features = tuple(Feature(f"v{i}") for i in range(6))
    interface = Interface((Input("jet", features),), (Output("output", ("a", "b")),))
    run = Runtime().load(path, interface, "float64", ReadOptions())
    for events in (1, 4, 7):
        x = np.random.default_rng(events).normal(size=(events, 6))
        with torch.no_grad():
            expected = module.double()(torch.from_numpy(x)).numpy()
        close(run({"jet": x})["output"], expected, EXACT)


class Tracks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 4, batch_first=True)

    def forward(self, tracks):
        return self.gru(tracks)[0].sum(1)


def test_burnt_in_steps_do_not_bind_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tracks()
    run = engine(export(module, (torch.randn(2, 5, 6),), tmp_path / "net.pt2", dynamic=False))
    for steps in (1, 5, 9):
        x = np.random.default_rng(steps).normal(size=(7, steps, 6))
        with torch.no_grad():
            expected = module.double()(torch.from_numpy(x)).numpy()
        close(run({"tracks": x})["output"], expected, EXACT)


def test_an_empty_sequence_is_inconclusive(fixtures: Path) -> None:
    run = engine(fixtures / "torch/lstm/net.pt2")
    with pytest.raises(Inconclusive, match="larger than 0"):
        run({"tracks": np.zeros((3, 0, 6), np.float32)})


def test_dtypes_named_in_the_graph_follow(tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, x):
            return (x.to(torch.float32) * 0.1 + torch.full((1,), 0.7, dtype=torch.float32)) / (x > 0).sum(
                1, keepdim=True
            ).float()

    path = export(Named(), (torch.randn(3, 6),), tmp_path / "net.pt2")
    x = np.abs(np.random.default_rng(0).normal(size=(4, 6))) + 0.1
    close(engine(path)({"x": x})["output"], (x * 0.1 + 0.7) / 6, 1e-15)


def test_a_network_exported_on_a_gpu_runs_on_the_cpu(fixtures: Path, tmp_path: Path) -> None:
    def change(members):
        def on_gpu(item):
            if isinstance(item, dict):
                if item.keys() == {"type", "index"}:
                    item.update(type="cuda", index=0)
                item = list(item.values())
            for part in item if isinstance(item, list) else []:
                on_gpu(part)

        on_gpu([data for name, data in members.items() if name.endswith(".json")])

    path = rewritten(fixtures / "torch/lstm/net.pt2", tmp_path / "net.pt2", change)
    for batch in batches(fixtures / "torch/lstm"):
        close(engine(path)(batch["in"])["output"], batch["out"]["output"], EXACT)


def test_a_caller_keeps_its_default_dtype(fixtures: Path) -> None:
    before = torch.get_default_dtype()
    engine(fixtures / "torch/dl1/net.pt2")({"jet": np.zeros((2, 44), np.float32)})
    assert torch.get_default_dtype() is before


def test_nothing_in_the_file_is_executed(fixtures: Path, tmp_path: Path) -> None:
    """A pickle as sample input, an import as a guard: both run when torch loads the file itself."""

    def change(members):
        members["data/sample_inputs/model.pt"] = pickle.dumps(Bomb())
        members[PROGRAM]["guards_code"] = ["__import__('os').abort()"]
        for node in nodes(members):
            node["metadata"]["source_fn_stack"] = "x,torch.os.abort"

    path = rewritten(fixtures / "torch/dl1/net.pt2", tmp_path / "net.pt2", change)
    x = np.ones((2, 44), np.float32)
    close(engine(path)({"jet": x})["flavour"], engine(fixtures / "torch/dl1/net.pt2")({"jet": x})["flavour"], 0)


@pytest.mark.parametrize("text", ["__import__('os').abort()", "Symbol('s0') if 1 else 2"])
def test_expressions_outside_the_grammar_never_reach_torch(fixtures: Path, tmp_path: Path, text: str) -> None:
    def change(members):
        for size in members[PROGRAM]["graph_module"]["graph"]["sym_int_values"].values():
            size["as_expr"]["expr_str"] = text
        for meta in members[PROGRAM]["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size and meta["dtype"] != 5:
                    size["as_expr"]["expr_str"] = text

    path = rewritten(fixtures / "torch/deepset/net.pt2", tmp_path / "net.pt2", change)
    interface = Interface.of(modelhub.read(fixtures / "torch/deepset/net.pt2"))
    with pytest.raises(Inconclusive, match="not understood"):
        Runtime().load(path, interface, "float64", ReadOptions())


def test_the_clean_copy_holds_no_pickle(fixtures: Path) -> None:
    from modelhub_torch.archive import Pt2
    from modelhub_torch.program import Program
    from modelhub_torch.runtime import clean

    archive = Pt2(fixtures / "torch/lstm/net.pt2")
    with zipfile.ZipFile(clean(archive, Program.of(archive.program, "net"))) as copy:
        for name in copy.namelist():
            data = copy.read(name)
            assert not data.startswith((b"\x80", b"PK")), name
            assert b"stack_trace" not in data
            assert b"nn_module_stack" not in data
        assert json.loads(copy.read("model/models/model.json"))["guards_code"] == []
