"""TMVA weight files as text, for tests: small, readable, and free to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_tmva import Importer, Runtime


def leaf(res: float = 0.0, purity: float = 0.5, kind: int = 1, pos: str = "s") -> str:
    """A leaf."""
    return (
        f'<Node pos="{pos}" depth="0" NCoef="0" IVar="-1" Cut="0.0" cType="1" res="{res!r}" rms="0.0" '
        f'purity="{purity!r}" nType="{kind}"/>'
    )


def split(
    variable: int, cut: float, left: str, right: str, pos: str = "s", ctype: int = 1, fisher: Sequence[float] = ()
) -> str:
    """A node; `left` and `right` are nodes at any position, which is set here."""
    coefficients = "".join(f' fC{i}="{c!r}"' for i, c in enumerate(fisher))
    return (
        f'<Node pos="{pos}" depth="0" NCoef="{len(fisher)}"{coefficients} IVar="{variable}" Cut="{cut!r}" '
        f'cType="{ctype}" res="inf" rms="-nan" purity="0.5" nType="0">{at(left, "l")}{at(right, "r")}</Node>'
    )


def at(node: str, pos: str) -> str:
    """The node, moved to position `pos`."""
    return node.replace('pos="s"', f'pos="{pos}"', 1)


def tree(root: str, weight: float = 1.0, index: int = 0) -> str:
    """A `<BinaryTree>`."""
    return f'<BinaryTree type="DecisionTree" boostWeight="{weight!r}" itree="{index}">{root}</BinaryTree>'


def forest(trees: Sequence[str], kind: int = 0, extra: str = "") -> str:
    """The `<Weights>` of a BDT."""
    return f'<Weights NTrees="{len(trees)}" AnalysisType="{kind}"{extra}>{"".join(trees)}</Weights>'


def grown(rng: np.random.Generator, variables: int, depth: int, fisher: float = 0.0) -> str:
    """A random tree, of cuts on a coarse grid so that events meet them."""
    if depth == 0 or rng.random() < 0.1:
        kind = int(rng.choice([-1, 1]))
        return leaf(float(np.float32(rng.normal())), float(np.float32(rng.random())), kind)
    left, right = (grown(rng, variables, depth - 1, fisher) for _ in range(2))
    cut, ctype = float(rng.integers(-8, 9)) / 4, int(rng.integers(2))
    if rng.random() < fisher:
        coefficients = [float(c) for c in rng.normal(size=variables + 1)]
        return split(variables, float(np.float32(rng.normal())), left, right, ctype=ctype, fisher=coefficients)
    return split(int(rng.integers(variables)), cut, left, right, ctype=ctype)


def setup(
    weights: str,
    variables: int | Sequence[str] = 3,
    method: str = "BDT::Test",
    analysis: str = "Classification",
    options: dict[str, object] | None = None,
    transforms: Sequence[str] = (),
    classes: Sequence[str] = ("Signal", "Background"),
    targets: Sequence[str] = (),
    root: str = "6.24/08 [399368]",
    spectators: Sequence[str] = (),
    tag: str = "MethodSetup",
    more: str = "",
) -> str:
    """A whole file, or with `tag` "SubMethod" a category of one."""
    names = [f"x{i}" for i in range(variables)] if isinstance(variables, int) else list(variables)

    def group(name: str, count: str, entry: str, index: str, members: Sequence[str]) -> str:
        entries = "".join(
            f'<{entry} {index}="{i}" Expression="{m}" Label="{m}" Title="" Unit="" Internal="v{i}" Type="F" '
            f'Min="-2.0" Max="2.5"/>'
            for i, m in enumerate(members)
        )
        return f'<{name} {count}="{len(members)}">{entries}</{name}>'

    chosen = "".join(f'<Option name="{k}" modified="Yes">{v}</Option>' for k, v in (options or {}).items())
    named = "".join(f'<Class Name="{c}" Index="{i}"/>' for i, c in enumerate(classes))
    return (
        f'<{tag} Method="{method}"{more}><GeneralInfo><Info name="TMVA Release" value="4.2.0 [262656]"/>'
        f'<Info name="ROOT Release" value="{root}"/><Info name="AnalysisType" value="{analysis}"/></GeneralInfo>'
        f"<Options>{chosen}</Options>{group('Variables', 'NVar', 'Variable', 'VarIndex', names)}"
        f"{group('Spectators', 'NSpec', 'Spectator', 'SpecIndex', spectators)}"
        f'<Classes NClass="{len(classes)}">{named}</Classes>'
        f"{group('Targets', 'NTrgt', 'Target', 'TargetIndex', targets) if targets else ''}"
        f'<Transformations NTransformations="{len(transforms)}">{"".join(transforms)}</Transformations>'
        f"<MVAPdfs/>{weights}</{tag}>"
    )


def transform(name: str, body: str, inputs: Sequence[str], outputs: Sequence[str] = (), extra: str = "") -> str:
    """A `<Transform>` of variables (``x0``) and targets (``t:y``)."""

    def group(tag: str, count: str, members: Sequence[str]) -> str:
        entries = "".join(
            f'<{tag} Type="{"Target" if m.startswith("t:") else "Variable"}" Label="{m.removeprefix("t:")}" '
            f'Expression="{m.removeprefix("t:")}"/>'
            for m in members
        )
        return f'<{tag} {count}="{len(members)}">{entries}</{tag}>'

    selection = f"<Selection>{group('Input', 'NInputs', inputs)}{group('Output', 'NOutputs', outputs)}</Selection>"
    return f'<Transform Name="{name}"{extra}>{selection}{body}</Transform>'


def written(folder: Path, text: str, name: str = "model.weights.xml") -> Path:
    """The text as a file."""
    path = folder / name
    path.write_text(f'<?xml version="1.0"?>\n{text}\n')
    return path


def session(model: ir.Model) -> Callable[..., np.ndarray]:
    """The graph in onnxruntime, its inputs in order."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    engine = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    names = [value.name for value in engine.get_inputs()]
    return lambda *arrays: engine.run(None, dict(zip(names, arrays, strict=True)))[0]


def both(path: Path, *arrays: np.ndarray, tie: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The response of the graph in onnxruntime and of the evaluator."""
    options = ReadOptions(tie=tie)
    model = Importer().read(path, options)
    interface = Interface.of(model)
    inputs = {record.tensor: array for record, array in zip(interface.inputs, arrays, strict=True)}
    engine: Any = Runtime().load(path, interface, "float32", options)
    (response,) = engine(inputs).values()
    return session(model)(*arrays), response


def events(seed: int, count: int, variables: int) -> np.ndarray:
    """Events of which half lie on the grid of `grown`'s cuts, or beside it by one float, and some hold a NaN."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, variables)).astype(np.float32)
    grid = (rng.integers(-8, 9, size=x.shape) / 4).astype(np.float32)
    side = rng.integers(-1, 2, size=x.shape)
    grid = np.where(side == 0, grid, np.nextafter(grid, np.where(side > 0, np.inf, -np.inf).astype(np.float32)))
    x = np.where(rng.random(x.shape) < 0.5, grid, x)
    x[rng.random(x.shape) < 0.02] = np.nan
    return x.astype(np.float32)
