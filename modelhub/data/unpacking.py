"""ROOT files unpack into the memory they announce and no more: uproot takes what a hostile block holds."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from modelhub.errors import UnreadableFile

__all__ = ["bound_blocks", "bounded"]

_left: ContextVar[int | None] = ContextVar("bytes that may still be unpacked", default=None)


@cache
def bound_blocks() -> None:
    """From now on uproot stops unpacking a block where it outgrows the size it announces (16 MiB at most)."""
    import cramjam
    from uproot import compression

    def zlib_block(data: Any, size: int) -> bytes:
        return zlib.decompressobj().decompress(bytes(data), size + 1)

    def lzma_block(data: Any, size: int) -> bytes:
        return lzma.LZMADecompressor(memlimit=1 << 28).decompress(bytes(data), size + 1)

    def zstd_block(data: Any, size: int) -> bytes:
        room = bytearray(size)
        return bytes(room[: cramjam.zstd.decompress_into(bytes(data), room)])

    def counted(unpack: Callable[[Any, int], bytes]) -> Callable[[Any, int], bytes]:
        def block(data: Any, uncompressed_bytes: int) -> bytes:
            left = _left.get()
            if left is not None:
                if uncompressed_bytes > left:
                    raise UnreadableFile("the ROOT file expands beyond the limit of bytes that are read")
                _left.set(left - uncompressed_bytes)
            return unpack(data, uncompressed_bytes)

        return block

    lz4 = compression._decompress_LZ4
    own = {
        compression._decompress_ZLIB: zlib_block,
        compression._decompress_LZMA: lzma_block,
        compression._decompress_ZSTD: zstd_block,
        lz4: lz4.decompress,  # writes into a block of the size that is announced
    }
    for decompressor, unpack in own.items():
        decompressor.decompress = counted(unpack)


@contextmanager
def bounded(expanded: int) -> Iterator[None]:
    """All blocks unpacked in the `with` block hold `expanded` bytes together at most, else `UnreadableFile`."""
    bound_blocks()
    before = _left.set(expanded)
    try:
        yield
    finally:
        _left.reset(before)
