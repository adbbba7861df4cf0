"""Recurrent layers and convolutions spelled out for float64, against onnxruntime's own operators in float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.graph.builder import Builder
from modelhub.graph.precision import to_precision

UNITS, INPUTS, EVENTS = 5, 3, 6
OTHER = {
    "LSTM": (["HardSigmoid", "Relu", "Elu"], [0.25, 0.7], [0.4]),
    "GRU": (["HardSigmoid", "LeakyRelu"], [0.25, 0.1], [0.4]),
    "RNN": (["Affine"], [0.5], [0.1]),
}


def session(model: ir.Model) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), settings)


def both(model: ir.Model, feed: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outputs in float32 by the engine's own operators, and in float64 by what is written instead of them."""
    double = to_precision(model.clone(), "float64")
    assert not {n.op_type for n in double.graph} & {"LSTM", "GRU", "RNN", "Conv"}
    wide = {k: v.astype("f8") if v.dtype == np.float32 else v for k, v in feed.items()}
    return list(zip(session(model).run(None, feed), session(double).run(None, wide), strict=True))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "gates", "extra"),
    [("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 0}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})],
)
@pytest.mark.parametrize("other", [False, True])
def test_recurrent(
    kind: str, gates: int, extra: dict[str, int], direction: str, lengths: bool, steps: int, other: bool
) -> None:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.5).astype("f4")

    directions = 2 if direction == "bidirectional" else 1
    attributes: dict[str, object] = dict(extra, hidden_size=UNITS, direction=direction)
    if other:
        names, alphas, betas = OTHER[kind]
        attributes |= {
            "activations": names * directions,
            "activation_alpha": alphas * directions,
            "activation_beta": betas * directions,
        }
    b = Builder()
    weights = [
        b.constant(random(directions, gates * UNITS, INPUTS), "W"),
        b.constant(random(directions, gates * UNITS, UNITS), "R"),
        b.constant(random(directions, 2 * gates * UNITS), "B"),
    ]
    x = b.input("x", ["T", "N", INPUTS])
    length = b.input("length", ["N"], "int32") if lengths else None
    start = b.constant(random(directions, EVENTS, UNITS), "start")
    steps_out, last = b.ops(kind, x, *weights, length, start, outputs=2, **attributes)
    b.output(steps_out, "y", ["T", directions, "N", UNITS])
    b.output(last, "h", [directions, "N", UNITS])
    feed = {"x": random(steps, EVENTS, INPUTS)}
    if lengths:
        feed["length"] = np.array([1, 1, min(2, steps), steps, steps, 1], "i4")
    for low, high in both(b.finish(), feed):
        assert high.dtype == np.float64
        np.testing.assert_allclose(low, high, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_no_steps_leave_the_state_as_it_was(kind: str, gates: int, direction: str) -> None:
    """onnxruntime's own operators do not all survive that; what ONNX says of it is plain."""
    rng = np.random.default_rng(0)
    b = Builder()
    shapes = ((1, gates * UNITS, INPUTS), (1, gates * UNITS, UNITS))
    weights = [b.constant(rng.standard_normal(shape).astype("f4"), "W") for shape in shapes]
    start = rng.standard_normal((1, EVENTS, UNITS)).astype("f4")
    x = b.input("x", ["T", "N", INPUTS])
    y, h = b.ops(
        kind, x, *weights, None, None, b.constant(start, "s"), outputs=2, hidden_size=UNITS, direction=direction
    )
    b.output(y, "y", ["T", 1, "N", UNITS])
    b.output(h, "h", [1, "N", UNITS])
    double = to_precision(b.finish(), "float64")
    steps, last = session(double).run(None, {"x": np.zeros((0, EVENTS, INPUTS))})
    assert steps.shape == (0, 1, EVENTS, UNITS)
    np.testing.assert_array_equal(last, start.astype("f8"))


@pytest.mark.parametrize(
    ("spatial", "attributes"),
    [
        ((3,), {}),
        ((4,), {"pads": [2, 1]}),
        ((2,), {"dilations": [3], "strides": [2], "pads": [0, 3]}),
        ((3, 2), {"pads": [1, 0, 1, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(spatial: tuple[int, ...], attributes: dict[str, list[int]], bias: bool) -> None:
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.input("x", ["N", 2, *["L", "M"][: len(spatial)]])
    weight = b.constant(rng.standard_normal((4, 2, *spatial)).astype("f4"), "W")
    offset = b.constant(rng.standard_normal(4).astype("f4"), "b") if bias else None
    b.output(b.op("Conv", x, weight, offset, **attributes), "y", ["N", 4, *[None] * len(spatial)])
    feed = {"x": rng.standard_normal((3, 2, *(9, 7)[: len(spatial)])).astype("f4")}
    ((low, high),) = both(b.finish(), feed)
    np.testing.assert_allclose(low, high, rtol=1e-5, atol=1e-5)
