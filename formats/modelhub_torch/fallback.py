"""Reading with a fallback: what our table of operators does not know is left to torch's own exporter.

`torch.export.load` runs what a file says: it evaluates size expressions as Python (sympify), looks operators up
as attributes of `torch`, and falls back from `weights_only=True` to plain unpickling. So this door opens only
for a file the user vouches for (`--trust`), or for a module that is in memory already.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelhub.errors import Unsupported, notice, safe_text
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["exported", "quiet", "read"]


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The model in `path`, by our own reader, or with `options.trust` by torch's exporter where ours refuses."""
    from modelhub_torch import reader

    try:
        return reader.read(path)
    except Unsupported as refusal:
        if not options.trust:
            raise Unsupported(refusal.what, [*refusal.reasons, *_way_out(refusal)]) from None
        reason = refusal
    try:
        import torch
    except ImportError:
        raise Unsupported(
            reason.what, [*reason.reasons, 'torch itself may: pip install "modelhub-hep[torch]"']
        ) from None
    notice(f"{path.name}: {_short(reason)}; torch's own exporter translates it (--trust: the file may run code)")
    with quiet():
        try:
            program = torch.export.load(str(path))
        except Exception as error:
            raise Unsupported(
                reason.what, [*reason.reasons, f"torch cannot load it either: {safe_text(error, 160)}"]
            ) from None
    return exported(program, str(path))


def _way_out(refusal: Unsupported) -> list[str]:
    """What a user can do, where the file is a program that torch's exporter might take."""
    if not refusal.reasons:
        return []
    return [
        "torch's own exporter may know it: say --trust if you trust the file (loading it in torch can run code from it)"
    ]


def _short(refusal: Unsupported) -> str:
    return "; ".join(refusal.reasons) if refusal.reasons else refusal.what


def exported(program: Any, where: str) -> ir.Model:
    """An exported program in memory through `torch.onnx.export(dynamo=True)`. Raises `Unsupported`."""
    import torch

    from modelhub.graph.builder import OPSET

    with quiet():
        try:
            result = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
        except Exception as error:
            raise Unsupported(f"{where}: torch's own exporter refuses it too", [safe_text(error, 200)]) from None
    model = cast("ir.Model", result.model)
    model.metadata_props.clear()
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
