"""Activation layers. ``inplace=True`` writes the result into the input's memory."""

from __future__ import annotations

from typing import Any

from gradlab.devices import DeviceLike
from gradlab.nn.module import Module
from gradlab.nn.options import require_dim, require_positive, require_size
from gradlab.nn.parameter import Parameter
from gradlab.ops import activation as composed, elementwise as ops
from gradlab.ops.core import REGISTRY, apply_
from gradlab.ops.creation import full
from gradlab.ops.softmax import log_softmax, softmax, softmin
from gradlab.tensor import Tensor, require_option


class ReLU(Module):
    """``max(x, 0)``, element by element.

    >>> import gradlab as gl
    >>> gl.nn.ReLU()(gl.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return apply_(ops.RELU, x) if self.inplace else ops.relu(x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """``x`` where positive, else ``negative_slope·x``."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace:
            return apply_(ops.LEAKY_RELU, x, (), {"negative_slope": self.negative_slope})
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + _inplace(self)


class PReLU(Module):
    """``x`` where positive, else ``weight·x`` with a learned weight.

    ``num_parameters`` is 1, or the size of axis 1 (a weight for each channel).
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_parameters = require_size("PReLU", "num_parameters", num_parameters, least=1)
        self.init = init
        self.weight = Parameter(full(num_parameters, float(init), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Set the weight to its first value."""
        self.weight.detach().fill_(self.init)

    def forward(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """``x`` where positive, else ``alpha·(exp(x) - 1)``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace:
            return apply_(ops.ELU, x, (), {"alpha": self.alpha})
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + _inplace(self)


class GELU(Module):
    """``x·Φ(x)``, or its approximation with a tanh (``approximate="tanh"``)."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        require_option("GELU", "approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``x·sigmoid(x)``, also known as swish."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return apply_(REGISTRY["silu"], x) if self.inplace else ops.silu(x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``, in (0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, in (-1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class LogSigmoid(Module):
    """``log(sigmoid(x))`` without overflow."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.logsigmoid(x)


class Softplus(Module):
    """``log(1 + exp(beta·x)) / beta``, and ``x`` itself where ``beta·x`` is above ``threshold``.

    At the default threshold both agree to float32 rounding.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = require_positive("Softplus", "beta", beta)
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        y = ops.softplus(x, self.beta)
        if self.threshold < 20:
            return ops.where(x * self.beta > self.threshold, x, y)
        return y

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """``exp(x) / Σ exp(x)`` along an axis; never overflows.

    >>> import gradlab as gl
    >>> gl.nn.Softmax(dim=-1)(gl.tensor([0.0, 0.0]))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = require_dim("Softmax", dim)

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """``x - log Σ exp(x)`` along an axis; never overflows."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = require_dim("LogSoftmax", dim)

    def forward(self, x: Tensor) -> Tensor:
        return log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmin(Module):
    """``softmax(-x)`` along an axis."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = require_dim("Softmin", dim)

    def forward(self, x: Tensor) -> Tensor:
        return softmin(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class _Composed(Module):
    """An activation of `gradlab.ops.activation`; a subclass computes ``_of``."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def _of(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not self.inplace:
            return self._of(x)
        return x.copy_(self._of(x.clone()))  # backward needs what is overwritten

    def _options(self) -> str:
        return ""

    def extra_repr(self) -> str:
        given = [self._options()] if self._options() else []
        return ", ".join([*given, "inplace=True"] if self.inplace else given)


class Hardtanh(_Composed):
    """``x`` limited to [``min_val``, ``max_val``]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.min_val, self.max_val = min_val, max_val

    def _of(self, x: Tensor) -> Tensor:
        return composed.hardtanh(x, self.min_val, self.max_val)

    def _options(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Hardtanh):
    """``x`` limited to [0, 6]."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def _options(self) -> str:
        return ""


class SELU(_Composed):
    """``scale·elu(x, alpha)`` with the constants that keep mean 0 and variance 1 [1]_.

    They do so after `nn.init.kaiming_normal_` with ``nonlinearity="linear"``.

    .. [1] Klambauer et al., https://arxiv.org/abs/1706.02515
    """

    def _of(self, x: Tensor) -> Tensor:
        return composed.selu(x)


class CELU(_Composed):
    """``x`` where positive, else ``alpha·(exp(x/alpha) - 1)``, whose slope at 0 is 1."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = require_positive("CELU", "alpha", alpha)

    def _of(self, x: Tensor) -> Tensor:
        return composed.celu(x, self.alpha)

    def _options(self) -> str:
        return f"alpha={self.alpha}"


class Softsign(Module):
    """``x / (1 + |x|)``, in (-1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return composed.softsign(x)


class Mish(_Composed):
    """``x·tanh(softplus(x))``."""

    def _of(self, x: Tensor) -> Tensor:
        return composed.mish(x)


class Hardsigmoid(_Composed):
    """``x/6 + 1/2`` limited to [0, 1]."""

    def _of(self, x: Tensor) -> Tensor:
        return composed.hardsigmoid(x)


class Hardswish(_Composed):
    """``x·hardsigmoid(x)``."""

    def _of(self, x: Tensor) -> Tensor:
        return composed.hardswish(x)


class Tanhshrink(Module):
    """``x - tanh(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        return composed.tanhshrink(x)


class Softshrink(Module):
    """``x`` nearer to 0 by ``lambd``, and 0 what is within that."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        return composed.softshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(Module):
    """``x`` where ``|x|`` is above ``lambd``, else 0."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        return composed.hardshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Threshold(_Composed):
    """``x`` where above ``threshold``, else ``value``."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def _of(self, x: Tensor) -> Tensor:
        return composed.threshold(x, self.threshold, self.value)

    def _options(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"


class GLU(Module):
    """``a·sigmoid(b)``, where ``a`` and ``b`` are the halves of ``x`` along an axis."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return composed.glu(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def _inplace(layer: Any) -> str:
    return ", inplace=True" if layer.inplace else ""
