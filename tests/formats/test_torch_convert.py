"""From torch to lwtnn JSON with the check that goes with it, in both dialects of torch.export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelhub
from modelhub.errors import Unsupported

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_checking import export  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::modelhub.errors.Notice"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Scaled(nn.Module):
    """Numbers that float32 cannot hold, and a weight that is computed from two."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))

    def forward(self, jet):
        return torch.tanh(self.dense((jet - 0.3) * 0.1 + 1 / 3)) / 0.7


class Sets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(5, 6), nn.ELU(0.7), nn.Linear(6, 4), nn.LeakyReLU(0.2))
        self.rho = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Hardsigmoid())

    def forward(self, tracks):
        return self.rho(self.phi(tracks).sum(1))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, jet):
        both = torch.tanh(self.a(jet)) + F.silu(self.b(jet))
        return torch.cat([both, F.softmax(self.c(jet), -1)], 1)


@pytest.mark.parametrize(
    ("module", "shape", "decompose"),
    [(Scaled, (4,), False), (Sets, (6, 5), True), (Branches, (4,), True)],
    ids=["scaled", "sets", "branches"],
)
def test_lwtnn_computes_what_torch_computes_in_double(
    tmp_path: Path, module: type, shape: tuple[int, ...], decompose: bool
) -> None:
    torch.manual_seed(0)
    path = export(module(), (torch.randn(3, *shape),), tmp_path / "net.pt2", decompose=decompose)
    report = modelhub.convert(path, tmp_path / "net.json", target_format="lwtnn")
    assert report.verdict in ("equivalent", "identical"), report.missing
    assert json.loads((tmp_path / "net.json").read_text())
    legs = [leg for leg in report.legs if leg.between == ("source", "target")]  # two where lwtnn itself is installed
    assert {leg.precision for leg in legs} == {"float64"}
    normal = [result for leg in legs for result in leg.results if result.probe == "normal"]
    assert normal
    assert all(result.worst.largest <= 1e-12 for result in normal)


def test_a_gru_of_torch_is_refused_by_lwtnn(fixtures: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="resets after the recurrent product"):
        modelhub.convert(fixtures / "torch/gru/net.pt2", tmp_path / "net.json", target_format="lwtnn", check=False)
    assert not list(tmp_path.iterdir())


class Norms(nn.Module):
    """Every kind of mean and variance taken of an event itself."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.both = nn.LayerNorm(6), nn.LayerNorm((4, 6), elementwise_affine=False, eps=1e-3)
        self.group, self.instance = nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True, eps=1e-3)

    def forward(self, x):
        return self.last(x), self.both(x), self.group(x), self.instance(x)


def test_norms_of_an_event_are_checked_in_double(tmp_path: Path) -> None:
    source = export(Norms().eval(), (torch.randn(3, 4, 6),), tmp_path / "net.pt2")
    report = modelhub.convert(source, tmp_path / "net.onnx")
    assert report.verdict == "equivalent"
    (exact,) = (leg for leg in report.legs if leg.precision == "float64")
    assert exact.verdict == "equivalent"
    assert exact.worst is not None
    assert exact.worst.worst.largest < 1e-12


@pytest.mark.parametrize("suffix", [".json", ".onnx"])
def test_one_number_for_each_event_may_come_without_an_axis(tmp_path: Path, suffix: str) -> None:
    """[N] in torch, [N, 1] in lwtnn."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(4, 1)

        def forward(self, jet):
            return torch.sigmoid(self.dense(jet)).squeeze(-1)

    torch.manual_seed(0)
    path = export(One(), (torch.randn(3, 4),), tmp_path / "net.pt2")
    target = tmp_path / f"net{suffix}"
    assert modelhub.convert(path, target).verdict in ("equivalent", "identical")
    module = One()
    other = export(module, (torch.randn(3, 4),), tmp_path / "other.pt2")
    assert modelhub.check(other, target).verdict == "different"
