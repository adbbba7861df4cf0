"""modelhub.yaml: what it says, and refusals that name the line and the nearest key."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import jsonschema
import pytest

from modelhub.equivalence.config import Waiver, read_config, schema
from modelhub.equivalence.coverage import KINDS
from modelhub.equivalence.presets import PRESETS
from modelhub.errors import UnreadableFile, UsageError

WHOLE = """\
version: 1
seed: 7
fail_on: suspect
floors: {tree leaves: 0.9, sequence lengths: 0.1}
pairs:
  - name: tagger
    source: models/net.pt2
    target: models/net.json
    from: torch
    to: lwtnn
    interface: variables.json
    trust: true
    tie: ">="
    task: forest:response
    data: events/jets.h5:jets,tracks
    columns: {pt: pt_btagJes}
    events: 1000
    preset: ftag
    seed: 8
    floors: {tree leaves: 0.5}
  - {name: bdt, source: bdt.xml, target: bdt.onnx, weights: w.h5}
waivers:
  - {pair: bdt, finding: suspect, leg: source-target, probe: wide, reason: known, owner: ada, expires: 2027-01-31}
"""
PAIR = "pairs:\n  - name: a\n    source: a.xml\n    target: a.onnx\n"


def config(folder: Path, text: str) -> Path:
    path = folder / "modelhub.yaml"
    path.write_text(text)
    return path


def test_everything_it_can_say(tmp_path: Path) -> None:
    found = read_config(config(tmp_path, WHOLE))
    tagger, bdt = found.pairs
    assert (found.fail_on, tagger.name, tagger.seed, bdt.seed) == ("suspect", "tagger", 8, 7)
    assert tagger.source == tmp_path / "models" / "net.pt2"
    assert tagger.interface == tmp_path / "variables.json"
    assert bdt.weights == tmp_path / "w.h5"
    assert (tagger.source_format, tagger.target_format, tagger.trust, tagger.tie) == ("torch", "lwtnn", True, ">=")
    assert (bdt.source_format, bdt.trust) == (None, False)
    assert tagger.data == f"{tmp_path}/events/jets.h5:jets,tracks"
    assert (tagger.preset, bdt.preset) == ("ftag", "")
    assert (tagger.task, tagger.columns, tagger.events) == ("forest:response", {"pt": "pt_btagJes"}, 1000)
    assert tagger.floors == {"tree leaves": 0.5, "sequence lengths": 0.1}
    assert bdt.floors == {"tree leaves": 0.9, "sequence lengths": 0.1}
    assert found.waivers == (Waiver("bdt", "suspect", "known", "ada", date(2027, 1, 31), "source-target", "wide"),)


def test_the_schema_is_a_schema_and_knows_every_preset_and_floor() -> None:
    assert tuple(schema()["$defs"]["floors"]["propertyNames"]["enum"]) == KINDS
    assert schema()["$defs"]["pair"]["properties"]["preset"]["enum"] == list(PRESETS)
    jsonschema.Draft202012Validator.check_schema(schema())


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    path = config(tmp_path / "sub", PAIR)
    monkeypatch.chdir(tmp_path)
    assert read_config(Path("sub/modelhub.yaml")).pairs[0].source == tmp_path / "sub" / "a.xml"
    assert read_config(path).pairs[0].source == tmp_path / "sub" / "a.xml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PAIR + "    interfase: v.json\n", r"line 5: unknown key 'interfase'; did you mean 'interface'\?"),
        ("pears: []\n" + PAIR, r"line 1: unknown key 'pears'; did you mean 'pairs'\?"),
        ("version: 2\n" + PAIR, "line 1: version: '2' is none of 1"),
        ("fail_on: difference\n" + PAIR, r"line 1: fail_on: .* none of different, suspect; did you mean 'different'\?"),
        ("seed: lucky\n" + PAIR, "line 1: seed: 'lucky' is not of type integer"),
        ("seed: -1\n" + PAIR, "line 1: seed: '-1' does not fit"),
        ("floors: {tree leaves: 1.5}\n" + PAIR, "line 1: floors.tree leaves"),
        ("floors: {tree leafs: 0.5}\n" + PAIR, "line 1: floors: 'tree leafs' .*; did you mean 'tree leaves'"),
        ("pairs: []\n", "line 1: pairs"),
        ("version: 1\n", "line 1: the file: pairs missing"),
        ("pairs:\n  - name: a\n    source: a.xml\n", r"line 2: pairs.0: target missing"),
        (PAIR.replace("name: a", "name: 12"), "line 2: pairs.0.name: '12' is not a text"),
        (PAIR.replace("name: a", "name: ../a"), "line 2: pairs.0.name"),
        (PAIR + PAIR.partition("\n")[2].replace("name: a", "name: A"), "line 5: two pairs are called 'A'"),
        (PAIR.replace("a.xml", "/etc/passwd"), "line 3: '/etc/passwd' leaves the folder"),
        (PAIR.replace("a.xml", "../a.xml"), r"line 3: '\.\./a.xml' leaves the folder"),
        (PAIR.replace("a.xml", "link/passwd"), "line 3: 'link/passwd' leaves the folder"),
        (PAIR + "    data: ../jets.h5:jets\n", r"line 5: '\.\./jets.h5' leaves the folder"),
        (PAIR + "    events: 10\n", "line 2: pairs.0: columns and events say how to read data, which is missing"),
        (PAIR.replace("a.xml", '"a\\0b"'), "line 3"),
        (
            PAIR + "waivers:\n  - {pair: b, finding: suspect, reason: r, owner: o, expires: 2027-01-01}\n",
            "line 6: a waiver of 'b', which is no pair",
        ),
        (
            PAIR + "waivers:\n  - {pair: a, finding: suspect, reason: r, owner: o, expires: 2027-02-31}\n",
            "line 6: '2027-02-31' is no day",
        ),
        (
            PAIR + "waivers:\n  - {pair: a, finding: suspect, owner: o, expires: 2027-01-01}\n",
            "line 6: .*reason missing",
        ),
        (PAIR + "waivers:\n  - {pair: a, finding: identical, reason: r, owner: o, expires: 2027-01-01}\n", "line 6"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(UsageError, match=rf"modelhub\.yaml, {told}"):
        read_config(config(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("# only a remark\n", "nothing stands in it"),
        ("pairs: [\n", "line 2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("pairs: &p []\nmore: *p\n", "line 1: anchors"),
        (PAIR + "    source: b.xml\n", "line 5: the key 'source' is given twice"),
        ("pairs: !!python/object/apply:os.system ['true']\n", "line 1: the tag"),
        ("? [a]\n: 1\n", "line 1: the key"),
        ("pairs: !!binary aGk=\n", "line 1: the tag"),
        ("a: " + "[" * 30 + "]" * 30 + "\n", "nested too deeply"),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", "nested too deeply"),
        ("pairs: \x07\n", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=told):
        read_config(config(tmp_path, text))


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="limit"):
        read_config(config(tmp_path, PAIR + "#" * (1 << 20)))


def test_a_key_misspelt_is_told_before_the_key_that_is_missing_for_it(tmp_path: Path) -> None:
    text = PAIR + "\n\n# remarks\nwaivers:\n  - pair: a\n    finding: suspect\n    becaus: r\n"
    with pytest.raises(UsageError, match="line 11: unknown key 'becaus'"):
        read_config(config(tmp_path, text))
