"""Draws by weights: the right shares, no class of weight 0, and nothing from no distribution."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

import gradlab as gl
from gradlab.data import WeightedRandomSampler
from gradlab.distributions import Bernoulli, Categorical, Multinomial, Normal, Uniform
from gradlab.errors import DTypeError, GradlabError, OptionError, ShapeError
from gradlab.nn import init
from gradlab.ops.random import Generator
from gradlab.ops.sampling import choose
from refusals import refuses

NAN, INF = math.nan, math.inf


def even(counts, shares):
    counts, shares = np.asarray(counts), np.asarray(shares, np.float64)
    assert (counts[shares == 0] == 0).all()
    kept = shares > 0
    if kept.sum() == 1:
        return True
    expected = shares[kept] / shares.sum() * counts.sum()
    return stats.chisquare(counts[kept], expected).pvalue > 1e-3


WEIGHTS = [0.0, 1.0, 0.0, 3.0, 0.5, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_shares_with_replacement(dtype):
    weights = (2 * gl.tensor(WEIGHTS)).astype(dtype)
    drawn = gl.multinomial(weights, 40_000, replacement=True, generator=Generator(1))
    assert drawn.dtype == gl.int64
    assert even(np.bincount(drawn.numpy(), minlength=6), WEIGHTS)


def test_shares_of_the_first_draw_without_replacement():
    weights = gl.tensor(WEIGHTS).expand(20_000, 6)
    drawn = gl.multinomial(weights, 3, generator=Generator(2)).numpy()
    assert even(np.bincount(drawn[:, 0], minlength=6), WEIGHTS)
    assert (np.sort(drawn, axis=1) == [1, 3, 4]).all()


def test_rows_have_their_own_shares():
    weights = gl.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [5.0, 1.0, 1.0]])
    drawn = gl.multinomial(weights, 30_000, replacement=True, generator=Generator(3)).numpy()
    for row, shares in zip(drawn, weights.numpy(), strict=True):
        assert even(np.bincount(row, minlength=3), shares)


def test_one_mechanism_for_all():
    weights = np.array(WEIGHTS)
    u = gl.rand(500, dtype="float64", generator=Generator(4))
    expected = choose(gl.tensor(weights), u).tolist()
    wanted = gl.multinomial(gl.tensor(weights), 500, replacement=True, generator=Generator(4))
    assert wanted.tolist() == expected
    gl.manual_seed(4)
    assert Categorical(gl.tensor(weights)).sample((500,)).tolist() == expected
    sampler = WeightedRandomSampler(weights, 500, generator=Generator(4))
    seed = sampler.begin_epoch(0)
    same = gl.multinomial(gl.tensor(weights), 500, replacement=True, generator=Generator(seed))
    assert list(sampler) == same.tolist()


@pytest.mark.parametrize(
    "weights",
    [
        [0.0, 0.1, 0.2, 0.0],
        [0.0, 5e-324, 0.0],
        [0.0, 1e308, 1e308, 1e308, 0.0],
        [0.0, 1.0, 1e-300, 0.0, 0.0],
        [0.0] + [0.1] * 1000 + [0.0],
    ],
)
def test_no_class_of_weight_0_at_the_edges(weights):
    u = gl.tensor([0.0, 5e-324, 2.0**-53, 0.5, 1 - 2.0**-53], dtype=gl.float64)
    found = choose(gl.tensor(weights, dtype=gl.float64), u).numpy()
    assert (np.array(weights)[found] > 0).all()
    assert found[0] == 1
    assert (np.diff(found) >= 0).all()


def test_many_classes_of_small_weight_keep_their_share():
    # In float32 the sum stands still at 2²⁴, and in units of the largest weight they are nothing.
    weights = gl.ones(1 << 20, dtype=gl.float32) * 2.0**-44
    weights[0] = 2.0**-22
    drawn = gl.multinomial(weights, 4000, replacement=True, generator=Generator(5)).numpy()
    assert abs((drawn == 0).mean() - 0.8) < 0.03  # the others have 2²⁰ · 2⁻⁴⁴, a quarter of 2⁻²²
    assert drawn.max() > 1 << 19


def test_time_and_memory_do_not_grow_with_the_product():
    # One row of noise for each draw took 24 bytes times a hundred million, and seconds.
    weights = gl.rand(1000)
    start = time.process_time()
    gl.multinomial(weights, 100_000, replacement=True)
    assert time.process_time() - start < 1


def test_many_rows():
    weights = gl.rand(20_000, 5)
    start = time.process_time()
    drawn = gl.multinomial(weights, 2, replacement=True)
    assert time.process_time() - start < 1
    assert drawn.shape == (20_000, 2)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_same_numbers_on_a_gpu(emulator, replacement):
    weights = np.random.default_rng(0).random((3, 40)).astype(np.float32)
    weights[:, ::3] = 0
    on_cpu, on_gpu = (
        gl.multinomial(gl.tensor(weights, device=device), 20, replacement, generator=Generator(7))
        for device in ("cpu", "cuda")
    )
    assert on_cpu.tolist() == on_gpu.tolist()


def test_weights_of_no_distribution_on_a_gpu_stay_within_the_classes(fake_cuda):
    for row in ([-1.0, 2.0], [0.0, 0.0], [NAN, 1.0], [INF, 1.0]):
        drawn = gl.multinomial(gl.tensor(row, device="cuda"), 50, replacement=True)
        assert {0, 1} >= set(drawn.cpu().tolist())


def test_a_small_probability_of_float64():
    p = gl.full((1_000_000,), 1e-9, dtype=gl.float64)
    assert sum(gl.bernoulli(p, generator=Generator(i)).sum().item() for i in range(10)) == 0


def test_a_number_as_probability_is_a_float64():
    u = gl.rand(3, dtype="float64", generator=Generator(1)).numpy()
    for p, drawn in ((u[0], 0), (np.nextafter(u[0], 1), 1)):
        for dtype in ("float32", "float64", "int64"):
            x = gl.empty(3, dtype=dtype).bernoulli_(float(p), generator=Generator(1))
            assert x[0].item() == drawn


# ---------------------------------------------------------------------------------- refusals

ONES = [1.0, 1.0]
X = gl.zeros(3)


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [NAN, 1.0], [INF, 1.0], [0.0, 0.0], [-0.5, 0.0]])
@pytest.mark.parametrize("draws", [
    lambda w: gl.multinomial(w, 1),
    lambda w: gl.multinomial(w, 1, replacement=True),
    lambda w: gl.multinomial(gl.stack([gl.tensor(ONES), w]), 1),
    lambda w: w.multinomial(1),
    lambda w: gl.multinomial(w.astype("float16"), 1),
    lambda w: gl.multinomial(w.astype("bfloat16"), 1),
    lambda w: WeightedRandomSampler(w, 1),
    lambda w: WeightedRandomSampler(w, 1, replacement=False),
    lambda w: Categorical(w),
    lambda w: Multinomial(3, w),
])  # fmt: skip
def test_no_weights(draws, weights):
    with pytest.raises(OptionError):
        draws(gl.tensor(weights))


REFUSED = {
    "more than there are": lambda: gl.multinomial(gl.tensor([1.0, 0.0, 1.0]), 3),
    "in a row": lambda: gl.multinomial(gl.tensor([[1.0, 1.0], [1.0, 0.0]]), 2),
    "samples": lambda: WeightedRandomSampler([1.0, 0.0], 2, replacement=False),
    "no samples": lambda: gl.multinomial(gl.ones(3), 0),
    "half a sample": lambda: gl.multinomial(gl.ones(3), 1.5),
    "no classes": lambda: gl.multinomial(gl.ones(2, 0), 1),
    "a number": lambda: gl.multinomial(gl.tensor(1.0), 1),
    "complex weights": lambda: gl.multinomial(gl.ones(2, dtype="complex64"), 1),
    "bernoulli 2": lambda: gl.bernoulli(gl.tensor([0.5, 2.0])),
    "bernoulli -1": lambda: gl.bernoulli(-1.0),
    "bernoulli nan": lambda: gl.bernoulli(gl.tensor(NAN)),
    "bernoulli bfloat16": lambda: gl.bernoulli(gl.tensor([NAN, 0.5], dtype="bfloat16")),
    "bernoulli_ 2": lambda: X.bernoulli_(2),
    "bernoulli_ nan": lambda: X.bernoulli_(NAN),
    "bernoulli_ tensor": lambda: X.bernoulli_(gl.tensor([0.0, 1.0, 1.5])),
    "Bernoulli": lambda: Bernoulli(1.5),
    "normal -1": lambda: gl.normal(0.0, -1.0, (2,)),
    "normal nan": lambda: gl.normal(0.0, NAN, (2,)),
    "normal inf": lambda: gl.normal(0.0, INF, (2,)),
    "normal mean": lambda: gl.normal(NAN, 1.0, (2,)),
    "normal tensor": lambda: gl.normal(0.0, gl.tensor([1.0, -1.0])),
    "normal beyond the dtype": lambda: gl.normal(0.0, 1e39, (2,)),
    "normal of halves": lambda: gl.normal(gl.tensor([0.0, 7e4]), 1.0, dtype="float16"),
    "normal_ beyond the dtype": lambda: X.normal_(1e39),
    "normal_ -1": lambda: X.normal_(0, -1),
    "normal_ nan": lambda: X.normal_(0, NAN),
    "normal_ mean": lambda: X.normal_(INF),
    "Normal": lambda: Normal(0.0, -1.0),
    "Normal inf": lambda: Normal(0.0, INF),
    "Normal mean": lambda: Normal(INF, 1.0),
    "uniform": lambda: gl.uniform(1.0, 0.0, (2,)),
    "uniform nan": lambda: gl.uniform(0.0, NAN, (2,)),
    "uniform inf": lambda: gl.uniform(0.0, INF, (2,)),
    "uniform tensor": lambda: gl.uniform(gl.tensor([1.0, 0.0]), 0.5, (2,)),
    "uniform_": lambda: X.uniform_(1, 0),
    "uniform_ nan": lambda: X.uniform_(NAN, 1),
    "uniform_ inf": lambda: X.uniform_(-INF, 1),
    "uniform_ beyond the dtype": lambda: X.uniform_(0, 1e39),
    "uniform_ too far apart": lambda: X.uniform_(-3e38, 3e38),
    "uniform_ of halves": lambda: gl.zeros(2, dtype="float16").uniform_(0, 70000),
    "Uniform": lambda: Uniform(1.0, 0.0),
    "Uniform nan": lambda: Uniform(0.0, NAN),
    "Uniform too far apart": lambda: Uniform(-3e38, 3e38),
    "randint int8": lambda: gl.randint(0, 1000, (2,), dtype="int8"),
    "randint uint8": lambda: gl.randint(-1, 5, (2,), dtype="uint8"),
    "randint bool": lambda: gl.randint(0, 3, (2,), dtype="bool"),
    "randint float16": lambda: gl.randint(0, 5000, (2,), dtype="float16"),
    "randint int64": lambda: gl.randint(0, 2**63 + 1, (2,)),
    "randint 2.5": lambda: gl.randint(0, 2.5, (2,)),
    "randint nan": lambda: gl.randint(0, NAN, (2,)),
    "random_": lambda: gl.zeros(2, dtype="int8").random_(0, 300),
    "random_ below": lambda: gl.zeros(2, dtype="uint8").random_(-1, 3),
    "random_ inverted": lambda: X.random_(5, 2),
    "random_ of halves": lambda: gl.zeros(2, dtype="bfloat16").random_(1000),
    "randperm": lambda: gl.randperm(-1),
    "randperm 2.5": lambda: gl.randperm(2.5),
    "randperm inf": lambda: gl.randperm(INF),
    "randperm int8": lambda: gl.randperm(300, dtype="int8"),
    "randperm float16": lambda: gl.randperm(5000, dtype="float16"),
    "exponential_": lambda: X.exponential_(0),
    "exponential_ -1": lambda: X.exponential_(-1),
    "exponential_ nan": lambda: X.exponential_(NAN),
    "dropout": lambda: gl.dropout(X, NAN),
    "Dropout": lambda: gl.nn.Dropout(-0.1),
    "init.uniform_": lambda: init.uniform_(X, 0, INF),
    "init.uniform_ inverted": lambda: init.uniform_(X, 1, 0),
    "init.normal_": lambda: init.normal_(X, 0, INF),
    "init.normal_ mean": lambda: init.normal_(X, NAN),
    "init.trunc_normal_": lambda: init.trunc_normal_(X, 0, INF),
    "init.trunc_normal_ mean": lambda: init.trunc_normal_(X, NAN),
    "init.trunc_normal_ bounds": lambda: init.trunc_normal_(X, 0, 1, NAN, 2),
    "init.trunc_normal_ at infinity": lambda: init.trunc_normal_(X, 0, 1, INF, INF),
    "init.trunc_normal_ of halves": lambda: init.trunc_normal_(
        gl.zeros(2, dtype="float16"), 0, 1, 7e4, INF
    ),
    "init.xavier_uniform_": lambda: init.xavier_uniform_(gl.zeros(2, 2), NAN),
    "init.xavier_normal_": lambda: init.xavier_normal_(gl.zeros(2, 2), -1),
    "random_split": lambda: gl.data.random_split(range(4), [0.5, NAN]),
    "random_split -1": lambda: gl.data.random_split(range(4), [1.5, -0.5]),
    "seed 0.5": lambda: Generator(0.5),
    "seed nan": lambda: gl.manual_seed(NAN),
    "seed 2**64": lambda: gl.manual_seed(2**64),
    "calls": lambda: Generator().set_state({"seed": 1, "calls": -1}),
    "half a call": lambda: Generator().set_state({"seed": 1, "calls": 0.5}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(GradlabError) as caught:
        REFUSED[name]()
    assert "\n" not in str(caught.value)
    assert X.tolist() == [0, 0, 0]


@pytest.mark.parametrize("draw", [
    lambda: gl.rand(2, dtype="int64"),
    lambda: gl.randn(2, dtype="bool"),
    lambda: gl.rand_like(gl.zeros(2, dtype="int32")),
    lambda: gl.zeros(2, dtype="int32").uniform_(),
    lambda: gl.zeros(2, dtype="int64").normal_(),
    lambda: gl.zeros(2, dtype="int64").exponential_(),
    lambda: gl.normal(0, 1, (2,), dtype="int32"),
])  # fmt: skip
def test_real_numbers_in_integers(draw):
    with pytest.raises(DTypeError):
        draw()


def test_messages():
    with refuses(
        OptionError, "multinomial: expected finite weights of 0 or more, got -1.0 at [1, 0]"
    ):
        gl.multinomial(gl.tensor([ONES, [-1.0, 2.0]]), 1)
    with refuses(OptionError, "multinomial: expected a weight above 0, got only zeros in row [0]"):
        gl.multinomial(gl.zeros(2, 2), 1)
    with refuses(
        OptionError,
        "multinomial: expected at most 1 samples without replacement, one per class of weight "
        "above 0, got 2; draw with replacement",
    ):
        gl.multinomial(gl.tensor([0.0, 1.0]), 2)
    with refuses(ShapeError, "multinomial: expected one weight per class along the last axis"):
        gl.multinomial(gl.tensor(1.0), 1)
    with refuses(OptionError, "bernoulli: expected probabilities from 0 to 1, got 2.0 at [1]"):
        gl.bernoulli(gl.tensor([0.5, 2.0]))
    with refuses(
        OptionError,
        "uniform_: expected low <= high, finite and no further apart than float32 can tell, "
        "got 1 and 0",
    ):
        gl.zeros(2).uniform_(1, 0)
    with refuses(
        OptionError,
        "randint: expected integers that int8 holds exactly, from -128 to 127, got 0 to 999",
    ):
        gl.randint(0, 1000, (2,), dtype="int8")


# ------------------------------------------------------------------------- what is allowed


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_integers_of_a_dtype(fake_cuda, device):
    for dtype in ("int64", "uint64"):
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        drawn = gl.randint(low, high + 1, (500,), dtype=dtype, device=device).cpu().numpy()
        spread = drawn.astype(np.float64) / 2.0**64
        assert 0.9 < spread.max() - spread.min() < 1
    whole = gl.zeros(2000, dtype="uint8", device=device).random_().cpu().numpy()
    assert set(range(256)) == set(whole.tolist())
    signed = gl.zeros(2000, dtype="int8", device=device).random_(-128, 128).cpu().numpy()
    assert set(range(-128, 128)) == set(signed.tolist())


def test_uniforms_stay_below_their_upper_bound():
    for dtype in ("float32", "float16", "bfloat16"):
        x = gl.uniform(1000.0, 1001.0, (200_000,), dtype=dtype, generator=Generator(1))
        assert 1000 <= x.min().item() <= x.max().item() < 1001
        low, high = gl.tensor([1.0, -1.0], dtype=dtype), gl.tensor([2.0, 1.0], dtype=dtype)
        x = Uniform(low, high).sample((200_000,))
        assert bool(((x >= low) & (x < high)).all())
    assert gl.uniform(3.0, 3.0, (2,)).tolist() == [3, 3]


@pytest.mark.parametrize("bounds", [(-2, 2), (40, 50), (-50, -40), (-INF, INF), (1, INF)])
def test_truncated_normals_lie_within_their_bounds(bounds):
    x = init.trunc_normal_(gl.empty(2000, dtype=gl.float64), a=bounds[0], b=bounds[1]).numpy()
    assert (x >= bounds[0]).all()
    assert (x <= bounds[1]).all()
    assert stats.kstest(x, stats.truncnorm(*bounds).cdf).pvalue > 1e-4
