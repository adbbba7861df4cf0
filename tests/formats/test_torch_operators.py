"""Every operator of the table, in both dialects of torch.export, against torch run eagerly in float32 and float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_checking import agrees, export  # noqa: E402

from modelhub_torch.reader import read  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::modelhub.errors.Notice"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def activations(x):
    return (
        torch.relu(x), torch.sigmoid(x), torch.tanh(x), F.softmax(x, 1), F.log_softmax(x, -1), F.leaky_relu(x, 0.3),
        F.elu(x, 0.7), F.selu(x), F.celu(x, 0.7), F.celu(x), F.silu(x), F.hardsigmoid(x), F.hardtanh(x, -0.3, 0.7),
        F.relu6(x * 9), F.hardswish(x), F.tanhshrink(x), F.threshold(x, 0.1, 0.2), F.glu(x), F.normalize(x, dim=1),
        F.relu(x + 1, inplace=True), F.dropout(x, 0.3, False),
    )  # fmt: skip


def rough_activations(x):
    """Those that onnxruntime has in float32 alone."""
    return (
        F.gelu(x), F.gelu(x, approximate="tanh"), F.softplus(x), F.softplus(x * 30, 0.7, 10), F.softsign(x), F.mish(x),
        F.logsigmoid(x), F.prelu(x, torch.tensor([0.3])), torch.erf(x), x.tan(), x.sinh(), x.cosh(), x.atan(),
        torch.atan2(x, x.flip(1)), torch.atan2(x.ceil() * 0.0, x.floor()), torch.atan2(x.floor(), x * 0.0),
    )  # fmt: skip


def arithmetic(x):
    return (
        x.abs().sqrt() + x.exp() * torch.log(x.abs() + 1), torch.log1p(x.abs() * 1e-4), torch.expm1(x * 1e-4),
        (x.abs() + 0.1).rsqrt(), x.pow(2) + x.abs().pow(0.5) + x.pow(3) - x**4 + 2**x, -x, x.reciprocal(), 1 / x,
        x.clamp(-0.1, 0.3), x.clamp(min=0.2), x.clip(max=0.1), torch.maximum(x, x * 0.5), torch.minimum(x, -x),
        torch.add(x, x.exp(), alpha=0.3), torch.sub(x, 0.1, alpha=0.3), torch.rsub(x, 1.1), x / 3, (x / 0.3) * 0.7,
        x.floor_divide(0.3), torch.div(x, 0.7, rounding_mode="trunc"), x.square(), x.sin(), x.cos(), x.floor(),
        x.ceil(), x.sign(), x.round(), x * x.shape[0] / (x.shape[0] + 1), x * (x.shape[1] ** 0.5), x / x.shape[0],
        torch.remainder(x, 0.7), torch.remainder(x, -x.exp()), torch.fmod(x, 0.7), (x * 9).trunc(),
        x.abs().log2(), x.abs().log10(),
    )  # fmt: skip


def reductions(x):
    return (
        x.sum(1), x.sum(1, keepdim=True), x.mean(-1), x.amax((1,), True), x.amin(1), x.max(1)[0], x.min(1).values,
        x.argmax(1), x.max(1).indices, x.var(1), x.std(1, unbiased=False), x.prod(1), x.norm(dim=1), x.norm(p=1, dim=1),
        torch.logsumexp(x, 1), (x > 0).sum(1), (x > 0).any(1), (x > 0).all(1), x.cumsum(1), x.topk(3, 1)[0],
        x.sort(1, descending=True)[0], x.argsort(1), F.cosine_similarity(x, x * 2 - 1, dim=1),
        x.view(-1, 2, 3).mean((1, 2)), x.sum(0) * 0 + x, torch.softmax(x, 0),
    )  # fmt: skip


def shapes(x):
    return (
        torch.cat([x, x[:, :2], x[:, -3:]], 1), torch.stack([x[:, 0], x[:, 1]], 1), x.view(-1, 2, 3).flatten(1),
        x.reshape(x.shape[0], 3, 2).transpose(1, 2).flatten(1), x.unsqueeze(1).expand(-1, 3, -1)[:, :, 1:4:2],
        x.unsqueeze(1).squeeze(1), x.select(1, -2), x.narrow(1, 2, 3), torch.index_select(x, 1, torch.tensor([0, 2])),
        x[:, torch.tensor([1, 1, 0])], *torch.split(x, 4, 1), *torch.chunk(x, 3, 1), x.unbind(1)[2],
        torch.split(x, [1, 2, 3], 1)[1], F.pad(x, (1, 2), value=0.1), x.repeat(1, 2), torch.tile(x, (2,)), x.flip(1),
        x.movedim(0, 1).T.swapaxes(0, 1), x.unflatten(1, (2, 3)), torch.gather(x, 1, (x > 0).long()),
        x.view(-1, 2, 3).permute(0, 2, 1).contiguous().view(x.shape[0], -1), x[1:-1], x.view(-1, 2, 3).tril(),
    )  # fmt: skip


def choices(x):
    return (
        torch.where(x > 0, x, x * 0.1), torch.where(x < 0, 1.5, -0.2), x.masked_fill(x.isnan() | (x == 0), 0.3),
        x.masked_fill((x >= 0.5) & ~(x <= 0.7), float("-inf")), x != x, torch.nan_to_num(torch.log(x), nan=0.1),
        torch.logical_and(x > 0, x < 1), torch.logical_or(x > 1, x < 0), torch.logical_xor(x > 0, x > 1),
        torch.logical_not(x > 0), torch.isinf(1 / x.floor()), torch.isfinite(1 / x.floor()),
        x.sign().to(torch.int64) == 1,
    )  # fmt: skip


def creations(x):
    return (
        x + torch.arange(6) + torch.arange(0, 3, 0.5), x + torch.zeros(6) + torch.ones(x.shape[0], 1),
        torch.full((x.shape[0], 6), 0.3, dtype=x.dtype), torch.zeros_like(x), x.new_full((1,), 0.7) + x,
        x + torch.arange(x.shape[0]).unsqueeze(1), x + torch.arange(2, x.shape[0] + 2).unsqueeze(1),
        torch.triu(torch.ones(6, 6)) + x[:1],
    )  # fmt: skip


def products(x):
    weight = torch.ones(6, 3) * 0.5
    return (
        torch.einsum("bi,ij->bj", x, weight), x @ weight, F.linear(x, weight.T), x.unsqueeze(1) @ weight,
        torch.addmm(torch.ones(3), x, weight, beta=0.5, alpha=2.0), torch.bmm(x.view(-1, 2, 3), x.view(-1, 3, 2)),
        torch.matmul(x.view(-1, 2, 3), torch.ones(3, 2)), (x.unsqueeze(1) @ x.unsqueeze(2)).squeeze(1),
        torch.baddbmm(x.view(-1, 2, 3), x.view(-1, 2, 3), torch.eye(3).expand(x.shape[0], 3, 3), beta=0.3, alpha=0.7),
    )  # fmt: skip


def indices(x):
    rows = torch.arange(x.shape[0])
    place = (x > 0).sum(1)
    return (
        x[rows, place - 1], x.view(-1, 2, 3)[rows, place % 2], torch.zeros_like(x).scatter_add(1, (x > 0).long(), x),
        torch.zeros(x.shape[0], 3, dtype=x.dtype).scatter_add(1, (x > 0).long()[:, :4], x),
        x.index_add(1, torch.tensor([0, 2, 0]), x[:, :3], alpha=0.3), x.scatter(1, torch.tensor([[1]]), x[:1, :1]),
        F.one_hot((x > 0).long(), 3), torch.outer(x[:, 0], x[0]), x.roll(2, 1), x.roll((-1, 7), (1, 1)),
        torch.slice_scatter(x, x[:, :2] * 2, 1, 2, 4), torch.select_scatter(x, x[:, 0], 1, -1),
        torch.select_scatter(x, x[:, 0] * 2, 1, 3),
    )  # fmt: skip


def written_in_place(x):
    y = x * 2
    y.add_(1).mul_(0.3).clamp_(max=0.5)
    z = (x + 1).relu_()
    return y, z.sub_(0.1)


FUNCTIONS = [activations, arithmetic, reductions, shapes, choices, creations, products, indices, written_in_place]


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_functions(tmp_path: Path, function: Callable, decompose: bool) -> None:
    torch.manual_seed(1)
    module = Function(function)
    model = read(export(module, (torch.randn(4, 6),), tmp_path / "net.pt2", decompose=decompose))
    agrees(module, model, [(torch.randn(n, 6),) for n in (3, 5)])


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
def test_functions_without_a_double_kernel(tmp_path: Path, decompose: bool) -> None:
    module = Function(rough_activations)
    model = read(export(module, (torch.randn(4, 6),), tmp_path / "net.pt2", decompose=decompose))
    agrees(module, model, [(torch.randn(n, 6),) for n in (1, 5)], exact=False)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(5, 8, 3, padding=1, dilation=1)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Conv1d(8, 4, 2, padding="same", groups=2)
        self.plane = nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, bias=False)

    def forward(self, x):
        y = self.second(torch.relu(self.norm(self.first(x.transpose(1, 2)))))
        z = torch.relu(self.plane(y.unflatten(1, (2, 2))))
        return (
            y.transpose(1, 2).mean(1), F.max_pool1d(y, 2), F.avg_pool1d(y, 2, 1), F.adaptive_avg_pool1d(y, 1),
            F.max_pool2d(z, (1, 2)), F.adaptive_avg_pool2d(z, 1),
        )  # fmt: skip


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
def test_convolutions_and_pools(tmp_path: Path, decompose: bool) -> None:
    torch.manual_seed(2)
    module = Convolutions()
    nn.init.uniform_(module.norm.running_mean)
    model = read(export(module, (torch.randn(3, 9, 5),), tmp_path / "net.pt2", decompose=decompose))
    other = 9 if decompose else 6  # torch freezes the steps here, and core ATen counts them in its reshapes
    agrees(module, model, [(torch.randn(n, t, 5),) for n, t in ((1, 9), (4, other))], exact=False)


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 3, padding_idx=0)
        self.layer = nn.LayerNorm(3)
        self.plain = nn.LayerNorm((2, 3), elementwise_affine=False, eps=1e-3)
        self.batch = nn.BatchNorm1d(3, affine=False)
        self.slopes = nn.PReLU(3, init=0.3)

    def forward(self, i):
        x = self.embedding(i)
        return self.layer(x), self.plain(x), self.batch(x[:, 0]), self.slopes(x[:, 1])


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
def test_embeddings_and_norms(tmp_path: Path, decompose: bool) -> None:
    torch.manual_seed(3)
    module = Norms()
    nn.init.uniform_(module.batch.running_var, 0.5, 2)
    model = read(export(module, (torch.randint(0, 6, (4, 2)),), tmp_path / "net.pt2", decompose=decompose))
    assert model.graph.inputs[0].dtype.name == "INT64"
    agrees(module, model, [(torch.randint(0, 6, (n, 2)),) for n in (1, 5)], exact=False)


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "core"])
def test_transformer(tmp_path: Path, decompose: bool) -> None:
    torch.manual_seed(4)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = read(export(module, (torch.randn(3, 7, 8),), tmp_path / "net.pt2", decompose=decompose))
    agrees(module, model, [(torch.randn(n, t, 8),) for n, t in ((1, 7), (4, 1), (3, 9))])


class Groups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.group = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm1d(4, affine=True)
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))

    def forward(self, x):
        return self.group(x), self.instance(x), self.linear(x)


def test_group_norms_and_weight_norm(tmp_path: Path) -> None:
    torch.manual_seed(8)
    module = Groups()
    for name, parameter in module.named_parameters():
        if "original" not in name:
            nn.init.normal_(parameter, 1)
    model = read(export(module, (torch.randn(3, 4, 6),), tmp_path / "net.pt2", dynamic=False))
    agrees(module, model, [(torch.randn(n, 4, 6),) for n in (1, 5)], exact=False)


class Attention(nn.Module):
    """Masks of every kind, with rows that are masked everywhere."""

    def forward(self, q, keep):
        heads = q.unsqueeze(1)
        mask = keep[:, :, 0].gt(0)[:, None, None, :]
        bias = keep[:, :, 0][:, None, None, :] * 0.3
        shut = bias.masked_fill(~mask, float("-inf"))
        return (
            F.scaled_dot_product_attention(heads, heads, heads, mask, scale=0.3),
            F.scaled_dot_product_attention(heads, heads, heads, shut),
            F.scaled_dot_product_attention(heads, heads, heads * 2, is_causal=True),
        )


def test_attention_masks(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = Attention()
    model = read(export(module, (torch.randn(3, 7, 4), torch.randn(3, 7, 1)), tmp_path / "net.pt2"))
    keep = torch.randn(4, 5, 1)
    keep[2] = -1
    agrees(module, model, [(torch.randn(4, 5, 4), keep), (torch.randn(1, 1, 4), torch.ones(1, 1, 1))])


class Recurrent(nn.Module):
    """A recurrent layer with everything it gives out; batch_first or not, the events come first outside."""

    def __init__(self, kind: Callable, **settings) -> None:
        super().__init__()
        self.cell = kind(5, 4, **settings)
        self.turn = not settings.get("batch_first", False)

    def forward(self, x):
        y, last = self.cell(x.transpose(0, 1) if self.turn else x)
        lasts = last if isinstance(last, tuple) else (last,)
        return (y.transpose(0, 1) if self.turn else y), *lasts


def relu_rnn(*args, **settings):
    return nn.RNN(*args, nonlinearity="relu", **settings)


SETTINGS = [
    {"batch_first": True},
    {"batch_first": True, "bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "bidirectional", "stacked"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, relu_rnn], ids=["LSTM", "GRU", "RNN", "ReLU"])
def test_recurrent_layers(tmp_path: Path, kind: Callable, settings: dict) -> None:
    torch.manual_seed(6)
    module = Recurrent(kind, **settings)
    model = read(export(module, (torch.randn(3, 6, 5),), tmp_path / "net.pt2"))
    assert [str(d) for d in model.graph.inputs[0].shape] == ["N", "T_x", "5"]
    agrees(module, model, [(torch.randn(n, t, 5),) for n, t in ((1, 6), (4, 1), (3, 9))])


class Started(nn.Module):
    """An LSTM whose first states are learned, and a GRU that starts from a function of the event."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, batch_first=True)
        self.gru = nn.GRU(5, 4, batch_first=True)
        self.h = nn.Parameter(torch.randn(2, 1, 4))
        self.c = nn.Parameter(torch.randn(2, 1, 4))
        self.start = nn.Linear(5, 4)

    def forward(self, x):
        events = x.shape[0]
        y, _ = self.lstm(x, (self.h.expand(-1, events, -1).contiguous(), self.c.expand(-1, events, -1).contiguous()))
        z, _ = self.gru(x, torch.tanh(self.start(x[:, 0])).unsqueeze(0))
        return y, z


def test_initial_states(tmp_path: Path) -> None:
    torch.manual_seed(7)
    module = Started()
    model = read(export(module, (torch.randn(3, 6, 5),), tmp_path / "net.pt2"))
    agrees(module, model, [(torch.randn(n, t, 5),) for n, t in ((1, 6), (4, 1), (3, 9))])
