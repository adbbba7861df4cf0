"""`modelhub registry` as people and scripts use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from modelhub.errors import ModelhubError, RegistryError
from modelhub_registry import Registry
from modelhub_registry.commands import registry as command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELHUB_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*args: object) -> Result:
        return CliRunner().invoke(command, [str(a) for a in args])

    return call


def ok(result: Result) -> str:
    assert result.exception is None, result.exception
    return result.stdout


def test_the_whole_way(run, files, report, tmp_path: Path) -> None:
    source, exported = files(net_pt="weights", net_json='{"a": 1}')
    told = report(source, exported)
    (interface,) = files(vars_json='{"inputs": [{"name": "pt", "offset": 0, "scale": 1}], "class_labels": ["b", "c"]}')
    args = (
        "btag",
        source,
        exported,
        "--report",
        told,
        "--meta",
        "auc=0.93",
        "--meta",
        "note=v1 of GN",
        "--interface",
        interface,
    )
    pushed = run("push", *args)
    assert "btag@1 published" in pushed.stderr
    assert "net.json.report.json" in ok(pushed)
    again = run("push", *args, "--json")
    assert json.loads(ok(again))["new"] is False
    assert "nothing new: btag@1" in again.stderr
    assert json.loads(ok(run("push", *args, "--again", "--json")))["ref"] == "btag@2"

    assert "btag@1 " in ok(run("list"))
    assert [v["ref"] for v in json.loads(ok(run("list", "btag", "--json")))] == ["btag@1", "btag@2"]
    assert "btag@prod is btag@1" in run("alias", "btag@1", "prod").stderr

    shown = ok(run("show", "btag@prod"))
    for text in ("equivalent", "net.pt", "aliases: prod", "auc = 0.93", "note = v1 of GN", "1 features (pt)", "b, c"):
        assert text in shown
    details = json.loads(ok(run("show", "btag@prod", "--json")))
    assert details["metadata"] == {"auc": 0.93, "note": "v1 of GN"}
    assert details["aliases"] == ["prod"]
    assert details["gaps"] == []
    assert details["moves"][0]["alias"] == "prod"
    assert details["digest"].startswith("sha256:")

    paths = ok(run("get", "btag@prod", "--to", tmp_path / "out")).split()
    assert sorted(Path(p).name for p in paths) == ["net.json", "net.json.report.json", "net.pt"]
    assert Path(paths[0]).exists()
    assert json.loads(ok(run("get", "btag", "--role", "source", "--to", tmp_path / "one", "--json"))) == [
        str(tmp_path / "one" / "net.pt")
    ]

    assert "btag@1" in ok(run("which", tmp_path / "out" / "net.json"))
    hits = json.loads(ok(run("which", details["artifacts"][0]["sha256"][:10], "--json")))
    assert [(h["ref"], h["role"], h["aliases"]) for h in hits] == [
        ("btag@1", "export:json", ["prod"]),
        ("btag@2", "export:json", []),
    ]
    assert "as it should be" in run("verify").stderr
    assert json.loads(ok(run("verify", "btag@1", "--json"))) == []
    assert "made anew" in run("reindex").stderr


def test_tables_fit_a_terminal_and_are_lines_elsewhere(run, files, report, monkeypatch) -> None:
    name = "a-rather-long-name-of-a-flavour-tagging-network"
    source, json_, onnx = files(net_pt="weights", net_json="{}", net_onnx="graph")
    ok(run("push", name, source, json_, onnx, "--report", report(source, json_), "--report", report(source, onnx)))
    for alias in ("candidate-2026", "prod"):
        ok(run("alias", name, alias))
    assert any(f"{name}@1" in line and "pt -> json, onnx" in line for line in ok(run("list")).splitlines())
    for key, value in (("TTY_COMPATIBLE", "1"), ("NO_COLOR", "1"), ("COLUMNS", "80")):  # rich takes it for a terminal
        monkeypatch.setenv(key, value)
    for args in (("list",), ("show", name), ("which", source)):
        out = ok(run(*args))
        assert max(len(click.unstyle(line)) for line in out.splitlines()) <= 80, out
        assert "equivalent" in out


def test_refusals_carry_exit_code_7(run, files, tmp_path: Path) -> None:
    (source,) = files(net_pt="weights")
    ok(run("push", "btag", source))
    for args in (
        ("show", "nothere"), ("show", "btag@9"), ("show", "btag@../x"), ("push", "../x", source),
        ("push", "x" * 10_000, source),
        ("push", "b\u00e4", source), ("alias", "btag", "latest"), ("alias", "btag", "prod"),
        ("alias", "btag", "prod", "--force"),
        ("which", "0" * 64), ("get", "btag", "--role", "graph"), ("push", "btag", f"../r={source}"),
        ("list", "nothere"),
        ("push", "btag", source, "--meta", "a/b=1"),
    ):  # fmt: skip
        result = run(*args)
        assert isinstance(result.exception, RegistryError), (args, result.exception)
        assert result.exception.exit_code == 7
        assert len(str(result.exception)) < 500
        assert str(result.exception).replace("\n", "").isprintable()
    for args, code in [
        (("push", "btag", tmp_path / "nothere.pt"), 5),
        (("push", "btag", source, "--meta", "novalue"), 2),
    ]:
        result = run(*args)
        assert isinstance(result.exception, ModelhubError)
        assert result.exception.exit_code == code


FIELDS = [
    ("push", "{}", "net.pt"), ("push", "btag", "{}"), ("push", "btag", "{}=net.pt"), ("push", "btag", "source={}"),
    ("push", "btag", "net.pt", "--report", "{}"), ("push", "btag", "net.pt", "--meta", "{}=1"),
    ("push", "btag", "net.pt", "--meta", "k={}"), ("push", "btag", "net.pt", "--interface", "{}"),
    ("list", "--registry", "{}"), ("--registry", "{}", "show", "btag"), ("push", "btag", "net.pt", "--registry", "{}"),
    ("list", "{}"), ("show", "{}"), ("show", "btag@{}"), ("show", "btag@sha256:{}"), ("get", "{}"), ("verify", "{}"),
    ("get", "btag", "--role", "{}"), ("get", "btag", "--to", "{}"), ("alias", "{}", "x"), ("alias", "btag", "{}"),
    ("alias", "btag", "prod", "--force", "--reason", "{}"), ("which", "{}"), ("which", "sha256:{}"),
    ("which", "net.pt", "--tree", "{}"), ("which", "{}", "--tree", "."), ("where", "{}"), ("where", "{}=1"),
    ("where", "a={}"), ("where", "name='{}'"), ("lineage", "{}"), ("compare", "btag", "{}"), ("compare", "{}", "btag"),
    ("attach", "btag", "{}"), ("attach", "{}", "net.pt"), ("unalias", "{}", "x"), ("unalias", "btag", "{}"),
    ("unalias", "btag", "x", "--reason", "{}"), ("export", "{}"), ("export", "out", "--area", "{}"),
    ("export", "out", "--where", "{}"), ("export", "out", "--zip", "{}"), ("export", "{}", "--layout", "oci"),
    ("import", "{}"), ("mirror", "{}"), ("mirror", "oci://{}"), ("mirror", "up", "{}"), ("pull", "oci://{}", "btag"),
    ("pull", "{}"), ("pull", ".", "{}"), ("fsck", "--mend", "--from", "{}"), ("reverify", "{}"),
    ("init", "--protect", "{}", "--registry", "new"), ("init", "--blobs", "{}", "--registry", "new2"),
    ("init", "--index", "{}", "--registry", "new3"), ("list", "--database", "{}"),
    ("gc", "--grace", "{}"), ("push", "btag", "net.pt", "--database", "{}"),
]  # fmt: skip


@pytest.mark.parametrize(
    "word", ["x" * 10_000, "x" * 300, "a\0b", "\ud800", "\x1b[31m", "\u202e", "", "../up", "/dev/zero"]
)
def test_hostile_words_in_every_field(run, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """Taken or refused in a short text that a terminal can show; never another exception."""
    files("work", net_pt="weights")
    monkeypatch.chdir(tmp_path / "work")
    ok(run("push", "btag", "net.pt"))
    for field in FIELDS:
        error = run(*(part.replace("{}", word) for part in field)).exception
        assert error is None or isinstance(error, ModelhubError | SystemExit), (field, error)
        if isinstance(error, ModelhubError):
            assert str(error).replace("\n", "").isprintable(), (field, error)
            assert len(str(error)) < 1000, (field, error)
        if isinstance(error, ModelhubError):
            assert len(str(error)) < 700
            assert str(error).replace("\n", "").isprintable()


def test_force_is_shown(run, files) -> None:
    ok(run("push", "btag", *files(net_pt="weights")))
    ok(run("alias", "btag@1", "prod", "--force", "--reason", "tonight [bold]only\x1b[31m"))
    shown = ok(run("show", "btag"))
    assert "FORCED: tonight [bold]only" in shown.replace("\n", "")
    assert "\x1b" not in shown


def test_verify_fails_when_there_are_findings(run, files, tmp_path: Path) -> None:
    ok(run("push", "btag", *files(net_pt="weights")))
    with Registry(tmp_path / "registry") as opened:
        sha256 = opened.version("btag").manifest.artifact("source").sha256
    (tmp_path / "registry" / "blobs" / "sha256" / sha256).unlink()
    result = run("verify")
    assert isinstance(result.exception, RegistryError)
    assert str(result.exception) == "1 finding"
    assert f"btag@1, source net.pt: {tmp_path / 'registry'}: blob sha256:{sha256} is missing" in result.stdout
    assert json.loads(run("verify", "--json").stdout)[0]["where"] == "btag@1, source net.pt"


def test_the_place_can_be_named(run, files, tmp_path: Path) -> None:
    (source,) = files(net_pt="weights")
    there = tmp_path / "there"
    ok(run("push", "btag", source, "--registry", there))
    assert "btag@1" in ok(run("--registry", there, "list"))
    assert "no versions yet" in run("list").stderr
    assert not (tmp_path / "registry").exists()


def test_roles_by_hand(run, files) -> None:
    first, second = files(net_json="{}", net_h5="w")
    out = json.loads(ok(run("push", "k", f"source={first}", f"source:weights={second}", "--json")))
    assert [(a["role"], a["filename"]) for a in out["artifacts"]] == [
        ("source", "net.json"),
        ("source:weights", "net.h5"),
    ]


@pytest.mark.parametrize("name", ["push", "list", "show", "get", "alias", "verify", "which", "reindex"])
def test_help_has_examples(run, name: str) -> None:
    text = ok(run(name, "--help"))
    assert f"modelhub registry {name}" in text
    assert "--json" in text
    assert "\x08" not in text


def test_importing_the_commands_is_cheap() -> None:
    heavy = {"sqlalchemy", "rich", "fsspec", "numpy", "onnx", "onnx_ir", "jsonschema"}
    script = "import sys, json, modelhub_registry.commands; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert not {m.partition(".")[0] for m in loaded} & heavy


def test_a_registry_on_disk_needs_little(files, tmp_path: Path) -> None:
    """What only servers, converting and checking need is not loaded to publish to a folder and to look up there."""
    heavy = {"sqlalchemy", "rich", "fsspec", "onnx", "onnx_ir", "onnxruntime", "jsonschema", "urllib3", "h5py"}
    script = """if True:
        import sys
        from modelhub_registry import Registry
        assert "numpy" not in sys.modules
        registry = Registry("here")
        registry.push("btag", [sys.argv[1]], metadata={"epoch": 2026})
        registry.alias("btag@1", "dev")
        assert registry.version("btag@dev").ref == registry.search("epoch=2026")[0].ref == "btag@1"
        print(*sys.modules)"""
    (source,) = files(net_json="{}")
    command = [sys.executable, "-c", script, source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {module.partition(".")[0] for module in done.stdout.split()} & heavy


def test_through_the_main_command(modelhub, files) -> None:
    (source,) = files(net_pt="weights")
    done = modelhub("registry", "push", "btag", source)
    assert done.returncode == 0, done.stderr
    done = modelhub("registry", "show", "btag@2")
    assert done.returncode == 7
    assert done.stdout == ""
    assert "there is no btag@2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("call", [("where", "a=1", "--limit"), ("nonsense",), ("gc", "--grace")])
def test_a_wrong_call_is_told_shortly(modelhub, call: tuple[str, ...]) -> None:
    done = modelhub("registry", *call, "9x" * 20_000)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert len(done.stderr) < 1000


def test_asking_and_comparing(run, files, report, tmp_path: Path) -> None:
    source, exported = files(net_pt="weights", net_json="{}")
    told = report(source, exported)
    ok(run("push", "btag", source, exported, "--report", told, "--meta", "auc=0.93", "--meta", "epoch=2026"))
    (other,) = files("second", net_pt="other")
    ok(run("push", "btag", other, "--meta", "auc=0.95"))
    assert "btag@1 " in ok(run("where", "epoch=2026 and auc>0.9"))
    assert [v["ref"] for v in json.loads(ok(run("where", "auc>0.9", "--limit", 1, "--json")))] == ["btag@1"]
    assert run("where", "auc>1").stderr == "none\n"
    refused = run("where", "auc >")
    assert "For example" in str(refused.exception)
    shown = ok(run("compare", "btag@1", "btag@2"))
    assert "metadata auc" in shown
    assert "0.95 (+0.02)" in shown
    assert "largest difference" in " ".join(shown.split())
    told = json.loads(ok(run("compare", "btag@1", "btag@2", "--json")))
    assert told["same"] is False
    assert told["metadata"] == [
        {"what": "auc", "a": 0.93, "b": 0.95, "same": False, "change": pytest.approx(0.02)},
        {"what": "epoch", "a": 2026, "b": None, "same": False, "change": None},
    ]
    assert {"what": "export:json, events", "a": 10, "b": None, "same": False, "change": None} in told["figures"]
    assert json.loads(ok(run("compare", "btag@1", "btag@1", "--json")))["same"] is True
    assert "export:json" in ok(run("lineage", "btag@1"))
    assert json.loads(ok(run("lineage", "btag@1", "--json")))["steps"][0]["verdict"] == "equivalent"


def test_housekeeping(run, files, report, tmp_path: Path) -> None:
    source, exported = files(net_pt="weights", net_json="{}")
    ok(run("push", "btag", source, exported))
    assert "unchecked" in ok(run("list"))
    assert "equivalent" in run("attach", "btag@1", report(source, exported)).stderr
    ok(run("alias", "btag@1", "dev"))
    assert "is no more" in run("unalias", "btag", "dev").stderr
    assert "as it should be" in run("fsck").stderr
    (tmp_path / "registry/incoming/modelhub-1-0").write_text("x")
    os.utime(tmp_path / "registry/incoming/modelhub-1-0", (1e9, 1e9))
    assert "left over" in run("fsck").stdout
    assert json.loads(ok(run("gc", "--dry-run", "--json"))) == {
        "unfinished": ["incoming/modelhub-1-0"], "orphans": [], "removed": False,
    }  # fmt: skip
    assert "1 removed" in run("gc").stderr
    assert ok(run("fsck", "--mend")) == ""
    assert "files" in run("export", tmp_path / "tree").stderr
    assert "btag@1  export:json  equivalent" in ok(run("which", exported, "--tree", tmp_path / "tree"))
    assert isinstance(run("which", tmp_path / "tree/index.json", "--tree", tmp_path / "tree").exception, RegistryError)
    other = ("--registry", tmp_path / "other")
    assert "btag@1 is btag@1" in run(*other, "import", tmp_path / "tree").stderr
    assert "as before" in run(*other, "pull", tmp_path / "registry").stderr
    ok(run("export", tmp_path / "oci", "--layout", "oci"))
    assert json.loads(ok(run(*other, "import", tmp_path / "oci", "--json")))[0]["new"] is False


@pytest.mark.parametrize("name", sorted(n for n, c in command.commands.items() if not isinstance(c, click.Group)))
def test_every_command_has_help_with_examples_and_json(run, name: str) -> None:
    text = ok(run(name, "--help"))
    assert "Example" in text
    assert f"modelhub registry {name}" in text or name == "which"
    assert "--json" in text


def test_init(run, files, tmp_path: Path) -> None:
    assert (
        "made"
        in run("init", "--protect", "online", "--report-days", 7, "--blobs", f"file://{tmp_path}/elsewhere").stderr
    )
    settings = json.loads((tmp_path / "registry/registry.json").read_text())
    assert (settings["protected"], settings["report_days"]) == (["online"], 7)
    assert "there is a registry already" in str(run("init").exception)
    ok(run("push", "btag", *files(net_pt="x")))
    assert (tmp_path / "elsewhere/blobs").is_dir()
    ok(run("alias", "btag@1", "prod"))
    assert "may not become" in str(run("alias", "btag@1", "online").exception)


def test_which_stands_beside_the_group_too(proved: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from modelhub_registry.commands_lookup import which

    monkeypatch.setenv("MODELHUB_REGISTRY", str(proved.root))
    answer = CliRunner().invoke(which, [str(tmp_path / "in" / "net.json")])
    assert answer.exit_code == 0, answer.output
    assert "btag@1" in answer.output
