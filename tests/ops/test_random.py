"""Random streams: the same numbers for the same seed, the right distributions, clear errors."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from scipy import stats

import gradlab as gl
from gradlab.errors import DTypeError, OptionError, ShapeError
from gradlab.ops.random import Generator


def test_bits_are_philox_4x64_10_keyed_by_seed_and_call() -> None:
    # NumPy's generator counts up before it draws: counter [0, 0, call, 0] yields block 1.
    reference = np.random.Philox(key=7, counter=[0, 0, 3, 0]).random_raw(9)
    assert Generator(7).bits(9, call=3).tolist() == reference.tolist()


def test_known_answers_do_not_change_between_versions() -> None:
    generator = Generator(0)
    assert gl.randint(1000, (5,), generator=generator).tolist() == KNOWN_INTEGERS
    assert gl.rand(3, generator=generator).tolist() == KNOWN_UNIFORMS


KNOWN_INTEGERS = [259, 458, 49, 556, 803]
KNOWN_UNIFORMS = [0.6919011473655701, 0.6436367034912109, 0.5463858842849731]


def test_manual_seed_repeats_everything() -> None:
    def draw() -> list[object]:
        gl.manual_seed(3)
        drawn = (
            gl.rand(3),
            gl.randn(2, 2),
            gl.randint(9, (4,)),
            gl.randperm(6),
            gl.normal(1, 2, (2,)),
        )
        return [x.tolist() for x in drawn]

    assert draw() == draw()


def test_calls_differ_and_do_not_depend_on_sizes_before() -> None:
    a, b = Generator(1), Generator(1)
    first = gl.rand(4, generator=a)
    gl.rand(1000, generator=b)
    assert not bool((gl.rand(4, generator=a) == first).any())
    b.set_state({"seed": 1, "calls": 1})
    c = Generator(1).set_state({"seed": 1, "calls": 1})
    assert gl.rand(4, generator=b).tolist() == gl.rand(4, generator=c).tolist()


def test_state_is_two_integers_and_goes_through_json() -> None:
    generator = Generator(5)
    gl.rand(3, generator=generator)
    state = json.loads(json.dumps(generator.get_state()))
    expected = gl.randn(4, generator=generator).tolist()
    assert gl.randn(4, generator=Generator().set_state(state)).tolist() == expected


def test_default_generator_state() -> None:
    gl.manual_seed(11)
    gl.rand(2)
    state = gl.get_rng_state()
    expected = gl.rand(2).tolist()
    gl.set_rng_state(state)
    assert gl.rand(2).tolist() == expected
    assert gl.initial_seed() == 11
    assert gl.seed() == gl.initial_seed()


def test_threads_draw_different_numbers() -> None:
    generator = Generator(0)
    drawn: list[float] = []

    def draw() -> None:
        drawn.extend(gl.rand(1, generator=generator).item() for _ in range(100))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert generator.get_state()["calls"] == 400
    assert len(set(drawn)) == 400


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniforms_lie_in_the_half_open_interval(dtype: str) -> None:
    x = gl.rand(20_001, generator=Generator(2), dtype=dtype).astype("float64").numpy()
    assert x.min() >= 0
    assert x.max() < 1
    assert stats.kstest(x, "uniform").pvalue > (1e-3 if dtype in ("float32", "float64") else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_are_normal(dtype: str) -> None:
    x = gl.randn(50_001, generator=Generator(4), dtype=dtype).numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-3
    assert np.isfinite(x).all()
    assert abs(np.corrcoef(x[:25_000], x[25_000:50_000])[0, 1]) < 0.02


def test_integers_cover_their_range_evenly() -> None:
    x = gl.randint(-3, 5, (40_000,), generator=Generator(6)).numpy()
    counts = np.bincount(x + 3, minlength=8)
    assert counts.size == 8
    assert stats.chisquare(counts).pvalue > 1e-3


def test_permutations_are_even() -> None:
    generator = Generator(8)
    orders = [tuple(gl.randperm(3, generator=generator).tolist()) for _ in range(3000)]
    _, counts = np.unique(np.array(orders), axis=0, return_counts=True)
    assert counts.size == 6
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000, 1 << 17, (1 << 17) + 1, 300_000])
def test_permutations_are_the_same_on_a_gpu(fake_cuda, n) -> None:
    on_cpu = gl.randperm(n, generator=Generator(5)).numpy()
    on_gpu = gl.randperm(n, generator=Generator(5), device="cuda").cpu().numpy()
    np.testing.assert_array_equal(on_cpu, on_gpu)
    np.testing.assert_array_equal(np.sort(on_cpu), np.arange(n))


@pytest.mark.parametrize("n", [1 << 17, 1 << 20])
def test_long_permutations_rise_as_often_as_they_fall(n: int) -> None:
    drawn = gl.randperm(n, generator=Generator(6)).numpy()
    rises = (np.diff(drawn) > 0).sum()
    assert abs(rises - n / 2) < 4 * np.sqrt(n / 12)
    assert abs(np.corrcoef(drawn, np.arange(n))[0, 1]) < 4 / np.sqrt(n)


def test_shapes_and_dtypes() -> None:
    assert gl.rand(2, 3).shape == gl.rand((2, 3)).shape == gl.rand(size=(2, 3)).shape == (2, 3)
    assert gl.randn(size=()).shape == ()
    assert gl.rand(0).shape == (0,)
    assert gl.randint(5, (2,), dtype="int8").dtype == gl.int8
    assert gl.randn(2, requires_grad=True).requires_grad
    assert gl.rand_like(gl.zeros(2, dtype="float64")).dtype == gl.float64
    assert gl.uniform(3.0, 4.0, (100,)).min().item() >= 3.0


def test_normal_of_tensors() -> None:
    mean, std = gl.tensor([0.0, 100.0]), gl.tensor([0.0, 0.0])
    assert gl.normal(mean, std).tolist() == [0.0, 100.0]
    x = gl.normal(5.0, 2.0, (20_000,), generator=Generator(1))
    assert abs(x.mean().item() - 5) < 0.06
    assert abs(x.std().item() - 2) < 0.05


def test_in_place_fills_keep_the_memory() -> None:
    x = gl.zeros(1000)
    where = x.data_ptr()
    x.uniform_(2.0, 3.0, generator=Generator(1))
    assert x.data_ptr() == where
    assert 2 <= x.min().item() <= x.max().item() < 3
    assert abs(x.normal_(7.0, 0.1).mean().item() - 7) < 0.05


def test_bernoulli_and_multinomial() -> None:
    p = gl.full((20_000,), 0.3)
    assert abs(gl.bernoulli(p, generator=Generator(1)).mean().item() - 0.3) < 0.015
    weights = gl.tensor([0.0, 1.0, 3.0])
    drawn = gl.multinomial(weights, 8000, replacement=True, generator=Generator(2)).numpy()
    counts = np.bincount(drawn, minlength=3)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], [2000, 6000]).pvalue > 1e-3
    assert sorted(gl.multinomial(gl.ones(4), 4).tolist()) == [0, 1, 2, 3]


def test_dropout_scales_what_it_keeps() -> None:
    x = gl.ones(20_000)
    y = gl.dropout(x, 0.25, generator=Generator(3))
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.015
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.75, rtol=1e-6)
    assert gl.dropout(x, 0.5, training=False) is x
    assert gl.dropout(x, 1.0).sum().item() == 0


def test_gradient_of_dropout_has_its_mask() -> None:
    x = gl.ones(100, requires_grad=True)
    y = gl.dropout(x, 0.5, generator=Generator(3))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == y.tolist()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_normals_of_tensors_are_drawn_in_their_dtype(dtype: str) -> None:
    z = gl.randn(1000, dtype=dtype, generator=Generator(1))
    zeros, ones = gl.zeros(1000, dtype=dtype), gl.ones(1000, dtype=dtype)
    for mean, std in (
        (zeros, ones),
        (zeros, 1),
        (0.0, ones),
        (zeros, gl.ones(1000, dtype="int64")),
    ):
        x = gl.normal(mean, std, generator=Generator(1))
        assert x.dtype == z.dtype
        assert x.tolist() == z.tolist()
    assert gl.normal(zeros, ones, dtype="float32").dtype == gl.float32
    whole = gl.normal(gl.zeros(3, dtype="int64"), 1.0)
    assert whole.dtype == gl.float32


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: gl.rand(-1), ShapeError, "rand: expected sizes of 0 or more, got (-1,)"),
        (
            lambda: gl.rand(2, dtype="int64"),
            DTypeError,
            "rand: expected a floating dtype, got int64",
        ),
        (
            lambda: gl.randint(3, 3, (2,)),
            OptionError,
            "randint: expected low < high, got 3 and 3",
        ),
        (lambda: gl.randint(3, 4), OptionError, "randint: expected a tuple for size, got 4"),
        (
            lambda: gl.randperm(-1),
            OptionError,
            "randperm: expected an integer n of 0 or more, got -1",
        ),
        (
            lambda: gl.normal(0.0, -1.0, (2,)),
            OptionError,
            "normal: expected a std of 0 or more, finite in float32, got -1.0",
        ),
        (
            lambda: gl.dropout(gl.ones(2), 1.5),
            OptionError,
            "dropout: expected p from 0 to 1, got 1.5",
        ),
        (
            lambda: gl.manual_seed("a"),  # type: ignore[arg-type]
            OptionError,
            "manual_seed: expected an integer, got 'a' of type str",
        ),
        (
            lambda: gl.manual_seed(1 << 64),
            OptionError,
            f"manual_seed: expected an integer of 64 bits, got {1 << 64}",
        ),
        (
            lambda: Generator().set_state({"seed": 1}),
            OptionError,
            "Generator.set_state: expected a dict with the integers 'seed' and 'calls', "
            "got {'seed': 1}",
        ),
        (
            lambda: gl.multinomial(gl.ones(2), 3),
            OptionError,
            "multinomial: expected at most 2 samples without replacement, one per class of weight "
            "above 0, got 3; draw with replacement",
        ),
    ],
)
def test_messages(call: object, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()  # type: ignore[operator]
    assert str(caught.value) == text


def test_counts_may_be_tensors_and_arrays():
    assert sorted(gl.randperm(gl.tensor(3)).tolist()) == [0, 1, 2]
    assert len(gl.randperm(np.array(2))) == 2
    assert gl.multinomial(gl.ones(3), gl.tensor(2)).shape == (2,)
    for wrong in (gl.tensor(2.0), gl.tensor([1, 2]), True, "2", 2.0):
        with pytest.raises(OptionError, match="randperm: expected an integer n of 0 or more"):
            gl.randperm(wrong)
