"""Dense layers, sums and scalings by constants, batch normalisation, and the blocks Maxout and Highway."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelhub.graph.builder import DOMAIN
from modelhub_lwtnn.draft import LINEAR, Affine, Layer, affine, only_activation
from modelhub_lwtnn.folding import join
from modelhub_lwtnn.meaning import Record, Refusal, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Activation, Array, Conv1d, Dense, Highway, Maxout


@lowers("Gemm")
def gemm(op: Op) -> Record:
    """A dense layer, alpha x W + beta c with constants W and c (ONNX Gemm)."""
    x, matrix, c = op.data(0), op.weights(1), op.weights(2)
    if matrix is None:
        raise Refusal("multiplies two computed tensors; lwtnn has constant weights only. Write ONNX.")
    if c is None and op.input(2) is not None:
        raise Refusal("adds a computed tensor to a product; lwtnn has constant biases only. Write ONNX.")
    if op.integer("transA", 0):
        x = replace(x, axes=x.axes[::-1])
    matrix = matrix * op.number("alpha", 1.0)
    result = _product(op, x, matrix if op.integer("transB", 0) else matrix.T)
    if c is None or not c.any():
        return result
    return op.scale(result, offset=op.per_feature(c * op.number("beta", 1.0), result))


@lowers("MatMul")
def matmul(op: Op) -> Record:
    """A dense layer without bias, the constant on either side; on a sequence, the same for every step."""
    right = op.weights(1)
    left = op.weights(0)
    if left is not None:
        # (W x)^T = x^T W^T, where features stand before time: [N, F, T].
        x = op.data(1)
        if left.ndim != 2 or len(x.axes) < 2:
            raise Refusal("multiplies by a constant from the left that is no matrix. Write ONNX.")
        swapped = replace(x, axes=(*x.axes[:-2], x.axes[-1], x.axes[-2]))
        result = _product(op, swapped, left)
        return replace(result, axes=(*result.axes[:-2], result.axes[-1], result.axes[-2]))
    if right is None:
        op.data(0), op.data(1)
        raise Refusal(
            "multiplies two computed tensors, as attention does; lwtnn has constant weights only. Write ONNX."
        )
    x = op.data(0)
    if right.ndim == 1:
        result = _product(op, x, right[None, :])
        return replace(result, axes=result.axes[:-1])
    while right.ndim > 2 and right.shape[0] == 1 and right.ndim <= len(x.axes):
        right = right[0]
    if right.ndim != 2:
        raise Refusal("multiplies by a stack of matrices; lwtnn has one per layer. Write ONNX.")
    return _product(op, x, right.T)


def _product(op: Op, x: Record, matrix: Array) -> Record:
    """`matrix` [out, in] times the last axis of `x`."""
    axis = x.axes[-1]
    fixed = op.steps[x.step].length is not None
    if axis in ("time*feature", "feature*time") or (axis == "time" and "feature" not in x.axes and fixed):
        return _over_all_steps(op, x, matrix)
    if axis != "feature":
        raise Refusal(f"mixes numbers along the {axis} axis; lwtnn mixes features only. Write ONNX.")
    if matrix.shape[1] != op.width(x):
        raise Refusal(f"has a matrix for {matrix.shape[1]} features, but gets {op.width(x)}")
    return op.pointwise(x, Dense(np.ascontiguousarray(matrix), None, LINEAR))


def _over_all_steps(op: Op, x: Record, matrix: Array) -> Record:
    """A dense layer over a flattened sequence of fixed length: the last step of a convolution as long as it."""
    x = op.whole(x)
    source = op.steps[x.step]
    assert source.length is not None
    out, width, length = len(matrix), source.width, source.length
    if matrix.shape[1] != width * length:
        raise Refusal(f"has a matrix for {matrix.shape[1]} features, but gets {width * length}")
    if x.axes[-1] == "feature*time":
        kernel = matrix.reshape(out, width, length)
    else:
        kernel = matrix.reshape(out, length, width).transpose(0, 2, 1)
    op.fixed_length(length)
    layer = Conv1d(np.ascontiguousarray(kernel), np.zeros(out), "valid", 1, LINEAR)
    return op.add("sequence", [x.step], out, (*x.axes[:-1], "feature"), layer=layer, length=1)


@lowers("Add", "Sum")
def add(op: Op) -> Record:
    """A constant added to each feature, or vectors added up."""
    computed = [index for index in range(len(op.node.inputs)) if op.weights(index) is None]
    constants = [op.weights(index) for index in range(len(op.node.inputs))]
    result = _added(op, [op.data(index) for index in computed])
    for constant in constants:
        if constant is not None:
            result = op.scale(result, offset=op.per_feature(constant, result))
    return result


def _added(op: Op, records: list[Record]) -> Record:
    if len(records) == 1:
        return records[0]
    if any(record.sequence for record in records):
        raise Refusal("adds sequences; lwtnn adds vectors only. Write ONNX, or sum over the steps before adding.")
    widths = {op.width(record) for record in records}
    if len(widths) != 1 or len({record.axes for record in records}) != 1:
        raise Refusal("adds vectors of different shapes; lwtnn's must be equal. Write ONNX.")
    return op.add("add", [op.whole(record).step for record in records], widths.pop(), records[0].axes)


@lowers("Sub")
def subtract(op: Op) -> Record:
    """A constant less x, x less a constant, or the difference of two vectors."""
    left, right = op.weights(0), op.weights(1)
    if right is not None:
        x = op.data(0)
        return op.scale(x, offset=-op.per_feature(right, x))
    negative = op.scale(op.data(1), scale=-1.0)
    if left is not None:
        return op.scale(negative, offset=op.per_feature(left, negative))
    return _added(op, [op.data(0), negative])


@lowers("Neg")
def negate(op: Op) -> Record:
    """-x."""
    return op.scale(op.data(0), scale=-1.0)


@lowers("Mul")
def multiply(op: Op) -> Record:
    """Each feature times a constant; or x sigmoid(alpha x), which is lwtnn's swish."""
    for index in (0, 1):
        constant = op.weights(index)
        if constant is not None:
            x = op.data(1 - index)
            return op.scale(x, scale=op.per_feature(constant, x))
    for x, gate in ((op.data(0), op.data(1)), (op.data(1), op.data(0))):
        alpha = _swish(op, x, gate)
        if alpha is not None:
            return op.activate(x, "swish", alpha)
    raise Refusal(
        "multiplies two computed tensors; lwtnn multiplies by constants only, or x by sigmoid(x). Write ONNX."
    )


def _swish(op: Op, x: Record, gate: Record) -> float | None:
    """The alpha for which `gate` is sigmoid(alpha x), if there is one."""
    activation = only_activation(op.layer(gate))
    if activation != Activation("sigmoid") or gate.columns is not None or gate.axes != x.axes:
        return None
    x = op.whole(x)
    (argument,) = op.steps[gate.step].sources
    if argument == x.step:
        return 1.0
    layer = op.steps[argument].layer
    if not isinstance(layer, Affine) or op.steps[argument].sources != (x.step,):
        return None
    alpha = float(layer.scale[0])
    plain = not layer.offset.any() and not layer.shift.any() and (layer.scale == alpha).all()
    return alpha if plain else None


@lowers("Div")
def divide(op: Op) -> Record:
    """Each feature over a constant."""
    divisor = op.weights(1)
    if divisor is None:
        op.data(1)
        raise Refusal("divides by a computed tensor; lwtnn has no division. Write ONNX.")
    if not divisor.all():
        raise Refusal("divides by zero. Write ONNX.")
    x = op.data(0)
    return op.scale(x, scale=1.0 / op.per_feature(divisor, x))


@lowers("BatchNormalization", reads=(0,))
def batch_normalization(op: Op) -> Record:
    """(x - mean) / sqrt(var + epsilon) gamma + beta along axis 1 (ONNX BatchNormalization)."""
    if op.integer("training_mode", 0) or op.lives(1):
        raise Refusal("is in training mode. Export the model for inference.")
    gamma, beta, mean, var = (op.weights(index) for index in (1, 2, 3, 4))
    if gamma is None or beta is None or mean is None or var is None:
        raise Refusal("computes its weights from data; lwtnn has constant weights only. Write ONNX.")
    x = op.data(0)
    if len(x.axes) < 2 or x.axes[1] != "feature":
        raise Refusal("normalises another axis than the features. Write ONNX.")
    scale = gamma / np.sqrt(var + op.number("epsilon", 1e-5))
    return op.pointwise(x, affine(op.width(x), -mean, scale, beta))


@lowers("Maxout", domain=DOMAIN, reads=(0,))
def maxout(op: Op) -> Record:
    """The maximum over k of x W[k] + b[k] (`modelhub.graph.blocks.maxout`)."""
    x, weight, bias = op.data(0), op.weights(1), op.weights(2)
    if weight is None or bias is None:
        raise Refusal("computes its weights from data; lwtnn has constant weights only. Write ONNX.")
    if weight.ndim != 3 or bias.shape != (weight.shape[0], weight.shape[2]) or not bias.size:
        raise Refusal(f"has matrices of shape {weight.shape} and biases of shape {bias.shape}")
    if x.axes[-1] != "feature" or weight.shape[1] != op.width(x):
        raise Refusal(f"has matrices for {weight.shape[1]} features, but gets {op.width(x)}")
    layer = Maxout(np.ascontiguousarray(weight.transpose(0, 2, 1)), bias)
    return op.pointwise(x, layer)


@lowers("Highway", domain=DOMAIN)
def highway(op: Op) -> Record:
    """A gated mean, c t + (1-c) x, where t and c come from dense layers of x (`modelhub.graph.blocks.highway`)."""
    x, width = op.whole(op.data(0)), op.width(op.data(0))
    transform, carry = (_dense_between(op, x, op.data(index)) for index in (1, 2))
    if transform is None or carry is None or carry.activation != LINEAR:
        raise Refusal("does not get its two gates from dense layers of its input; lwtnn's does. Write ONNX.")
    (w, b), (carry_w, carry_b) = _weights(transform), _weights(carry)
    if w.shape != (width, width) or carry_w.shape != (width, width):
        raise Refusal("has gates of another width than its input; lwtnn's are equal. Write ONNX.")
    return op.pointwise(x, Highway(w, b, carry_w, carry_b, transform.activation))


def _weights(layer: Dense) -> tuple[Array, Array]:
    """Weights and bias of a dense layer that has at least the former."""
    assert layer.weights is not None
    return layer.weights, np.zeros(len(layer.weights)) if layer.bias is None else layer.bias


def _dense_between(op: Op, x: Record, end: Record) -> Dense | None:
    """The one dense layer that makes `end` of `x`."""
    layers: list[Layer | None] = []
    number = end.step
    while number != x.step:
        step = op.steps[number]
        if len(step.sources) != 1 or len(layers) > 8 or end.columns is not None:
            return None
        layers.append(step.layer)
        (number,) = step.sources
    if not layers:
        return None
    whole = layers.pop()
    while layers and whole is not None:
        whole = join(whole, layers.pop())
    return whole if isinstance(whole, Dense) and whole.weights is not None else None
