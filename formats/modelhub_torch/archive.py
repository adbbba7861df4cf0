"""`.pt2` archives opened as files: a zip of JSON and raw weights. Nothing in them is executed or unpickled.

Layout as torch 2.8 and newer write it (torch/export/pt2_archive/_package.py), under one root folder of any name::

    models/model.json                                  the program: graph, signature, ranges
    data/weights/model_weights_config.json, weight_0   parameters and buffers: meta data, bytes of their storages
    data/constants/model_constants_config.json, ...    lifted constants, the same way
    data/sample_inputs/model.pt                        a pickle, never opened
    archive_format, archive_version, byteorder

Torch 2.5 to 2.7 stored the weights as pickles; such files are recognised and refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.files import Archive, head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["DTYPES", "MEMBERS", "Hopeless", "Pt2", "as_int", "dtype_of", "kind_of", "need"]

DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    34: "uint32",
    35: "uint64",
}
"""ScalarType of the export schema (torch/_export/serde/schema.py), not of c10; without complex and 8-bit floats."""

WAY_OUT = (
    "export it where its Python code is at hand: "
    'torch.export.save(torch.export.export(model.eval(), example), "net.pt2"), '
    "or modelhub_torch.from_module(model, example)"
)

MEMBERS = ("archive_format", "serialized_exported_program.json", "constants.pkl", "data.pkl")
"""Every zip archive that is torch's has a member whose name ends in one of these."""

_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How a pre-1.6 `torch.save` file begins: the pickled magic number (torch/serialization.py)."""

_SPARE = 1 << 20


class Hopeless(Unsupported):
    """What torch's own exporter could not, or should not, translate either."""


def kind_of(path: Path) -> str | None:
    """What sort of torch file this is, from its member names or first bytes; None for another's file.

    "pt2", "pickled pt2" (torch 2.5 to 2.7), "torchscript", "save" (state_dict or whole module), "legacy save".
    Raises `UnreadableFile` for a broken zip archive.
    """
    start = head(path, 1024)
    if not start:
        raise UnreadableFile(f"{path}: the file is empty")
    if start.startswith(_LEGACY_MAGIC):
        return "legacy save"
    if not start.startswith(b"PK"):
        return None
    with Archive(path) as archive:
        names = archive.names
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace")
    if len(first) < 900 and first not in names:  # the end is missing, and that of an archive inside was found
        raise UnreadableFile(f"{path}: truncated: the directory at its end is not that of its beginning")
    bare = {name.partition("/")[2] for name in names}
    if "archive_format" in bare and any(name.startswith(("models/", "data/aotinductor/")) for name in bare):
        return "pt2"
    if "serialized_exported_program.json" in names:
        return "pickled pt2"
    if "constants.pkl" in bare:
        return "torchscript"
    if "data.pkl" in bare and ("version" in bare or ".data/version" in bare):
        return "save"
    return None


_REFUSALS = {
    "pickled pt2": "keeps its weights as pickles, as torch 2.5 to 2.7 wrote them; open and save it again with a newer "
    'torch: torch.export.save(torch.export.load("old.pt2"), "net.pt2")',
    "torchscript": f"is a TorchScript program, which modelhub does not read; {WAY_OUT}",
    "save": f"holds pickled weights or a pickled module and no graph; {WAY_OUT}",
    "legacy save": f"is a pickle of torch older than 1.6 (weights or a module, no graph); {WAY_OUT}",
}


def need(data: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`data[key]`, which must be there and of type `kind`. Raises `UnreadableFile`."""
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise UnreadableFile(f"{where}: {key!r} is missing or not what torch writes there")
    return value


def as_int(data: Any, where: str) -> int:
    """The integer in ``{"as_int": n}``."""
    value: int = need(data, "as_int", int, where)
    return value


def dtype_of(code: Any, where: str) -> np.dtype[Any]:
    """The dtype of a ScalarType of the export schema. Raises `Unsupported` for one without a numpy counterpart."""
    import ml_dtypes
    import numpy as np

    name = DTYPES.get(code) if isinstance(code, int) else None
    if name is None:
        raise Unsupported(f"{where}: tensors of torch's dtype number {safe_text(code, 20)} are not known")
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


class Pt2:
    """An opened `.pt2` archive: its program as parsed JSON, its tensors as read-only numpy views by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = kind_of(path)
        if kind is None:
            raise UnreadableFile(f"{path}: not a file of torch's (a .pt2 file is a zip archive with a program in it)")
        if kind != "pt2":
            raise (Unsupported if kind == "pickled pt2" else Hopeless)(f"{path} {_REFUSALS[kind]}")
        self._zip = Archive(path)
        self.root, self.model = self._find_model()
        self._check_format()
        self.program: Any = self._zip.json(f"{self.root}models/{self.model}.json")
        self._tensors = {
            **self._config("weights", f"{self.model}_weights_config.json"),
            **self._config("constants", f"{self.model}_constants_config.json"),
        }
        self._storages: dict[str, bytes] = {}

    def _find_model(self) -> tuple[str, str]:
        """The root folder (with slash) and the name of the one program."""
        found = []
        for name in self._zip.names:
            root, slash, rest = name.partition("/")
            if rest.startswith("models/") and rest.endswith(".json"):
                found.append((root + slash, rest[len("models/") : -len(".json")]))
        if not found:
            raise Hopeless(f"{self.path} holds compiled code (AOTInductor) and no program; {WAY_OUT}")
        if len(found) > 1:
            names = ", ".join(safe_text(model) for _, model in found[:8])
            raise Unsupported(
                f"{self.path} holds {len(found)} programs ({names}); save one of them in a file of its own"
            )
        return found[0]

    def _check_format(self) -> None:
        for name, good in (("archive_format", b"pt2"), ("archive_version", b"0"), ("byteorder", b"little")):
            member = self.root + name
            value = self._zip.read(member, 64).strip() if member in self._zip else good
            if value != good:
                raise Unsupported(f"{self.path}: {name} is {safe_text(value)}, known is {good.decode()}")

    def _config(self, folder: str, name: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """Member and payload record of every tensor in `folder`."""
        base = f"{self.root}data/{folder}/"
        if f"{base}{self.model}.pt" in self._zip:
            raise Unsupported(f"{self.path} {_REFUSALS['pickled pt2']}")
        where = f"{self.path}, member {base}{name}"
        config = need(self._zip.json(base + name), "config", dict, where)
        return {key: (base + need(entry, "path_name", str, where), entry) for key, entry in config.items()}

    @property
    def pickled(self) -> list[str]:
        """Names of the weights and constants that are stored as pickles."""
        return [name for name, (_, entry) in self._tensors.items() if entry.get("use_pickle") is not False]

    def members(self) -> dict[str, bytes]:
        """The members that hold meta data and raw weights: all that is no program and no pickle."""
        folders = tuple(f"{self.root}data/{folder}/" for folder in ("weights", "constants"))
        return {name: self._zip.read(name) for name in self._zip.names if name.startswith(folders)}

    def tensor(self, name: str) -> Array:
        """The weight, buffer or constant called `name`: a view of the stored bytes, in its own dtype and shape.

        Raises `UnreadableFile` where the recorded shape does not fit the stored bytes, before anything that
        large is allocated, and `Unsupported` where the tensor is stored as a pickle.
        """
        import numpy as np

        where = f"{self.path}: tensor {safe_text(name)!r}"
        if name not in self._tensors:
            raise UnreadableFile(f"{where} is used by the graph but not stored")
        member, entry = self._tensors[name]
        if entry.get("use_pickle") is not False:
            raise Unsupported(
                f"{where} is stored as a pickle (a tensor subclass or a custom object), which is not read"
            )
        meta = need(entry, "tensor_meta", dict, where)
        dtype = dtype_of(meta.get("dtype"), where)
        if meta.get("layout") != 7:
            raise Unsupported(f"{where} is sparse; only dense tensors are read")
        shape = tuple(as_int(s, where) for s in need(meta, "sizes", list, where))
        strides = tuple(as_int(s, where) for s in need(meta, "strides", list, where))
        offset = as_int(meta.get("storage_offset"), where)
        if len(shape) != len(strides) or len(shape) > 32 or min((*shape, *strides, offset), default=0) < 0:
            raise UnreadableFile(
                f"{where}: shape {shape[:8]}, strides {strides[:8]} and offset {offset} make no tensor"
            )
        count = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1 if count else 0
        size = self._zip.size(member)
        if last * dtype.itemsize > size or count * dtype.itemsize > size + _SPARE:
            raise UnreadableFile(f"{where} claims shape {shape[:8]}, more than the {size} bytes that are stored")
        if size > self.path.stat().st_size + 64 * last * dtype.itemsize + _SPARE:
            raise UnreadableFile(f"{where}: {safe_text(member)} unpacks to {size} bytes, far more than the file holds")
        if not count:
            return np.empty(shape, dtype)
        if member not in self._storages:
            self._storages[member] = self._zip.read(member)
        flat = np.frombuffer(self._storages[member], dtype, count=size // dtype.itemsize)
        if strides == _contiguous(shape):
            return flat[offset : offset + count].reshape(shape)
        steps = tuple(s * dtype.itemsize for s in strides)
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

    def close(self) -> None:
        """Close the file; the views stay valid."""
        self._zip.close()


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps: list[int] = []
    step = 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))
