"""Hostile and damaged torch files: one clear line each, no traceback, nothing executed, little memory."""

from __future__ import annotations

import copy
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelhub
from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub_torch.reader import read

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")

PROGRAM, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def rewritten(
    source: Path, target: Path, change: Callable[[dict[str, Any]], None] = lambda _: None, compress: bool = False
) -> Path:
    """A copy of the archive `source` after `change` worked on its members: parsed JSON or bytes, by name."""
    members: dict[str, Any] = {}
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            data = archive.read(info)
            members[name] = json.loads(data) if name.endswith(".json") else data
    change(members)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"net/{name}", data if isinstance(data, bytes) else json.dumps(data))
    return target


@pytest.fixture
def net(fixtures: Path) -> Path:
    return fixtures / "torch/dl1/net.pt2"


def refused(path: Path, words: str, kind: type[ModelhubError] = UnreadableFile) -> None:
    with pytest.raises(kind, match=words) as caught:
        modelhub.read(path, format="torch")
    assert caught.value.exit_code in (4, 5)
    assert len(str(caught.value)) < 1000


def entry(members: dict[str, Any], name: str = "body.1.weight") -> dict[str, Any]:
    found: dict[str, Any] = members[WEIGHTS]["config"][name]
    return found


def nodes(members: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = members[PROGRAM]["graph_module"]["graph"]["nodes"]
    return found


def test_a_rewritten_copy_reads_as_the_original(net: Path, tmp_path: Path) -> None:
    for compress in (False, True):
        model = read(rewritten(net, tmp_path / "net.pt2", compress=compress))
        assert [n.op_type for n in model.graph] == [n.op_type for n in read(net).graph]


@pytest.mark.parametrize("size", [0, 1, 100, 3000, 60_000, -1, -30])
def test_truncated_files(net: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(net.read_bytes()[:size])
    refused(path, "empty|zip|truncated|torch")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sizes", [{"as_int": 1 << 14}, {"as_int": 1 << 14}], "more than the .* bytes that are stored"),
        ("sizes", [{"as_int": 1 << 40}, {"as_int": 44}], "more than the .* bytes that are stored"),
        ("sizes", [{"as_int": -72}, {"as_int": 44}], "make no tensor"),
        ("sizes", [{"as_int": 72}], "make no tensor"),
        ("sizes", [{"as_expr": {"expr_str": "__import__('os')"}}, {"as_int": 44}], "as_int"),
        ("sizes", "many", "sizes"),
        ("strides", [{"as_int": 44 << 40}, {"as_int": 1}], "more than the .* bytes that are stored"),
        ("strides", [{"as_int": 0}, {"as_int": -1}], "make no tensor"),
        ("storage_offset", {"as_int": 1}, "more than the .* bytes that are stored"),
        ("storage_offset", {"as_int": 1 << 62}, "more than the .* bytes that are stored"),
        ("dtype", 8, "more than the .* bytes that are stored"),
        ("dtype", "FLOAT", "dtype number FLOAT"),
    ],
)
def test_tensors_that_do_not_fit_their_bytes(net: Path, tmp_path: Path, key: str, value: Any, words: str) -> None:
    def change(members: dict[str, Any]) -> None:
        entry(members)["tensor_meta"][key] = value

    refused(rewritten(net, tmp_path / "net.pt2", change), words, ModelhubError)


def test_a_repeated_byte_cannot_grow_without_bound(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        meta = entry(members)["tensor_meta"]
        meta["sizes"] = [{"as_int": 1 << 20}, {"as_int": 1 << 20}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

    refused(rewritten(net, tmp_path / "net.pt2", change), "more than the")


def test_weights_that_unpack_to_a_gigabyte(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        members[f"data/weights/{entry(members)['path_name']}"] = bytes(200 << 20)

    refused(rewritten(net, tmp_path / "net.pt2", change, compress=True), "unpacks to")


@pytest.mark.parametrize(
    ("change", "words", "kind"),
    [
        (lambda m: m.pop(WEIGHTS), "no member", UnreadableFile),
        (lambda m: m.update({PROGRAM: b"{"}), "not valid JSON", UnreadableFile),
        (lambda m: m.update({PROGRAM: b"[" * 100_000}), "nested", UnreadableFile),
        (lambda m: m.update({PROGRAM: b'{"a": 1, "a": 2}'}), "twice", UnreadableFile),
        (lambda m: m.update({PROGRAM: []}), "schema_version", UnreadableFile),
        (lambda m: m[PROGRAM].update(schema_version={"major": 99}), "schema version 99", Unsupported),
        (lambda m: m.update({"archive_version": b"7"}), "archive_version", Unsupported),
        (lambda m: m.update({"byteorder": b"big"}), "byteorder", Unsupported),
        (lambda m: m.update({"models/other.json": {}}), "2 programs", Unsupported),
        (lambda m: entry(m).update(use_pickle=True), "pickle", Unsupported),
        (lambda m: entry(m).update(path_name="../../../../etc/passwd"), "no member", UnreadableFile),
        (lambda m: m[WEIGHTS]["config"].pop("head.bias"), "not stored", UnreadableFile),
        (lambda m: nodes(m)[0].update(target="torch.os.system"), r"torch\.os\.system", Unsupported),
        (lambda m: nodes(m)[0].update(target="torch.ops.aten.from_file.default"), "from_file", Unsupported),
        (lambda m: nodes(m)[0].update(target="math.exec"), r"math\.exec", Unsupported),
        (lambda m: nodes(m)[0]["inputs"].append(nodes(m)[0]["inputs"][0]), "argument", UnreadableFile),
        (lambda m: nodes(m)[0]["inputs"][0]["arg"].update(as_int=3), "argument", UnreadableFile),
        (lambda m: nodes(m)[1]["inputs"].append({"name": "twist", "arg": {"as_int": 3}}), "twist", Unsupported),
        (lambda m: nodes(m)[1]["inputs"][0]["arg"]["as_tensor"].update(name="later"), "before", UnreadableFile),
        (lambda m: nodes(m).reverse(), "before it is computed", UnreadableFile),
        (lambda m: m[PROGRAM]["graph_module"]["graph"]["nodes"].clear(), "not computed", UnreadableFile),
    ],
)
def test_damaged_archives(
    net: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str, kind: type[ModelhubError]
) -> None:
    refused(rewritten(net, tmp_path / "net.pt2", change), words, kind)


def test_recorded_shapes_that_contradict_the_operators(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        values = members[PROGRAM]["graph_module"]["graph"]["tensor_values"]
        values["softmax"]["sizes"][1]["as_int"] = 4

    refused(rewritten(net, tmp_path / "net.pt2", change), "records softmax")


def test_state_that_the_program_changes(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        spec = {"buffer_mutation": {"arg": {"name": "softmax"}, "buffer_name": "body.0.running_mean"}}
        members[PROGRAM]["graph_module"]["signature"]["output_specs"].append(spec)

    refused(rewritten(net, tmp_path / "net.pt2", change), "model.eval", Unsupported)


def test_the_layouts_of_older_torch_are_known_and_refused(net: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickle.dumps({}))
        archive.writestr("version", "8.1")
    refused(old, "pickles, as torch 2.5 to 2.7 wrote them", Unsupported)

    def change(members: dict[str, Any]) -> None:
        members.pop(WEIGHTS)
        members["data/weights/model.pt"] = pickle.dumps(Bomb())

    refused(rewritten(net, tmp_path / "net.pt2", change), "pickles, as torch 2.5 to 2.7 wrote them", Unsupported)


def test_compiled_packages_are_known_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/data/aotinductor/model/x.so", "")
    refused(path, "compiled code", Unsupported)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('the file was unpickled')",))


def test_sample_inputs_are_never_unpickled(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        members["data/sample_inputs/model.pt"] = pickle.dumps(Bomb())

    path = rewritten(net, tmp_path / "net.pt2", change)
    assert len(read(path).graph) == len(read(net).graph)


def test_text_from_the_file_is_made_safe(net: Path, tmp_path: Path) -> None:
    def change(members: dict[str, Any]) -> None:
        nodes(members)[0]["target"] = "torch.ops.aten.\x1b[31mred\n\u202e.default" + "x" * 5000

    with pytest.raises(Unsupported) as caught:
        read(rewritten(net, tmp_path / "net.pt2", change))
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 400


def _places(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [path] + [p for key, child in children for p in _places(child, (*path, key))]


@pytest.mark.parametrize("case", ["dl1", "two_inputs"])
def test_no_change_of_the_json_makes_a_traceback(fixtures: Path, tmp_path: Path, case: str) -> None:
    """Any value of the program or of the tensors' records replaced by another kind of value."""
    source = fixtures / "torch" / case / "net.pt2"
    rng = random.Random(7)
    odd = [None, True, -1, 0, 1 << 70, 1.5, "", "x", [], {}, [[]], {"as_int": -5}, {"as_none": True}, {"as_tensor": 3}]

    def spoil(members: dict[str, Any]) -> None:
        member = members[rng.choice([PROGRAM, PROGRAM, PROGRAM, WEIGHTS])]
        path = rng.choice([p for p in _places(member) if p])
        for key in path[:-1]:
            member = member[key]
        member[path[-1]] = copy.deepcopy(rng.choice(odd))

    for _ in range(150):
        path = rewritten(source, tmp_path / "net.pt2", spoil)
        try:
            read(path)
        except ModelhubError:
            continue
