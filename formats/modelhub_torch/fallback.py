"""Reading with a fallback: what our table of operators does not know is left to torch.

`torch.export.load` runs what a file says: it evaluates size expressions as Python (sympify), looks operators up
as attributes of `torch`, and falls back from `weights_only=True` to plain unpickling. So this door opens only
for a file the user vouches for (`--trust`), or for a module that is in memory already.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelhub.errors import Unsupported, notice, safe_text
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["quiet", "read", "translate"]

TRUST = "torch itself may know it: say --trust if you trust the file (loading it in torch can run code from it)"


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The model in `path`, by our own reader, or with `options.trust` by torch where ours refuses."""
    from modelhub_torch import reader
    from modelhub_torch.archive import Hopeless

    try:
        return reader.read(path)
    except Hopeless:
        raise
    except Unsupported as refusal:
        if not options.trust:
            raise Unsupported(refusal.what, [*refusal.reasons, TRUST]) from None
        reason = refusal
    try:
        import torch
    except ImportError:
        install = 'torch itself may know it: pip install "modelhub-hep[torch]"'
        raise Unsupported(reason.what, [*reason.reasons, install]) from None
    notice(f"{path.name} is loaded in torch, which may run code from it (--trust)")
    with quiet():
        try:
            program = torch.export.load(str(path))
        except Exception as error:
            problem = f"torch cannot load it either: {safe_text(error, 160)}"
            raise Unsupported(reason.what, [*reason.reasons, problem]) from None
    return translate(program, path.stem)


def translate(program: Any, name: str) -> ir.Model:
    """An exported program in memory as a common graph.

    By our own reader as it is; where that refuses, decomposed into core ATen; where that is refused too, by torch's
    own exporter, with a notice. Raises `Unsupported` where all of them refuse.
    """
    import torch

    from modelhub_torch import reader
    from modelhub_torch.archive import Hopeless

    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pt2"
        for decompose in (False, True):
            with quiet():
                torch.export.save(program.run_decompositions() if decompose else program, path)
            try:
                return reader.read(path)
            except Hopeless:
                raise
            except Unsupported as refusal:
                reasons = reasons or list(refusal.reasons or [refusal.what])
    notice(f"{name}: {safe_text('; '.join(reasons), 300)}; torch's own exporter translates it")
    return _exported(program, name)


def _exported(program: Any, name: str) -> ir.Model:
    """The program through `torch.onnx.export(dynamo=True)`, with our names for axes and outputs."""
    import onnx_ir as ir
    import torch

    from modelhub.graph.builder import OPSET

    with quiet():
        try:
            result = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
        except Exception as error:
            raise Unsupported(f"{name}: torch's own exporter refuses it too", [safe_text(error, 200)]) from None
    model = cast("ir.Model", result.model)
    model.metadata_props.clear()
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, wish in enumerate(("N", f"T_{value.name}")[: max(len(value.shape or ()) - 1, 1)]):
            dim = value.shape[axis] if value.shape else 0
            if isinstance(dim, ir.SymbolicDim):
                names.setdefault(str(dim), wish)
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else names.get(str(d), str(d)) for d in value.shape])
    for index, value in enumerate(model.graph.outputs):
        value.name = f"output_{index}" if index else "output"
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with paths of this machine
        node.doc_string = None
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Torch's warnings and log lines kept from the user: we say in our own words what matters."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
