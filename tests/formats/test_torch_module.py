"""Modules in memory, and the fallback to torch's own exporter."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from modelhub.errors import Notice, Unsupported, UsageError
from modelhub.protocols import ReadOptions
from modelhub_torch import Importer, from_module

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_checking import agrees, export  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::modelhub.errors.Notice"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.jet = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.tracks = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(13, 3)

    def forward(self, jet, tracks):
        both = torch.cat([self.jet(jet), self.tracks(tracks)[0][:, -1]], 1)
        return {"flavour": torch.softmax(self.head(both), 1), "score": both.sum(1)}


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5)])
def test_a_module_becomes_a_dynamic_graph(sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = Tagger()
    model = from_module(module, (torch.randn(sizes[0], 4), torch.randn(*sizes, 6)))
    assert [[str(d) for d in v.shape] for v in model.graph.inputs] == [["N", "4"], ["N", "T_tracks", "6"]]
    assert [v.name for v in model.graph.outputs] == ["flavour", "score"]
    agrees(module, model, [(torch.randn(n, 4), torch.randn(n, t, 6)) for n, t in ((1, 1), (5, 9))])


def test_sizes_of_one_in_the_example_do_not_stick() -> None:
    class Mean(nn.Module):
        def forward(self, tracks):
            return tracks.sum(1) / tracks.shape[1]

    model = from_module(Mean(), torch.randn(1, 1, 6))
    agrees(Mean(), model, [(torch.randn(n, t, 6),) for n, t in ((1, 1), (5, 9))])


def test_named_arguments_and_dynamic_shapes() -> None:
    module = Tagger()
    example = {"tracks": torch.randn(2, 5, 6), "jet": torch.randn(2, 4)}
    assert [v.name for v in from_module(module, example).graph.inputs] == ["jet", "tracks"]
    events = torch.export.Dim("events", min=2, max=100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = from_module(module, example, {"jet": {0: events}, "tracks": {0: events}})
    assert str(model.graph.inputs[0].shape[0]) == "N"
    assert any("between 2 and 100" in str(w.message) for w in caught if w.category is Notice)


def test_the_module_is_left_as_it_was() -> None:
    module = Tagger().train()
    module.jet[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    from_module(module, (torch.randn(2, 4), torch.randn(2, 3, 6)))
    assert module.training
    assert module.jet.training
    assert module.jet[3].training
    assert not module.jet[1].training
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert module.state_dict().keys() == before.keys()


def test_what_is_no_module_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        from_module(lambda x: x, torch.randn(2, 2))


def test_a_module_torch_cannot_export_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(Unsupported, match="cannot export Branching"):
        from_module(Branching(), torch.randn(2, 2))


@pytest.mark.parametrize("trust", [False, True])
def test_statistics_of_the_batch_are_refused_even_with_trust(tmp_path: Path, trust: bool) -> None:
    module = nn.BatchNorm1d(4, track_running_stats=False)
    path = export(module, (torch.randn(3, 4),), tmp_path / "net.pt2")
    with pytest.raises(Unsupported, match=r"(?s)running statistics.*model\.eval"):
        Importer().read(path, ReadOptions(trust=trust))
    with pytest.raises(Unsupported) as caught:
        Importer().read(path, ReadOptions())
    assert "--trust" not in str(caught.value)  # it would not help


def test_dropout_that_is_on_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.3)).train()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (torch.randn(3, 4),)), path)
    with pytest.raises(Unsupported, match="dropout is switched on"):
        Importer().read(path, ReadOptions())


class Unknown(nn.Module):
    """Uses operators outside the table."""

    def forward(self, x):
        return torch.cdist(x.unsqueeze(0), x.unsqueeze(0) * 2).squeeze(0) + torch.special.sinc(x).sum()


class Sampled(nn.Module):
    """Samples an image at places, which torch's exporter knows and our table does not."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 4)

    def forward(self, x):
        image = self.dense(x).view(-1, 1, 2, 2)
        return nn.functional.grid_sample(image, image.tanh().view(-1, 1, 2, 2), align_corners=False)


def test_unknown_operators_are_named_all_at_once(tmp_path: Path) -> None:
    path = export(Unknown(), (torch.randn(3, 4),), tmp_path / "net.pt2")
    with pytest.raises(Unsupported) as caught:
        Importer().read(path, ReadOptions())
    text = str(caught.value)
    assert "cdist" in text
    assert "special_sinc" in text
    assert "--trust" in text
    assert caught.value.exit_code == 4


def test_with_trust_torch_translates_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = Sampled()
    path = export(module, (torch.randn(3, 4),), tmp_path / "net.pt2")
    with pytest.raises(Unsupported, match="grid_sampler"):
        Importer().read(path, ReadOptions())
    with pytest.warns(Notice, match="grid_sampler.*torch's own exporter"), pytest.warns(Notice, match="may run code"):
        model = Importer().read(path, ReadOptions(trust=True))
    agrees(module, model, [(torch.randn(n, 4),) for n in (2, 5)], exact=False)
    assert not any(node.metadata_props for node in model.graph)
    assert ([str(d) for d in model.graph.inputs[0].shape], model.graph.outputs[0].name) == (["N", "4"], "output")


def test_a_module_falls_back_without_being_asked() -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = Sampled()
    with pytest.warns(Notice, match="torch's own exporter"):
        model = from_module(module, torch.randn(3, 4))
    agrees(module, model, [(torch.randn(n, 4),) for n in (2, 5)], exact=False)


class Written(nn.Module):
    """Writes into part of a tensor, and switches gradients off: our reader needs the decomposed program."""

    def forward(self, x):
        y = x.clone()
        y[:, 0] = 0
        y[:, 1:3] *= 2
        with torch.no_grad():
            z = torch.tanh(y)
        return y, z


def test_what_only_core_aten_says_plainly_is_decomposed(tmp_path: Path) -> None:
    module = Written()
    path = export(module, (torch.randn(3, 4),), tmp_path / "net.pt2")
    with pytest.raises(Unsupported, match="run_decompositions"):
        Importer().read(path, ReadOptions())
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        model = from_module(module, torch.randn(3, 4))
    agrees(module, model, [(torch.randn(n, 4),) for n in (1, 5)])
