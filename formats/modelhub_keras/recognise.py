"""Is this a Keras file? Told from first bytes, member names and attributes."""

from __future__ import annotations

from pathlib import Path

from modelhub.errors import UnreadableFile
from modelhub.files import Archive, head, parse_json, read_bytes, zip_mentions

__all__ = ["recognises"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST_JSON = 64 << 20


def recognises(path: Path) -> bool:
    """Whether `path` is of Keras. Damaged files with its suffixes are claimed, so that the reader names the damage."""
    start = head(path)
    try:
        if start[:2] == b"PK":
            return path.suffix.lower() == ".keras" or _archive(path)
        if start[:8] == HDF5_SIGNATURE:
            return _hdf5(path)
        if path.suffix.lower() == ".keras":
            return True
        return _json(path, start)
    except UnreadableFile:
        return path.suffix.lower() in (".keras", ".h5", ".hdf5")


def _archive(path: Path) -> bool:
    if not zip_mentions(path, "model.weights.h5"):
        return False
    with Archive(path) as archive:
        return "config.json" in archive and "model.weights.h5" in archive


def _hdf5(path: Path) -> bool:
    from modelhub_keras.hdf5 import Hdf5

    with Hdf5(path, str(path)) as file:
        if file.text("model_config") is not None or file.texts("layer_names") is not None:
            return True
        return any(file.has(name) for name in ("layers", "_layer_checkpoint_dependencies", "model_weights"))


def _json(path: Path, start: bytes) -> bool:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b'"':
        return b'class_name\\"' in text
    if text[:1] != b"{" or path.stat().st_size > LARGEST_JSON:
        return False
    whole = read_bytes(path)
    if b'"class_name"' not in whole:  # quick to tell, where parsing takes a while
        return False
    try:
        data = parse_json(whole, str(path))
    except UnreadableFile:
        return b'"class_name"' in text
    return isinstance(data, dict) and isinstance(data.get("class_name"), str) and "config" in data
