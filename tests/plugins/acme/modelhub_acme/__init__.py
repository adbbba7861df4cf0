"""A third party's format, as small as a format can be: linear models as lines of text.

acme 1
pt eta phi          names of the variables
0.5 -1.25 3.0       weights
0.1                 bias
"""

from __future__ import annotations

from pathlib import Path

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.files import atomic_write, head, read_bytes


class Importer:
    suffixes = (".acme",)

    def recognises(self, path):
        return head(path, 7) == b"acme 1\n"

    def read(self, path, options):
        import numpy as np

        from modelhub.graph.builder import Builder
        from modelhub.graph.interface import Feature, Input, Interface, Output

        names, weights, bias = parse(path)
        b = Builder()
        x = b.input("features", ["N", len(names)], "float64")
        with b.scope("linear"):
            y = b.op("Gemm", x, b.constant(np.array([weights]).T, "weight"), b.constant(np.array([bias]), "bias"))
        b.output(y, "score", ["N", 1], "float64")
        return b.finish(Interface((Input("features", tuple(map(Feature, names))),), (Output("score", ("score",)),)))


class Exporter:
    suffix = ".acme"
    forms = ()
    masks = False

    def write(self, model, path, options):
        from modelhub.graph.interface import Interface

        nodes = list(model.graph)
        reasons = [
            f"{n.name} ({n.op_type}): acme knows one Gemm only; write ONNX." for n in nodes if n.op_type != "Gemm"
        ]
        if reasons or len(nodes) != 1:
            raise Unsupported(f"{path.name} cannot be written as acme", reasons or ["more than one layer"])
        _, weight, bias = (value.const_value for value in nodes[0].inputs)
        names = [f.name for f in Interface.of(model).inputs[0].features]
        lines = [
            "acme 1",
            " ".join(names),
            " ".join(map(repr, weight.numpy().ravel().tolist())),
            repr(bias.numpy().item()),
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n")


class Runtime:
    extra = "acme"
    precisions = ("float64",)

    def installed(self):
        return True

    def load(self, path, interface, precision, options):
        return Engine(path, interface)


class Engine:
    name, version, precision = "acme", "1.0", "float64"

    def __init__(self, path, interface):
        self.interface = interface
        _, self.weights, self.bias = parse(path)

    def __call__(self, arrays):
        import numpy as np

        x = arrays[self.interface.inputs[0].tensor].astype(np.float64)
        return {self.interface.outputs[0].tensor: x @ np.array([self.weights]).T + self.bias}


def parse(path: Path) -> tuple[list[str], list[float], float]:
    try:
        _, names, weights, bias = read_bytes(path, 1 << 20).decode().splitlines()
        return names.split(), [float(w) for w in weights.split()], float(bias)
    except ValueError as error:
        raise UnreadableFile(f"{path}: not an acme file: {error}") from None
