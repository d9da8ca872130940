"""`gradlab.distributions` against ``torch.distributions``: densities, moments, divergences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab import distributions as ours

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.distributions")


def close(y: Any, z: Any, rtol: float = 1e-5) -> None:
    x, z = y.numpy(force=True), z.detach().numpy()
    assert (x.shape, x.dtype) == (z.shape, z.dtype)
    np.testing.assert_allclose(x, z, rtol=rtol, atol=rtol)


def random(*shape: int, low: float = 0.1, high: float = 0.9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


A, B = random(3, 1, low=-2, high=2), random(4, low=0.5, high=2, seed=1)
P = random(2, 5, seed=2)
LOGITS = random(2, 5, low=-3, high=3, seed=3)
COUNTS = np.random.default_rng(4).multinomial(7, [0.2] * 5, (6, 2)).astype(np.float32)

# (class, its arguments, values in its support)
CASES: list[tuple[str, dict[str, Any], np.ndarray]] = [
    ("Normal", {"loc": A, "scale": B}, random(6, 3, 4, low=-3, high=3)),
    ("Normal", {"loc": 1.0, "scale": 2.0}, random(6)),
    ("Uniform", {"low": A, "high": A + B}, A + B * random(6, 3, 4)),
    ("Bernoulli", {"probs": P}, (random(6, 2, 5) > 0.5).astype(np.float32)),
    ("Bernoulli", {"logits": LOGITS}, (random(6, 2, 5) > 0.5).astype(np.float32)),
    ("Bernoulli", {"probs": np.float32([0, 1])}, np.float32([0, 1])),
    ("Categorical", {"probs": P}, np.random.default_rng(0).integers(0, 5, (6, 2))),
    ("Categorical", {"logits": LOGITS}, np.random.default_rng(0).integers(0, 5, (6, 2))),
    ("Multinomial", {"total_count": 7, "probs": P}, COUNTS),
    ("Multinomial", {"total_count": 7, "logits": LOGITS}, COUNTS),
]
EACH = pytest.mark.parametrize(
    ("name", "options", "values"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]
)


def pair(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    def made(module: Any, tensor: Any) -> Any:
        given = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return getattr(module, name)(**given)

    return made(ours, gl.tensor), made(theirs, torch.tensor)


@EACH
def test_densities_and_moments(name, options, values):
    d, e = pair(name, options)
    assert (d.batch_shape, d.event_shape) == (tuple(e.batch_shape), tuple(e.event_shape))
    assert d.has_rsample == e.has_rsample
    close(d.log_prob(gl.tensor(values)), e.log_prob(torch.tensor(values)))
    for each in ("mean", "variance", "stddev", "mode", "probs", "logits"):
        if name == "Multinomial" and each == "mode":
            continue  # PyTorch has none either
        if hasattr(e, each):
            close(getattr(d, each), getattr(e, each))
    close(d.entropy(), e.entropy(), 1e-4)
    close(d.perplexity(), e.perplexity(), 1e-4)
    wide = (3, *d.batch_shape) if d.batch_shape else (3,)
    assert d.expand(wide).sample((2,)).shape == tuple(e.expand(wide).sample((2,)).shape)


@EACH
def test_distribution_functions(name, options, values):
    d, e = pair(name, options)
    if d.has_enumerate_support:
        close(d.enumerate_support(), e.enumerate_support())
        close(d.enumerate_support(expand=False), e.enumerate_support(expand=False))
    if not d.has_rsample:
        return
    close(d.cdf(gl.tensor(values)), e.cdf(torch.tensor(values)))
    p = random(*values.shape)
    close(d.icdf(gl.tensor(p)), e.icdf(torch.tensor(p)))


@EACH
def test_gradients_of_log_prob(name, options, values):
    for key in options:
        if not isinstance(options[key], np.ndarray) or options[key].max() == 1:
            continue
        x, y = gl.tensor(options[key], requires_grad=True), torch.tensor(options[key])
        y.requires_grad_()
        given = {k: v for k, v in options.items() if k != key}
        one = {k: gl.tensor(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        other = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        getattr(ours, name)(**{key: x}, **one).log_prob(gl.tensor(values)).sum().backward()
        getattr(theirs, name)(**{key: y}, **other).log_prob(torch.tensor(values)).sum().backward()
        close(x.grad, y.grad, 1e-4)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (("Normal", {"loc": A, "scale": B}), ("Normal", {"loc": B, "scale": B + 1})),
        (("Uniform", {"low": A, "high": A + B}), ("Uniform", {"low": A - 1, "high": A + 2 * B})),
        (("Uniform", {"low": A, "high": A + B}), ("Uniform", {"low": A + 1, "high": A + 2 + B})),
        (("Uniform", {"low": A, "high": A + B}), ("Normal", {"loc": A, "scale": B})),
        (("Normal", {"loc": A, "scale": B}), ("Uniform", {"low": A, "high": A + B})),
        (("Bernoulli", {"probs": P}), ("Bernoulli", {"logits": LOGITS})),
        # PyTorch's answer for p of 0 and 1 is right for equal shapes only.
        (
            ("Bernoulli", {"probs": np.float32([[0, 1], [1, 0]])}),
            ("Bernoulli", {"probs": P[:, :2]}),
        ),
        (("Bernoulli", {"probs": P[0, :2]}), ("Bernoulli", {"probs": np.float32([0, 1])})),
        (("Categorical", {"probs": P}), ("Categorical", {"logits": LOGITS})),
        (("Categorical", {"probs": np.float32([0, 1])}), ("Categorical", {"probs": P[:, :2]})),
        (("Categorical", {"probs": P[:, :2]}), ("Categorical", {"probs": np.float32([0, 1])})),
    ],
)
def test_divergences(p, q):
    (p1, p2), (q1, q2) = pair(*p), pair(*q)
    close(ours.kl_divergence(p1, q1), theirs.kl_divergence(p2, q2), 2e-5)


def test_special_functions():
    x = random(100, low=0.1, high=20)
    for name in ("lgamma", "digamma"):
        close(getattr(gl, name)(gl.tensor(x)), getattr(torch, name)(torch.tensor(x)))
    for n in (0, 1, 2, 3):
        close(gl.polygamma(n, gl.tensor(x)), torch.polygamma(n, torch.tensor(x)), 1e-4)
    p = np.linspace(-1, 1, 101, dtype=np.float32)
    close(gl.erfinv(gl.tensor(p)), torch.erfinv(torch.tensor(p)))


@pytest.mark.parametrize(
    "make",
    [
        lambda module, tensor: module.Normal(0.0, -1.0),
        lambda module, tensor: module.Bernoulli(1.5),
        lambda module, tensor: module.Uniform(1.0, 1.0),
        lambda module, tensor: module.Categorical(tensor([-1.0, 2.0])),
        lambda module, tensor: module.Bernoulli(0.5).log_prob(tensor(0.5)),
        lambda module, tensor: module.Uniform(0.0, 1.0).log_prob(tensor(2.0)),
    ],
)
def test_both_refuse_the_same(make):
    for module, tensor in ((ours, gl.tensor), (theirs, torch.tensor)):
        with pytest.raises(ValueError, match=r"[Ee]xpected|is not defined"):
            make(module, tensor)
