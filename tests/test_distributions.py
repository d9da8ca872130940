"""`gradlab.distributions`: draws by their statistics, shapes, gradients, messages, CUDA."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import gradlab as gl
from gradlab.backends.gate import counters
from gradlab.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Multinomial,
    Normal,
    Uniform,
    constraints,
    kl_divergence,
    register_kl,
)
from gradlab.errors import DTypeError, GradlabError, NotSupportedError, OptionError, ShapeError
from gradlab.ops.special import binomial_quantile
from gradlab.testing import assert_close, gradcheck


@pytest.fixture(autouse=True)
def seeded():
    gl.manual_seed(0)


P = [0.1, 0.2, 0.0, 0.7]


def examples(device="cpu", dtype="float32"):
    def tensor(values):
        return gl.tensor(values, device=device, dtype=dtype)

    return [
        Normal(tensor([0.0, 5.0]), tensor([1.0, 0.1])),
        Uniform(tensor([0.0, -1.0]), tensor([1.0, 4.0])),
        Bernoulli(tensor([0.2, 0.9])),
        Bernoulli(logits=tensor([-1.0, 2.0])),
        Categorical(tensor([P, P[::-1]])),
        Categorical(logits=tensor([[0.0, 1.0], [2.0, 0.0]])),
        Multinomial(5, tensor([P, P[::-1]])),
        Multinomial(1000, logits=tensor([[0.0, 1.0], [2.0, 0.0]])),
    ]


NAMES = [f"{type(each).__name__}-{i}" for i, each in enumerate(examples())]
EACH = pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES)


# -------------------------------------------------------------------------------------- drawing


@EACH
def test_moments_of_draws(i):
    d = examples()[i]
    x = d.sample((20_000,)).numpy()
    assert x.shape == (20_000, *d.batch_shape, *d.event_shape)
    if isinstance(d, Categorical):
        x = np.eye(d.probs.shape[-1])[x]
        mean, variance = d.probs.numpy(), (d.probs * (1 - d.probs)).numpy()
    else:
        mean, variance = d.mean.numpy(), d.variance.numpy()
    # Five standard errors: a mistake in the formula shows, chance does not.
    error = 5 * np.sqrt(variance / len(x)) + 1e-6
    assert (np.abs(x.mean(0, np.float64) - mean) < error).all()
    np.testing.assert_allclose(x.astype(np.float64).var(0), variance, rtol=0.08, atol=1e-6)


@pytest.mark.parametrize(
    ("d", "cdf"),
    [
        (Normal(2.0, 3.0), stats.norm(2, 3).cdf),
        (Uniform(-1.0, 4.0), stats.uniform(-1, 5).cdf),
    ],
)
def test_the_shape_of_continuous_draws(d, cdf):
    assert stats.kstest(d.sample((20_000,)).numpy(), cdf).pvalue > 0.01


@pytest.mark.parametrize("total", [1, 7, 100, 10_000])
def test_counts_are_binomial(total):
    """Chi-square over the counts of one class, on both ways of drawing them."""
    p = 0.3
    x = Multinomial(total, gl.tensor([p, 1 - p])).sample((20_000,)).numpy()
    assert (x.sum(-1) == total).all()
    assert (x >= 0).all()
    edges = stats.binom.ppf(np.linspace(0, 1, 12)[1:-1], total, p)
    bins = np.unique([-1, *edges, total])
    expected = np.diff(stats.binom.cdf(bins, total, p)) * len(x)
    found, _ = np.histogram(x[:, 0], bins + 0.5)
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 0.01


def test_classes_of_multinomial_draws_are_dependent_as_they_should_be():
    p = np.array([0.2, 0.3, 0.5])
    for total in (20, 2000):
        x = Multinomial(total, gl.tensor(p)).sample((20_000,)).numpy()
        expected = total * (np.diag(p) - np.outer(p, p))
        np.testing.assert_allclose(np.cov(x.T), expected, atol=0.03 * total * 0.25)


def test_impossible_classes_are_never_drawn():
    p = gl.tensor([0.0, 1e-3, 0.0, 1.0, 0.0])
    assert set(Categorical(p).sample((50_000,)).tolist()) == {1, 3}
    for total in (3, 5000):
        counts = Multinomial(total, p).sample((1000,))
        assert counts.sum(0)[[0, 2, 4]].tolist() == [0.0, 0.0, 0.0]
    assert Multinomial(5000, gl.tensor([0.0, 0.0, 1.0])).sample().tolist() == [0, 0, 5000]


def test_counts_of_no_draws():
    assert Multinomial(0, gl.ones(3)).sample((2,)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("total", [0, 1, 7, 100, 10_000])
@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.999, 1.0])
def test_binomial_quantiles(total, p):
    u = np.random.default_rng(0).random(200)
    n = np.full(200, float(total))
    found = binomial_quantile(gl.tensor(u), gl.tensor(n), gl.tensor(np.full(200, p)), total)
    np.testing.assert_array_equal(found.numpy(), np.maximum(stats.binom.ppf(u, total, p), 0))


def test_the_cells_of_the_course_notes():
    from gradlab.distributions.multinomial import Multinomial

    fair = gl.tensor([0.5, 0.5])
    assert Multinomial(100, fair).sample().sum().item() == 100
    counts = Multinomial(10_000, fair).sample()
    assert abs((counts / 10_000)[0].item() - 0.5) < 0.03
    tosses = Multinomial(1, fair).sample((10_000,))
    sums = tosses.cumsum(dim=0)
    estimates = sums / sums.sum(dim=1, keepdims=True)
    assert estimates.shape == (10_000, 2)
    assert abs(estimates[-1, 0].item() - 0.5) < 0.03


@EACH
def test_one_seed_gives_one_draw(i):
    draws = []
    for _ in range(2):
        gl.manual_seed(3)
        draws.append(examples()[i].sample((4,)))
    assert_close(draws[0], draws[1], 0, 0)
    assert not np.array_equal(draws[1].numpy(), examples()[i].sample((4,)).numpy()) or i == 3


@EACH
def test_draws_record_nothing_and_keep_the_dtype(i):
    for dtype in ("float32", "float64"):
        d = examples(dtype=dtype)[i]
        x = d.sample()
        assert not x.requires_grad
        assert x.dtype == (gl.int64 if isinstance(d, Categorical) else getattr(gl, dtype))
        assert d.log_prob(x).dtype == getattr(gl, dtype)
        assert d.entropy().dtype == getattr(gl, dtype)


# --------------------------------------------------------------------------------------- shapes


@EACH
def test_shapes(i):
    d = examples()[i]
    assert d.batch_shape == (2,)
    assert d.event_shape == ((4,) if i == 6 else (2,) if i == 7 else ())
    for sample_shape in ((), (3,), (4, 3), (0,)):
        x = d.sample(sample_shape)
        assert x.shape == (*sample_shape, *d.batch_shape, *d.event_shape)
        assert d.log_prob(x).shape == (*sample_shape, *d.batch_shape)
    assert d.entropy().shape == d.mean.shape[:1] == (2,)
    assert_close(d.perplexity(), d.entropy().exp(), 0, 0)
    assert_close(d.stddev, d.variance.sqrt(), 1e-6, equal_nan=True)


@EACH
def test_expand(i):
    d = examples()[i]
    wide = d.expand((3, 2))
    assert type(wide) is type(d)
    assert wide.batch_shape == (3, 2)
    assert wide.event_shape == d.event_shape
    x = wide.sample((5,))
    assert x.shape == (5, 3, 2, *d.event_shape)
    assert_close(wide.log_prob(x), d.log_prob(x), 1e-6)
    assert d.batch_shape == (2,)


@EACH
def test_copies(i):
    d = examples()[i]
    x = d.sample()
    for made in (copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert_close(made.log_prob(x), d.log_prob(x), 0, 0)


def test_parameters_broadcast_and_may_be_numbers_arrays_or_tensors():
    assert Normal(0, gl.ones(3, 1)).batch_shape == (3, 1)
    assert Normal(gl.zeros(2), gl.ones(3, 1)).batch_shape == (3, 2)
    assert Normal(0, 1).loc.dtype == gl.float32
    assert Normal(0, gl.ones(2, dtype="float64")).loc.dtype == gl.float64
    assert Normal(np.zeros(2), 1.0).sample().dtype == gl.float64
    assert Categorical([1.0, 1.0]).probs.tolist() == [0.5, 0.5]
    assert Bernoulli(gl.tensor(1)).probs.dtype == gl.float32


def test_values_broadcast():
    d = Categorical(gl.tensor([[0.5, 0.5], [0.25, 0.75]]))
    assert_close(d.log_prob(1).exp(), np.float32([0.5, 0.75]), 1e-6)
    assert d.log_prob(gl.tensor([[0], [1], [1]])).shape == (3, 2)
    assert Normal(gl.zeros(3, 1), 1.0).log_prob(gl.zeros(4)).shape == (3, 4)


# ---------------------------------------------------------------- probabilities and divergences


def test_probabilities_sum_to_one():
    d = Categorical(gl.tensor([P, P[::-1]], dtype="float64"))
    classes = d.enumerate_support()
    assert classes.shape == (4, 2)
    assert_close(d.log_prob(classes).exp().sum(0), np.ones(2), 1e-9)
    b = Bernoulli(gl.tensor([0.2, 0.9], dtype="float64"))
    assert_close(b.log_prob(b.enumerate_support()).exp().sum(0), np.ones(2), 1e-12)
    m = Multinomial(3, gl.tensor([0.2, 0.3, 0.5], dtype="float64"))
    counts = [(i, j, 3 - i - j) for i in range(4) for j in range(4 - i)]
    log_probs = m.log_prob(gl.tensor(counts, dtype="float64"))
    assert_close(log_probs.exp().sum(), np.array(1.0), 1e-12)
    assert_close(-(log_probs.exp() * log_probs).sum(), m.entropy(), 1e-9)


def test_log_prob_of_what_cannot_be():
    m = Multinomial(2, logits=gl.tensor([0.0, -math.inf]))
    assert_close(m.log_prob(gl.tensor([[2.0, 0.0], [1.0, 1.0]])), np.float32([0, -np.inf]), 0, 1e-6)
    assert Uniform(0.0, 1.0).log_prob(1.0).item() == -math.inf
    assert Uniform(0.0, 1.0, validate_args=False).log_prob(3.0).item() == -math.inf
    assert Categorical(logits=gl.tensor([0.0, -math.inf])).log_prob(1).item() == -math.inf
    assert Categorical(logits=gl.tensor([0.0, -math.inf])).entropy().item() == 0.0


def test_icdf_is_the_inverse_of_cdf():
    p = gl.linspace(0.01, 0.99, 9, dtype="float64")
    for d in (Normal(gl.tensor(2.0, dtype="float64"), 3.0),
              Uniform(gl.tensor(-1.0, dtype="float64"), 4.0)):  # fmt: skip
        assert_close(d.cdf(d.icdf(p)), p, 1e-9)


def test_modes():
    assert Normal(2.0, 1.0).mode.item() == 2
    assert Bernoulli(gl.tensor([0.2, 0.9])).mode.tolist() == [0, 1]
    assert math.isnan(Bernoulli(0.5).mode.item())
    assert math.isnan(Uniform(0.0, 1.0).mode.item())
    assert Categorical(gl.tensor(P)).mode.item() == 3


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Normal(0.0, 1.0), Normal(0.5, 2.0)),
        (Uniform(0.0, 1.0), Uniform(-1.0, 2.0)),
        (Uniform(0.0, 1.0), Normal(0.0, 1.0)),
        (Bernoulli(0.3), Bernoulli(0.6)),
        (Categorical(gl.tensor([0.2, 0.8])), Categorical(gl.tensor([0.5, 0.5]))),
    ],
)
def test_divergences_are_the_expected_log_ratios(p, q):
    x = p.sample((50_000,))
    ratio = (p.log_prob(x) - q.log_prob(x)).numpy()
    error = 5 * ratio.std() / math.sqrt(len(ratio)) + 1e-5
    assert abs(ratio.mean() - kl_divergence(p, q).item()) < error
    assert abs(kl_divergence(p, p).item()) < 1e-6


def test_divergences_that_are_infinite():
    assert kl_divergence(Uniform(0.0, 2.0), Uniform(0.0, 1.0)).item() == math.inf
    assert kl_divergence(Normal(0.0, 1.0), Uniform(0.0, 1.0)).item() == math.inf
    impossible = Categorical(gl.tensor([0.0, 1.0]))
    assert kl_divergence(Categorical(gl.tensor([0.5, 0.5])), impossible).item() == math.inf
    assert np.isfinite(kl_divergence(impossible, Categorical(gl.tensor([0.5, 0.5]))).item())


def test_a_divergence_of_a_subclass_is_the_closest():
    class Narrow(Normal):
        pass

    assert kl_divergence(Narrow(0.0, 1.0), Normal(1.0, 1.0)).item() == 0.5

    @register_kl(Narrow, Normal)
    def divergence(p, q):
        return gl.tensor(7.0)

    assert kl_divergence(Narrow(0.0, 1.0), Normal(1.0, 1.0)).item() == 7.0
    assert kl_divergence(Normal(0.0, 1.0), Narrow(1.0, 1.0)).item() == 0.5


# ------------------------------------------------------------------------------------- gradients


def test_gradients_through_rsample():
    for make in (Normal, Uniform):
        a = gl.tensor([0.0, 1.0], requires_grad=True)
        b = gl.tensor([2.0, 3.0], requires_grad=True)
        x = make(a, b).rsample((1000,))
        x.mean(0).sum().backward()
        expected = [1.0, 0.0] if make is Normal else [0.5, 0.5]
        assert_close(a.grad, np.full(2, expected[0], np.float32), 0, 0.1)
        assert_close(b.grad, np.full(2, expected[1], np.float32), 0, 0.1)


def test_gradients_of_log_prob():
    x, y = np.array([0.3, 0.6]), np.array([0.7, 1.4])

    def log_probs(x, y):
        yield Normal(x, y).log_prob(0.5)
        yield Normal(0.0, 1.0).log_prob(x)
        yield Uniform(x - 1, x + y).log_prob(0.5)
        yield Bernoulli(x).log_prob(gl.tensor([0.0, 1.0]))
        yield Bernoulli(logits=y).entropy()
        yield Categorical(x).log_prob(gl.tensor([0, 1, 1]))
        yield Categorical(logits=y).entropy()
        yield Multinomial(4, x).log_prob(gl.tensor([1.0, 3.0]))
        yield Multinomial(4, logits=y).entropy()
        yield kl_divergence(Normal(x, y), Normal(y, x))
        yield kl_divergence(Bernoulli(x), Bernoulli(logits=y))
        yield kl_divergence(Categorical(x), Categorical(logits=y))
        yield Normal(x, y).cdf(0.2)
        yield Normal(x, y).icdf(0.2)

    assert gradcheck(lambda x, y: tuple(log_probs(x, y)), [x, y], order=2, rtol=1e-5)


# -------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Normal(0.0, -1.0), OptionError,
         "Normal: expected scale finite and greater than 0, got -1.0"),
        (lambda: Normal(0.0, gl.tensor([1.0, math.nan])), OptionError,
         "Normal: expected scale finite and greater than 0, got nan at [1] of shape (2,)"),
        (lambda: Normal(math.nan, 1.0), OptionError,
         "Normal: expected loc a finite number, got nan"),
        (lambda: Uniform(2.0, 1.0), OptionError, "Uniform: expected low < high, got 2.0 and 1.0"),
        (lambda: Uniform(0.0, math.inf), OptionError,
         "Uniform: expected high a finite number, got inf"),
        (lambda: Bernoulli(1.5), OptionError, "Bernoulli: expected probs from 0 to 1, got 1.5"),
        (lambda: Bernoulli(), OptionError,
         "Bernoulli: expected one of probs and logits, got neither"),
        (lambda: Categorical(gl.ones(2), gl.ones(2)), OptionError,
         "Categorical: expected one of probs and logits, got both"),
        (lambda: Categorical(gl.tensor([[0.5, 0.5], [-1.0, 1.0]])), OptionError,
         "Categorical: expected probs 0 or more, finite and not all 0 along the last axis, got "
         "[-1.0, 1.0] at [1] of shape (2, 2)"),
        (lambda: Categorical(gl.zeros(2)), OptionError,
         "Categorical: expected probs 0 or more, finite and not all 0 along the last axis, got "
         "[0.0, 0.0]"),
        (lambda: Categorical(0.5), ShapeError,
         "Categorical: expected one value per class along the last axis, got shape ()"),
        (lambda: Multinomial(2.5, gl.ones(2)), OptionError,
         "Multinomial: expected an integer total_count of 0 or more, got 2.5"),
        (lambda: Multinomial(-1, gl.ones(2)), OptionError,
         "Multinomial: expected an integer total_count of 0 or more, got -1"),
        (lambda: Bernoulli(0.5).log_prob(0.5), OptionError,
         "Bernoulli.log_prob: expected values 0 or 1, got 0.5"),
        (lambda: Uniform(0.0, 1.0).log_prob(gl.tensor([0.5, 2.0])), OptionError,
         "Uniform.log_prob: expected values from 0.0 to 1.0, got 2.0 at [1] of shape (2,)"),
        (lambda: Categorical(gl.ones(3)).log_prob(3), OptionError,
         "Categorical.log_prob: expected values an integer from 0 to 2, got 3"),
        (lambda: Multinomial(3, gl.ones(2)).log_prob(gl.tensor([1.0, 1.0])), OptionError,
         "Multinomial.log_prob: expected values vectors of counts along the last axis that sum to "
         "3, got [1.0, 1.0]"),
        (lambda: Multinomial(3, gl.ones(2)).log_prob(gl.tensor([1.0, 1.0, 1.0])), ShapeError,
         "Multinomial.log_prob: expected a value whose last axes broadcast with (2,), got shape "
         "(3,)"),
        (lambda: Normal(gl.zeros(2), 1.0).log_prob(gl.zeros(3)), ShapeError,
         "Normal.log_prob: expected a value whose last axes broadcast with (2,), got shape (3,)"),
        (lambda: Normal(0.0, 1.0).icdf(1.5), OptionError,
         "Normal.icdf: expected probabilities from 0 to 1, got 1.5"),
        (lambda: Normal(0.0, 1.0).sample(5), OptionError,
         "Normal.sample: expected sample_shape a tuple of sizes, got 5; write (5,)"),
        (lambda: Bernoulli(0.3).rsample(), NotSupportedError,
         "Bernoulli.rsample: expected a distribution that has it, got one that does not; draw "
         "with sample()"),
        (lambda: Categorical(gl.ones(2)).cdf(1), NotSupportedError,
         "Categorical.cdf: expected a distribution that has it, got one that does not"),
        (lambda: kl_divergence(Normal(0.0, 1.0), Bernoulli(0.5)), NotSupportedError,
         "kl_divergence: expected two distributions whose divergence is known, got Normal and "
         "Bernoulli; give it with @register_kl"),
        (lambda: kl_divergence(Normal(gl.zeros(3), 1.0), Normal(gl.zeros(2), 1.0)), ShapeError,
         "kl_divergence: expected batch shapes that broadcast, got (3,) and (2,)"),
        (lambda: kl_divergence(Categorical(gl.ones(3)), Categorical(gl.ones(1))), ShapeError,
         "kl_divergence: expected equally many classes, got 3 and 1"),
        (lambda: Normal(gl.zeros(3), gl.ones(2)), ShapeError,
         "Normal: expected parameters that broadcast, got shape (3,) and shape (2,)"),
        (lambda: Normal(1j, 1.0), DTypeError,
         "Normal: expected real parameters, got complex64"),
        (lambda: Normal(0.0, 1.0).expand(-1), ShapeError,
         "Normal.expand: expected sizes of 0 or more, got (-1,)"),
        (lambda: Distribution.set_default_validate_args("no"), OptionError,
         "set_default_validate_args: expected True or False, got 'no'"),
    ],
)  # fmt: skip
def test_messages(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text
    assert isinstance(caught.value, GradlabError)
    assert isinstance(caught.value, TypeError | ValueError | NotImplementedError)


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        (constraints.real, [0.0, -math.inf], [math.nan]),
        (constraints.finite, [0.0, -3.0], [math.inf, math.nan]),
        (constraints.positive, [1e-30, math.inf], [0.0, -1.0, math.nan]),
        (constraints.nonnegative, [0.0, 2.0], [-1e-30, math.nan]),
        (constraints.unit_interval, [0.0, 1.0], [-0.1, 1.1, math.nan]),
        (constraints.boolean, [0.0, 1.0], [0.5, math.nan]),
        (constraints.integer_interval(1, 3), [1.0, 3.0], [0.0, 2.5, 4.0, math.nan]),
        (constraints.simplex, [[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.6], [1.5, -0.5]]),
        (constraints.multinomial(3), [[1.0, 2.0]], [[1.0, 1.0], [1.5, 1.5], [4.0, -1.0]]),
    ],
    ids=repr,
)
def test_constraints(constraint, inside, outside):
    good, bad = constraint.check(gl.tensor(inside)), constraint.check(gl.tensor(outside))
    assert good.tolist() == [True] * len(inside)
    assert bad.tolist() == [False] * len(outside)


def test_validation_can_be_switched_off():
    assert Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    Distribution.set_default_validate_args(False)
    try:
        assert Normal(0.0, -1.0).scale.item() == -1
        with pytest.raises(OptionError):
            Normal(0.0, -1.0, validate_args=True)
    finally:
        Distribution.set_default_validate_args(True)


def test_repr():
    assert repr(Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
    assert repr(Normal(gl.zeros(2), 1.0)) == "Normal(loc: (2,), scale: (2,))"
    assert repr(Multinomial(3, gl.ones(2))) == "Multinomial(total_count: 3, probs: (2,))"
    assert repr(Categorical(logits=gl.ones(2))) == "Categorical(logits: (2,))"
    assert repr(Uniform(0.0, 1.0).support) == "constraint(from 0.0 to 1.0)"


def test_attributes_that_are_not_there():
    for d in (Bernoulli(0.5), Categorical(gl.ones(2))):
        with pytest.raises(AttributeError, match="has no attribute 'loc'"):
            _ = d.loc


def test_the_package_reads_well_and_is_imported_when_used():
    assert dir(gl.distributions) == [
        "Bernoulli", "Categorical", "Distribution", "Multinomial", "Normal", "Uniform",
        "constraints", "kl_divergence", "register_kl",
    ]  # fmt: skip
    code = (
        "import sys, gradlab; assert 'gradlab.distributions' not in sys.modules; "
        "gradlab.distributions.Normal; assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------ CUDA


@EACH
def test_draws_on_cuda_are_those_of_the_cpu_and_wait_for_nothing(fake_cuda, i):
    gl.manual_seed(5)
    expected = examples()[i].sample((50,))
    gl.manual_seed(5)
    d = examples("cuda")[i]
    before = counters.synchronizations, fake_cuda.waits, fake_cuda.copies_to_host
    x = d.sample((50,))
    log_prob, entropy = d.log_prob(x), d.entropy()
    type(d)(*([3] if isinstance(d, Multinomial) else []), gl.zeros(2, device="cuda"),
            *([gl.zeros(2, device="cuda")] if d.has_rsample else []))  # fmt: skip
    after = counters.synchronizations, fake_cuda.waits, fake_cuda.copies_to_host
    assert after == before
    assert x.device.type == log_prob.device.type == entropy.device.type == "cuda"
    assert_close(x, expected, 1e-5, 1e-5, check_device=False)
    assert_close(log_prob, examples()[i].log_prob(expected), 1e-4, 1e-4, check_device=False)
    assert_close(entropy, examples()[i].entropy(), 1e-4, 1e-5, check_device=False)


def test_validation_on_cuda_is_for_those_who_ask(fake_cuda):
    scale = gl.tensor(-1.0, device="cuda")
    assert Normal(0.0, scale).scale is not None
    with pytest.raises(
        OptionError, match="Normal: expected scale finite and greater than 0, got -1"
    ):
        Normal(0.0, scale, validate_args=True)
    assert Normal(0.0, gl.tensor(1.0, device="cuda")).icdf(0.5).device.type == "cuda"
    assert Categorical(gl.ones(2, device="cuda")).log_prob(1).device.type == "cuda"


def test_bounds_on_cuda_are_not_read_for_a_density(fake_cuda):
    d = Uniform(gl.tensor(0.0, device="cuda"), 1.0)
    before = fake_cuda.copies_to_host
    density = d.log_prob(0.5)
    assert fake_cuda.copies_to_host == before
    assert density.item() == 0
