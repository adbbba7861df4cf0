"""Random networks: whatever is joined with whatever, the file computes what the graph computes."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from lwtnn_writing import Net, agree

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")

ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Abs", "Softmax"]


class Author:
    """Writes operator after operator onto values chosen at random, so that values have no, one or several uses."""

    def __init__(self, seed: int) -> None:
        self.b = Net(seed)
        self.pick = self.b.random.choice
        width = int(self.b.random.integers(1, 5))
        self.vectors = [(self.b.vector(width), width)]
        self.sequences = [(self.b.sequence(width + 1), width + 1)]

    def positive(self, width: int) -> ir.Value:
        return self.b.constant(self.b.random.uniform(0.5, 2.0, width), "positive")

    def pointwise(self, x: ir.Value, width: int, *, timed: bool) -> tuple[ir.Value, int]:
        """Something lwtnn does to a vector, or to every step of a sequence."""
        b = self.b
        match self.pick(
            ["dense", "dense", "bias", "scale", "divide", "activation", "activation", "clip", "swish", "rest"]
        ):
            case "dense":
                out = int(b.random.integers(1, 6))
                return b.op("Add", b.op("MatMul", x, b.normal(width, out)), b.normal(out)), out
            case "bias":
                return b.op("Sub", b.normal(width), x), width
            case "scale":
                return b.op("Mul", x, b.normal(*([1] if timed else []), 1, width)), width
            case "divide":
                return b.op("Div", x, self.positive(width)), width
            case "activation":
                op_type = self.pick(ACTIVATIONS)
                return b.op(op_type, x, **({"axis": -1} if op_type == "Softmax" else {})), width
            case "clip":
                return b.op("Clip", x, b.number(-0.5), b.number(1.5)), width
            case "swish":
                return b.op("Mul", b.op("Sigmoid", b.op("Mul", x, b.number(0.8))), x), width
            case _:
                keep = sorted(b.random.choice(width, size=int(b.random.integers(1, width + 1)), replace=False).tolist())
                return b.op("Gather", x, b.ints(*keep), axis=2 if timed else 1), len(keep)

    def vector(self) -> None:
        b = self.b
        x, width = self.vectors[b.random.integers(len(self.vectors))]
        other, second = self.vectors[b.random.integers(len(self.vectors))]
        kind = self.pick(["pointwise"] * 4 + ["join", "norm"])
        if kind == "join" and width == second and b.random.random() < 0.5:
            self.vectors.append((b.op(self.pick(["Add", "Sub"]), x, other), width))
        elif kind == "join":
            self.vectors.append((b.op("Concat", x, other, axis=1), width + second))
        elif kind == "norm":
            moments = [b.normal(width), b.normal(width), b.normal(width), self.positive(width)]
            self.vectors.append((b.op("BatchNormalization", x, *moments), width))
        else:
            self.vectors.append(self.pointwise(x, width, timed=False))

    def sequence(self) -> None:
        b = self.b
        x, width = self.sequences[b.random.integers(len(self.sequences))]
        units = int(b.random.integers(1, 4))
        match self.pick(["pointwise", "pointwise", "pointwise", "rnn", "conv", "sum", "last"]):
            case "rnn":
                op_type, gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][b.random.integers(3)]
                weights = b.normal(1, gates * units, width), b.normal(1, gates * units, units)
                timed = b.op("Transpose", x, perm=[1, 0, 2])
                y, last = b.ops(op_type, timed, *weights, b.normal(1, 2 * gates * units), outputs=2, hidden_size=units)
                self.sequences.append((b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2]), units))
                self.vectors.append((b.op("Squeeze", last, b.ints(0)), units))
            case "conv":
                kernel = int(b.random.integers(1, 5))
                before = int(b.random.integers(kernel))
                turned = b.op("Transpose", x, perm=[0, 2, 1])
                pads = [before, kernel - 1 - before]
                y = b.op("Conv", turned, b.normal(units, width, kernel), b.normal(units), pads=pads)
                self.sequences.append((b.op("Transpose", y, perm=[0, 2, 1]), units))
            case "sum":
                self.vectors.append((b.op("ReduceSum", x, b.ints(1), keepdims=0), width))
            case "last":
                last = b.op("Slice", x, b.ints(-1), b.ints(2**31 - 1), b.ints(1))
                self.vectors.append((b.op("Squeeze", last, b.ints(1)), width))
            case _:
                self.sequences.append(self.pointwise(x, width, timed=True))

    def model(self, steps: int) -> ir.Model:
        for _ in range(steps):
            if self.b.random.random() < 0.5:
                self.vector()
            else:
                self.sequence()
        # Saturating ends keep the numbers comparable however far the network amplifies.
        ends = [*self.vectors[-2:], *self.sequences[-1:]]
        outputs = [self.b.op("Tanh", value) for value, _ in ends]
        return self.b.done(*outputs, widths=[width for _, width in ends])


@pytest.mark.parametrize("seed", range(60))
def test_random_network(seed: int, tmp_path) -> None:
    agree(Author(seed).model(14), tmp_path / "net.json", tolerance=1e-10, precision="unrolled", spread=0.5)
