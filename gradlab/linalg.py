"""Linear algebra: products, norms, solving, inverses, determinants, factorizations.

The names are those of the array API's ``linalg`` and of PyTorch's. A singular matrix raises
`LinAlgError` on the CPU. On a GPU its results are infinite or NaN, since the host would have to
wait to learn of it; with ``GRADLAB_SYNC=1`` it does, and raises.
"""

from gradlab.arguments import guard_namespace
from gradlab.errors import LinAlgError
from gradlab.ops.linalg import (
    cholesky,
    cond,
    cross,
    det,
    eigh,
    eigvalsh,
    inv,
    lstsq,
    matrix_power,
    matrix_rank,
    multi_dot,
    norm,
    pinv,
    qr,
    slogdet,
    solve,
    solve_triangular,
    svd,
)
from gradlab.ops.matmul import diagonal, matmul, outer, tensordot, trace, vecdot
from gradlab.ops.reduction import matrix_norm, svdvals, vector_norm
from gradlab.ops.shape import matrix_transpose

__all__ = [
    "LinAlgError", "cholesky", "cond", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv",
    "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose",
    "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd",
    "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip

guard_namespace(globals())
