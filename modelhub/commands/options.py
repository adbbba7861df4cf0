"""Options that several commands share, gathered into one argument each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from modelhub.protocols import ReadOptions

__all__ = ["Reading", "reading"]

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Reading:
    """What the user said about the model to be read."""

    format: str | None
    interface: Path | None
    options: ReadOptions


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that reads a model its options; the command receives them as `reading`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        source_format: str | None,
        interface: Path | None,
        weights: Path | None,
        trust: bool,
        tie: str | None,
        **others: Any,
    ) -> None:
        options = ReadOptions(weights=weights, trust=trust, tie=tie)
        command(*args, reading=Reading(source_format, interface, options), **others)

    with_options: Callable[..., None] = gathered
    for option in (
        click.option("--tie", help="Where a value equal to a cut goes, for TMVA: reader (default), training, >= or >."),
        click.option("--trust", is_flag=True, help="The file may run code: you vouch for where it comes from."),
        click.option("--weights", type=PATH, help="Second file of formats that come in two (Keras JSON + HDF5)."),
        click.option("--interface", type=PATH, help="Names, scales, labels: our record or an lwtnn variables file."),
        click.option("--from", "source_format", metavar="FORMAT", help="Format of the source; recognised if left out."),
    ):
        with_options = option(with_options)
    return with_options
