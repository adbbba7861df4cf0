"""Damaged and hostile Keras files: one clear error each, nothing read from outside the file, no memory taken."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

SECRET = "canary"


def refused(path: Path, weights: Path | None = None) -> str:
    """The one error a file gives, on a few printable lines."""
    with pytest.raises((UnreadableFile, Unsupported)) as told:
        Importer().read(path, ReadOptions(weights=weights))
    text = str(told.value)
    assert text
    assert len(text) < 2000
    assert all(c.isprintable() or c == "\n" for c in text)
    assert SECRET not in text
    return text


@pytest.fixture
def whole(fixtures: Path, tmp_path: Path) -> Callable[[], h5py.File]:
    """A copy of the shipped whole-model file, open for damage; closing it leaves it at `tmp_path/model.h5`."""
    path = tmp_path / "model.h5"
    path.write_bytes((fixtures / "keras" / "classifier" / "model.h5").read_bytes())
    return lambda: h5py.File(path, "r+")


def kernel_of(file: h5py.File) -> tuple[h5py.Group, str, np.ndarray]:
    """The group, name and content of one kernel."""
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.endswith("kernel") else None)
    group, _, name = found[0].rpartition("/")
    return file[group], name, file[found[0]][()]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 50, 2000, 9000])
@pytest.mark.parametrize("name", ["tagger/model.keras", "classifier/model.h5", "deep_set/architecture.json"])
def test_truncated(name: str, size: int, fixtures: Path, tmp_path: Path) -> None:
    content = (fixtures / "keras" / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(content[: min(size, len(content) - 1)])
    refused(path, fixtures / "keras" / "deep_set" / "model.weights.h5" if path.suffix == ".json" else None)


def test_truncated_weights(fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / "keras" / "deep_set"
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes((folder / "model.weights.h5").read_bytes()[:5000])
    assert str(weights) in refused(folder / "architecture.json", weights)


def test_a_link_out_of_the_file(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["kernel"] = np.full((4, 6), 7.0, "float32")
    with whole() as file:
        group, name, _ = kernel_of(file)
        del group[name]
        group[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/kernel")
    assert "ExternalLink" in refused(tmp_path / "model.h5")


def test_a_soft_link(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, _ = kernel_of(file)
        file.move(f"{group.name}/{name}", "/elsewhere")
        group[name] = h5py.SoftLink("/elsewhere")
    assert "SoftLink" in refused(tmp_path / "model.h5")


def test_data_kept_in_another_file(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(np.full((4, 6), 7.0, "float32").tobytes())
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        outside = [(str(tmp_path / "raw"), 0, kernel.nbytes)]
        group.create_dataset(name, kernel.shape, "float32", external=outside)
    assert "another file" in refused(tmp_path / "model.h5")


def test_a_virtual_dataset(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["kernel"] = np.full((4, 6), 7.0, "float32")
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        layout = h5py.VirtualLayout(kernel.shape, "float32")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "kernel", kernel.shape)
        group.create_virtual_dataset(name, layout)
    assert "window into other files" in refused(tmp_path / "model.h5")


def test_a_filter_from_a_plug_in(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        group.create_dataset(name, data=kernel, scaleoffset=3, chunks=kernel.shape)
    assert "filters" in refused(tmp_path / "model.h5")


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}]
)
def test_usual_filters_are_read(options: dict[str, Any], whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        group.create_dataset(name, data=kernel, **options)
    Importer().read(tmp_path / "model.h5", ReadOptions())


def test_claims_of_a_gigabyte(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    """A dataset that is not of the architecture's shape is refused by its shape, before a byte is read."""
    with whole() as file:
        group, name, _ = kernel_of(file)
        del group[name]
        group.create_dataset(name, (16384, 16384), "float32", chunks=(1024, 1024), compression="gzip")
    assert "[16384, 16384]" in refused(tmp_path / "model.h5")


def claim(file: h5py.File, units: int) -> None:
    """Let the architecture and the kernel of its first layer agree on a gigabyte that is not there."""
    config = json.loads(file.attrs["model_config"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Dense":
            layer["config"]["units"] = units
            break
    file.attrs["model_config"] = json.dumps(config)
    group, name, kernel = kernel_of(file)
    del group[name]
    group.create_dataset(name, (kernel.shape[0], units), "float32", chunks=(1, 1 << 20), compression="gzip")


def test_a_gigabyte_that_was_never_written(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        claim(file, 1 << 26)
    assert "only 0 are in the file" in refused(tmp_path / "model.h5")


def test_chunks_of_a_gigabyte(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        group.create_dataset(
            name, kernel.shape, "float32", maxshape=(None, None), chunks=(1 << 14, 1 << 14), compression="gzip"
        )
    assert "chunks of 1073741824 bytes" in refused(tmp_path / "model.h5")


def test_memory_stays_small(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    """The gigabyte claims, read in a process of its own (its own peak: getrusage would tell the parent's)."""
    with whole() as file:
        claim(file, 1 << 26)
    code = f"""
from pathlib import Path
from modelhub.errors import UnreadableFile
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer
try:
    Importer().read(Path({str(tmp_path / "model.h5")!r}), ReadOptions())
except UnreadableFile:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("refused", peak.split()[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    word, peak = done.stdout.split()
    assert word == "refused"
    assert int(peak) * 1024 < 600 << 20


def test_text_where_numbers_belong(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, kernel = kernel_of(file)
        del group[name]
        group.create_dataset(name, data=np.full(kernel.shape, b"xxxx"))
    assert "not numbers" in refused(tmp_path / "model.h5")


@pytest.mark.parametrize("attribute", ["model_config", "layer_names"])
def test_numbers_where_text_belongs(attribute: str, whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        place = file if attribute == "model_config" else file["model_weights"]
        place.attrs[attribute] = np.zeros(3)
    assert "not text" in refused(tmp_path / "model.h5")


def test_a_missing_array(whole: Callable[[], h5py.File], tmp_path: Path) -> None:
    with whole() as file:
        group, name, _ = kernel_of(file)
        del group[name]
    assert "is missing" in refused(tmp_path / "model.h5")


def architecture(fixtures: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> tuple[Path, Path]:
    """The shipped architecture after a change, and its weights."""
    folder = fixtures / "keras" / "deep_set"
    config = json.loads((folder / "architecture.json").read_text())
    change(config)
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(config))
    return path, folder / "model.weights.h5"


def layers(config: dict[str, Any]) -> list[Any]:
    found: list[Any] = config["config"]["layers"]
    return found


def history(place: list[Any]) -> Callable[[dict[str, Any]], None]:
    """Let the last layer take its input from `place`."""

    def change(config: dict[str, Any]) -> None:
        layers(config)[3]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = place

    return change


def test_layers_in_a_circle(fixtures: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        node = layers(config)[1]["inbound_nodes"][0]
        node["args"][0]["config"]["keras_history"] = ["score", 0, 0]

    assert "circle: each, score, sum" in refused(*architecture(fixtures, tmp_path, change))


def test_a_layer_that_feeds_itself(fixtures: Path, tmp_path: Path) -> None:
    assert "circle: score" in refused(*architecture(fixtures, tmp_path, history(["score", 0, 0])))


def test_two_layers_of_one_name(fixtures: Path, tmp_path: Path) -> None:
    assert "two layers are called" in refused(
        *architecture(fixtures, tmp_path, lambda config: layers(config).append(layers(config)[-1]))
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            history(["no", 0, 0]),
            "no layer called",
        ),
        (
            history(["sum", 7, 0]),
            "never called",
        ),
        (
            history(["sum", 0, 9]),
            "no output number",
        ),
        (history([{}, 0]), "is no"),
        (lambda c: layers(c)[3].update(inbound_nodes=7), "must be a list"),
        (lambda c: layers(c)[3].update(inbound_nodes=[7]), "neither a list nor a table"),
        (lambda c: layers(c)[3].update(config=[]), "JSON object"),
        (lambda c: layers(c)[3]["config"].update(units="many"), "'units' must be an integer"),
        (lambda c: layers(c)[3]["config"].update(units=-2), "'units' must be an integer"),
        (lambda c: layers(c)[3]["config"].pop("units"), "'units' is missing"),
        (lambda c: layers(c)[3]["config"].update(units=5), "has shape"),
        (lambda c: layers(c)[3]["config"].update(use_bias=False), "the architecture asks for 1 arrays"),
        (lambda c: layers(c)[0]["config"].update(batch_shape=[None, None, 0]), "how many features"),
        (lambda c: layers(c)[0]["config"].update(batch_shape=None), "how many features"),
        (lambda c: c["config"].update(layers={}), "'layers' must be a list"),
        (lambda c: c["config"].update(output_layers=[]), "at least one"),
        (lambda c: c["config"].update(output_layers=[["score", True, 0]]), "is no"),
        (lambda c: c.update(class_name="Transformer"), "graph is in no file"),
        (lambda c: c.update(class_name=None), "class_name and config"),
        (lambda c: layers(c).insert(0, "layer"), "class_name and config"),
    ],
)
def test_a_damaged_architecture(change: Callable[[Any], None], match: str, fixtures: Path, tmp_path: Path) -> None:
    assert match in refused(*architecture(fixtures, tmp_path, change))


def test_networks_within_networks(tmp_path: Path, fixtures: Path) -> None:
    inner: dict[str, Any] = {"class_name": "Dense", "config": {"units": 1}}
    for depth in range(40):
        inner = {"class_name": "Sequential", "config": {"name": f"n{depth}", "layers": [inner]}}
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(inner))
    assert "within one another" in refused(path, fixtures / "keras" / "deep_set" / "model.weights.h5")


def test_json_as_deep_as_it_goes(tmp_path: Path, fixtures: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"class_name": "Sequential", "config": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "deep" in refused(path, fixtures / "keras" / "deep_set" / "model.weights.h5")


def test_arguments_as_deep_as_json_allows(fixtures: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        args: list[Any] = layers(config)[3]["inbound_nodes"][0]["args"]
        for _ in range(190):
            args = [args]
        layers(config)[3]["inbound_nodes"][0]["args"] = args

    path, weights = architecture(fixtures, tmp_path, change)
    with suppress(ModelhubError):  # harmless nesting may be read; what must not come out is a RecursionError
        Importer().read(path, ReadOptions(weights=weights))


def archive(tmp_path: Path, members: dict[str, bytes]) -> Path:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_archives_with_something_missing(fixtures: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(fixtures / "keras" / "tagger" / "model.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    assert "config.json" in refused(archive(tmp_path, {k: v for k, v in members.items() if k != "config.json"}))
    assert "model.weights.h5" in refused(
        archive(tmp_path, {k: v for k, v in members.items() if k != "model.weights.h5"})
    )
    assert "HDF5" in refused(archive(tmp_path, {**members, "model.weights.h5": b"not HDF5"}))


def test_a_bomb_in_the_archive(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelhub import files

    with zipfile.ZipFile(fixtures / "keras" / "tagger" / "model.keras") as file:
        config = file.read("config.json")
    monkeypatch.setattr(files, "LIMITS", files.Limits(expanded=1 << 20))
    path = archive(tmp_path, {"config.json": config, "model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(8 << 20)})
    assert "limit" in refused(path)


def test_names_from_a_file_cannot_steer_the_terminal(fixtures: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layers(config)[3]["class_name"] = "Evil\x1b[2J\u202egnirts"

    assert "\\x1b" in refused(*architecture(fixtures, tmp_path, change))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 100_000), value=st.integers(0, 255), count=st.integers(1, 8))
def test_changed_bytes_of_hdf5(place: int, value: int, count: int, fixtures: Path, tmp_path: Path) -> None:
    """Any bytes of a whole-model file changed: it is read, or refused in words."""
    content = bytearray((fixtures / "keras" / "classifier" / "model.h5").read_bytes())
    for offset in range(count):
        content[(place + offset) % len(content)] = value
    path = tmp_path / "model.h5"
    path.write_bytes(bytes(content))
    with suppress(ModelhubError):
        Importer().read(path, ReadOptions())


def test_hdf5_in_memory_is_as_strict(fixtures: Path, tmp_path: Path) -> None:
    """A `.keras` archive whose weights link to another file."""
    with zipfile.ZipFile(fixtures / "keras" / "tagger" / "model.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    memory = io.BytesIO(members["model.weights.h5"])
    with h5py.File(memory, "r+") as weights:
        del weights["layers/dense/vars/0"]
        weights["layers/dense/vars/0"] = h5py.ExternalLink("other.h5", "/kernel")
    assert "ExternalLink" in refused(archive(tmp_path, {**members, "model.weights.h5": memory.getvalue()}))
