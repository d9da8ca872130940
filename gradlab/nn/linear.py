"""Layers that multiply by a matrix: `Linear`, `LazyLinear`; and `Identity`."""

from __future__ import annotations

import math
from typing import Any

from gradlab import dtypes
from gradlab.devices import DeviceLike, find_device
from gradlab.errors import GradlabError, ShapeError, message
from gradlab.nn import init
from gradlab.nn.module import Module
from gradlab.nn.options import require_size
from gradlab.nn.parameter import Parameter, UninitializedParameter
from gradlab.ops.creation import empty
from gradlab.ops.matmul import linear
from gradlab.tensor import Tensor


class Identity(Module):
    """Returns its input; any arguments are taken and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Linear(Module):
    """``y = x Wᵀ + b``, for inputs of any number of axes: (…, in_features) → (…, out_features).

    ``weight`` has shape (out_features, in_features) and ``bias`` (out_features,); both begin
    uniform in ±1/√in_features, which is He's initialisation with a = √5, as in PyTorch [1]_.

    Raises `ShapeError` where the last size of the input is not ``in_features``.

    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    >>> import gradlab as gl
    >>> layer = gl.nn.Linear(20, 30)
    >>> layer(gl.randn(128, 20)).shape
    (128, 30)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = require_size("Linear", "in_features", in_features)
        self.out_features = require_size("Linear", "out_features", out_features)
        where: Any = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty(self.out_features, self.in_features, **where))
        self.register_parameter(
            "bias", Parameter(empty(self.out_features, **where)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        _draw_weight(self.weight)
        if self.bias is not None:
            _draw_bias(self.bias, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        try:
            return linear(x, self.weight, self.bias)
        except GradlabError as error:
            raise _explain(self, x, error) from None

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def _draw_weight(weight: Tensor) -> None:
    init.kaiming_uniform_(weight, a=math.sqrt(5))


def _draw_bias(bias: Tensor, in_features: int) -> None:
    bound = 1 / math.sqrt(in_features) if in_features else 0.0
    init.uniform_(bias, -bound, bound)


def _explain(layer: Linear, x: Any, error: GradlabError) -> GradlabError:
    """Say which layer it was and what it expects, where the width of ``x`` is what is wrong."""
    shape = getattr(x, "shape", None)
    width = layer.in_features
    if not isinstance(shape, tuple) or shape[-1:] == (width,):
        return error
    flattens = math.prod(shape[1:]) == width
    return ShapeError(
        message(
            f"Linear({width} -> {layer.out_features})",
            expected=f"an input whose last size is {width}",
            got=f"shape {shape}",
            hint="put nn.Flatten() before it" if flattens else "",
        )
    )


class LazyLinear(Linear):
    """A `Linear` that takes ``in_features`` from its first input, and is a `Linear` from then on.

    Before, its parameters have no shape: an optimizer or a `state_dict` has to wait for the first
    forward. `load_state_dict` works at any time, and settles the width too.

    >>> import gradlab as gl
    >>> net = gl.nn.Sequential(gl.nn.LazyLinear(8), gl.nn.ReLU(), gl.nn.LazyLinear(1))
    >>> net(gl.randn(5, 20)).shape
    (5, 1)
    >>> net[0]
    Linear(in_features=20, out_features=8, bias=True)
    """

    def __init__(
        self, out_features: int, bias: bool = True, device: DeviceLike = None, dtype: Any = None
    ) -> None:
        Module.__init__(self)
        self.in_features = 0
        self.out_features = require_size("LazyLinear", "out_features", out_features)
        where: Any = {
            "device": find_device(device),
            "dtype": dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype),
        }
        self.weight = UninitializedParameter((self.out_features, 0), **where)
        self.register_parameter(
            "bias", UninitializedParameter((self.out_features,), **where) if bias else None
        )

    def reset_parameters(self) -> None:
        """Nothing to draw before the width is known."""

    def forward(self, x: Tensor) -> Tensor:
        shape = getattr(x, "shape", ())
        if not shape:
            raise ShapeError(
                message(f"LazyLinear(? -> {self.out_features})", expected="an input with at least "
                        "one axis", got=f"shape {shape}")
            )  # fmt: skip
        self.initialize_parameters(shape[-1])
        return Linear.forward(self, x)

    def initialize_parameters(self, in_features: int) -> None:
        """Settle the width, draw the parameters, and become a `Linear`."""
        if isinstance(self.weight, UninitializedParameter):  # else a state dict has set it
            self.weight.materialize((self.out_features, in_features))
            _draw_weight(self.weight)
        if isinstance(self.bias, UninitializedParameter):
            self.bias.materialize((self.out_features,))
            _draw_bias(self.bias, in_features)
        self.in_features = in_features
        self.__class__ = Linear  # type: ignore[assignment]

    def _loaded(self) -> None:
        if not isinstance(self.weight, UninitializedParameter):
            self.initialize_parameters(self.weight.shape[1])
