"""`gradlab.linalg` beyond what every op is tested for: identities, shapes, messages, CUDA."""

from __future__ import annotations

import time

import numpy as np
import pytest
from gradlab.kernels.cuda.driver import current

import gradlab as gl
from gradlab import linalg as L
from gradlab.backends.gate import counters
from gradlab.errors import DTypeError, GradientError, LinAlgError, OptionError, ShapeError
from gradlab.testing import assert_close, check_op, gradcheck

DEVICES = ["cpu", "cuda"]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda":
        request.getfixturevalue("fake_cuda")
    return request.param


def random(*shape, seed=0, device="cpu"):
    return gl.tensor(np.random.default_rng(seed).standard_normal(shape), device=device)


def positive(*shape, device="cpu"):
    x = random(*shape, device=device)
    return x @ x.mT + gl.eye(shape[-1], dtype="float64", device=device)


SHAPES = [(3, 3), (5, 2), (2, 5), (2, 4, 3), (2, 2, 3, 4), (1, 1)]


# ------------------------------------------------------------------------------ factorizations


@pytest.mark.parametrize("shape", SHAPES)
def test_svd(shape, device):
    x = random(*shape, device=device)
    for full in (False, True):
        u, s, vh = L.svd(x, full_matrices=full)
        k = min(shape[-2:])
        assert_close(u[..., :, :k] * s[..., None, :] @ vh[..., :k, :], x, 1e-12, 1e-12)
        eye = gl.eye(u.shape[-1], dtype="float64", device=device)
        assert_close(u.mT @ u, eye.broadcast_to((*shape[:-2], *eye.shape)), 1e-12, 1e-12)
        assert_close(s, L.svdvals(x), 1e-12, 1e-12)
        if full:
            assert u.shape[-2] == u.shape[-1] == shape[-2]
            assert vh.shape[-2] == vh.shape[-1] == shape[-1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr(shape, mode, device):
    x = random(*shape, device=device)
    q, r = L.qr(x, mode)
    expected = np.linalg.qr(x.numpy(force=True), mode=mode)
    if mode == "r":
        assert q.numel() == 0
        expected = (q.numpy(force=True), expected)
    assert_close((q, r), expected, 1e-12, 1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_eigh(shape, device):
    x = positive(*shape, device=device)
    w, v = L.eigh(x)
    assert_close(v * w[..., None, :] @ v.mT, x, 1e-12, 1e-12)
    assert_close(L.eigvalsh(x, "U"), w, 1e-12, 1e-12)
    assert_close(L.eigh(x.tril()).eigenvalues, w, 1e-12, 1e-12)
    assert_close(L.eigh(x.triu(), "U").eigenvalues, w, 1e-12, 1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_cholesky(shape, device):
    x = positive(*shape, device=device)
    y = L.cholesky(x)
    assert_close(y @ y.mT, x, 1e-12, 1e-12)
    assert_close(L.cholesky(x.tril(), upper=True), y.mT, 1e-12, 1e-12)


# What does not depend on the signs of the vectors, and is as differentiable as they are.


def of_svd(x):
    u, s, vh = L.svd(x, full_matrices=False)
    weights = gl.arange(1, s.shape[-1] + 1, dtype="float64")
    return (u * weights[..., None, :]) @ vh, s.cos()


def of_eigh(x):
    w, v = L.eigh(x + x.mT)
    weights = gl.arange(1, w.shape[-1] + 1, dtype="float64")
    return (v * weights[..., None, :]) @ v.mT, w.sin()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", [of_svd, L.qr], ids=["svd", "qr"])
def test_second_gradients_of_oblong_factors(function, shape):
    x = random(*shape).numpy() + 2 * np.eye(*shape[-2:]) * np.arange(1, shape[-1] + 1)
    assert gradcheck(function, x, order=2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_second_gradients_of_symmetric_factors(shape):
    x = random(*shape).numpy()
    assert gradcheck(of_eigh, x, order=2, rtol=1e-5)

    def of_cholesky(x):
        return L.cholesky(x @ x.mT + gl.eye(shape[-1], dtype="float64"))

    assert gradcheck(of_cholesky, x, order=2, rtol=1e-5)


def test_gradients_of_functions_of_equal_eigenvalues():
    # Eigenvalues alone, and what does not tell the vectors of one apart, are differentiable.
    x = gl.eye(3, dtype="float64").requires_grad_()
    (L.eigvalsh(x) ** 2).sum().backward()
    assert_close(x.grad, 2 * np.eye(3), 1e-12, 1e-12)
    x.grad = None
    w, v = L.eigh(x)
    ((v * w.exp()[None, :]) @ v.mT).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


# ------------------------------------------------------------------------ solving, least squares


def test_what_solve_takes_for_vectors():
    a = random(3, 3, 3) + 3 * gl.eye(3, dtype="float64")
    for shape, column in (((3,), True), ((3, 3), True), ((3, 2), False), ((2, 1, 3, 2), False)):
        b = random(*shape, seed=1)
        y = L.solve(a, b)
        back = (a @ y[..., None])[..., 0] if column else a @ y
        assert_close(back, b.broadcast_to(y.shape), 1e-12, 1e-12)
    for shape in ((3, 2, 3), (3, 3)):  # from the right there are no vectors
        b = random(*shape)
        y = L.solve(a, b, left=False)
        assert_close(y @ a, b.broadcast_to(y.shape), 1e-12, 1e-12)


def test_ones_on_the_diagonal_are_not_read():
    a = gl.tensor([[np.nan, 1.0], [0.0, np.inf]])
    y = L.solve_triangular(a, gl.ones(2, 1), upper=True, unitriangular=True)
    assert y.tolist() == [[0.0], [1.0]]


def test_the_three_ways_to_the_analytic_solution_agree():
    x, y = random(50, 4), random(50, seed=1)
    exact = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    assert_close(L.inv(x.T @ x) @ x.T @ y, exact, 1e-10)
    assert_close(L.solve(x.T @ x, x.T @ y), exact, 1e-10)
    assert_close(L.lstsq(x, y).solution, exact, 1e-10)
    assert_close(L.pinv(x) @ y, exact, 1e-10)


def test_lstsq(device):
    a, b = random(5, 3, device=device), random(5, 2, seed=1, device=device)
    x, residuals, rank, s = L.lstsq(a, b)
    expected = np.linalg.lstsq(a.numpy(force=True), b.numpy(force=True), rcond=None)
    assert_close((x, residuals, s), (expected[0], expected[1], expected[3]), 1e-12)
    assert rank.item() == 3
    assert L.lstsq(a, b[:, 0]).residuals.shape == (1,)
    wide = L.lstsq(a.mT, b[:3])
    assert_close(a.mT @ wide.solution, b[:3], 1e-12, 1e-12)
    assert wide.residuals.shape == (0,)


def test_lstsq_of_deficient_rank_is_the_smallest_solution():
    a = gl.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    found = L.lstsq(a, gl.tensor([1.0, 2.0, 3.0]))
    assert_close(found.solution, np.float32([1, 1]), 1e-6)
    assert_close(found.residuals, np.float32([2]), 1e-6)
    assert found.rank.item() == 1
    assert L.lstsq(gl.tensor([[1.0, 0.0], [0.0, 0.1]]), gl.ones(2), rcond=0.5).rank.item() == 1


def test_pinv(device):
    x = random(4, 2, device=device) @ random(2, 5, seed=1, device=device)  # rank 2
    expected = np.linalg.pinv(x.numpy(force=True))
    assert_close(L.pinv(x), expected, 1e-9, 1e-12)
    symmetric = x @ x.mT
    lower = L.pinv(symmetric.tril(), hermitian=True, rtol=1e-10)
    assert_close(lower, np.linalg.pinv(symmetric.numpy(force=True), 1e-10), 1e-8, 1e-10)
    diagonal = gl.tensor([[4.0, 0.0], [0.0, 0.5]], device=device)
    cut = np.float32([[0.25, 0], [0, 0]])
    for options in ({"atol": 1.0}, {"rtol": 0.2}, {"rcond": 0.2}):
        assert_close(L.pinv(diagonal, **options), cut)
    assert_close(diagonal.pinverse(), np.float32([[0.25, 0], [0, 2]]))


def test_rank(device):
    x = random(4, 2, device=device) @ random(2, 5, seed=1, device=device)
    assert L.matrix_rank(x).item() == 2
    assert L.matrix_rank(x @ x.mT, hermitian=True).item() == 2
    assert L.matrix_rank(gl.stack([x, 0 * x])).tolist() == [2, 0]
    diagonal = gl.tensor([[4.0, 0.0], [0.0, 0.5]], device=device)
    assert [L.matrix_rank(diagonal, tol).item() for tol in (0.1, 1.0, 5.0)] == [2, 1, 0]
    assert L.matrix_rank(gl.zeros(0, 3)).item() == 0
    assert L.matrix_rank(x).dtype == gl.int64


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc"])
def test_cond(p):
    x = random(3, 3)
    norm = {None: 2}.get(p, p)
    inverse = np.linalg.inv(x.numpy())
    # The ratio of singular values is the product of the norms for 2 and its reciprocal for -2.
    expected = np.linalg.norm(x.numpy(), norm) * np.linalg.norm(inverse, norm)
    assert_close(L.cond(x, p), expected, 1e-9)
    singular = gl.stack([gl.ones(2, 2), gl.eye(2)])
    if p not in (None, 2, -2):
        assert L.cond(singular, p).isfinite().tolist() == [False, True]


@pytest.mark.parametrize("ord", [None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc"])
def test_norm_of_a_matrix_is_not_that_of_a_long_vector(ord):
    for x, axis in [(random(3, 2), None), (random(2, 4, 3), (2, 0)), (random(2, 4, 3), (-2, -1))]:
        for keepdims in (False, True):
            expected = np.linalg.norm(x.numpy(), ord, axis, keepdims)
            assert_close(L.norm(x, ord, dim=axis, keepdim=keepdims), expected, 1e-9)


@pytest.mark.parametrize("ord", [None, 2, 3, 0, 0.5, 1, np.inf, -np.inf])
def test_norm_of_vectors(ord):
    for x, axis in [(random(5), None), (random(2, 4), 1), (random(2, 4, 3), -2)]:
        assert_close(L.norm(x, ord=ord, axis=axis), np.linalg.norm(x.numpy(), ord, axis), 1e-9)
    x = random(2, 3, 4)
    assert_close(L.norm(x), np.linalg.norm(x.numpy()), 1e-9)
    with pytest.raises(ShapeError) as caught:
        L.norm(x, 2)
    assert str(caught.value) == (
        "linalg.norm: expected a vector or a matrix where an ord is given, got 3 axes of shape "
        "(2, 3, 4); give the axis of the vectors, or the two of the matrices"
    )


def test_matrix_power():
    x = random(2, 3, 3)
    for n in (-3, -1, 0, 1, 2, 5, 8):
        assert_close(L.matrix_power(x, n), np.linalg.matrix_power(x.numpy(), n), 1e-9, 1e-9)
    assert x.matrix_power(1) is not x
    assert gl.matrix_power(gl.tensor([[1, 1], [1, 0]]), 10).tolist() == [[89, 55], [55, 34]]


# --------------------------------------------------------------------------------- determinants


def test_gradient_of_the_determinant_of_singular_matrices():
    for matrix in ([[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]):
        x = gl.tensor(matrix, dtype="float64", requires_grad=True)
        L.det(x).backward()
        (a, b), (c, d) = matrix
        assert_close(x.grad, np.array([[d, -c], [-b, a]]), 1e-12, 1e-12)


def test_slogdet_and_logdet():
    x = gl.tensor([[[2.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    sign, logabsdet = x.slogdet()
    assert sign.tolist() == [1.0, -1.0, 0.0]
    assert_close(logabsdet, np.float32([np.log(6), 0, -np.inf]), 1e-6)
    assert_close(x.logdet(), np.float32([np.log(6), np.nan, -np.inf]), 1e-6, equal_nan=True)
    large = 1e30 * gl.eye(20)
    assert large.det().item() == np.inf
    assert_close(large.logdet(), np.float32(600 * np.log(10)), 1e-5)
    assert not x.requires_grad_().slogdet().sign.requires_grad


def test_complex_numbers_go_forward():
    x = random(3, 3).numpy() + 1j * random(3, 3, seed=1).numpy()
    assert_close(L.inv(gl.tensor(x)), np.linalg.inv(x), 1e-10)
    assert_close(L.det(gl.tensor(x)), np.linalg.det(x), 1e-10)
    assert_close(L.pinv(gl.tensor(x[:2])), np.linalg.pinv(x[:2]), 1e-10)
    assert_close(L.solve(gl.tensor(x), gl.tensor(x[0])), np.linalg.solve(x, x[0]), 1e-10)


# -------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: L.inv(gl.ones(2, 2)), LinAlgError,
         "inv: expected invertible matrices, got a singular one of shape (2, 2); lstsq and pinv "
         "take singular ones"),
        (lambda: L.solve(gl.stack([gl.eye(2), gl.ones(2, 2)]), gl.ones(2)), LinAlgError,
         "solve: expected invertible matrices, got a singular one at [1] of shape (2, 2, 2); lstsq "
         "and pinv take singular ones"),
        (lambda: L.cholesky(gl.tensor([[1.0, 2.0], [2.0, 1.0]])), LinAlgError,
         "cholesky: expected symmetric positive definite matrices, got another of shape (2, 2); "
         "add a small multiple of the identity, or see eigh"),
        (lambda: L.svd(gl.full((2, 2), float("nan"))), LinAlgError,
         "svd: expected finite values, got NaN or infinity in a tensor of shape (2, 2)"),
        (lambda: L.svd(gl.full((3, 2), float("nan"))), LinAlgError,
         "svd: expected finite values, got NaN or infinity in a tensor of shape (3, 2)"),
        (lambda: L.matrix_rank(gl.full((2, 2), float("nan"))), LinAlgError,
         "svdvals: expected finite values, got NaN or infinity in a tensor of shape (2, 2)"),
        (lambda: L.matrix_power(gl.tensor([[1, 2], [3, 4]]), -1), DTypeError,
         "matrix_power: expected floating or complex values, got int64; cast with .astype(...)"),
        (lambda: L.solve_triangular(gl.zeros(2, 2), gl.ones(2, 1), upper=True), LinAlgError,
         "solve_triangular: expected a diagonal without 0, got a singular matrix of shape (2, 2)"),
        (lambda: L.inv(gl.ones(2, 3)), ShapeError,
         "inv: expected square matrices in the last two axes, got shape (2, 3); lstsq and pinv "
         "take other shapes"),
        (lambda: L.det(gl.ones(3)), ShapeError,
         "det: expected a matrix, or a batch of them, got shape (3,)"),
        (lambda: L.solve(gl.eye(3), gl.ones(2)), ShapeError,
         "solve: expected a right-hand side (3,) or (3, k) for matrices (3, 3), got shape "
         "(2,)"),
        (lambda: L.lstsq(gl.ones(2, 4, 3), gl.ones(3, 4, 1)), ShapeError,
         "lstsq: expected a right-hand side (4,), (2, 4) or (2, 4, k) for matrices (2, 4, 3), got "
         "shape (3, 4, 1)"),
        (lambda: L.solve(gl.eye(3), gl.ones(3), left=False), ShapeError,
         "solve: expected a right-hand side (…, k, 3), got shape (3,)"),
        (lambda: L.solve(random(2, 3, 3), random(3, 2), left=False), ShapeError,
         "solve: expected a right-hand side (…, k, 3) whose batch axes broadcast with those of "
         "(2, 3, 3), got shape (3, 2)"),
        (lambda: L.solve_triangular(gl.eye(3), gl.ones(2, 1), upper=True), ShapeError,
         "solve_triangular: expected a right-hand side (…, 3, k), got shape (2, 1)"),
        (lambda: L.solve_triangular(random(2, 3, 3), random(4, 3, 1), upper=True), ShapeError,
         "solve_triangular: expected a right-hand side (…, 3, k) whose batch axes broadcast with "
         "those of (2, 3, 3), got shape (4, 3, 1)"),
        (lambda: L.inv(gl.tensor([[1, 2], [3, 4]])), DTypeError,
         "inv: expected floating or complex values, got int64; cast with .astype(...)"),
        (lambda: L.cholesky(gl.eye(2, dtype="complex64")), DTypeError,
         "cholesky: expected real floating values, got complex64; cast with .astype(...)"),
        (lambda: L.solve(gl.eye(2), gl.tensor([1, 2])), DTypeError,
         "solve: expected floating or complex values, got int64; cast with .astype(...)"),
        (lambda: L.qr(gl.eye(2), "economic"), OptionError,
         "qr: expected mode one of 'reduced', 'complete', 'r', got 'economic'"),
        (lambda: L.eigh(gl.eye(2), "lower"), OptionError,
         "eigh: expected UPLO one of 'L', 'U', got 'lower'"),
        (lambda: L.pinv(gl.eye(2), rtol=-1.0), OptionError,
         "pinv: expected rtol a number of 0 or more, got -1.0"),
        (lambda: L.matrix_power(gl.eye(2), 0.5), OptionError,
         "matrix_power: expected an integer n, got 0.5"),
        (lambda: L.cond(gl.zeros(0, 2)), ShapeError,
         "cond: expected matrices with elements, got shape (0, 2)"),
        (lambda: L.svd(gl.ones(3, 2).requires_grad_()), GradientError,
         "svd with full_matrices=True has no gradient: the further columns of U and V are not "
         "determined; use full_matrices=False, or call it on .detach()"),
    ],
)  # fmt: skip
def test_messages(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_its_error_is_one_that_users_of_numpy_and_pytorch_catch():
    assert issubclass(LinAlgError, np.linalg.LinAlgError)
    assert issubclass(LinAlgError, RuntimeError)
    assert L.LinAlgError is LinAlgError


# ------------------------------------------------------------------------------------------ CUDA


@pytest.mark.parametrize(
    "op",
    ["solve", "solve_triangular", "inv", "pinv", "det", "slogdet", "lstsq", "cholesky", "qr"],
)
def test_samples_on_cuda(op, fake_cuda):
    assert check_op(op, devices=["cuda"]) > 5


def test_singular_matrices_on_cuda_do_not_make_the_host_wait(fake_cuda):
    """CuPy raises nothing for them: the result is not finite instead."""
    x = gl.tensor([[[4.0, 0.0], [0.0, 1.0]], [[4.0, 2.0], [2.0, -1.0]]], device="cuda")
    singular, b = gl.ones(2, 2, device="cuda"), gl.ones(2, device="cuda")
    before = counters.synchronizations, fake_cuda.waits, fake_cuda.copies_to_host
    y, z, inverse = L.cholesky(x), L.solve(singular, b), L.inv(singular)
    rest = L.lstsq(x, x).solution, L.det(x), L.slogdet(x), L.qr(x), L.eigh(x), L.matrix_rank(x)
    after = counters.synchronizations, fake_cuda.waits, fake_cuda.copies_to_host
    assert after == before
    assert len(rest) == 6
    assert y.isfinite().tolist() == [[[True, True]] * 2, [[False, False]] * 2]
    assert not z.isfinite().any()
    assert not inverse.isfinite().any()


def test_singular_matrices_on_cuda_raise_where_the_host_waits_anyway(fake_cuda, monkeypatch):
    monkeypatch.setattr(current(), "sync", True)  # GRADLAB_SYNC=1
    singular = gl.ones(2, 2, device="cuda")
    for call in (
        lambda: L.solve(singular, singular),
        lambda: L.inv(singular),
        lambda: L.cholesky(gl.stack([gl.eye(2, device="cuda"), -singular])),
    ):
        with pytest.raises(LinAlgError, match=r"^(solve|inv|cholesky): expected .*, got a"):
            call()
    assert L.inv(gl.eye(2, device="cuda")).tolist() == [[1, 0], [0, 1]]


def test_a_triangular_system_takes_no_elimination():
    a, b = gl.rand(700, 700) + 700 * gl.eye(700), gl.ones(700, 1)

    def seconds(call):
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            call()
            best = min(best, time.process_time() - start)
        return best

    gl.linalg.solve_triangular(a, b, upper=True)  # loads SciPy
    substituted = seconds(lambda: gl.linalg.solve_triangular(a, b, upper=True))
    assert substituted < seconds(lambda: gl.linalg.solve(a, b)) / 2


@pytest.mark.parametrize("n", [15, 16, 40])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("unitriangular", [True, False])
def test_triangular_systems_of_any_size(n, upper, unitriangular):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, n, n)) / n + np.eye(n), rng.standard_normal((3, n, 2))
    whole = np.triu(a) if upper else np.tril(a)
    if unitriangular:
        whole = np.where(np.eye(n, dtype=bool), 1, whole)
    options = {"upper": upper, "unitriangular": unitriangular}
    x = gl.linalg.solve_triangular(gl.tensor(a), gl.tensor(b), **options)
    assert x.shape == (2, 3, n, 2)
    np.testing.assert_allclose(whole @ x.numpy(), np.broadcast_to(b, x.shape), atol=1e-9)
