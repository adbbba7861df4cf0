"""The quantile of the standard normal distribution, in operators that every engine has in float64.

Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988) 477: three quotients of polynomials, right to 1e-16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelhub_sklearn.table import Rows

__all__ = ["quantile"]

MIDDLE = (
    (
        3.3871328727963666080,
        133.14166789178437745,
        1971.5909503065514427,
        13731.693765509461125,
        45921.953931549871457,
        67265.770927008700853,
        33430.575583588128105,
        2509.0809287301226727,
    ),
    (
        1.0,
        42.313330701600911252,
        687.18700749205790830,
        5394.1960214247511077,
        21213.794301586595867,
        39307.895800092710610,
        28729.085735721942674,
        5226.4952788528545610,
    ),
)
"""Numerator and denominator for |p - 0.5| <= 0.425, from the constant on."""

SIDE = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        0.241780725177450611770,
        0.0227238449892691845833,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        0.689767334985100004550,
        0.148103976427480074590,
        0.0151986665636164571966,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
"""For sqrt(-log(tail)) <= 5. The third quotient is for tails beyond 1e-11, and `LOW` is nearer."""

LOW, HIGH = -5.199337582605575, 5.19933758270342
"""The quantiles of p and 1 - p, p = 1e-7 - 2^-52, between which scikit-learn clips: `QuantileTransformer`."""


def _polynomial(x: Rows, coefficients: Sequence[float]) -> Rows:
    """By Horner's rule."""
    result = x.op("Mul", coefficients[-1]).op("Add", coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        result = result.op("Mul", x).op("Add", coefficient)
    return result


def quantile(p: Rows) -> Rows:
    """The quantile of every probability, clipped as scikit-learn does; NaN stays."""
    p = p.op("Max", 1e-8).op("Min", 1 - 1e-8)
    centre = p.op("Sub", 0.5)
    r = centre.op("Mul", centre).op("Neg").op("Add", 0.180625)
    middle = centre.op("Mul", _polynomial(r, MIDDLE[0]).op("Div", _polynomial(r, MIDDLE[1])))
    tail = p.op("Min", p.op("Neg").op("Add", 1.0)).op("Log").op("Neg").op("Sqrt").op("Sub", 1.6)
    side = _polynomial(tail, SIDE[0]).op("Div", _polynomial(tail, SIDE[1])).op("Mul", centre.op("Sign"))
    far = p.b.op("Greater", centre.op("Abs").value, p.b.constant(np.array(0.425), "middle"))
    return middle.where(far, side).op("Max", LOW).op("Min", HIGH)
