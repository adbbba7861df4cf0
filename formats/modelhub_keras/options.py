"""The options of one layer, each asked for by name and type; what nobody asked for must be harmless."""

from __future__ import annotations

import math
import re
from typing import Any

from modelhub.errors import UnreadableFile, Unsupported, safe_text

__all__ = ["Options"]

MISSING: Any = object()

HARMLESS = re.compile(
    r"name|trainable|dtype|dtype_policy|input_dtype|batch_input_shape|batch_shape|input_dim|input_length|input_shape"
    r"|.*initializer|.*regularizer|.*constraint|init|inner_init|.*_init|W_.*|U_.*|b_regularizer|b_constraint"
    r"|weights|seed|autocast|sparse|ragged|momentum|synchronized|implementation|unroll|consume_less"
    r"|dropout|dropout_W|dropout_U|recurrent_dropout|unit_forget_bias|use_cudnn|transform_bias"
    r"|fused|renorm.*|virtual_batch_size|adjustment|time_major|noise_shape|build_config|compile_config|stddev|sigma"
)
"""What only training, or the making of a layer, looks at."""


class Options:
    """The `config` of one layer. Every getter remembers what was asked, so that `finish` can refuse the rest."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self._config = config
        self._where = where
        self._asked: set[str] = set()

    def get(self, *names: str, default: Any = MISSING) -> Any:
        """The first of `names` that is there: older Keras called options otherwise."""
        self._asked.update(names)
        for name in names:
            if name in self._config:
                return self._config[name]
        if default is MISSING:
            raise UnreadableFile(f"{self._where}: the option {names[0]!r} is missing")
        return default

    def flag(self, *names: str, default: bool) -> bool:
        """True or false."""
        value = self.get(*names, default=default)
        if not isinstance(value, bool):
            raise self._wrong(names[0], "true or false", value)
        return value

    def whole(self, *names: str, default: int = MISSING, least: int = 1) -> int:
        """An integer of at least `least`."""
        value = self.get(*names, default=default)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(names[0], f"an integer of at least {least}", value)
        return value

    def number(self, *names: str, default: float = MISSING) -> float:
        """A finite number."""
        value = self._scalar(self.get(*names, default=default))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(names[0], "a number", value)
        return float(value)

    def perhaps(self, name: str) -> float | None:
        """A finite number, or None."""
        return None if self.get(name, default=None) is None else self.number(name)

    def text(self, *names: str, default: str = MISSING, of: tuple[str, ...] = ()) -> str:
        """A text, one of `of` if that is given."""
        value = self.get(*names, default=default)
        if not isinstance(value, str):
            raise self._wrong(names[0], "a text", value)
        if of and value not in of:
            raise Unsupported(f"{self._where}: {names[0]} {safe_text(value)!r}; read are {', '.join(of)}")
        return value

    def wholes(self, *names: str, count: int, default: Any = MISSING, least: int = 1) -> list[int]:
        """`count` integers of at least `least`; one integer stands for `count` equal ones."""
        value = self.get(*names, default=default)
        values = value if isinstance(value, list) else [value] * count
        if len(values) != count or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
            raise self._wrong(names[0], f"{count} integers of at least {least}", value)
        return values

    def ignore(self) -> None:
        """Nothing in this layer's options changes what it computes."""
        self._asked.update(self._config)

    def finish(self) -> None:
        """Refuse whatever was not asked for and may change what the layer computes."""
        for name, value in self._config.items():
            if name in self._asked or HARMLESS.fullmatch(name) or value in (None, False):
                continue
            raise Unsupported(f"{self._where}: the option {safe_text(name)} = {safe_text(value)} is not understood")

    @staticmethod
    def _scalar(value: Any) -> Any:
        """The number in Keras's wrapping of a numpy scalar: `{"type": "ndarray", "value": 0.3}`, or Keras 3's."""
        while isinstance(value, dict):
            value = value.get("config", value.get("value"))
        return value

    def _wrong(self, name: str, wanted: str, value: Any) -> UnreadableFile:
        return UnreadableFile(f"{self._where}: the option {name!r} must be {wanted}, not {safe_text(value)}")
