"""Halves of moderate size: what fits the dtype at the end does not overflow, or get lost, midway.

The referee is the same call in float64, on the values that the halves hold.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab import distributions, linalg
from gradlab.autograd import grad

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
LARGEST = 65504  # in float16; the functions are called with what fits both
LABELS = [0, 1, 2, 3]


def _draw(seed, low=100.0, high=400.0, shape=(4, 6)):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, shape) * np.where(rng.random(shape) < 0.5, -1, 1)


# Of two matrices with values from 100 to 400, whose squares float16 holds only up to 255.9.
FUNCTIONS = {
    "norm": lambda a, b: gl.norm(a),
    "vector_norm": lambda a, b: linalg.vector_norm(a, axis=1),
    "vector_norm, 3": lambda a, b: linalg.vector_norm(a, 3, axis=1),
    "matrix_norm": lambda a, b: linalg.matrix_norm(a),
    "matrix_norm, nuc": lambda a, b: linalg.matrix_norm(a, "nuc"),
    "cdist": gl.cdist,
    "cdist, 1": lambda a, b: gl.cdist(a, b, 1),
    "dist": gl.dist,
    "pairwise_distance": F.pairwise_distance,
    "normalize": lambda a, b: F.normalize(a),
    "normalize, long": lambda a, b: F.normalize(150 * a),  # the norm is beyond 65,504
    "cosine_similarity": F.cosine_similarity,
    "cosine_embedding_loss": lambda a, b: F.cosine_embedding_loss(
        a, b, gl.ones(4, dtype=a.dtype, device=a.device), reduction="none"
    ),
    "triplet_margin_loss": lambda a, b: F.triplet_margin_loss(a, b, a * 0.5),
    "std": lambda a, b: gl.std(a, 1),
    "var": lambda a, b: gl.var(a * 0.25, 1),
    "cov": lambda a, b: gl.cov(a * 0.125),
    "corrcoef": lambda a, b: gl.corrcoef(a),
    "mse_loss": lambda a, b: F.mse_loss(a * 0.5, b * 0.5),
    "huber_loss": lambda a, b: F.huber_loss(a, b, delta=100.0),
    "smooth_l1_loss": lambda a, b: F.smooth_l1_loss(a, b, beta=300.0),
    "gaussian_nll_loss": lambda a, b: F.gaussian_nll_loss(a, b, gl.abs(a) * 8, full=True),
    "gaussian_nll_loss, number": lambda a, b: F.gaussian_nll_loss(a, b, 300.0),
    "poisson_nll_loss": lambda a, b: F.poisson_nll_loss(gl.abs(a), gl.abs(b), log_input=False),
    "multi_margin_loss": lambda a, b: F.multi_margin_loss(
        a * 0.125, gl.tensor(LABELS, device=a.device), p=2
    ),
    "kl_divergence": lambda a, b: distributions.kl_divergence(
        distributions.Normal(a, 300.0), distributions.Normal(b, gl.abs(b))
    ),
    "layer_norm": lambda a, b: F.layer_norm(a, 6),
    "rms_norm": lambda a, b: F.rms_norm(a, 6),
    "batch_norm": lambda a, b: F.batch_norm(a, None, None, training=True),
    "hypot": gl.hypot,
    "atan2": gl.atan2,
    "atan": lambda a, b: gl.atan(a),
    "asinh": lambda a, b: gl.asinh(a),
    "acosh": lambda a, b: gl.acosh(gl.abs(a)),
    "log10": lambda a, b: gl.log10(gl.abs(a) * 128),
    "rsqrt": lambda a, b: gl.rsqrt(gl.abs(a)),
    "softsign": lambda a, b: F.softsign(a),
    "logsumexp": lambda a, b: gl.logsumexp(a * 8, 1),
    "addcmul": lambda a, b: gl.addcmul(a, a, b, value=0.1),
    "addcdiv": lambda a, b: gl.addcdiv(a, a * 128, b / 64, value=0.1),
    "lerp": lambda a, b: gl.lerp(a * 128, -a * 128, 0.25),
    "trapezoid": lambda a, b: gl.trapezoid(gl.abs(a) * 128, dx=0.01),
    "mean": lambda a, b: gl.mean(gl.abs(a) * 128),
    "prod": lambda a, b: gl.prod(gl.stack([a, b, gl.abs(a) / 1024 / 64, gl.abs(b) / 1024]), 0),
    "cross_entropy": lambda a, b: F.cross_entropy(a, gl.tensor(LABELS, device=a.device)),
}  # fmt: skip


def _results(name, a, b, dtype, device, plain):
    x, y = (gl.tensor(each, dtype=dtype, device=device, requires_grad=True) for each in (a, b))
    z = FUNCTIONS[name](x, y)
    start = np.random.default_rng(5).uniform(0.5, 1.5, z.shape).astype(np.float16)
    gradients = grad(
        z, [x, y], gl.tensor(start, dtype=z.dtype, device=device), create_graph=plain,
        allow_unused=True,
    )  # fmt: skip
    assert z.dtype == dtype
    return [np.array(each.tolist()) for each in (z, *gradients) if each is not None]


def _check(name, dtype, device, plain):
    a, b = (gl.tensor(_draw(seed), dtype=dtype).tolist() for seed in (0, 1))
    found = _results(name, a, b, dtype, device, plain)
    expected = _results(name, a, b, "float64", "cpu", plain)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        assert scale <= LARGEST
        # The arguments are rounded in each of the steps above that take place in the halves.
        floor = 4 * 2.0**-24 if dtype == "float16" else 0  # the spacing of the smallest float16
        np.testing.assert_allclose(one, other, rtol=6 * EPS[dtype],
                                   atol=4 * EPS[dtype] * scale + floor)  # fmt: skip


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_halves(name, dtype, plain):
    _check(name, dtype, "cpu", plain)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"matrix_norm, nuc"}))
def test_halves_on_a_gpu(emulator, name):
    _check(name, "float16", "cuda", plain=False)


@pytest.mark.parametrize("dtype", EPS)
def test_values_are_added_in_float32(dtype):
    count = 5000  # float16 holds integers up to 2,048, bfloat16 up to 256
    ones, places = gl.ones(count, dtype=dtype), gl.zeros(count, dtype="int64")
    x = gl.zeros(1, dtype=dtype)
    expected = gl.tensor([float(count)], dtype=dtype).tolist()
    assert gl.scatter_add(x, 0, places, ones).tolist() == expected
    assert gl.index_add(x, 0, places, ones).tolist() == expected
    assert x.clone().index_put_((places,), ones, accumulate=True).tolist() == expected
    assert x.clone().scatter_add_(0, places, ones).tolist() == expected
    table = gl.ones(1, 2, dtype=dtype, requires_grad=True)
    (gradient,) = grad(F.embedding(places, table).sum(), table)
    assert gradient.tolist() == [expected * 2]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", EPS)
def test_clipping_by_a_small_factor(emulator, dtype, device):
    p = gl.nn.Parameter(gl.zeros(4096, dtype=dtype, device=device))
    p.grad = gl.full((4096,), 6e4, dtype=dtype, device=device)
    g = p.grad.tolist()[0]
    total = gl.nn.utils.clip_grad_norm_([p], 1e-1)
    assert total.item() == pytest.approx(64 * g, rel=1e-6)
    assert p.grad.tolist()[0] == pytest.approx(0.1 / 64, rel=EPS[dtype])  # the factor: 2.6e-8


def test_bins_of_halves():
    x = gl.tensor(np.arange(2048) + 0.0, dtype="float16")
    assert gl.histc(x, bins=2048, min=0, max=2048).tolist() == [1.0] * 2048


def test_norms_near_the_largest_half():
    x = gl.tensor([3e4, -4e4], dtype="float16")
    assert linalg.vector_norm(x, math.inf).tolist() == gl.tensor(4e4, dtype="float16").tolist()
    assert linalg.vector_norm(x).tolist() == gl.tensor(5e4, dtype="float16").tolist()


@pytest.mark.parametrize("dtype", EPS)
def test_an_eps_below_what_float16_holds(dtype):
    x = gl.zeros(2, 3, dtype=dtype, requires_grad=True)
    assert F.normalize(x).tolist() == [[0.0] * 3] * 2
    assert F.cosine_similarity(x, gl.ones_like(x)).tolist() == [0.0] * 2
    (gx,) = grad(F.pairwise_distance(x, x.detach()).sum(), x)
    assert np.isfinite(gx.tolist()).all()
