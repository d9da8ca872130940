"""Products beyond what the registry's checks cover: against NumPy, and what each error says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.errors import AxisError, DTypeError, GradlabError, OptionError, ShapeError
from gradlab.ops import matmul as M
from gradlab.ops.core import REGISTRY
from gradlab.ops.creation import tensor
from gradlab.tensor import Tensor
from gradlab.testing import assert_close, gradcheck


def zeros(*shape: int, dtype: Any = "float32") -> Tensor:
    return tensor(np.zeros(shape), dtype=dtype)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


# -------------------------------------------------------------------------------------- values


def test_operator_takes_arrays_on_either_side():
    a, b = random(2, 3), random(3, 2)
    for y in (tensor(a) @ b, a @ tensor(b), tensor(a) @ tensor(b)):
        assert_close(y, a @ b)


def test_dtypes_promote():
    assert (zeros(2, 3) @ zeros(3, 2, dtype="float64")).dtype == dtypes.float64
    assert (zeros(2, 3) @ zeros(3, 2, dtype="int64")).dtype == dtypes.float32
    assert (zeros(2, 3, dtype="int8") @ zeros(3, 2, dtype="int16")).dtype == dtypes.int16
    assert M.linear(zeros(2, 3, dtype="float16"), zeros(4, 3)).dtype == dtypes.float32


def test_halves_are_summed_in_float32():
    x = tensor(np.ones((1, 4096)), dtype="float16")
    assert (x @ x.T).item() == 4096  # in float16 the sum would stay at 2048


def test_complex_products():
    a, b = random(2, 3) + 1j * random(2, 3, seed=1), random(3) + 1j
    assert_close(tensor(a) @ tensor(b), a @ b)
    assert_close(M.vdot(tensor(b), tensor(b)), np.vdot(b, b))
    assert_close(M.vecdot(tensor(a), tensor(b)), np.vecdot(a, b))


def test_results_have_memory_of_their_own():
    """Even where a product with one row or one label could be a view."""
    x = tensor(random(3, 4))
    for y in (M.einsum("ij->ji", x), M.einsum("ij", x), M.einsum("ij->ij", x), M.diag(x)):
        assert not np.shares_memory(y.numpy(), x.numpy())


@pytest.mark.parametrize(
    "equation", ["ij,jk,kl->il", "ij,jk,kl,l->", "ab,ab,ab->b", "ij,kl,mn->ijklmn", "i,ij,j", "->"]
)
def test_einsum_of_any_number_of_operands(equation):
    sizes = dict(zip("ijklmnab", (2, 3, 4, 5, 2, 3, 3, 4), strict=True))
    arrays = [
        random(*(sizes[label] for label in term), seed=i)
        for i, term in enumerate(equation.split("->")[0].split(","))
    ]
    assert_close(M.einsum(equation, *map(tensor, arrays)), np.einsum(equation, *arrays))


def test_einsum_multiplies_the_cheap_pair_first():
    """Left to right, this product would hold 10¹⁰ values on its way."""
    n = 100_000
    column, row, vector = (tensor(np.ones(shape)) for shape in ((n, 1), (1, n), (n,)))
    y = M.einsum("ij,jk,k->i", column, row, vector)
    assert y.shape == (n,)
    assert y[0].item() == n


def test_writes_reach_through_a_diagonal():
    x = zeros(3, 3)
    M.diagonal(x, 1).fill_(5.0)
    assert x.tolist() == [[0, 5, 0], [0, 0, 5], [0, 0, 0]]


def test_gradient_flows_through_a_written_diagonal():
    def function(x: Tensor, v: Tensor) -> Tensor:
        y = x * 1
        y.diagonal()[...] = v
        return y.exp()

    assert gradcheck(function, [random(3, 3), random(3)], order=2)


def test_gradients_of_inputs_in_one_product_with_themselves():
    assert gradcheck(lambda x: x @ x, random(3, 3), order=3)
    assert gradcheck(lambda x: M.einsum("ij,ij,jk->ik", x, x, x), random(3, 3), order=3)


def test_only_what_is_needed_is_computed():
    backward = REGISTRY["linear"].fused.forward
    x, weight, gy = random(5, 3), random(4, 3), random(5, 4)
    gx, gweight = backward(np, gy, x, weight, needs=(False, True, False))
    assert gx is None
    np.testing.assert_allclose(gweight, gy.T @ x)


def test_gradients_have_memory_of_their_own():
    """For a vector the gradient of the bias equals the incoming one; it must be a copy."""
    x, weight, bias = (tensor(a, requires_grad=True) for a in (random(3), random(4, 3), random(4)))
    start = tensor(random(4))
    for gradient in grad(M.linear(x, weight, bias), [x, weight, bias], start):
        assert not np.shares_memory(gradient.numpy(), start.numpy())


# -------------------------------------------------------------------------------------- errors

A, B = (2, 3), (4, 5)
MESSAGES = [
    (lambda: zeros(2, 3) @ zeros(2, 4), ShapeError,
     "matmul: expected axis -1 of the first to be as long as axis -2 of the second, got shapes "
     "(2, 3) and (2, 4), which have 3 and 2; transpose the first with .mT"),
    (lambda: zeros(2, 3) @ zeros(4, 3), ShapeError, "transpose the second with .mT"),
    (lambda: zeros(2, 3) @ zeros(5, 2), ShapeError, "which have 3 and 5; exchange the two"),
    (lambda: zeros(2, 3) @ zeros(2), ShapeError,
     "axis -1 of the second, got shapes (2, 3) and (2,)"),
    (lambda: zeros(2, 2, 3) @ zeros(3, 3, 4), ShapeError,
     "matmul: expected batch axes (all but the last two) that broadcast, got shapes (2, 2, 3) and "
     "(3, 3, 4): (2,) and (3,)"),
    (lambda: zeros(3) @ 2.0, ShapeError, "got shapes (3,) and (); multiply by a number with *"),
    (lambda: 2.0 @ zeros(3), ShapeError, "got shapes () and (3,); multiply by a number with *"),
    (lambda: zeros(2, dtype="bool") @ zeros(2), DTypeError,
     "matmul: expected integer or floating or complex values, got bool; cast with .astype(...)"),
    (lambda: M.mm(zeros(2, 3), zeros(3)), ShapeError,
     "mm: expected two matrices, got shapes (2, 3) and (3,); use mv for a matrix and a vector"),
    (lambda: M.mm(zeros(2, 3), zeros(2, 3)), ShapeError,
     "mm: expected axis -1 of the first to be as long as axis -2 of the second"),
    (lambda: M.mv(zeros(2, 3), zeros(3, 1)), ShapeError, "mv: expected a matrix and a vector"),
    (lambda: M.bmm(zeros(2, 3), zeros(3, 1)), ShapeError, "use mm for two matrices"),
    (lambda: M.bmm(zeros(2, 3, 4), zeros(3, 4, 5)), ShapeError,
     "bmm: expected as many matrices in both, got shapes (2, 3, 4) and (3, 4, 5), which differ at "
     "axis 0: 2 and 3; use matmul to broadcast"),
    (lambda: M.dot(zeros(2), zeros(3)), ShapeError,
     "dot: expected two vectors of one length, got lengths 2 and 3"),
    (lambda: M.dot(zeros(2, 2), zeros(2)), ShapeError, "dot: expected two vectors, got shapes"),
    (lambda: M.outer(zeros(2, 2), zeros(2)), ShapeError, "flatten them first with .ravel()"),
    (lambda: M.vecdot(zeros(2, 3), zeros(2, 2)), ShapeError,
     "vecdot: expected vectors of one length along axis -1, got shapes (2, 3) and (2, 2)"),
    (lambda: M.vecdot(zeros(2, 3), zeros(3), axis=0), AxisError, "expected an axis from -1 to -1"),
    (lambda: M.tensordot(zeros(2, 3), zeros(4, 5), 1), ShapeError,
     "tensordot: expected the axes summed over to be of one length in both, got shapes (2, 3) and "
     "(4, 5), which have [3] and [4] there"),
    (lambda: M.tensordot(zeros(2), zeros(2), 2), AxisError,
     "expected from 0 to 1 axes to sum over"),
    (lambda: M.linear(zeros(2, 3), zeros(3, 4)), ShapeError,
     "linear: expected x of shape (..., 4), as the weight (3, 4) takes, got (2, 3), whose "
     "last axis "
     "has 3; the weight is (out_features, in_features): transpose it"),
    (lambda: M.linear(zeros(2, 3), zeros(4, 5)), ShapeError, "whose last axis has 3"),
    (lambda: M.linear(zeros(2, 3), zeros(3)), ShapeError,
     "linear: expected a weight of shape (out_features, in_features), got (3,)"),
    (lambda: M.linear(zeros(2, 3), zeros(4, 3), zeros(1)), ShapeError,
     "linear: expected a bias of shape (4,), as the weight (4, 3) gives, got (1,)"),
    (lambda: M.linear_act(zeros(2, 3), zeros(4, 5)), ShapeError,
     "linear_act: expected x of shape (..., 5), as the weight (4, 5) takes, got (2, 3)"),
    (lambda: M.linear(1.0, zeros(4, 3)), ShapeError, "linear: expected x of shape (..., 3)"),
    (lambda: M.diagonal(zeros(3)), ShapeError, "diagonal: expected at least two axes"),
    (lambda: M.diagonal(zeros(3, 3), 0, 1, -1), AxisError,
     "diagonal: expected two different axes, got 1, -1"),
    (lambda: M.diag(zeros(3, 3, 3)), ShapeError, "diag: expected a vector or a matrix"),
    (lambda: M.trace(zeros(3)), ShapeError, "trace: expected a matrix or a batch of them"),
    (lambda: M.einsum("ij,jk", zeros(*A), zeros(*B)), ShapeError,
     "einsum 'ij,jk': expected one size for 'j', got 3 and 4, in shapes (2, 3) and (4, 5)"),
    (lambda: M.einsum("ij,kl->im", zeros(*A), zeros(*B)), OptionError,
     "einsum 'ij,kl->im': expected an output whose labels stand in the operands, got 'm'"),
    (lambda: M.einsum("ij->iij", zeros(*A)), OptionError, "each label once in the output, got 'i'"),
    (lambda: M.einsum("ij", zeros(*A), zeros(*B)), OptionError, "expected 1 operands, got 2"),
    (lambda: M.einsum("ijk", zeros(*A)), ShapeError,
     "einsum 'ijk': expected 3 axes for the term 'ijk', got a tensor of 2"),
    (lambda: M.einsum("i1", zeros(*A)), OptionError,
     "expected letters, commas, -> and ..., got '1'"),
    (lambda: M.einsum("ii", zeros(*A)), ShapeError, "expected one size for 'i', got 2 and 3"),
    (lambda: M.einsum(3, zeros(2)), OptionError,
     "expected an equation such as 'ij,jk->ik', got int"),
    (lambda: M.einsum("i", 3), OptionError, "einsum: expected tensors as operands, got int"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), MESSAGES)
def test_message(call, kind, text):
    with pytest.raises(GradlabError) as caught:
        call()
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
