"""Linear algebra: solving, inverses, determinants, least squares, factorizations.

Names, signatures and rules of shape are those of ``torch.linalg``: the last two axes are matrices,
all axes before them are batches. Real floating dtypes; float16 and bfloat16 are computed in
float32. `solve`, `inv`, `det` and `pinv` take complex numbers as well, without gradient.

On the CPU a matrix without an inverse, or without a Cholesky factor, raises `LinAlgError`. On a GPU
the host would have to wait for every result to learn of it, so nothing is raised there: the result
holds infinities or NaN (a Cholesky factor that does not exist is all NaN). With ``GRADLAB_SYNC=1``
the host waits anyway, and `LinAlgError` is raised as on the CPU.

An op has one result that gradients flow into. A factorization has several, so its op gives their
columns in one array, one factor above the other, and the public function takes that apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.autograd.modes import mode as autograd_mode
from gradlab.errors import (
    DTypeError,
    GradientError,
    LinAlgError,
    OptionError,
    ShapeError,
    message,
)
from gradlab.kernels.cuda.driver import current
from gradlab.ops.core import PROMOTE, Op, apply, public, widened
from gradlab.ops.elementwise import abs as absolute, where
from gradlab.ops.matmul import diag_embed, einsum
from gradlab.ops.reduction import (
    matrix_norm,
    operand,
    require_finite,
    sum,
    svdvals,
    thin_svd,
    vector_norm,
)
from gradlab.ops.samples import Sample, values
from gradlab.ops.shape import (
    Axis,
    broadcast_tensors,
    broadcast_to,
    canonical_axes,
    canonical_axis,
    cat,
    roll,
    stack,
    tril,
    triu,
)
from gradlab.tensor import Tensor, is_integer, require_option

_REAL = "fV"
_INEXACT = "fcV"

# ------------------------------------------------------------------------------ arguments, errors


def _matrices(operation: str, x: Any, *, square: bool = False, kinds: str = _REAL) -> Tensor:
    """``x`` as a tensor of matrices, or the clear error."""
    x = operand(operation, x)
    if x.ndim < 2:
        raise ShapeError(
            message(operation, expected="a matrix, or a batch of them", got=f"shape {x.shape}")
        )
    if square and x.shape[-1] != x.shape[-2]:
        raise ShapeError(
            message(
                operation,
                expected="square matrices in the last two axes",
                got=f"shape {x.shape}",
                hint="lstsq and pinv take other shapes",
            )
        )
    if x.dtype.kind not in kinds:
        raise DTypeError(
            message(
                operation,
                expected="floating or complex values" if "c" in kinds else "real floating values",
                got=x.dtype.name,
                hint="cast with .astype(...)",
            )
        )
    return x


def _fails(function: Callable[[Any], Any], matrix: np.ndarray) -> bool:
    try:
        function(matrix)
    except np.linalg.LinAlgError:
        return True
    return False


def _explain(
    operation: str,
    expected: str,
    bad: str,
    hint: str = "",
    function: Callable[[Any], Any] = np.linalg.inv,
) -> Callable[..., None]:
    """A check that tells which of the matrices NumPy refused: the first ``function`` refuses."""

    def check(x: Tensor, *_: Any, **__: Any) -> None:
        array = widened(x.numpy(force=True))
        require_finite(operation, x)
        for index in np.ndindex(array.shape[:-2]):
            if _fails(function, array[index]):
                place = f"at {list(index)} of shape {x.shape}" if index else f"of shape {x.shape}"
                got = f"{bad} {place}"
                raise LinAlgError(message(operation, expected=expected, got=got, hint=hint))
        # A matrix that the GPU's library refuses and NumPy does not.
        got = f"{bad} in a tensor of shape {x.shape}"
        raise LinAlgError(message(operation, expected=expected, got=got, hint=hint))

    return check


def _singular(operation: str) -> Callable[..., None]:
    hint = "lstsq and pinv take singular ones"
    return _explain(operation, "invertible matrices", "a singular one", hint)


def _iterates(operation: str, function: Callable[[Any], Any]) -> Callable[..., None]:
    """A check for what fails on numbers that are not finite alone, or nearly so."""
    return _explain(operation, "matrices with such factors", "one without", "", function)


def _checked(xp: Any, name: str, *arrays: Any) -> Any:
    """A function of the namespace's linalg; on a GPU its status is read where the host waits."""
    function = getattr(xp.linalg, name)
    if xp is np or not getattr(current(), "sync", False):
        return function(*arrays)
    import cupyx

    with cupyx.errstate(linalg="raise"):
        return function(*arrays)


def _transposed(x: Any) -> Any:
    return x.swapaxes(-1, -2)


# --------------------------------------------------------------------------------------- samples


def _regular(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Square matrices far from singular."""
    return values(shape, -1, 1, seed) + 2.0 * np.eye(shape[-1])


_SQUARE = ((3, 3), (1, 1), (2, 3, 3), (2, 1, 2, 2), (0, 0), (0, 2, 2))


def _square_samples() -> Iterator[Sample]:
    for shape in _SQUARE:
        yield Sample((_regular(shape),), name=f"{shape}")
    yield Sample((_regular((3, 3)).T,), name="transposed")
    yield Sample((values((33, 33), -0.1, 0.1) + np.eye(33),), name="33 by 33", large=True)


def _solve_samples() -> Iterator[Sample]:
    for shape1, shape2 in (
        ((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3)), ((2, 3, 3), (2, 3, 2)),
        ((2, 3, 3), (3,)), ((2, 3, 3), (3, 4)), ((3, 3), (2, 3, 4)), ((2, 1, 2, 2), (3, 2, 1)),
        ((0, 0), (0,)), ((2, 2), (2, 0)), ((0, 2, 2), (2, 2)),
    ):  # fmt: skip
        yield Sample((_regular(shape1), values(shape2, seed=1)), name=f"{shape1} and {shape2}")
    yield Sample((_regular((2, 2)), values((3, 2))), {"left": False}, "from the right")
    pair = (values((33, 33), -0.1, 0.1) + np.eye(33), values((33, 31)))
    yield Sample(pair, name="33 by 33", large=True)


_OBLONG = ((4, 2), (2, 4), (3, 3), (2, 4, 3), (2, 1, 2, 3), (1, 1))


def _oblong_samples(*, empty: bool = True) -> Iterator[Sample]:
    for shape in _OBLONG:
        yield Sample((_full_rank(shape),), name=f"{shape}")
    yield Sample((_full_rank((4, 3)).T,), name="transposed")
    if empty:
        yield Sample((values((0, 3)),), name="no rows")
        yield Sample((values((0, 3, 2)),), name="no matrices")
    yield Sample((_full_rank((33, 17)),), name="33 by 17", large=True)


def _full_rank(shape: tuple[int, ...]) -> np.ndarray:
    return values(shape, -1, 1) + 2.0 * np.eye(shape[-2], shape[-1])


# ---------------------------------------------------------------------------------------- solving


def _solve_forward(xp: Any, a: Any, b: Any) -> Any:
    if xp is not np:  # CuPy wants equal batches, and something in them
        shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = xp.broadcast_to(a, shape + a.shape[-2:])
        b = xp.broadcast_to(b, shape + b.shape[-2:])
        if not b.size:
            return xp.empty(b.shape, b.dtype)
    return _checked(xp, "solve", a, b)


# A X = B. With Y the solution, gB = A⁻ᵀ gY and gA = -gB Yᵀ.
SOLVE = Op(
    "solve",
    _solve_forward,
    inputs=("a", "b"),
    gradients={
        "a": lambda gy, a, y: -(apply(SOLVE, (a.mT, gy)) @ y.mT),
        "b": lambda gy, a: apply(SOLVE, (a.mT, gy)),
    },
    dtype=PROMOTE,
    kinds=_INEXACT,
    halves=True,
    broadcasts=True,
    check=_singular("solve"),
    samples=_solve_samples,
)


def _fits(a: Tensor, b: Tensor, rows: int) -> bool:
    """Whether ``b`` holds matrices of so many rows, in batches that broadcast with those of a."""
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        return False
    return b.ndim >= 2 and b.shape[-2] == rows


def _right_matrices(operation: str, a: Tensor, b: Any, left: bool) -> Tensor:
    """The right-hand side of ``A X = B``, or transposed that of ``X A = B``; no vectors."""
    b = operand(operation, b)
    turned = b if left or b.ndim < 2 else b.mT
    if not _fits(a, turned, a.shape[-1]):
        n = a.shape[-1]
        expected = f"a right-hand side (…, {n}, k)" if left else f"a right-hand side (…, k, {n})"
        if a.ndim > 2:
            expected += f" whose batch axes broadcast with those of {a.shape}"
        raise ShapeError(message(operation, expected=expected, got=f"shape {b.shape}"))
    return turned


def _right_side(operation: str, a: Tensor, b: Any, rows: int) -> tuple[Tensor, bool]:
    """The right-hand side as matrices, and whether it was vectors, by PyTorch's rule."""
    b = operand(operation, b)
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    column = b[..., None] if vector else b
    if not _fits(a, column, rows):
        batch = "".join(f"{size}, " for size in a.shape[:-2])
        vectors = f"({rows},), ({batch}{rows})" if batch else f"({rows},)"
        shapes = f"{vectors} or ({batch}{rows}, k)"
        expected = f"a right-hand side {shapes} for matrices {a.shape}"
        raise ShapeError(message(operation, expected=expected, got=f"shape {b.shape}"))
    return column, vector


@public(SOLVE)
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """Return X with ``A X = B``, or ``X A = B`` if not ``left``, for square ``A`` (…, n, n).

    ``B`` is a vector (n,), a batch of vectors with the shape of ``A`` but for its last axis, or
    matrices (…, n, k) whose batch axes broadcast with those of ``A``; X has its shape. If not
    ``left``, ``B`` holds matrices (…, k, n).

    Raises `LinAlgError` for a singular matrix (on a GPU the result is infinite or NaN instead),
    `ShapeError` for matrices that are not square or do not fit, `DTypeError` for integers.

    >>> solve(gl.tensor([[2.0, 0.0], [1.0, 4.0]]), gl.tensor([2.0, 9.0]))
    tensor([1., 2.])
    """
    A = _matrices("solve", A, square=True, kinds=_INEXACT)
    if left:
        b, vector = _right_side("solve", A, B, A.shape[-1])
        y: Tensor = apply(SOLVE, (A, b))
        return y[..., 0] if vector else y
    y = apply(SOLVE, (A.mT, _right_matrices("solve", A, B, left)))
    return y.mT


# From this order on a call of LAPACK for each matrix beats NumPy's LU of a whole batch.
_SUBSTITUTED = 16


def _substituted(a: np.ndarray, b: np.ndarray, upper: bool, unitriangular: bool) -> np.ndarray:
    """By back substitution, in n²·k steps where LU takes n³."""
    from scipy.linalg import get_lapack_funcs  # loaded at the first use

    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(x, shape + x.shape[-2:]) for x in (a, b))
    y = np.empty(b.shape, b.dtype)
    (trtrs,) = get_lapack_funcs(("trtrs",), (a, b))
    for place in np.ndindex(shape):
        if not b[place].size:
            continue
        # LAPACK stores by columns: the transposed matrix is the same memory.
        y[place], info = trtrs(a[place].T, b[place], int(upper), 1, int(unitriangular))
        if info:
            raise np.linalg.LinAlgError("Singular matrix")
    return y


def _triangular_forward(xp: Any, a: Any, b: Any, *, upper: bool, unitriangular: bool) -> Any:
    if xp is np and a.shape[-1] >= _SUBSTITUTED:
        return _substituted(a, b, upper, unitriangular)
    # Partial pivoting leaves an upper triangle as it is, so that LU is back substitution; a lower
    # one becomes upper with its rows and columns in reverse.
    a = xp.triu(a) if upper else xp.tril(a)
    if unitriangular:
        a = xp.where(xp.eye(a.shape[-1], dtype=bool), a.dtype.type(1), a)
    if upper:
        return _solve_forward(xp, a, b)
    return _solve_forward(xp, a[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]


def _triangular_gradient_b(gy: Tensor, a: Tensor, upper: bool, unitriangular: bool) -> Tensor:
    return apply(TRIANGULAR, (a.mT, gy), {"upper": not upper, "unitriangular": unitriangular})


def _triangular_gradient_a(
    gy: Tensor, a: Tensor, y: Tensor, upper: bool, unitriangular: bool
) -> Tensor:
    ga = -(_triangular_gradient_b(gy, a, upper, unitriangular) @ y.mT)
    skipped = 1 if unitriangular else 0
    return triu(ga, skipped) if upper else tril(ga, -skipped)


def _triangular_samples() -> Iterator[Sample]:
    for shape1, shape2 in (
        ((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 2)), ((2, 2), (3, 2, 1)), ((1, 1), (1, 1)),
        ((0, 0), (0, 2)),
    ):  # fmt: skip
        for upper in (False, True):
            name = f"{shape1} and {shape2}, {'upper' if upper else 'lower'}"
            yield Sample((_regular(shape1), values(shape2, seed=1)), {"upper": upper}, name)
    options = {"upper": True, "unitriangular": True}
    yield Sample((_regular((3, 3)), values((3, 2))), options, "ones on the diagonal")
    yield Sample((_regular((2, 2)), values((3, 2))), {"upper": True, "left": False}, "right")


TRIANGULAR = Op(
    "solve_triangular",
    _triangular_forward,
    inputs=("a", "b"),
    gradients={"a": _triangular_gradient_a, "b": _triangular_gradient_b},
    dtype=PROMOTE,
    kinds=_REAL,
    halves=True,
    broadcasts=True,
    check=_explain(
        "solve_triangular",
        "a diagonal without 0",
        "a singular matrix",
        function=lambda a: np.linalg.inv(np.diag(np.diagonal(a))),
    ),
    samples=_triangular_samples,
)


@public(TRIANGULAR)
def solve_triangular(
    A: Tensor,
    B: Tensor,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> Tensor:
    """Return X with ``A X = B`` (``X A = B`` if not ``left``) for triangular ``A`` (…, n, n).

    Only the triangle that ``upper`` names is read; with ``unitriangular`` the diagonal is taken as
    ones and not read either. ``B`` holds matrices (…, n, k) whose batch axes broadcast.

    Raises `LinAlgError` for a 0 on the diagonal (infinite or NaN on a GPU).

    >>> lower = gl.tensor([[2.0, 7.0], [1.0, 4.0]])
    >>> solve_triangular(lower, gl.tensor([[2.0], [9.0]]), upper=False)
    tensor([[1.],
            [2.]])
    """
    A = _matrices("solve_triangular", A, square=True)
    b = _right_matrices("solve_triangular", A, B, left)
    options = {"upper": bool(upper) == left, "unitriangular": bool(unitriangular)}
    y: Tensor = apply(TRIANGULAR, (A if left else A.mT, b), options)
    return y if left else y.mT


# --------------------------------------------------------------------------------------- inverses

INV = Op(
    "inv",
    lambda xp, x: _checked(xp, "inv", x),
    gradients={"x": lambda gy, y: -(y.mT @ gy @ y.mT)},
    kinds=_INEXACT,
    halves=True,
    check=_singular("inv"),
    samples=_square_samples,
)


@public(INV, "inverse")
def inv(A: Tensor) -> Tensor:
    """Return the inverse of the square matrices ``A`` (…, n, n).

    To solve ``A X = B``, `solve` is quicker and more exact.

    Raises `LinAlgError` for a singular matrix (on a GPU the result is infinite or NaN instead),
    `ShapeError` for matrices that are not square, `DTypeError` for integers.

    >>> inv(gl.tensor([[1.0, 2.0], [0.0, 4.0]]))
    tensor([[ 1.0000, -0.5000],
            [ 0.0000,  0.2500]])
    """
    return apply(INV, (_matrices("inv", A, square=True, kinds=_INEXACT),))


inverse = inv


def _relative_limit(shape: tuple[int, ...], dtype: Any, atol: float, rtol: float | None) -> float:
    """``rtol``, or its default: the rounding of matrices of this shape; 0 if ``atol`` is given."""
    if rtol is not None:
        return rtol
    wide = dtypes.float32 if dtype in dtypes.HALVES else dtype
    return 0.0 if atol else max(shape[-2:]) * float(np.finfo(wide).eps)


def _cut_inverse(xp: Any, s: Any, shape: tuple[int, ...], atol: float, rtol: float | None) -> Any:
    """``1 / s``, and 0 for the singular values that count as 0."""
    if not s.shape[-1]:
        return s
    rtol = _relative_limit(shape, s.dtype, atol, rtol)
    largest = xp.max(s, axis=-1, keepdims=True)
    kept = s > xp.maximum(largest * s.dtype.type(rtol), s.dtype.type(atol))
    return xp.where(kept, 1 / xp.where(kept, s, s.dtype.type(1)), s.dtype.type(0))


def _pinv_forward(xp: Any, x: Any, *, atol: float, rtol: float | None) -> Any:
    u, s, vt = thin_svd(xp, x)
    inverse = _cut_inverse(xp, s, x.shape, atol, rtol)[..., None, :]
    return (_transposed(vt).conj() * inverse) @ _transposed(u).conj()


def _pinv_gradient(gy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # Golub and Pereyra, SIAM J. Numer. Anal. 10(2), 1973: for A⁺ of constant rank,
    # dA⁺ = -A⁺ dA A⁺ + A⁺A⁺ᵀ dAᵀ (I - A A⁺) + (I - A⁺A) dAᵀ A⁺ᵀA⁺.
    across = gy.mT @ y @ y.mT
    along = y.mT @ y @ gy.mT
    return -(y.mT @ gy @ y.mT) + (across - x @ (y @ across)) + (along - (along @ y) @ x)


PINV = Op(
    "pinv",
    _pinv_forward,
    gradients={"x": _pinv_gradient},
    kinds=_INEXACT,
    halves=True,
    check=_iterates("pinv", np.linalg.pinv),
    samples=_oblong_samples,
)


def _tolerance(operation: str, name: str, value: Any) -> float | None:
    if value is not None and not (isinstance(value, int | float) and value >= 0):
        raise OptionError(
            message(operation, expected=f"{name} a number of 0 or more", got=repr(value))
        )
    return None if value is None else float(value)


@public(PINV, "pinverse")
def pinv(
    A: Tensor,
    rcond: float | None = None,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
) -> Tensor:
    """Return the pseudoinverse (Moore-Penrose) of the matrices ``A`` (…, m, n): shape (…, n, m).

    Singular values below ``max(atol, rtol · the largest)`` count as 0. ``rtol`` (also called
    ``rcond``) is ``max(m, n)`` times the dtype's epsilon by default, or 0 if ``atol`` is given.
    With ``hermitian`` only the lower triangle is read. The gradient is that of matrices whose rank
    does not change.

    >>> pinv(gl.tensor([[1.0, 1.0], [1.0, 1.0]]))
    tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]])
    """
    A = _matrices("pinv", A, square=hermitian, kinds=_REAL if hermitian else _INEXACT)
    relative = _tolerance("pinv", "rtol", rcond if rtol is None else rtol)
    options = {"atol": _tolerance("pinv", "atol", atol) or 0.0, "rtol": relative}
    return apply(PINV, (_from_lower(A) if hermitian else A,), options)


pinverse = pinv


def _from_lower(x: Tensor) -> Tensor:
    """The symmetric matrices whose lower triangle that of ``x`` is."""
    return tril(x) + tril(x, -1).mT


# ----------------------------------------------------------------------------------- determinants


def _cofactor_forward(xp: Any, x: Any) -> Any:
    # det(A) A⁻ᵀ without dividing, hence of singular matrices too: for A = U diag(s) Vᵀ it is
    # det(U Vᵀ) U diag(product of the other s) Vᵀ.
    u, s, vt = thin_svd(xp, x)
    n = s.shape[-1]
    others = xp.where(xp.eye(n, dtype=bool), s.dtype.type(1), s[..., None, :])
    sign = xp.sign(xp.linalg.det(u @ vt))
    return u * (xp.prod(others, axis=-1) * sign[..., None])[..., None, :] @ vt


def _cofactor_gradient(gy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    turned = sum(y * gy, (-2, -1), True) * y - y @ gy.mT @ y
    return turned / apply(DET, (x,))[..., None, None]


COFACTOR = Op(
    "cofactor",
    _cofactor_forward,
    gradients={"x": _cofactor_gradient},
    halves=True,
    check=_iterates("the gradient of det", np.linalg.svd),
)

DET = Op(
    "det",
    lambda xp, x: xp.linalg.det(x),
    gradients={"x": lambda gy, x: gy[..., None, None] * apply(COFACTOR, (x,))},
    kinds=_INEXACT,
    halves=True,
    samples=_square_samples,
)


@public(DET, "det")
def det(A: Tensor) -> Tensor:
    """Return the determinant of the square matrices ``A`` (…, n, n): shape (…).

    Its gradient, the matrix of cofactors, is right for singular matrices too; the gradient of that
    needs an inverse.

    >>> det(gl.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(-2.)
    """
    return apply(DET, (_matrices("det", A, square=True, kinds=_INEXACT),))


class SignAndLogDet(NamedTuple):
    """The sign of a determinant and the logarithm of its magnitude."""

    sign: Tensor
    logabsdet: Tensor


def _slogdet_forward(xp: Any, x: Any) -> Any:
    sign, logabsdet = xp.linalg.slogdet(x)
    return xp.stack([xp.asarray(sign), xp.asarray(logabsdet).astype(x.dtype)])


SLOGDET = Op(
    "slogdet",
    _slogdet_forward,
    gradients={"x": lambda gy, x: gy[1][..., None, None] * apply(INV, (x,)).mT},
    kinds=_REAL,
    halves=True,
    samples=_square_samples,
)


@public(SLOGDET, "slogdet")
def slogdet(A: Tensor) -> SignAndLogDet:
    """Return the ``sign`` and ``logabsdet``, ``log |det A|``, of square matrices (…, n, n).

    A determinant overflows and underflows easily; this does not. A singular matrix gives sign 0 (on
    a GPU 1 or -1) and -inf. The sign has no gradient.

    >>> slogdet(gl.tensor([[0.0, 1.0], [1.0, 0.0]]))
    SignAndLogDet(sign=tensor(-1.), logabsdet=tensor(0.))
    """
    both = apply(SLOGDET, (_matrices("slogdet", A, square=True),))
    return SignAndLogDet(both[0].detach(), both[1])


@public(None, "logdet")
def logdet(A: Tensor) -> Tensor:
    """Return ``log det A`` of real square matrices: -inf where it is 0, NaN where it is negative.

    >>> logdet(gl.tensor([[2.0, 0.0], [0.0, 0.5]]))
    tensor(0.)
    """
    sign, logabsdet = slogdet(_matrices("logdet", A, square=True))
    return where(sign < 0, np.nan, logabsdet)


# --------------------------------------------------------------------------------- least squares


class LeastSquares(NamedTuple):
    """What `lstsq` gives."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def _lstsq_forward(xp: Any, a: Any, b: Any, *, rcond: float | None) -> Any:
    u, s, vt = thin_svd(xp, a)
    inverse = _cut_inverse(xp, s, a.shape, 0.0, rcond)[..., None]
    return _transposed(vt) @ (inverse * (_transposed(u) @ b))


def _lstsq_gradient_a(gy: Tensor, a: Tensor, b: Tensor, y: Tensor, rcond: float | None) -> Tensor:
    # The gradient of A⁺B by that of A⁺ (see _pinv_gradient), with gA⁺ = gY Bᵀ multiplied out.
    inverse = apply(PINV, (a,), {"atol": 0.0, "rtol": rcond})
    turned = inverse.mT @ gy
    remains = (b - a @ y) @ (inverse @ turned).mT
    beyond = (inverse.mT @ y) @ (gy - a.mT @ turned).mT
    return remains + beyond - turned @ y.mT


def _lstsq_gradient_b(gy: Tensor, a: Tensor, rcond: float | None) -> Tensor:
    return apply(PINV, (a,), {"atol": 0.0, "rtol": rcond}).mT @ gy


def _lstsq_samples() -> Iterator[Sample]:
    for shape1, shape2 in (
        ((4, 2), (4,)), ((4, 2), (4, 3)), ((2, 4), (2, 3)), ((3, 3), (3, 1)),
        ((2, 4, 3), (2, 4)), ((2, 4, 3), (2, 4, 2)), ((2, 4, 3), (4, 2)), ((4, 3), (2, 4, 2)),
    ):  # fmt: skip
        pair = (_full_rank(shape1), values(shape2, seed=1))
        yield Sample(pair, name=f"{shape1} and {shape2}")
    yield Sample((_full_rank((33, 17)), values((33, 2))), name="33 by 17", large=True)


LSTSQ = Op(
    "lstsq",
    _lstsq_forward,
    inputs=("a", "b"),
    gradients={"a": _lstsq_gradient_a, "b": _lstsq_gradient_b},
    dtype=PROMOTE,
    kinds=_REAL,
    halves=True,
    broadcasts=True,
    check=_iterates("lstsq", np.linalg.pinv),
    samples=_lstsq_samples,
)


def lstsq(
    A: Tensor,
    B: Tensor,
    rcond: float | None = None,
    *,
    driver: str | None = None,
) -> LeastSquares:
    """Return the X for which ``‖A X - B‖`` is smallest; of several, that of the smallest norm.

    ``A`` holds matrices (…, m, n) of any rank; ``B`` is a vector (m,), vectors (…, m) or matrices
    (…, m, k), as in `solve`. Singular values of ``A`` below ``rcond`` times the largest count as 0;
    by default ``max(m, n)`` times the dtype's epsilon.

    Returns ``solution``, ``residuals`` (the sums of squares of ``A X - B`` over the m rows, (…, k)
    with k = 1 for vectors; empty unless m > n), ``rank`` (int64) and ``singular_values``. Every
    ``driver`` of PyTorch is accepted, and none used: the singular value decomposition computes all.

    >>> found = lstsq(gl.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), gl.tensor([2.0, 3.0, 4.0]))
    >>> found.solution, found.residuals
    (tensor([1., 3.]), tensor([16.]))
    """
    require_option("lstsq", "driver", driver, (None, "gels", "gelsy", "gelsd", "gelss"))
    A = _matrices("lstsq", A)
    rcond = _tolerance("lstsq", "rcond", rcond)
    solution, residuals = _least_squares(A, B, rcond)
    s = svdvals(A.detach())
    return LeastSquares(solution, residuals, _rank(s, A.shape, 0.0, rcond), s)


@public(LSTSQ)
def _least_squares(a: Tensor, b: Tensor, rcond: float | None = None) -> tuple[Tensor, Tensor]:
    """What of `lstsq` has a gradient: the solution and its residuals."""
    b, vector = _right_side("lstsq", a, b, a.shape[-2])
    y: Tensor = apply(LSTSQ, (a, b), {"rcond": rcond})
    tall = a.shape[-2] > a.shape[-1]
    squares = sum((a @ y - b) ** 2, -2) if tall else y.ravel()[:0]
    return y[..., 0] if vector else y, squares


def _rank(s: Tensor, shape: tuple[int, ...], atol: float, rtol: float | None) -> Tensor:
    if not s.shape[-1]:
        return sum(s > 0, -1)
    limit = s.max(axis=-1, keepdims=True) * _relative_limit(shape, s.dtype, atol, rtol)
    return sum(s > limit.clamp(min=atol), -1)


# --------------------------------------------------------------------------------- factorizations


def _halved(x: Tensor) -> Tensor:
    """The lower triangle with half of the diagonal."""
    return (tril(x) + tril(x, -1)) * 0.5


def _cholesky_forward(xp: Any, x: Any) -> Any:
    y = _checked(xp, "cholesky", x)
    if xp is not np and y.size:
        # cuSOLVER stops at the first pivot that is not positive and leaves it where it is.
        good = (xp.diagonal(y, axis1=-2, axis2=-1) > 0).all(axis=-1)
        y = xp.where(good[..., None, None], y, y.dtype.type(np.nan))
    return y


def _cholesky_gradient(gy: Tensor, y: Tensor) -> Tensor:
    # Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527, eq. 10.
    upper = {"upper": True, "unitriangular": False}
    left = apply(TRIANGULAR, (y.mT, _halved(y.mT @ tril(gy))), upper)
    ga = apply(TRIANGULAR, (y.mT, left.mT), upper).mT
    return (ga + ga.mT) * 0.5


def _positive(shape: tuple[int, ...]) -> np.ndarray:
    x = values(shape, -1, 1)
    return x @ x.swapaxes(-1, -2) + np.eye(shape[-1])


def _symmetric_samples() -> Iterator[Sample]:
    # Not smooth: the gradient is that of symmetric matrices, which a step in one element leaves.
    for shape in _SQUARE:
        yield Sample((_positive(shape),), name=f"{shape}", smooth=False)
    yield Sample((_positive((33, 33)),), name="33 by 33", large=True)


CHOLESKY = Op(
    "cholesky",
    _cholesky_forward,
    gradients={"x": _cholesky_gradient},
    kinds=_REAL,
    halves=True,
    check=_explain(
        "cholesky",
        "symmetric positive definite matrices",
        "another",
        "add a small multiple of the identity, or see eigh",
        np.linalg.cholesky,
    ),
    samples=_symmetric_samples,
)


@public(CHOLESKY, "cholesky")
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """Return the lower triangular L with ``A = L Lᵀ`` of symmetric positive definite matrices.

    With ``upper``, Lᵀ. Only the lower triangle of ``A`` (…, n, n) is read; the gradient is
    symmetric.

    Raises `LinAlgError` for a matrix that is not positive definite (all NaN on a GPU instead).

    >>> cholesky(gl.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    y: Tensor = apply(CHOLESKY, (_matrices("cholesky", A, square=True),))
    return y.mT if upper else y


class QR(NamedTuple):
    """The factors of ``A = Q R``."""

    Q: Tensor
    R: Tensor


def _qr_forward(xp: Any, x: Any) -> Any:
    q, r = xp.linalg.qr(x, mode="reduced")
    return xp.concatenate([q, _transposed(r)], axis=-2)


def _qr_parts(y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return y[..., :rows, :], y[..., rows:, :].mT


def _qr_gradient(gy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    m, n = x.shape[-2:]
    (q, r), (gq, gr) = _qr_parts(y, m), _qr_parts(gy, m)
    if m >= n:
        return _tall_qr_gradient(q, r, gq, gr)
    # A = (X, Z) = Q (U, V): Q and U are the factors of the square X, and V is QᵀZ.
    gv = gr[..., m:]
    gx = _tall_qr_gradient(q, r[..., :m], gq + x[..., m:] @ gv.mT, gr[..., :m])
    return cat([gx, q @ gv], -1)


def _tall_qr_gradient(q: Tensor, r: Tensor, gq: Tensor, gr: Tensor) -> Tensor:
    # Roberts and Roberts, "QR and LQ decomposition matrix backpropagation algorithms for square,
    # wide, and deep matrices and their software implementation", arXiv:2009.10071.
    inner = r @ gr.mT - gq.mT @ q
    even = tril(inner) + tril(inner, -1).mT
    options = {"upper": True, "unitriangular": False}
    return apply(TRIANGULAR, (r, (gq + q @ even).mT), options).mT


QR_FACTORS = Op(
    "qr",
    _qr_forward,
    gradients={"x": _qr_gradient},
    kinds=_REAL,
    halves=True,
    samples=lambda: _oblong_samples(empty=False),
)
QR_COMPLETE = Op(
    "qr_complete",
    lambda xp, x: tuple(xp.linalg.qr(x, mode="complete")),
    kinds=_REAL,
    halves=True,
    why_not="the further columns of Q are not determined",
)


@public(QR_FACTORS)
def qr(A: Tensor, mode: str = "reduced") -> QR:
    """Return Q with orthonormal columns and upper triangular R with ``A = Q R`` (…, m, n).

    ``mode="reduced"`` gives Q (…, m, k) and R (…, k, n) with k = min(m, n); ``"complete"`` a
    square Q, without gradient where m > n; ``"r"`` an empty Q. The gradient needs the first k
    columns of ``A`` to be linearly independent.

    >>> qr(gl.tensor([[3.0], [4.0]])).R.abs()
    tensor([[5.]])
    """
    require_option("qr", "mode", mode, ("reduced", "complete", "r"))
    A = _matrices("qr", A)
    m, n = A.shape[-2:]
    if mode == "complete" and m > n:
        return QR(*_complete(QR_COMPLETE, A, 'qr with mode="complete"', 'mode="reduced"'))
    q, r = _qr_parts(apply(QR_FACTORS, (A,)), m)
    return QR(r.ravel()[:0], r) if mode == "r" else QR(q, r)


def _complete(op: Op, x: Tensor, what: str, instead: str) -> Any:
    """Run an op of several results, which records nothing, where nothing has to be recorded."""
    if autograd_mode.grad and x.requires_grad:
        raise GradientError(
            f"{what} has no gradient: {op.why_not}; use {instead}, or call it on .detach()"
        )
    return apply(op, (x,))


class Eigh(NamedTuple):
    """Eigenvalues in ascending order, and the eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _eigh_forward(xp: Any, x: Any, *, UPLO: str) -> Any:
    w, v = xp.linalg.eigh(x, UPLO)
    return xp.concatenate([v, w[..., None, :]], axis=-2)


def _reciprocal(x: Tensor) -> Tensor:
    """``1 / x``, and 0 where x is 0: what has no unique derivative takes no part."""
    return 1 / where(x == 0, np.inf, x)


def _eigh_gradient(gy: Tensor, y: Tensor, UPLO: str) -> Tensor:
    # Giles, "An extended collection of matrix derivative results for forward and reverse mode
    # algorithmic differentiation", 2008, section 3.1.
    v, w = y[..., :-1, :], y[..., -1, :]
    gv, gw = gy[..., :-1, :], gy[..., -1, :]
    inner = (v.mT @ gv) * _reciprocal(w[..., None, :] - w[..., :, None])
    ga = v @ (inner + diag_embed(gw)) @ v.mT
    return (ga + ga.mT) * 0.5


EIGH = Op(
    "eigh",
    _eigh_forward,
    gradients={"x": _eigh_gradient},
    kinds=_REAL,
    halves=True,
    check=_iterates("eigh", np.linalg.eigh),
)


@public(EIGH)
def eigh(A: Tensor, UPLO: str = "L") -> Eigh:
    """Return the eigenvalues (…, n), ascending, and eigenvectors (…, n, n) of symmetric matrices.

    The eigenvectors are the columns; each may also come with the other sign. Only the lower
    triangle of ``A`` is read (``UPLO="U"``: the upper); the gradient is symmetric. It exists for
    the eigenvectors where no two eigenvalues are equal.

    >>> eigh(gl.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([1., 2.])
    """
    require_option("eigh", "UPLO", UPLO, ("L", "U"))
    y = apply(EIGH, (_matrices("eigh", A, square=True),), {"UPLO": UPLO})
    return Eigh(y[..., -1, :], y[..., :-1, :])


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Return the eigenvalues (…, n), ascending, of symmetric matrices ``A`` (…, n, n).

    >>> eigvalsh(gl.tensor([[0.0, 1.0], [1.0, 0.0]]))
    tensor([-1.,  1.])
    """
    return eigh(A, UPLO).eigenvalues


class SVD(NamedTuple):
    """The factors of ``A = U diag(S) Vh``."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def _svd_forward(xp: Any, x: Any) -> Any:
    u, s, vt = thin_svd(xp, x)
    return xp.concatenate([u, s[..., None, :], _transposed(vt)], axis=-2)


def _svd_parts(y: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    return y[..., :rows, :], y[..., rows, :], y[..., rows + 1 :, :]


def _svd_gradient(gy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # Townsend, "Differentiating the singular value decomposition", 2016.
    m, n = x.shape[-2:]
    (u, s, v), (gu, gs, gv) = _svd_parts(y, m), _svd_parts(gy, m)
    row, column = s[..., None, :], s[..., :, None]
    apart = _reciprocal(row * row - column * column)
    turn_u, turn_v = u.mT @ gu, v.mT @ gv
    left = (turn_u - turn_u.mT) * apart * row
    right = column * ((turn_v - turn_v.mT) * apart)
    ga = u @ (left + right + diag_embed(gs)) @ v.mT
    if m > n:
        ga = ga + ((gu - u @ turn_u) * _reciprocal(row)) @ v.mT
    if m < n:
        ga = ga + (u * _reciprocal(row)) @ (gv - v @ turn_v).mT
    return ga


SVD_FACTORS = Op(
    "svd",
    _svd_forward,
    gradients={"x": _svd_gradient},
    kinds=_REAL,
    halves=True,
    check=_iterates("svd", np.linalg.svd),
)
SVD_FULL = Op(
    "svd_full",
    lambda xp, x: tuple(xp.linalg.svd(x, full_matrices=True)),
    kinds=_REAL,
    halves=True,
    why_not="the further columns of U and V are not determined",
    check=_iterates("svd", np.linalg.svd),
)


@public(SVD_FACTORS)
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """Return U, S, Vh with ``A = U diag(S) Vh`` (…, m, n); S is descending and not negative.

    Without ``full_matrices`` U is (…, m, k) and Vh (…, k, n) with k = min(m, n); with it both are
    square, and have no gradient where m ≠ n. A pair of singular vectors may also come with the
    other sign. The gradient exists where no two singular values are equal. ``driver`` is accepted
    and not used.

    >>> svd(gl.tensor([[0.0, 2.0], [3.0, 0.0]])).S
    tensor([3., 2.])
    """
    A = _matrices("svd", A)
    m, n = A.shape[-2:]
    if full_matrices and m != n:
        return SVD(*_complete(SVD_FULL, A, "svd with full_matrices=True", "full_matrices=False"))
    u, s, v = _svd_parts(apply(SVD_FACTORS, (A,)), m)
    return SVD(u, s, v.mT)


class SVDOfColumns(NamedTuple):
    """U, S and V with ``A = U diag(S) Vᵀ``."""

    U: Tensor
    S: Tensor
    V: Tensor


@public(None, "svd")
def svd_of_columns(A: Tensor, some: bool = True) -> SVDOfColumns:
    """Return U, S, V with ``A = U diag(S) Vᵀ``: PyTorch's older `svd`, which is not `linalg.svd`.

    With ``some`` U and V have as many columns as there are singular values, else they are square.

    >>> svd_of_columns(gl.tensor([[0.0, 2.0], [3.0, 0.0]])).S
    tensor([3., 2.])
    """
    u, s, vh = svd(A, full_matrices=not some)
    return SVDOfColumns(u, s, vh.mT)


# ----------------------------------------------------------------------- powers, rank, condition


@public(None, "matrix_power")
def matrix_power(A: Tensor, n: int) -> Tensor:
    """Return the product of ``n`` times the square matrices ``A``; of the inverse if ``n < 0``.

    >>> matrix_power(gl.tensor([[1, 1], [0, 1]]), 5)
    tensor([[1, 5],
            [0, 1]])
    """
    if not is_integer(n):
        raise OptionError(message("matrix_power", expected="an integer n", got=repr(n)))
    A = _matrices("matrix_power", A, square=True, kinds="iufcV" if n >= 0 else _INEXACT)
    if n == 0:
        identity = Tensor._wrap(A.device.xp.eye(A.shape[-1], dtype=A.dtype), A.device)
        return broadcast_to(identity, A.shape).clone()
    base, result, left = inv(A) if n < 0 else A, None, abs(int(n))
    while left:
        if left & 1:
            result = base if result is None else result @ base
        left >>= 1
        base = base @ base if left else base
    assert result is not None
    return result.clone() if result is A else result


def matrix_rank(
    A: Tensor,
    tol: float | None = None,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
) -> Tensor:
    """Return how many singular values of ``A`` (…, m, n) are above ``max(atol, rtol · largest)``.

    ``rtol`` is ``max(m, n)`` times the dtype's epsilon by default, or 0 if ``atol`` (also called
    ``tol``) is given. With ``hermitian``, eigenvalues stand for singular values. int64.

    >>> matrix_rank(gl.tensor([[1.0, 1.0], [1.0, 1.0]]))
    tensor(1)
    """
    A = _matrices("matrix_rank", A, square=hermitian).detach()
    s = absolute(eigvalsh(A)) if hermitian else svdvals(A)
    absolute_limit = _tolerance("matrix_rank", "atol", tol if atol is None else atol) or 0.0
    return _rank(s, A.shape, absolute_limit, _tolerance("matrix_rank", "rtol", rtol))


@accepts_dim
def norm(
    A: Tensor,
    ord: str | float | None = None,
    axis: Axis = None,
    keepdims: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return a norm of vectors or of matrices, as ``torch.linalg.norm`` and ``numpy.linalg.norm``.

    ``axis`` is one axis for vectors, two for matrices, or None for a tensor that is one vector or
    one matrix. ``ord`` is then that of `vector_norm` or of `matrix_norm`: 2 of a matrix is its
    largest singular value. Without ``ord`` it is the root of the sum of squares over ``axis``, of
    a tensor of any number of axes. `gradlab.norm`, as ``torch.norm``, takes a matrix for one long
    vector instead.

    >>> A = gl.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> norm(A), norm(A, 2), norm(A, 2, axis=0)
    (tensor(5.), tensor(4.), tensor([3., 4.]))
    """
    A = operand("linalg.norm", A)
    if ord is None:
        return vector_norm(A, 2, axis, keepdims, dtype=dtype)
    axes = canonical_axes("linalg.norm", axis, A.ndim)
    if len(axes) == 2:
        return matrix_norm(A, ord, (axes[0], axes[1]), keepdims, dtype=dtype)
    if len(axes) != 1:
        raise ShapeError(
            message(
                "linalg.norm",
                expected="a vector or a matrix where an ord is given",
                got=f"{len(axes)} axes of shape {A.shape}",
                hint="give the axis of the vectors, or the two of the matrices",
            )
        )
    return vector_norm(A, ord, axes, keepdims, dtype=dtype)


def cond(A: Tensor, p: str | float | None = None) -> Tensor:
    """Return the condition number ``‖A‖ ‖A⁻¹‖`` of matrices in the norm ``p`` of `matrix_norm`.

    None is 2: the largest singular value over the smallest, also of matrices that are not square.
    Infinite for singular matrices; for 2, as large as rounding lets it be, and NaN for zeros.

    >>> cond(gl.tensor([[2.0, 0.0], [0.0, 0.5]]))
    tensor(4.)
    """
    A = _matrices("cond", A, square=p not in (None, 2, -2))
    if 0 in A.shape[-2:]:
        raise ShapeError(message("cond", expected="matrices with elements", got=f"shape {A.shape}"))
    if p in (None, 2, -2):
        s = svdvals(A)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    size = matrix_norm(A, p)
    try:
        return size * matrix_norm(inv(A), p)
    except LinAlgError:
        if A.ndim == 2:
            return size + np.inf
        return stack([cond(each, p) for each in A])


@public(None, "cross")
@accepts_dim
def cross(x1: Tensor, x2: Tensor, *, axis: int = -1) -> Tensor:
    """Return the cross products of vectors of three elements along ``axis``; the rest broadcasts.

    >>> cross(gl.tensor([1.0, 0.0, 0.0]), gl.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.])
    """
    x1, x2 = broadcast_tensors(x1, x2)
    at = canonical_axis("cross", axis, x1.ndim)
    if x1.shape[at] != 3:
        got = f"size {x1.shape[at]}"
        raise ShapeError(message("cross", expected=f"vectors of 3 along axis {at}", got=got))
    return roll(x1, -1, at) * roll(x2, 1, at) - roll(x1, 1, at) * roll(x2, -1, at)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """Return the product of two or more matrices, multiplied pair by pair, the cheapest first.

    The first may be a row vector and the last a column vector, of one axis each.

    >>> multi_dot([gl.tensor([[1.0, 2.0]]), gl.tensor([[3.0], [4.0]]), gl.tensor([[2.0]])])
    tensor([[22.]])
    """
    if len(tensors) < 2:
        got = str(len(tensors))
        raise ShapeError(message("multi_dot", expected="two or more tensors", got=got))
    letters = [chr(ord("a") + i) for i in range(len(tensors) + 1)]
    terms = [a + b for a, b in pairwise(letters)]
    ends = letters[0], letters[-1]
    if tensors[0].ndim == 1:
        terms[0], ends = letters[1], ("", ends[1])
    if tensors[-1].ndim == 1:
        terms[-1], ends = letters[-2], (ends[0], "")
    return einsum(",".join(terms) + "->" + "".join(ends), *tensors)
