"""Real files of Keras 1.0 to 2.10: against lwtnn's C++ engine in float64, and against tf_keras."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.errors import Unsupported
from modelhub.graph.interface import Input, Interface
from modelhub.graph.naming import attach
from modelhub.graph.precision import to_precision
from modelhub.graph.records import parse
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

LWTNN = ["batchnorm", "conv1d", "dense_dropout", "elu", "gru_sequence", "highway", "lstm", "merge_graph"]

HLS4ML = ["KERAS_1layer", "KERAS_3layer", "KERAS_3layer_batch_norm", "KERAS_conv1d_small", "KERAS_conv2d_model"]

REAL = {
    "cms_DeepDoubleX_102X_CvL": ("CvL.h5", None),
    "dguest_btag_tutorial": ("arch.json", "weights.h5"),
    "keras2c_example": ("model.h5", None),
    **{f"hls4ml_{name}": (f"{name}.json", f"{name}_weights.h5") for name in HLS4ML},
}


def read(path: Path, weights: Path | None) -> ir.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Importer().read(path, ReadOptions(weights=weights))


def session(model: ir.Model) -> ort.InferenceSession:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def array_of(event: dict[str, Any], record: Input) -> np.ndarray:
    """One event of one input, [1, features] or [1, steps, features]."""
    if "@scalars" in event:
        event = event["@sequences" if record.sequence else "@scalars"]
    node = event.get(record.name, event)
    values = np.array([node[feature.name] for feature in record.features])
    return values.T[None] if record.sequence else values[None]


@pytest.mark.parametrize("case", LWTNN)
def test_lwtnn_case_in_float64(case: str, cases: Path) -> None:
    """The engine's answers, to double precision.

    batchnorm matches to float32 only: lwtnn's converter computed gamma / sqrt(variance + epsilon) in float32
    (keras_v1_layer_converters.py), the graph does so exactly. `test_batchnorm_but_for_lwtnns_rounding` closes the gap.
    """
    folder = cases / "lwtnn" / case
    model = read(folder / "keras" / "architecture.json", folder / "keras" / "weights.h5")
    interface = attach(model, parse(json.loads((folder / "variables.json").read_text()), "variables.json"))
    ours = session(to_precision(model, "float64"))
    for event, wanted in zip(lines(folder / "inputs.jsonl"), lines(folder / "engine_output.jsonl"), strict=True):
        answers = ours.run(None, {record.tensor: array_of(event, record) for record in interface.inputs})
        for record, answer in zip(interface.outputs, answers, strict=True):
            told = wanted.get(record.name, wanted)
            told = told.get("scan", told)
            expected = np.array([told[label] for label in record.labels])
            answer = answer[0].T if record.sequence else answer[0]
            np.testing.assert_allclose(answer, expected, rtol=1e-7 if case == "batchnorm" else 1e-12)


def test_batchnorm_but_for_lwtnns_rounding(cases: Path) -> None:
    """The graph's constants, with scales and shifts rounded as lwtnn's converter does, give its answer exactly."""
    folder = cases / "lwtnn" / "batchnorm"
    model = read(folder / "keras" / "architecture.json", folder / "keras" / "weights.h5")
    variables = json.loads((folder / "variables.json").read_text())["inputs"]
    (event,) = lines(folder / "inputs.jsonl")
    (wanted,) = lines(folder / "engine_output.jsonl")
    x = np.array([(event[v["name"]] + v["offset"]) * v["scale"] for v in variables])
    for node in model.graph:
        arrays = [v.const_value.numpy() if v is not None and v.const_value is not None else None for v in node.inputs]
        if node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = arrays[1:]
            root = np.sqrt(variance + np.float32(node.attributes["epsilon"].as_float()))
            x = (gamma / root).astype(float) * (x + (-mean + beta * root / gamma).astype(float))
        elif node.op_type == "Maxout":
            x = (np.einsum("i,kio->ko", x, arrays[1].astype(float)) + arrays[2]).max(axis=0)
        elif node.op_type == "Gemm":
            x = x @ arrays[1].astype(float) + arrays[2]
        elif node.op_type == "Relu":
            x = np.maximum(x, 0)
        else:
            assert node.op_type == "Softmax"
            x = np.exp(x) / np.exp(x).sum()
    expected = [wanted[label] for label in ("u-jet", "c-jet", "b-jet")]
    np.testing.assert_allclose(x, expected, rtol=1e-12)


@pytest.mark.parametrize("case", REAL)
def test_real_case_as_tf_keras_answers(case: str, cases: Path) -> None:
    folder = cases / "real" / "keras" / case
    name, weights = REAL[case]
    model = read(folder / name, folder / weights if weights else None)
    reference = np.load(folder / f"{Path(weights or name).stem}.reference_tf_keras.npz")
    ours = session(model)
    given = [key for key in reference if key.startswith("in")]
    assert [key.split(":")[1] for key in given] == [i.name for i in ours.get_inputs()]
    answers = ours.run(None, {key.split(":")[1]: reference[key] for key in given})
    for index, answer in enumerate(answers):
        np.testing.assert_allclose(answer, reference[f"out{index}"], rtol=1e-5, atol=1e-6)


def test_real_files_leave_steps_open_where_they_can(cases: Path) -> None:
    folder = cases / "real" / "keras" / "cms_DeepDoubleX_102X_CvL"
    interface = Interface.of(read(folder / "CvL.h5", None))
    limits = {record.name: (record.min_length, record.max_length) for record in interface.inputs}
    assert limits == {"input_1": (1, 1), "input_2": (1, None), "input_3": (1, None), "input_4": (1, None)}


def test_quantised_layers_are_refused_by_name(cases: Path) -> None:
    folder = cases / "real" / "keras" / "hls4ml_qkeras_3layer"
    with pytest.raises(Unsupported) as told:
        read(folder / "qkeras_3layer.json", folder / "qkeras_3layer_weights.h5")
    assert len(told.value.reasons) == 7
    assert "fc1 (QDense, layer 1)" in str(told.value)


def test_old_batchnorm_is_told(cases: Path) -> None:
    from modelhub.errors import Notice

    folder = cases / "lwtnn" / "batchnorm" / "keras"
    with pytest.warns(Notice, match="running_std"):
        Importer().read(folder / "architecture.json", ReadOptions(weights=folder / "weights.h5"))


def test_an_unknown_file_of_another_generation(cases: Path, tmp_path: Path) -> None:
    """The same weights under the group `model_weights` (a whole model without its configuration) read the same."""
    folder = cases / "lwtnn" / "elu" / "keras"
    with h5py.File(folder / "weights.h5") as old, h5py.File(tmp_path / "weights.h5", "w") as new:
        group = new.create_group("model_weights")
        for key, value in old.attrs.items():
            group.attrs[key] = value
        for name in old:
            old.copy(name, group)
    one = read(folder / "architecture.json", folder / "weights.h5")
    two = read(folder / "architecture.json", tmp_path / "weights.h5")
    assert [v.const_value.numpy().tobytes() for v in one.graph.initializers.values()] == [
        v.const_value.numpy().tobytes() for v in two.graph.initializers.values()
    ]
