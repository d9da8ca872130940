"""Linear algebra: products, norms, singular values.

The names are those of the array API's ``linalg`` and of PyTorch's.
"""

from gradlab.ops.matmul import diagonal, matmul, outer, tensordot, trace, vecdot
from gradlab.ops.reduction import matrix_norm, norm, svdvals, vector_norm
from gradlab.ops.shape import matrix_transpose

__all__ = [
    "diagonal", "matmul", "matrix_norm", "matrix_transpose", "norm", "outer", "svdvals",
    "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
