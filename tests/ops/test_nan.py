"""NaN stays NaN in functions that are put together from pieces, and its gradient is not hidden."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab.autograd import grad

NAN = math.nan
VALUES = [NAN, -3.0, -0.5, 0.0, 0.25, 2.0, 7.0, NAN, 1.0]
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def _ones(x):
    return gl.ones_like(x)


# Each takes one tensor, element by element.
FUNCTIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, gl.tensor(0.25, dtype=x.dtype)),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.5, 3.0),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "abs": gl.abs,
    "sign": gl.sign,
    "floor": gl.floor,
    "round": gl.round,
    "frac": gl.frac,
    "heaviside": lambda x: gl.heaviside(x, _ones(x)),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp, min": lambda x: x.clamp(min=-1),
    "clamp, max": lambda x: x.clamp(max=1),
    "clamp, tensors": lambda x: x.clamp(-_ones(x), _ones(x)),
    "maximum": lambda x: gl.maximum(x, _ones(x)),
    "maximum, second": lambda x: gl.maximum(_ones(x), x),
    "minimum": lambda x: gl.minimum(x, _ones(x)),
    "fmod": lambda x: gl.fmod(x, 2 * _ones(x)),
    "remainder": lambda x: gl.remainder(x, 2 * _ones(x)),
    "hypot": lambda x: gl.hypot(x, _ones(x)),
    "pow, exponent": lambda x: gl.pow(0 * _ones(x), x),
    "pow, a number": lambda x: 0.0**x,
    "logit": lambda x: gl.logit(x, 0.1),
    "lerp": lambda x: gl.lerp(x, _ones(x), 0.5),
    "nll of normals": lambda x: F.gaussian_nll_loss(x, _ones(x), _ones(x), reduction="none"),
    "nll of normals, var": lambda x: F.gaussian_nll_loss(
        0 * _ones(x), _ones(x), x.abs(), reduction="none"
    ),
    "mse_loss": lambda x: F.mse_loss(x, _ones(x), reduction="none"),
    "l1_loss": lambda x: F.l1_loss(x, _ones(x), reduction="none"),
    "huber_loss": lambda x: F.huber_loss(x, _ones(x), reduction="none", delta=0.5),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, _ones(x), reduction="none"),
    "hinge_embedding_loss": lambda x: F.hinge_embedding_loss(x, -_ones(x), reduction="none"),
    "margin_ranking_loss": lambda x: F.margin_ranking_loss(
        x, 0 * _ones(x), _ones(x), reduction="none"
    ),
    "soft_margin_loss": lambda x: F.soft_margin_loss(x, _ones(x), reduction="none"),
    "poisson_nll_loss": lambda x: F.poisson_nll_loss(x, _ones(x), reduction="none"),
    "bce_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, _ones(x), reduction="none"),
    "bce": lambda x: F.binary_cross_entropy(x.clamp(0.1, 0.9), _ones(x), reduction="none"),
    "vector_norm": lambda x: gl.linalg.vector_norm(x.reshape(-1, 1), axis=1),
    "vector_norm, 1": lambda x: gl.linalg.vector_norm(x.reshape(-1, 1), 1, axis=1),
    "vector_norm, inf": lambda x: gl.linalg.vector_norm(x.reshape(-1, 1), math.inf, axis=1),
    "amax": lambda x: gl.amax(gl.stack([x, _ones(x)]), axis=0),
    "amin": lambda x: gl.amin(gl.stack([x, _ones(x)]), axis=0),
    "max": lambda x: gl.max(gl.stack([x, _ones(x)]), dim=0).values,
    "median": lambda x: gl.median(gl.stack([x, _ones(x), 2 * _ones(x)]), dim=0).values,
    "logsumexp": lambda x: gl.logsumexp(gl.stack([x, _ones(x)]), axis=0),
    "linear_act": lambda x: F.linear_act(
        x.reshape(-1, 1), gl.ones(1, 1, dtype=x.dtype, device=x.device)
    ).reshape(-1),
}
STEPS = {"sign", "floor", "round", "heaviside"}  # whose gradient is 0 everywhere


def _check(name, dtype, device, plain):
    f = FUNCTIONS[name]
    x = gl.tensor(VALUES, dtype=dtype, device=device, requires_grad=True)
    at = np.isnan(VALUES)
    y = f(x)
    found = np.array(y.tolist())
    np.testing.assert_array_equal(np.isnan(found), at)
    clean = gl.tensor([0.25 if nan else v for v, nan in zip(VALUES, at, strict=True)], dtype=dtype,
                      device=device, requires_grad=True)  # fmt: skip
    np.testing.assert_array_equal(found[~at], np.array(f(clean).tolist())[~at])
    if name in STEPS:
        return
    (gx,) = grad(y.sum(), x, create_graph=plain)
    (expected,) = grad(f(clean).sum(), clean, create_graph=plain)
    gx, expected = np.array(gx.tolist()), np.array(expected.tolist())
    assert (gx[at] != 0).all()
    np.testing.assert_array_equal(gx[~at], expected[~at])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_in_nan_out(name, dtype, plain):
    _check(name, dtype, "cpu", plain)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_on_a_gpu(emulator, name):
    for dtype in ("float16", "float32"):
        _check(name, dtype, "cuda", plain=False)


def test_a_large_tensor_hides_nothing():
    # Beyond 1,024 elements zeros are put in by bits, not by a choice.
    x = gl.zeros(5000)
    x[::7] = NAN
    x.requires_grad_()
    for f in (F.relu, F.hardtanh, F.hardshrink, lambda x: x.clamp(0, 1)):
        y = f(x)
        assert bool(gl.isnan(y[::7]).all())
        (gx,) = grad(y, x, gl.full_like(y, NAN))
        assert bool(gl.isnan(gx[::7]).all())
