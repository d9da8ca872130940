"""A Python number takes the dtype of the tensor it meets, rounded once, recorded or not."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab import arguments, distributions
from gradlab.arguments import guarded
from gradlab.errors import DTypeError, GradlabError
from gradlab.ops.core import REGISTRY
from gradlab.tensor import Tensor

NUMBER = 0.1  # which float32 holds as 0.10000000149
MASK = [[True, False, True], [False, True, False]]


def _x(seed: int = 0) -> Tensor:
    return gl.tensor(np.random.default_rng(seed).uniform(-1, 1, (2, 3)))


def _p(seed: int = 0) -> Tensor:
    return gl.tensor(np.random.default_rng(seed).uniform(0.1, 0.9, (2, 3)))


def _mask() -> Tensor:
    return gl.tensor(MASK)


def _set(index: Any) -> Callable[[Tensor, Any], Tensor]:
    def write(x: Tensor, v: Any) -> Tensor:
        x = x * 1
        x[index] = v
        return x

    return write


LABELS = gl.tensor([0, 2])
# A number, in every place where one meets a tensor: f(x, number).
FUNCTIONS: dict[str, Callable[[Tensor, Any], Any]] = {
    "setitem": _set(0),
    "setitem, mask": _set(gl.tensor(MASK)),
    "setitem, rows": _set([0]),
    "setitem, all": _set(...),
    "fill_": lambda x, v: (x * 1).fill_(v),
    "copy_": lambda x, v: (x * 1).copy_(v),
    "copy_, list": lambda x, v: (x * 1).copy_([v, v, v]),
    "masked_fill": lambda x, v: x.masked_fill(_mask(), v),
    "masked_fill_": lambda x, v: (x * 1).masked_fill_(_mask(), v),
    "index_fill": lambda x, v: gl.index_fill(x, 1, gl.tensor([0, 2]), v),
    "index_fill_": lambda x, v: (x * 1).index_fill_(1, gl.tensor([0, 2]), v),
    "index_put_": lambda x, v: (x * 1).index_put_((gl.tensor([1]),), v),
    "index_put_, add": lambda x, v: (x * 1).index_put_((gl.tensor([1]),), v, accumulate=True),
    "scatter": lambda x, v: gl.scatter(x, 1, gl.tensor([[2], [0]]), v),
    "scatter, value": lambda x, v: gl.scatter(x, 1, gl.tensor([[2], [0]]), value=v),
    "scatter_": lambda x, v: (x * 1).scatter_(1, gl.tensor([[2], [0]]), v),
    "scatter_add": lambda x, v: gl.scatter_add(x, 1, gl.tensor([[2], [0]]), v),
    "fill_diagonal_": lambda x, v: (x * 1).fill_diagonal_(v),
    "where": lambda x, v: gl.where(_mask(), x, v),
    "where, first": lambda x, v: gl.where(_mask(), v, x),
    "Tensor.where": lambda x, v: x.where(_mask(), v),
    "clip": lambda x, v: x.clip(-v, v),
    "clip, a tensor above": lambda x, v: x.clip(v, gl.full((3,), 0.3, dtype="float64")),
    "clamp_": lambda x, v: (x * 1).clamp_(-v, v),
    "clamp_min": lambda x, v: x.clamp_min(v),
    "clamp_max": lambda x, v: x.clamp_max(v),
    "maximum": lambda x, v: gl.maximum(x, v),
    "minimum": lambda x, v: gl.minimum(v, x),
    "nan_to_num": lambda x, v: gl.nan_to_num(x / 0, v, 2 * v, 3 * v),
    "nan_to_num_": lambda x, v: (x / 0).nan_to_num_(v, 2 * v, 3 * v),
    "lerp": lambda x, v: gl.lerp(x, _x(1), v),
    "lerp, end": lambda x, v: gl.lerp(x, v, 0.3),
    "lerp_": lambda x, v: (x * 1).lerp_(_x(1), v),
    "add": lambda x, v: gl.add(x, v),
    "add, alpha": lambda x, v: gl.add(x, v, alpha=v),
    "add_, alpha": lambda x, v: (x * 1).add_(v, alpha=v),
    "add, list": lambda x, v: gl.add(x, [v, v, v]),
    "sub, alpha": lambda x, v: gl.sub(x, v, alpha=v),
    "sub_, alpha": lambda x, v: (x * 1).sub_(v, alpha=v),
    "mul_": lambda x, v: (x * 1).mul_(v),
    "div, reflected": lambda x, v: v / x,
    "remainder": lambda x, v: gl.remainder(x, v),
    "fmod": lambda x, v: gl.fmod(x, v),
    "floor_divide": lambda x, v: gl.floor_divide(x, v),
    "pow": lambda x, v: gl.pow(x.abs(), v),
    "pow, reflected": lambda x, v: v**x,
    "atan2": lambda x, v: gl.atan2(x, v),
    "logaddexp": lambda x, v: gl.logaddexp(v, x),
    "hypot": lambda x, v: gl.hypot(x, v * gl.ones_like(x)),
    "heaviside": lambda x, v: gl.heaviside(x * 0, v),
    "addcmul": lambda x, v: gl.addcmul(x, _x(1), _x(2), value=v),
    "addcmul_": lambda x, v: (x * 1).addcmul_(_x(1), _x(2), value=v),
    "addcdiv": lambda x, v: gl.addcdiv(x, _x(1), _p(2), value=v),
    "addmm": lambda x, v: gl.addmm(x[:, :2], x, _x(1).T, beta=v, alpha=3 * v),
    "index_add": lambda x, v: gl.index_add(x, 0, gl.tensor([0, 0]), _x(1), alpha=v),
    "logit": lambda x, v: gl.logit(x, v),
    "isclose": lambda x, v: gl.isclose(x * 0 + 0.1, v, 0.0, 0.0),
    "isin": lambda x, v: gl.isin(x * 0 + 0.1, v),
    "isin, list": lambda x, v: gl.isin(x * 0 + 0.1, [v]),
    "eq": lambda x, v: gl.eq(x * 0 + 0.1, v),
    "le": lambda x, v: (x * 0 + 0.1) <= v,
    "searchsorted": lambda x, v: gl.searchsorted(gl.full((3,), 0.1, dtype="float64"), v),
    "bucketize": lambda x, v: gl.bucketize(v, gl.full((3,), 0.1, dtype="float64"), right=True),
    "quantile": lambda x, v: gl.quantile(x, v),
    "trapezoid": lambda x, v: gl.trapezoid(x, dx=v),
    "cat": lambda x, v: gl.cat([x[0], [v]]),
    "stack": lambda x, v: gl.stack([x[0, 0], v]),
    "diff": lambda x, v: gl.diff(x[0], prepend=[v]),
    "einsum": lambda x, v: gl.einsum("ij,->ij", x, v),
    "full_like": lambda x, v: gl.full_like(x, v),
    "new_full": lambda x, v: x.new_full((2,), v),
    "new_tensor": lambda x, v: x.new_tensor([v, 1]),
    "norm": lambda x, v: gl.norm(x, 1 + v),
    "cdist": lambda x, v: gl.cdist(x, _x(1), 1 + v),
    "var": lambda x, v: gl.var(x, correction=v),
    "pad": lambda x, v: F.pad(x, (1, 1), value=v),
    "threshold": lambda x, v: F.threshold(x, v, 3 * v),
    "hardtanh": lambda x, v: F.hardtanh(x, -v, v),
    "hardshrink": lambda x, v: F.hardshrink(x, v),
    "softshrink": lambda x, v: F.softshrink(x, v),
    "leaky_relu": lambda x, v: F.leaky_relu(x, v),
    "elu": lambda x, v: F.elu(x, v),
    "celu": lambda x, v: F.celu(x, v),
    "prelu": lambda x, v: F.prelu(x, v),
    "softplus": lambda x, v: F.softplus(x, v),
    "normalize": lambda x, v: F.normalize(x * v, 2 + v, eps=v),
    "layer_norm": lambda x, v: F.layer_norm(x, 3, eps=v),
    "rms_norm": lambda x, v: F.rms_norm(x, 3, eps=v),
    "batch_norm": lambda x, v: F.batch_norm(x, None, None, training=True, eps=v),
    "cosine_similarity": lambda x, v: F.cosine_similarity(x * v, _x(1), eps=v),
    "pairwise_distance": lambda x, v: F.pairwise_distance(x, _x(1), eps=v),
    "mse_loss": lambda x, v: F.mse_loss(x, v),
    "l1_loss": lambda x, v: F.l1_loss(x, v),
    "huber_loss": lambda x, v: F.huber_loss(x, v, delta=v),
    "smooth_l1_loss": lambda x, v: F.smooth_l1_loss(x, v, beta=v),
    "kl_div": lambda x, v: F.kl_div(x, v),
    "binary_cross_entropy": lambda x, v: F.binary_cross_entropy(_p(), _p(1), v),
    "bce_with_logits": lambda x, v: F.binary_cross_entropy_with_logits(
        x, _p(1), v, pos_weight=[v, v, v]
    ),
    "cross_entropy": lambda x, v: F.cross_entropy(x, LABELS, [v, v, 1], label_smoothing=v),
    "cross_entropy, probabilities": lambda x, v: F.cross_entropy(x, [[v, 0, 1], [1, v, v]]),
    "nll_loss": lambda x, v: F.nll_loss(x, LABELS, [v, 2 * v, 1]),
    "gaussian_nll_loss": lambda x, v: F.gaussian_nll_loss(x, _x(1), v, eps=v / 2),
    "poisson_nll_loss": lambda x, v: F.poisson_nll_loss(_p(), _p(1), log_input=False, eps=v),
    "hinge_embedding_loss": lambda x, v: F.hinge_embedding_loss(x, x.sign(), margin=v),
    "margin_ranking_loss": lambda x, v: F.margin_ranking_loss(x, _x(1), x.sign(), margin=v),
    "cosine_embedding_loss": lambda x, v: F.cosine_embedding_loss(
        x, _x(1), gl.tensor([1.0, -1.0]), margin=v
    ),
    "triplet_margin_loss": lambda x, v: F.triplet_margin_loss(x, _x(1), _x(2), v, eps=v),
    "multi_margin_loss": lambda x, v: F.multi_margin_loss(x, LABELS, margin=v),
    "clip_grad_value_": lambda x, v: _clipped(gl.nn.utils.clip_grad_value_, x, v),
    "clip_grad_norm_": lambda x, v: _clipped(gl.nn.utils.clip_grad_norm_, x, v),
    "constant_": lambda x, v: gl.nn.init.constant_(gl.empty(3, dtype=x.dtype), v),
    "trunc_normal_": lambda x, v: gl.nn.init.trunc_normal_(gl.empty(3, dtype=x.dtype), v, 0.0),
    "uniform_": lambda x, v: gl.nn.init.uniform_(gl.empty(3, dtype=x.dtype), v, 3 * v),
    "normal_": lambda x, v: gl.nn.init.normal_(gl.empty(3, dtype=x.dtype), v, v),
    "Tensor.uniform_": lambda x, v: gl.empty(3, dtype=x.dtype).uniform_(v, 3 * v),
    "exponential_": lambda x, v: gl.empty(3, dtype=x.dtype).exponential_(v),
    "sparse_": lambda x, v: gl.nn.init.sparse_(gl.empty(3, 3, dtype=x.dtype), 0.3, v),
    "Normal": lambda x, v: distributions.Normal(v, _p()).log_prob(v),
    "Normal, list": lambda x, v: distributions.Normal([v, v, v], _p()).icdf(v),
    "Normal.sample": lambda x, v: distributions.Normal(v, _p()).sample(),
    "Uniform": lambda x, v: distributions.Uniform(v, 1 + _p()).cdf(v),
    "Bernoulli": lambda x, v: distributions.Bernoulli(_p()).log_prob(1.0),
    "kl_divergence": lambda x, v: distributions.kl_divergence(
        distributions.Normal(v, _p()), distributions.Normal(_p(), v)
    ),
}


def _clipped(clip: Any, x: Tensor, v: Any) -> Tensor:
    p = gl.nn.Parameter(x.detach())
    p.grad = _x(3)
    clip([p], v)
    return p.grad


def _results(f: Any, v: Any, default: Any, recorded: bool) -> list[np.ndarray]:
    """The result, and with ``recorded`` the gradient, where floats are ``default`` by default."""
    gl.set_default_dtype(default)
    try:
        gl.manual_seed(0)
        x = _x()
        if recorded:
            x.requires_grad_()
        y = f(x, v)
        found = [y.detach().numpy()]
        if recorded and y.requires_grad:
            y.sum().backward()
            found += [] if x.grad is None else [x.grad.numpy()]
        return found
    finally:
        gl.set_default_dtype(gl.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_beside_float64(name: str):
    # Where the default dtype is float64 nothing can get lost.
    f = FUNCTIONS[name]
    expected = _results(f, NUMBER, gl.float64, recorded=True)
    for v in (NUMBER, np.float64(NUMBER)):
        for recorded in (False, True):
            found = _results(f, v, gl.float32, recorded)
            for a, b in zip(found, expected, strict=False):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_is_as_good_as_a_tensor(name: str):
    f = FUNCTIONS[name]
    for v in (np.array(NUMBER), gl.tensor(np.array(NUMBER))):
        try:
            (found,) = _results(f, v, gl.float32, recorded=False)
        except GradlabError:  # this parameter takes numbers alone
            continue
        (expected,) = _results(f, NUMBER, gl.float32, recorded=False)
        np.testing.assert_allclose(found, expected, rtol=4e-16, atol=1e-300)


def _of(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return gl.tensor(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_of, value))
    return value


def _operands() -> Any:
    """Calls of ops in which one operand, an array, becomes a number."""
    for op in REGISTRY.values():
        if op.function == op._call:  # no function of its own
            continue
        for sample in () if op.samples is None else op.samples():
            floats = [
                i
                for i, each in enumerate(sample.args)
                if isinstance(each, np.ndarray) and each.dtype == np.float64
            ]
            if len(floats) > 1 and not sample.large and op.name != "running_average":  # not public
                yield from (pytest.param(op, sample, i, id=f"{op.name}-{i}") for i in floats)
                break


@pytest.mark.parametrize(("op", "sample", "place"), list(_operands()))
def test_a_number_for_an_operand(op: Any, sample: Any, place: int):
    def call(v: Any) -> Any:
        args = [v if i == place else _of(each) for i, each in enumerate(sample.args)]
        return guarded(op.function)(*args, **_of_all(sample.kwargs))  # as users call it

    try:
        expected = call(gl.tensor(np.array(0.3)))
        found = call(0.3)
    except GradlabError:
        pytest.skip("takes no number there")
    for a, b in zip(_leaves(found), _leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-15)


def _of_all(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: _of(value) for name, value in kwargs.items()}


def _leaves(y: Any) -> list[Tensor]:
    return list(y) if isinstance(y, tuple) else [y]


def _with_a_number() -> Any:
    """Calls of functions that take a number which is no operand, by its name and value."""
    for op in REGISTRY.values():
        if op.function == op._call or op.name == "dropout":  # which draws with each call
            continue
        plain = inspect.unwrap(op.function)
        names = arguments._number_parameters(plain).values()
        for sample in () if op.samples is None else op.samples():
            try:
                bound = inspect.signature(plain).bind(*sample.args, **sample.kwargs)
            except TypeError:
                continue
            bound.apply_defaults()
            for name in names:
                if isinstance(bound.arguments[name], int | float) and not sample.large:
                    yield pytest.param(op, bound, name, id=f"{op.name}-{name}")
            break


@pytest.mark.parametrize(("op", "bound", "name"), list(_with_a_number()))
def test_a_number_in_any_form_leaves_the_dtype(op: Any, bound: Any, name: str):
    def call(number: Any) -> Any:
        given = bound.signature.bind(*bound.args, **bound.kwargs)
        given.arguments[name] = number
        args = [x.float() if x.__class__ is Tensor and x.is_floating_point() else x
                for x in map(_of, given.args)]  # fmt: skip
        return _leaves(guarded(op.function)(*args, **given.kwargs))

    number = bound.arguments[name]
    forms: list[Any] = [np.float64, np.float32, np.longdouble, np.array, lambda v: np.array([v])]
    if math.isfinite(number):
        forms.append(Fraction)
    for form in forms:
        for found, expected in zip(call(form(number)), call(number), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_bounds_in_any_form():
    class Number(float):
        pass

    x = gl.tensor([0.0, 2.0])
    for bound in (Number(0.5), np.float64(0.5), gl.tensor(0.5), [0.5, 0.5]):
        y = x.clip(max=bound)
        assert y.dtype == gl.float32
        assert y.tolist() == [0, 0.5]
    assert x.clip(max=np.array(0.5)).tolist() == [0, 0.5]
    assert gl.tensor([0]).clip(min=IntEnum("Bound", {"LOW": 2**53 + 1}).LOW).tolist() == [2**53 + 1]


WRITES: dict[str, Callable[[Tensor, Any], Tensor]] = {
    name: FUNCTIONS[name]
    for name in ("setitem", "setitem, mask", "setitem, all", "fill_", "copy_", "masked_fill",
                 "index_fill", "scatter", "index_put_")
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("recorded", [False, True])
def test_numbers_of_any_size_are_written(name: str, recorded: bool):
    for v in (1e300, -1e300, 2**53 - 1, 10**30, gl.finfo("float64").min):
        x = gl.zeros(2, 3, dtype="float64", requires_grad=recorded) * 1
        assert float(v) in WRITES[name](x, v).detach().numpy()


@pytest.mark.parametrize("name", WRITES)
def test_integers_are_written_exactly(name: str):
    for dtype, v in (
        ("int64", 2**53 + 1), ("int64", 2**63 - 1), ("int64", -(2**63)), ("uint64", 2**64 - 1),
        ("int64", 2.0**62), ("int64", -(2.0**63)),
    ):  # fmt: skip
        y = WRITES[name](gl.zeros(2, 3, dtype=dtype), v)
        assert int(v) in np.ravel(y.numpy()).tolist()


BEYOND = [
    ("int64", 2**63), ("int64", math.nan), ("int64", math.inf), ("int64", 2.0**63),
    ("uint8", 256), ("uint8", 256.0), ("uint8", -1), ("int8", 1e300),
]  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_what_integers_do_not_hold_is_refused(name: str):
    for dtype, v in BEYOND:
        with pytest.raises(DTypeError, match=rf"fit.* {dtype}"):
            WRITES[name](gl.zeros(2, 3, dtype=dtype), v)


def test_what_integers_do_not_hold_is_refused_on_a_gpu(fake_cuda: Any):
    for write in (
        lambda x, v: x.fill_(v),
        lambda x, v: x.copy_(v),
        lambda x, v: x.__setitem__(0, v),
        lambda x, v: x.__setitem__([0, 1], v),
        lambda x, v: x.index_put_((gl.tensor([1], device="cuda"),), v),
        lambda x, v: x.masked_fill_(gl.ones(3, dtype="bool", device="cuda"), v),
    ):
        for dtype, v in BEYOND:
            x = gl.ones(3, dtype=dtype, device="cuda")
            with pytest.raises(DTypeError, match=rf"fit.* {dtype}"):
                write(x, v)
            assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("recorded", [False, True])
def test_complex_numbers_are_not_written_into_real_ones(name: str, recorded: bool):
    x = gl.zeros(2, 3, requires_grad=recorded) * 1
    with pytest.raises(DTypeError):
        WRITES[name](x, 1j)


def test_masking_with_the_smallest_number():
    x = gl.zeros(1, 2, dtype=gl.float64)
    masked = x.masked_fill(gl.tensor([[True, True]]), gl.finfo(gl.float64).min)
    assert gl.softmax(masked, 1).tolist() == [[0.5, 0.5]]


def test_lists_of_integers_without_a_common_dtype():
    with pytest.raises(DTypeError, match="integers below 0 and from 2"):
        gl.tensor([2**63, -1])
    assert gl.tensor([2**63, -1], dtype="float64").tolist() == [2.0**63, -1.0]
    assert gl.tensor([2**63, 1]).tolist() == [2**63, 1]


def test_numbers_beyond_64_bits():
    assert gl.full((1,), 2**100, dtype="float64").tolist() == [2.0**100]
    assert gl.tensor([10**30, 1], dtype="float64").tolist() == [1e30, 1]
    with pytest.raises(DTypeError, match="integers beyond 64 bits"):
        gl.tensor(2**100)


def test_out_takes_what_was_computed_in_its_dtype():
    out = gl.empty(3, dtype="float64")
    gl.mul(gl.ones(3, dtype="float64"), NUMBER, out=out)
    assert out.tolist() == [NUMBER] * 3
    gl.add(gl.ones(3, dtype="float64"), NUMBER, alpha=NUMBER, out=out)
    assert out.tolist() == [1 + NUMBER * NUMBER] * 3


def test_optimizers_compute_in_float64():
    for make in (gl.optim.SGD, gl.optim.Adam, gl.optim.AdamW, gl.optim.RMSprop, gl.optim.Adagrad):
        found = []
        for default in (gl.float32, gl.float64):
            gl.set_default_dtype(default)
            p = gl.nn.Parameter(gl.tensor(np.array([1.0, -2.0])))
            optimizer = make([p], lr=NUMBER, weight_decay=NUMBER)
            for _ in range(3):
                p.grad = gl.tensor(np.array([0.3, 0.7]))
                optimizer.step()
            found.append(p.tolist())
            gl.set_default_dtype(gl.float32)
        assert found[0] == found[1]
