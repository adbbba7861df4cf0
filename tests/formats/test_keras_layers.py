"""Every layer that is no recurrent one, made with Keras, against Keras: from `.keras` and from whole-model `.h5`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_making import TORCH, L, check, keras, randomise


def chain(shape: tuple[int | None, ...], *layers: Any, dtype: str = "float32") -> Callable[[], Any]:
    """A network of `layers` in a row."""

    def make() -> Any:
        x = inputs = keras.Input(shape, dtype=dtype, name="in")
        for layer in layers:
            x = layer()(x)
        return keras.Model(inputs, x)

    return make


def pair(shape: tuple[int | None, ...], join: Callable[[Any, Any], Any], other: tuple[int | None, ...] | None = None):
    """A network that joins two inputs."""

    def make() -> Any:
        a, c = keras.Input(shape, name="a"), keras.Input(other or shape, name="c")
        return keras.Model([a, c], join(a, c))

    return make


ACTIVATIONS = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
]

MODELS: dict[str, Callable[[], Any]] = {
    **{f"activation {name}": chain((4,), lambda name=name: L.Dense(3, activation=name)) for name in ACTIVATIONS},
    **{
        f"merge {kind.__name__}": pair((4,), lambda a, c, kind=kind: L.Dense(2)(kind()([a, c])))
        for kind in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate)
    },
    "dense without bias": chain((4,), lambda: L.Dense(3, use_bias=False)),
    "dense on steps": chain((None, 4), lambda: L.Dense(3, activation="relu"), lambda: L.Dense(2)),
    "dense on images": chain((3, 3, 2), lambda: L.Dense(3, activation="softmax")),
    "activation layer": chain((4,), lambda: L.Activation("tanh"), lambda: L.Dense(2)),
    "activation is a layer": chain((4,), lambda: L.Dense(3, activation=L.LeakyReLU(negative_slope=0.1))),
    "relu": chain((4,), L.ReLU),
    "relu max": chain((4,), lambda: L.ReLU(max_value=0.7)),
    "relu slope": chain((4,), lambda: L.ReLU(negative_slope=0.2, max_value=0.9)),
    "relu threshold": chain((4,), lambda: L.ReLU(negative_slope=0.2, max_value=0.9, threshold=0.3)),
    "leaky": chain((4,), lambda: L.LeakyReLU(negative_slope=0.17)),
    "prelu": chain((4,), L.PReLU),
    "prelu shared": chain((None, 4), lambda: L.PReLU(shared_axes=[1])),
    "elu": chain((4,), lambda: L.ELU(alpha=0.6)),
    "softmax": chain((4,), L.Softmax),
    "softmax axis": chain((None, 4), lambda: L.Softmax(axis=1)),
    "batchnorm": chain((4,), L.BatchNormalization),
    "batchnorm bare": chain((4,), lambda: L.BatchNormalization(scale=False, center=False, epsilon=0.1)),
    "batchnorm steps": chain((None, 4), lambda: L.BatchNormalization(center=False)),
    "batchnorm image": chain((3, 3, 2), lambda: L.BatchNormalization(axis=1)),
    "layernorm": chain((4,), L.LayerNormalization),
    "layernorm bare": chain((None, 4), lambda: L.LayerNormalization(scale=False, center=False, epsilon=0.01)),
    "layernorm two axes": chain((3, 4), lambda: L.LayerNormalization(axis=[1, 2])),
    "normalization": chain((4,), L.Normalization),
    "normalization given": chain((4,), lambda: L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 0.5, 3])),
    "normalization invert": chain((4,), lambda: L.Normalization(mean=0.5, variance=2.0, invert=True)),
    "rescaling": chain((4,), lambda: L.Rescaling(1 / 255, offset=0.1)),
    "no-ops": chain(
        (4,),
        lambda: L.Dense(4),
        lambda: L.Dropout(0.5),
        lambda: L.GaussianNoise(0.5),
        lambda: L.GaussianDropout(0.5),
        lambda: L.AlphaDropout(0.5),
        lambda: L.ActivityRegularization(l2=0.1),
        L.Identity,
    ),
    "no-ops on steps": chain((None, 4), lambda: L.SpatialDropout1D(0.5), lambda: L.Dense(2)),
    "flatten": chain((3, 4), L.Flatten, lambda: L.Dense(2)),
    "flatten vector": chain((4,), L.Flatten, lambda: L.Dense(2)),
    "reshape": chain((12,), lambda: L.Reshape((3, -1)), lambda: L.Dense(2)),
    "reshape steps": chain((6, 4), lambda: L.Reshape((-1, 2)), lambda: L.Dense(2)),
    "permute": chain((5, 3), lambda: L.Permute((2, 1)), lambda: L.Dense(2)),
    "repeat": chain((4,), lambda: L.RepeatVector(3), lambda: L.Dense(2)),
    "embedding": chain((6,), lambda: L.Embedding(5, 3), dtype="int32"),
    "embedding of reals": chain((6,), lambda: L.Rescaling(0.0, 2.5), lambda: L.Embedding(5, 3), L.Flatten),
    "conv1d": chain(
        (None, 4),
        lambda: L.Conv1D(3, 2, activation="relu"),
        lambda: L.Conv1D(2, 4, padding="same"),
    ),
    "conv1d causal": chain((None, 4), lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2, use_bias=False)),
    "conv1d same dilated": chain((None, 4), lambda: L.Conv1D(3, 4, padding="same", dilation_rate=2)),
    "conv1d strides": chain(
        (7, 4),
        lambda: L.Conv1D(3, 3, strides=2),
        lambda: L.Conv1D(2, 2, strides=2, padding="same"),
    ),
    "conv1d strides open": chain((None, 4), lambda: L.Conv1D(3, 3, strides=2, padding="same")),
    "conv1d groups": chain((6, 4), lambda: L.Conv1D(6, 3, groups=2)),
    "conv2d": chain(
        (6, 7, 2),
        lambda: L.Conv2D(3, (2, 3), activation="tanh"),
        lambda: L.Conv2D(2, 2, strides=2, padding="same"),
    ),
    "depthwise1d": chain((6, 3), lambda: L.DepthwiseConv1D(3, depth_multiplier=2, padding="same")),
    "depthwise2d": chain((6, 7, 3), lambda: L.DepthwiseConv2D((3, 2), depth_multiplier=2)),
    "separable1d": chain((6, 3), lambda: L.SeparableConv1D(4, 3, depth_multiplier=2)),
    "separable2d": chain((6, 7, 3), lambda: L.SeparableConv2D(4, 3, padding="same", activation="relu")),
    "pool1d": chain((None, 3), lambda: L.MaxPooling1D(2), lambda: L.AveragePooling1D(2, strides=1)),
    "pool1d same": chain(
        (7, 3),
        lambda: L.MaxPooling1D(3, strides=2, padding="same"),
        lambda: L.AveragePooling1D(3, 2, padding="same"),
    ),
    "pool2d": chain(
        (6, 7, 2),
        lambda: L.MaxPooling2D((2, 3)),
        lambda: L.AveragePooling2D(2, padding="same"),
    ),
    "global max": chain((None, 3), L.GlobalMaxPooling1D),
    "global mean": chain((None, 3), lambda: L.GlobalAveragePooling1D(keepdims=True)),
    "global 2d": chain((4, 5, 3), lambda: L.GlobalMaxPooling2D(keepdims=True), L.GlobalAveragePooling2D),
    "padding": chain(
        (None, 3),
        lambda: L.ZeroPadding1D((1, 2)),
        lambda: L.Cropping1D((2, 0)),
        lambda: L.Dense(2),
    ),
    "padding 2d": chain(
        (4, 5, 2),
        lambda: L.ZeroPadding2D(((1, 0), (2, 1))),
        lambda: L.Cropping2D(((1, 1), (0, 2))),
    ),
    "upsampling": chain((None, 3), lambda: L.UpSampling1D(3)),
    "upsampling 2d": chain((3, 2, 2), lambda: L.UpSampling2D((2, 3))),
    "time distributed": chain(
        (None, 4),
        lambda: L.TimeDistributed(L.Dense(3, activation="relu")),
        L.GlobalMaxPooling1D,
    ),
    "time distributed conv": chain(
        (4, 6, 6, 2),
        lambda: L.TimeDistributed(L.Conv2D(2, 3)),
        lambda: L.TimeDistributed(L.Flatten()),
    ),
    "time distributed chain": chain(
        (None, 4), lambda: L.TimeDistributed(keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization()]))
    ),
    "concatenate steps": pair((5, 3), lambda a, c: L.Concatenate(axis=1)([a, c]), (4, 3)),
    "add different ranks": pair((None, 3), lambda a, c: L.Add()([a, c]), (3,)),
    "add stretched": pair((5, 3), lambda a, c: L.Add()([a, c]), (5, 1)),
    "dot vectors": pair((4,), lambda a, c: L.Dot(axes=1)([a, c])),
    "dot cosine": pair((4,), lambda a, c: L.Dot(axes=1, normalize=True)([a, c])),
    "dot matrices": pair((5, 3), lambda a, c: L.Dot(axes=(2, 2))([a, c]), (4, 3)),
    "dot mixed": pair((5, 3), lambda a, c: L.Dot(axes=(1, 1))([a, c]), (5,)),
    "attention": pair((None, 4), lambda a, c: L.MultiHeadAttention(2, 3)(a, c), (None, 5)),
    "attention causal": chain((None, 4), lambda: SelfAttention()),
}


def SelfAttention() -> Callable[[Any], Any]:
    return lambda x: L.MultiHeadAttention(2, 3, value_dim=2, use_bias=False)(x, x, use_causal_mask=True)


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", MODELS)
def test_layer(name: str, kind: str, tmp_path: Path) -> None:
    if name == "pool1d same" and TORCH:
        pytest.skip("Keras on torch counts the padding in an average, on TensorFlow and JAX it does not")
    keras.utils.set_random_seed(3)
    check(randomise(MODELS[name]()), tmp_path, kind)
