"""Hostile files at the lowest level: archives, JSON, and writes that must leave nothing behind."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from modelhub.errors import UnreadableFile, UsageError
from modelhub.files import Archive, atomic_write, head, parse_json, read_bytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e400}', "overflows"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[" * 100_000, "deep"),
        (b'{"a": ', "not valid JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_json_has_one_meaning(text: bytes, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words):
        parse_json(text, "file.json")


def make_zip(path: Path, members: dict[str, bytes], **kwargs: int) -> Path:
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_members_are_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x": b"1", "d/y.json": b'{"k": 2}'}, compression=zipfile.ZIP_DEFLATED)
    with Archive(path) as archive:
        assert archive.read("x") == b"1"
        assert archive.json("d/y.json") == {"k": 2}
        with pytest.raises(UnreadableFile, match="no member"):
            archive.read("z")


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b", "..\\out", "\\abs"])
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFile, match="leaves the archive"):
        Archive(make_zip(tmp_path / "a.zip", {name: b""}))


def test_doubled_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x", b"2")
    with pytest.raises(UnreadableFile, match="two members"):
        Archive(tmp_path / "a.zip")


def test_symbolic_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnreadableFile, match="symbolic link"):
        Archive(tmp_path / "a.zip")


def test_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with Archive(path) as archive, pytest.raises(UnreadableFile, match="larger than the limit"):
        archive.read("zeros", limit=1 << 20)


def test_overlapping_members(tmp_path: Path) -> None:
    """Two entries of the central directory that point at one local header, as overlap bombs do."""
    path = make_zip(tmp_path / "a.zip", {"a": b"x" * 100, "b": b"x" * 100})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match="overlaps"):
        Archive(path)


@pytest.mark.parametrize("cut", [0, 1, 10, 50, 100])
def test_truncated(tmp_path: Path, cut: int) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"x" * 100})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableFile):
        Archive(path)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"some text that deflates" * 9}, compression=zipfile.ZIP_DEFLATED)
    good = path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x41
        path.write_bytes(bad)
        try:
            with Archive(path) as archive:
                data = [archive.read(name) for name in archive.names]
        except UnreadableFile:
            continue
        assert data in ([b"some text that deflates" * 9], [])


def test_special_files_are_no_models(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(UnreadableFile):
            head(path)
    (tmp_path / "empty").touch()
    with pytest.raises(UnreadableFile, match="empty"):
        read_bytes(tmp_path / "empty")


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UnreadableFile, match="more than the limit"):
        read_bytes(tmp_path / "giant")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "net.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"), atomic_write(tmp_path / "no" / "net.json"):
        raise AssertionError
    with pytest.raises(UsageError, match="is a folder"), atomic_write(tmp_path):
        raise AssertionError


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    link = tmp_path / "null.json"
    link.symlink_to("/dev/null")
    for path in (pipe, link, Path("/dev/null")):
        with pytest.raises(UsageError, match="a device, a pipe or a socket"), atomic_write(path):
            raise AssertionError
    assert sorted(tmp_path.iterdir()) == [link, pipe]
    assert pipe.is_fifo()
    assert link.is_symlink()
