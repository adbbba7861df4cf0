"""`modelhub init-ci`: what it writes, what it never overwrites, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modelhub.equivalence.config import read_config
from modelhub.errors import UsageError
from modelhub.templates import write


def init(folder: Path, *pairs: tuple[str, str], github: bool = True, gitlab: bool = False, force: bool = False):
    made = [(folder / source, folder / target) for source, target in pairs]
    return write(folder, made, github=github, gitlab=gitlab, force=force)


def test_the_configuration_is_one_and_names_the_pairs(tmp_path: Path) -> None:
    init(tmp_path, ("a/net.pt2", "a/net.json"), ("b/net.pt2", "b/net.json"), ("c.xml", "7 – odd, name.onnx"))
    pairs = read_config(tmp_path / "modelhub.yaml").pairs
    assert [pair.name for pair in pairs] == ["net", "net-2", "7-odd-name"]
    init(
        tmp_path,
        ("a", "net-2.x"),
        ("a", "net.x"),
        ("a", "Net.x"),
        ("a", "....x"),
        ("a", "–.x"),
        ("a", "on.x"),
        ("a", "12.x"),
        force=True,
    )
    assert [pair.name for pair in read_config(tmp_path / "modelhub.yaml").pairs] == [
        "net-2",
        "net",
        "Net-3",
        "pair",
        "pair-2",
        "on",
        "12",
    ]
    init(
        tmp_path, ("a/net.pt2", "a/net.json"), ("b/net.pt2", "b/net.json"), ("c.xml", "7 – odd, name.onnx"), force=True
    )
    pairs = read_config(tmp_path / "modelhub.yaml").pairs
    assert pairs[1].target == tmp_path / "b" / "net.json"
    assert pairs[2].target == tmp_path / "7 – odd, name.onnx"


def test_without_pairs_it_writes_an_example_and_says_so(tmp_path: Path) -> None:
    written, advice = init(tmp_path)
    assert [path.name for path in written] == ["modelhub.yaml", "equivalence.yml"]
    assert read_config(tmp_path / "modelhub.yaml").pairs[0].name == "tagger"
    assert "put your own files there" in advice[0]


def test_nothing_is_written_where_anything_is_in_the_way(tmp_path: Path) -> None:
    workflow = tmp_path / ".github" / "workflows" / "equivalence.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("mine")
    with pytest.raises(UsageError, match=r"equivalence\.yml; --force"):
        init(tmp_path)
    assert not (tmp_path / "modelhub.yaml").exists()
    init(tmp_path, force=True)
    assert yaml.safe_load(workflow.read_text())["jobs"]


def test_a_pipeline_that_is_there_is_never_touched(tmp_path: Path) -> None:
    pipeline = tmp_path / ".gitlab-ci.yml"
    pipeline.write_text("mine: {script: [make]}\n")
    written, advice = init(tmp_path, ("a.xml", "a.onnx"), github=False, gitlab=True, force=True)
    assert pipeline.read_text() == "mine: {script: [make]}\n"
    assert pipeline not in written
    assert "local: .gitlab/equivalence.yml" in advice[0]


def test_a_new_pipeline_includes_the_job(tmp_path: Path) -> None:
    written, advice = init(tmp_path, ("a.xml", "a.onnx"), github=False, gitlab=True)
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        "modelhub.yaml",
        ".gitlab/equivalence.yml",
        ".gitlab-ci.yml",
    }
    assert advice == []


def test_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    with pytest.raises(UsageError, match="not below"):
        init(tmp_path / "repo", ("../a.xml", "a.onnx"))
    assert list((tmp_path / "repo").iterdir()) == []


def test_the_command_line(modelhub, tmp_path: Path) -> None:
    done = modelhub("init-ci")
    assert done.returncode == 2
    assert "--github, --gitlab or both" in done.stderr
    done = modelhub("init-ci", "--gitlab", "--into", "new")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / ".gitlab-ci.yml").is_file()
    assert modelhub("init-ci", "--gitlab", "--into", "new").returncode == 2
