"""What the command line loads late is not loaded by a conversion, and behaves as always for whoever touches it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = {
    "inputs": [{"name": "pt", "offset": -1, "scale": 2}],
    "layers": [{"architecture": "dense", "activation": "sigmoid", "weights": [1.5], "bias": [0.5]}],
    "outputs": ["signal"],
    "defaults": {},
    "miscellaneous": {},
}
"""A network in lwtnn's form."""

HEAVY = ("sympy.core", "jsonschema", "rich", "argparse", "subprocess", "torch", "xgboost")
"""A late module is listed when it is found; its parts and its own imports when it is loaded."""


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("to", ["onnx", "json"])
def test_a_conversion_loads_no_more_than_it_needs(to: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.json", tmp_path / f"out.{to}"
    source.write_text(json.dumps(MODEL))
    command = [sys.executable, "-X", "importtime", "-m", "modelhub", "convert", "--no-check", str(source)]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert target.exists()
    assert "onnx_ir._core" in loaded
    assert not [name for name in loaded if f"{name}.".startswith(HEAVY)]


def test_symbolic_axes_are_computed_with_as_ever() -> None:
    script = """
from modelhub.startup import quick_start
quick_start()
import sys
import onnx_ir as ir
late = sys.modules["sympy"]
assert type(late).__name__ == "_LazyModule", type(late)
n = ir.SymbolicDim("N")
assert n == "N" and type(late).__name__ == "_LazyModule"
assert (n * 2 + 1).evaluate({"N": 20}) == 41
assert ir.SymbolicDim("max(N, 3) + floor(M / 2)").evaluate({"N": 2, "M": 5}) == 5
assert type(late).__name__ == "module"
import sympy
from sympy.abc import x
assert sympy is late and sympy.diff(x**2, x) == 2 * x
"""
    python(script)


def test_corners_of_onnx_are_there_when_asked_for() -> None:
    script = """
from modelhub.startup import LATE, quick_start
quick_start()
quick_start()
import sys
assert sum(type(finder).__name__ == "_Late" for finder in sys.meta_path) == 1
import onnx, onnx_ir
from onnx import helper
value = [helper.make_tensor_value_info(name, 1, ["N"]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
assert type(sys.modules["onnx.compose"]).__name__ == "_LazyModule"
both = onnx.compose.merge_models(model, onnx.compose.add_prefix(model, "b_"), io_map=[("y", "b_x")])
assert len(both.graph.node) == 2
assert onnx.utils.Extractor(both).extract_model(["x"], ["y"]).graph.node[0].op_type == "Identity"
from google.protobuf.json_format import MessageToJson, Parse
assert Parse(MessageToJson(model), onnx.ModelProto()) == model
from google.protobuf import text_format
assert text_format.Parse(str(model), onnx.ModelProto()) == model
assert {type(sys.modules[name]).__name__ for name in LATE} <= {"module", "_LazyModule"}
"""
    python(script)


def test_the_library_leaves_imports_and_garbage_alone() -> None:
    script = """
import gc, sys
before = gc.get_threshold(), list(sys.meta_path)
import modelhub, modelhub.cli
modelhub.read
import onnx_ir
assert (gc.get_threshold(), sys.meta_path) == before
assert type(sys.modules["sympy"]).__name__ == "module"
"""
    python(script)


def test_what_is_not_installed_is_missing_as_ever() -> None:
    script = """
from modelhub.startup import quick_start
quick_start()
import sys
sys.path = [place for place in sys.path if "site-packages" not in place]
try:
    import sympy
except ModuleNotFoundError as error:
    print(error)
"""
    assert python(script).strip() == "No module named 'sympy'"
