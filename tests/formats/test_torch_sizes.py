"""Sizes: the grammar of recorded expressions; the example's sizes made dynamic where, and only where, that is sound."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from modelhub.errors import Notice, UnreadableFile
from modelhub_torch.sizes import add, divide, evaluate, floordiv, mul, parse, symbol
from modelhub_torch.translate import Clash, Translation
from modelhub_torch.views import resolve

N, T = symbol("N"), symbol("T_x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Symbol('s72', positive=True, integer=True)", symbol("s72")),
        ("Mul(Integer(2), Symbol('s0', integer=True))", mul(2, symbol("s0"))),
        ("Add(Integer(-1), Symbol('s0', integer=True))", add(symbol("s0"), -1)),
        ("Pow(Symbol('s0', integer=True), Integer(2))", mul(symbol("s0"), symbol("s0"))),
        ("2*s0 + 1", add(mul(2, symbol("s0")), 1)),
        ("(s0 + s1)*3 - s1*3", mul(3, symbol("s0"))),
        ("FloorDiv(4*s0, 2)", mul(2, symbol("s0"))),
        ("4*s0 // 2 + 7 % 4", add(mul(2, symbol("s0")), 3)),
        ("7", 7),
    ],
)
def test_expressions(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "Symbol('s0', positive=1)", "s0.__class__", "eval('1')", "s0 if s0 else 1",
        "lambda: 0", "", "2 +", "(" * 100 + "1" + ")" * 100, "9**9**9", "1**999999999999999999",
        "Pow(Integer(9), Integer(99))", "s0[0]", "a b",
        "Symbol(s0)", "9" * 40, "x" * 5000, "Mod(s0)", "１",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_arithmetic() -> None:
    area = mul(add(N, 1), T)
    assert evaluate(area, {"N": 2, "T_x": 7}) == 21
    assert evaluate(area, {"N": 2}) is None
    assert divide(mul(6, mul(N, T)), mul(2, N)) == mul(3, T)
    assert divide(mul(6, N), 4) is None
    assert evaluate(floordiv(add(N, 1), 2), {"N": 6}) == 3
    size = symbol("s0")
    with pytest.raises(ValueError, match="too"):
        for _ in range(64):
            size = mul(size, size)


def translation(n: int = 2, t: int = 7) -> Translation:
    return Translation("net", {"N": n, "T_x": t}, frozenset({"N", "T_x"}))


@pytest.mark.parametrize(
    ("shape", "target", "expected"),
    [
        ((N, 3, 4), (2, 12), "N 12"),
        ((N, 3, 4), (2, -1), "N 12"),
        ((N, 12), (2, 2, 3, 2), "N 2 3 2"),
        ((N, T, 4), (-1, 4), "N*T_x 4"),
        ((N, T, 4), (2, -1, 2, 2), "N T_x 2 2"),
        ((N, 8), (4, 4), "N*2 4"),
        ((N, 6), (1, 2, 6), "1 N 6"),
        ((T, N, 4), (-1, 8), "T_x N*4"),
    ],
)
def test_sizes_of_the_example_are_recognised(shape: tuple, target: tuple, expected: str) -> None:
    assert " ".join(map(str, resolve(translation(), shape, target))) == expected


def test_merged_axes_come_apart_in_their_own_order() -> None:
    t = translation()
    assert [*map(str, resolve(t, resolve(t, (N, 3, 5), (-1, 5)), (2, 3, 5)))] == ["N", "3", "5"]
    assert [*map(str, resolve(t, resolve(t, (3, N, 5), (-1, 5)), (3, 2, 5)))] == ["3", "N", "5"]
    t = translation(4, 4)
    merged = resolve(t, (T, N, 5), (-1, 5))
    assert str(merged[0]) == "T_x*N"
    t = translation(2, 3)
    merged = resolve(t, (T, N, 5), (-1, 5))
    with pytest.raises(Clash):  # [3 steps, 2 events] read as [2, 3] would mix events
        resolve(t, merged, (2, 3, 5))


@pytest.mark.parametrize(
    ("shape", "target"),
    [((N, 6), (3, 4)), ((N, T), (7, 2)), ((3, N), (2, 3)), ((N, T, 4), (2, 7, 4)), ((N, T, 4), (14, 4))],
)
def test_what_mixes_events_or_counts_steps_clashes(shape: tuple, target: tuple) -> None:
    with pytest.raises(Clash):
        resolve(translation(), shape, target)


def test_impossible_shapes_are_unreadable() -> None:
    fixed = Translation("net", {}, frozenset())
    for target in ((5,), (-1, 4), (-1, -1)):
        with pytest.raises(UnreadableFile):
            resolve(fixed, (2, 3), target)


torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_checking import agrees, export  # noqa: E402

from modelhub_torch.reader import read  # noqa: E402


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, jet):
        return torch.softmax(self.layers(jet).view(jet.shape[0], 2, 2), -1).reshape(jet.shape[0], -1)


class Tracks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, tracks):
        return self.head(self.lstm(tracks)[0]).sum(1)


class Mean(Tracks):
    def forward(self, tracks):
        return self.head(self.lstm(tracks)[0]).sum(1) / tracks.shape[1]


class Centred(nn.Module):
    def forward(self, jet):
        return jet - jet.mean(0)


def dims(model) -> list[str]:
    return [str(d) for d in model.graph.inputs[0].shape]


def said(path: Path) -> tuple[object, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = read(path)
    return model, "\n".join(str(w.message) for w in caught if w.category is Notice)


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_events_of_a_static_file_become_dynamic(tmp_path: Path, rows: int, decompose: bool) -> None:
    torch.manual_seed(0)
    module = Tagger()
    path = export(module, (torch.randn(rows, 6),), tmp_path / "net.pt2", dynamic=False, decompose=decompose)
    model, text = said(path)
    assert dims(model) == ["N", "6"]
    assert f"exported for {rows} events" in text
    agrees(module, model, [(torch.randn(n, 6),) for n in (1, 2, 5)])


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_steps_of_a_static_recurrent_file_become_dynamic(tmp_path: Path, steps: int) -> None:
    torch.manual_seed(0)
    module = Tracks()
    model, text = said(export(module, (torch.randn(2, steps, 6),), tmp_path / "net.pt2", dynamic=False))
    assert dims(model) == ["N", "T_tracks", "6"]
    assert "one length of tracks" in text
    agrees(module, model, [(torch.randn(n, t, 6),) for n, t in ((1, 1), (5, 9))])


class Lifted(nn.Module):
    def forward(self, tracks):
        return tracks.sum(1) / torch.tensor(float(tracks.shape[1]))


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("kind", [Mean, Lifted])
def test_steps_stay_where_a_number_could_be_made_of_them(tmp_path: Path, kind: type, steps: int) -> None:
    model, text = said(export(kind(), (torch.randn(2, steps, 6),), tmp_path / "net.pt2", dynamic=False))
    assert dims(model) == ["N", str(steps), "6"]
    assert "one length" not in text
    assert f"second axis of tracks stays {steps} long" in text


class Fourth(Tracks):
    def forward(self, tracks):
        return self.lstm(tracks)[0][:, 3]


class Leading(Tracks):
    def forward(self, tracks):
        return self.lstm(tracks)[0][:, :5].sum(1)


class Picked(Tracks):
    def forward(self, tracks):
        return self.lstm(tracks)[0][:, torch.tensor([0, 2])].flatten(1)


class Positions(Tracks):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(7, 6))

    def forward(self, tracks):
        return self.lstm(tracks + self.place)[0].sum(1)


@pytest.mark.parametrize("kind", [Fourth, Leading, Picked, Positions])
def test_steps_stay_where_they_are_told_apart_by_number(tmp_path: Path, kind: type) -> None:
    model, _ = said(export(kind(), (torch.randn(2, 7, 6),), tmp_path / "net.pt2", dynamic=False))
    assert dims(model) == ["N", "7", "6"]


def test_each_sequence_is_freed_for_itself(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, tracks, towers):
            return tracks.sum(1) + towers.sum(1) / towers.shape[1] + torch.cat([tracks, towers[:, 1:]], 1).amax(1)

    class Flat(nn.Module):
        def forward(self, tracks, towers):
            return tracks.sum(1) + towers.flatten(1)[:, :6]

    for module in (Two(), Flat()):
        path = export(module, (torch.randn(2, 7, 6), torch.randn(2, 5, 6)), tmp_path / "net.pt2", dynamic=False)
        model, _ = said(path)
        assert [[str(d) for d in value.shape][:2] for value in model.graph.inputs] == [["N", "T_tracks"], ["N", "5"]]


def test_events_stay_where_a_constant_has_their_number(tmp_path: Path) -> None:
    class Noise(nn.Module):
        def forward(self, jet):
            return jet + torch.ones(jet.shape[0], 1)

    model, _ = said(export(Noise(), (torch.randn(3, 6),), tmp_path / "net.pt2", dynamic=False))
    assert dims(model) == ["3", "6"]


def test_events_stay_where_they_meet(tmp_path: Path) -> None:
    model, text = said(export(Centred(), (torch.randn(3, 6),), tmp_path / "net.pt2", dynamic=False))
    assert dims(model) == ["3", "6"]
    assert "exactly 3 events" in text
    model, text = said(export(Centred(), (torch.randn(3, 6),), tmp_path / "open.pt2"))
    assert dims(model) == ["N", "6"]
    assert "combines different events" in text


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_layer_that_takes_steps_first_is_told_about(tmp_path: Path, dynamic: bool) -> None:
    model, text = said(export(nn.GRU(6, 4), (torch.randn(5, 3, 6),), tmp_path / "net.pt2", dynamic=dynamic))
    assert "takes steps on the first axis of input" in text
    assert "batch_first=True" in text
    assert dims(model)[0] == "5"  # torch freezes the steps, and no batch is freed where steps are meant


def test_conditions_of_the_export_are_told(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x):
            return x.sum(1) if x.shape[1] > 4 else x.mean(1)

    _, text = said(export(Branch(), (torch.randn(3, 6, 2),), tmp_path / "net.pt2"))
    assert "between 5 and None" in text or "condition" in text
