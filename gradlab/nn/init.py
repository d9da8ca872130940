"""Initialisation: functions that fill a tensor in place, outside the graph, and return it.

Each takes ``generator=`` for a random stream other than the default one. The formulas for the
scale are those of PyTorch's ``torch.nn.init`` [1]_.

.. [1] https://docs.pytorch.org/docs/stable/nn.init.html
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import guard_namespace
from gradlab.autograd.modes import no_grad
from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops import random
from gradlab.ops.random import Generator
from gradlab.tensor import Tensor, require_option

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def __dir__() -> list[str]:
    return __all__


def _fill(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        tensor.copy_(values)
    return tensor


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b).

    >>> import gradlab as gl
    >>> gl.nn.init.uniform_(gl.empty(3, 5)).shape
    (3, 5)
    """
    made = random.draw_uniform(
        "uniform_", a, b, tensor.shape, generator, tensor.dtype, tensor.device
    )
    return _fill(tensor, made)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the normal distribution N(mean, std²)."""
    made = random.draw_normal(
        "normal_", mean, std, tensor.shape, generator, tensor.dtype, tensor.device
    )
    return _fill(tensor, made)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from N(mean, std²) that lie in [a, b]; the bounds are values, not multiples.

    By inversion of the distribution function: ``mean + std·Φ⁻¹(u)``, u uniform between the two
    values that Φ takes at the bounds. Raises `OptionError` for bounds without a number between.
    """
    random.require_moments("trunc_normal_", mean, std, dtypes.float64)
    largest = dtypes.finfo(random.floating("trunc_normal_", tensor.dtype)).max
    if not (a <= b and a <= largest and b >= -largest):
        expected, got = f"a <= b, and {tensor.dtype.name} numbers between", f"a={a} and b={b}"
        raise OptionError(message("trunc_normal_", expected=expected, got=got))
    # Loaded at the first use: SciPy takes longer to import than all of gradlab.
    from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

    if std == 0:
        return _fill(tensor, min(max(mean, a), b))
    low, high = (a - mean) / std, (b - mean) / std
    # Φ is precise near 0 and rounds to 1 beyond 8, so a range above the mean is mirrored.
    sign = -1 if low > 0 else 1
    low, high = (-high, -low) if low > 0 else (low, high)
    u = random.rand(tensor.shape, generator=generator, dtype=dtypes.float64).numpy()
    if ndtr(high) > 1e-290:
        z = ndtri(ndtr(low) + u * (ndtr(high) - ndtr(low)))
    else:  # so far out that Φ is 0: by its logarithm
        top = log_ndtr(high)
        share = np.exp(log_ndtr(low) - top)
        z = ndtri_exp(top + np.log(share + (1 - u) * (1 - share)))
    return _fill(tensor, np.clip(mean + sign * std * z, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _fill(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return _fill(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return _fill(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity."""
    _require_matrix("eye_", tensor, 2, exactly=True)
    return _fill(tensor, np.eye(*tensor.shape, dtype=np.float32))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which a nonlinearity wants the standard deviation scaled.

    1 for ``linear``, ``conv1d`` … and ``sigmoid``; 5/3 for ``tanh``; √2 for ``relu``;
    √(2 / (1 + param²)) for ``leaky_relu`` of slope ``param`` (0.01); 3/4 for ``selu``.

    >>> calculate_gain("leaky_relu", 0.2)
    1.3867504905630728
    """
    ones = ("linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4, **dict.fromkeys(ones, 1.0)}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            got = repr(param)
            raise OptionError(message("calculate_gain", expected="a number as slope", got=got))
        return math.sqrt(2 / (1 + slope**2))
    require_option("calculate_gain", "nonlinearity", nonlinearity, (*gains, "leaky_relu"))
    return gains[nonlinearity]


def _require_matrix(operation: str, tensor: Tensor, axes: int, exactly: bool = False) -> None:
    if tensor.ndim != axes if exactly else tensor.ndim < axes:
        expected = f"a tensor of {axes} axes" + ("" if exactly else " or more")
        raise ShapeError(message(operation, expected=expected, got=f"shape {tensor.shape}"))


def _fans(operation: str, tensor: Tensor) -> tuple[int, int]:
    """The numbers of inputs and outputs of a unit, for a weight (out, in, *kernel)."""
    _require_matrix(operation, tensor, 2)
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _xavier_std(operation: str, tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = _fans(operation, tensor)
    return gain * math.sqrt(2 / max(1, fan_in + fan_out))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from U(-a, a), a = gain·√(6 / (fan_in + fan_out)) [1]_.

    .. [1] Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010
    """
    a = math.sqrt(3) * _xavier_std("xavier_uniform_", tensor, gain)
    return uniform_(tensor, -a, a, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with draws from N(0, std²), std = gain·√(2 / (fan_in + fan_out)); Glorot's as well."""
    return normal_(tensor, 0.0, _xavier_std("xavier_normal_", tensor, gain), generator)


def _kaiming_std(operation: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    require_option(operation, "mode", mode, ("fan_in", "fan_out"))
    gain = calculate_gain(nonlinearity, a)
    fan = _fans(operation, tensor)[mode == "fan_out"]
    return gain / math.sqrt(max(1, fan))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from U(-bound, bound), bound = gain·√(3 / fan) [1]_.

    Parameters
    ----------
    a: the negative slope of the leaky ReLU that follows.
    mode: ``"fan_in"`` keeps the variance of the forward pass, ``"fan_out"`` of the backward pass.
    nonlinearity: as for `calculate_gain`.

    .. [1] He et al., "Delving deep into rectifiers", ICCV 2015
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from N(0, std²), std = gain / √fan; see `kaiming_uniform_`."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix times ``gain``; axes from the second on count as one.

    The Q of a QR decomposition of standard normals, with the signs of R's diagonal: uniform among
    the orthogonal matrices [1]_.

    .. [1] Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural
       networks", 2013; Mezzadri, "How to generate random matrices from the classical compact
       groups", 2007
    """
    _require_matrix("orthogonal_", tensor, 2)
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    normals = random.randn(
        (max(rows, columns), min(rows, columns)), generator=generator, dtype=dtypes.float64
    )
    q, r = np.linalg.qr(normals.numpy())
    q *= np.sign(np.diag(r))
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Tensor:
    """Fill a matrix with draws from N(0, std²), and a fraction of each column with 0 [1]_.

    .. [1] Martens, "Deep learning via Hessian-free optimization", ICML 2010
    """
    _require_matrix("sparse_", tensor, 2, exactly=True)
    if not 0 <= sparsity <= 1:
        raise OptionError(message("sparse_", expected="sparsity from 0 to 1", got=str(sparsity)))
    normal_(tensor, 0.0, std, generator)
    rows = tensor.shape[0]
    keys = random.rand(tensor.shape, generator=generator, dtype=dtypes.float64)
    # The rank of a random key among its column's is a random order of the rows.
    ranks = keys.numpy().argsort(axis=0).argsort(axis=0)
    kept = ranks >= math.ceil(sparsity * rows)
    return _fill(tensor, tensor * Tensor(kept, dtype=tensor.dtype, device=tensor.device))


guard_namespace(globals())
