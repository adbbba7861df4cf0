"""The GitHub action, the GitLab component and what `init-ci` writes: their shell steps run as they are written.

They run in a clean folder, in a virtual environment without PyTorch, into which they themselves install modelhub: the
other distributions are those of the environment that runs the tests, and no index is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ci_models import PAIRS, config

from modelhub.equivalence.config import read_config
from modelhub.reports.view import View

ROOT = Path(__file__).parents[2]
HIDDEN = re.compile(r"torch|tensorflow|tf_keras|keras|functorch|modelhub|_modelhub|__pycache__", re.IGNORECASE)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that has what modelhub needs, but neither it nor a training framework."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not HIDDEN.match(entry.name) and not entry.name.endswith(".pth"):
            (site / entry.name).symlink_to(entry)
    return folder / "bin"


@dataclass
class Job:
    """A clean folder with models, in which steps are run as a CI service runs them."""

    folder: Path
    python: Path

    def bash(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """As GitHub (`shell: bash`) and GitLab run a script: stop at the first error, also within a pipe."""
        environment = {
            "PATH": f"{self.python}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of: do not isolate
            "MODELHUB_DEBUG": os.environ.get("MODELHUB_DEBUG", ""),
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture
def job(models: Path, python: Path, tmp_path: Path):
    """A job over these pairs."""

    def make(*names: str) -> Job:
        shutil.copytree(models, tmp_path / "clean")
        (tmp_path / "clean" / "modelhub.yaml").write_text(config(*names))
        return Job(tmp_path / "clean", python)

    return make


OUTCOMES = [("bdt", 0, "passed"), ("wrong", 1, "different"), ("net", 6, "inconclusive")]


# -- the GitHub action -----------------------------------------------------------------------------------------------

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def run_action(job: Job, folder: Path, steps: Sequence[str] = (), **given: str) -> tuple[int, dict[str, str], str]:
    """Run the action's steps, or those of these names; its exit code, the outputs of its steps, and the summary."""
    inputs = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()} | given
    values = {f"inputs.{name}": value for name, value in inputs.items()} | {"github.action_path": str(ROOT)}
    output, summary = folder / "output", folder / "summary"
    output.touch()
    summary.touch()
    code = 0
    for step in ACTION["runs"]["steps"]:
        if "run" not in step or (code and step.get("if") != "always()") or (steps and step["name"] not in steps):
            continue
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script is an injection"
        env = {key: re.sub(r"\$\{\{ (.*?) \}\}", lambda m: values[m[1]], text) for key, text in step["env"].items()}
        done = job.bash(step["run"], **env, GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(summary))
        code = done.returncode
        assert code in (0, 1, 2, 6), done.stderr
    return code, dict(line.split("=", 1) for line in output.read_text().splitlines()), summary.read_text()


@pytest.mark.parametrize(("pair", "code", "verdict"), OUTCOMES)
def test_the_action_runs_green_red_and_inconclusive(job, tmp_path: Path, pair: str, code: int, verdict: str) -> None:
    clean = job(pair)
    given = {"fail-on": "suspect", "report-dir": "re ports"}
    found, outputs, summary = run_action(clean, tmp_path, extras="tmva,onnx", **given)
    assert found == code
    report = View(json.loads((clean.folder / "re ports" / f"{pair}.json").read_text()), pair)
    ulp = "" if report.max_ulp is None else str(report.max_ulp)
    assert outputs == {"verdict": verdict, "exit-code": str(code), "max-ulp": ulp, "report": "re ports"}
    assert (pair == "wrong") == (int(ulp or 0) > 100)
    assert f"`{pair}`" in summary
    written = {path.name for path in (clean.folder / "re ports").iterdir()}
    assert written == {f"{pair}.json", "index.html", "junit.xml"}
    if pair == "net":
        assert "modelhub-hep[torch]" in summary
        (clean.folder / "modelhub.yaml").write_text("pears: []\n")
        found, outputs, _ = run_action(clean, tmp_path, steps=("Check",))
        assert (found, outputs["verdict"], outputs["exit-code"]) == (2, "error", "2")


def test_the_actions_outputs_are_those_of_its_steps() -> None:
    steps = {step.get("id"): step for step in ACTION["runs"]["steps"]}
    for name, output in ACTION["outputs"].items():
        step, key = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.([\w-]+) \}\}", output["value"]).groups()
        assert f'"{key}=' in steps[step]["run"], name
    assert ACTION["runs"]["steps"][-1]["if"] == "always()"
    assert ACTION["runs"]["steps"][-1]["uses"].startswith("actions/upload-artifact@")


# -- the GitLab component --------------------------------------------------------------------------------------------

COMPONENT = (ROOT / "templates" / "equivalence-check" / "template.yml").read_text()


def component(**given: str) -> tuple[str, dict[str, Any]]:
    """Name and job of the component, its inputs filled in as GitLab does it: in the text, before it is parsed."""
    spec, _, text = COMPONENT.partition("\n---\n")
    inputs = {name: (about or {})["default"] for name, about in yaml.safe_load(spec)["spec"]["inputs"].items()} | given
    ((name, filled),) = yaml.safe_load(re.sub(r"\$\[\[ inputs\.(\w+) \]\]", lambda m: inputs[m[1]], text)).items()
    return name, filled


@pytest.mark.parametrize(("pair", "code", "verdict"), OUTCOMES)
def test_the_component_runs_green_red_and_inconclusive(job, pair: str, code: int, verdict: str) -> None:
    clean = job(pair)
    _, filled = component(package=f"{ROOT}[tmva,onnx]")
    done = clean.bash("\n".join(filled["script"]), **filled["variables"])
    assert done.returncode == code, done.stderr
    assert (clean.folder / filled["artifacts"]["reports"]["junit"]).is_file()
    (kept,) = filled["artifacts"]["paths"]
    assert json.loads((clean.folder / kept / f"{pair}.json").read_text())["verdict"] in (
        verdict,
        "identical",
        "equivalent",
    )


def test_the_components_scripts_take_inputs_as_variables_only() -> None:
    name, filled = component(job="models", fail_on="suspect")
    assert name == "models"
    assert filled["variables"]["MODELHUB_FAIL_ON"] == "suspect"
    script = re.search(r"  script:\n(.*?)\n  artifacts:", COMPONENT, re.DOTALL)
    assert script is not None
    assert "$[[" not in script[1]


# -- modelhub init-ci ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pair", "code", "service"), [("wrong", 1, "github"), ("net", 6, "gitlab")])
def test_what_init_ci_writes_runs(job, modelhub, pair: str, code: int, service: str) -> None:
    clean = job(pair)
    (clean.folder / "modelhub.yaml").unlink()
    done = modelhub("init-ci", f"--{service}", "--pair", *PAIRS[pair], cwd=clean.folder)
    assert done.returncode == 0, done.stderr
    assert clean.bash(f'python -m pip install "{ROOT}"').returncode == 0
    if service == "github":
        workflow = yaml.safe_load((clean.folder / ".github/workflows/equivalence.yml").read_text())
        install, check = [step["run"] for step in workflow["jobs"]["equivalence"]["steps"] if "run" in step]
    else:
        included = yaml.safe_load((clean.folder / ".gitlab-ci.yml").read_text())["include"][0]["local"]
        install, check = yaml.safe_load((clean.folder / included).read_text())["equivalence"]["script"]
    # What it installs is not on an index here: modelhub itself, as it is in this checkout, stands in for it.
    assert install == f'python -m pip install "modelhub-hep[onnx,{"torch" if pair == "net" else "tmva"}]"'
    done = clean.bash(check, GITHUB_STEP_SUMMARY=str(clean.folder / "summary.md"))
    assert done.returncode == code, done.stderr
    assert (clean.folder / "equivalence" / "junit.xml").is_file()
    assert (clean.folder / "summary.md").is_file() is (service == "github")


# -- our own repository ----------------------------------------------------------------------------------------------


def test_our_workflow_uses_the_action_as_it_is() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/equivalence.yml").read_text())
    (step,) = [step for step in workflow["jobs"]["equivalence"]["steps"] if step["uses"] == "./"]
    assert step["with"].keys() <= ACTION["inputs"].keys()
    assert read_config(ROOT / step["with"]["config"]).pairs


def test_every_pair_of_our_fixtures_is_there() -> None:
    for pair in read_config(ROOT / "fixtures" / "modelhub.yaml").pairs:
        assert pair.source.is_file()
        assert pair.target.is_file()
