"""The base of all distributions: shapes, validation, and what follows from other methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np

from gradlab import dtypes
from gradlab.autograd import no_grad
from gradlab.devices import find_device
from gradlab.distributions.constraints import Constraint, unit_interval
from gradlab.errors import DTypeError, NotSupportedError, OptionError, ShapeError, message
from gradlab.ops.elementwise import exp
from gradlab.ops.shape import broadcast_tensors, new_shape
from gradlab.tensor import Tensor, from_value, operand_beside

Shape = tuple[int, ...]


class Distribution:
    """A probability distribution over tensors of the shape ``event_shape``, or a batch of them.

    A subclass sets its parameters (named in ``arg_constraints``) and calls ``super().__init__``,
    which checks them; it gives ``sample`` or ``rsample``, ``log_prob`` and the moments it has.

    Parameters
    ----------
    batch_shape: the common shape of the parameters, less the axes of one event.
    event_shape: the shape of one draw.
    validate_args: True to refuse parameters and values outside their range; None to do so where
        they lie on the CPU, where looking at them costs no waiting; False not to.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample = False
    has_enumerate_support = False
    _validates_by_default: ClassVar[bool] = True

    def __init__(
        self,
        batch_shape: Shape = (),
        event_shape: Shape = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = tuple(batch_shape), tuple(event_shape)
        self._validate_args = validate_args
        for name, constraint in self.arg_constraints.items():
            if name in self.__dict__:
                self._require(type(self).__name__, name, constraint, self.__dict__[name])

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Set whether distributions made without ``validate_args`` check values on the CPU."""
        if value not in (True, False):
            raise OptionError(
                message("set_default_validate_args", expected="True or False", got=repr(value))
            )
        Distribution._validates_by_default = value

    # ------------------------------------------------------------------------------- shapes

    @property
    def batch_shape(self) -> Shape:
        """The shape over which parameters are batched."""
        return self._batch_shape

    @property
    def event_shape(self) -> Shape:
        """The shape of one draw, without the batch."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Any) -> Shape:
        if not isinstance(sample_shape, tuple | list):
            hint = f"write ({sample_shape},)" if isinstance(sample_shape, int) else ""
            raise OptionError(
                message(
                    f"{type(self).__name__}.sample",
                    expected="sample_shape a tuple of sizes",
                    got=repr(sample_shape),
                    hint=hint,
                )
            )
        sizes = new_shape(f"{type(self).__name__}.sample", tuple(sample_shape))
        return (*sizes, *self._batch_shape, *self._event_shape)

    def expand(self, batch_shape: Shape) -> Self:
        """The same distribution, its parameters broadcast to ``batch_shape`` without copies."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        shape = new_shape(f"{type(self).__name__}.expand", (batch_shape,))
        for name, value in self._tensors():
            axes = value.ndim - len(self._batch_shape)
            made.__dict__[name] = value.broadcast_to((*shape, *value.shape[value.ndim - axes :]))
        made._batch_shape = shape
        return made

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors the distribution holds, each of the batch's shape and then its own axes."""
        return ((name, x) for name, x in self.__dict__.items() if isinstance(x, Tensor))

    # --------------------------------------------------------------------------- validation

    def _looks_at(self, value: Tensor) -> bool:
        """Whether to check ``value``: on a GPU that would make the host wait."""
        if self._validate_args is None:
            return Distribution._validates_by_default and value.device.type == "cpu"
        return self._validate_args

    def _require(self, operation: str, name: str, constraint: Constraint, value: Tensor) -> None:
        if not self._looks_at(value):
            return
        with no_grad():
            good = constraint.check(value.detach())
        if not bool(good.all()):
            got = _first_bad(value, good, constraint.event_dim)
            raise OptionError(message(operation, expected=f"{name} {constraint.words}", got=got))

    def _value(self, operation: str, value: Any, dtype: Any = None) -> Tensor:
        """The value a density is asked for, as a tensor, checked against shape and support."""
        operation = f"{type(self).__name__}.{operation}"
        like = next(x for _, x in self._tensors())
        x = operand_beside(like, value, operation)
        if dtypes.is_complex(x.dtype):
            raise DTypeError(message(operation, expected="real values", got=x.dtype.name))
        inner = len(self._event_shape)
        try:
            fits = x.shape[x.ndim - inner :] == self._event_shape and x.ndim >= inner
            np.broadcast_shapes(x.shape[: x.ndim - inner], self._batch_shape)
        except ValueError:
            fits = False
        if not fits:
            wanted = (*self._batch_shape, *self._event_shape)
            expected = f"a value whose last axes broadcast with {wanted}"
            raise ShapeError(message(operation, expected=expected, got=f"shape {x.shape}"))
        if self._looks_at(x):  # the support may hold bounds, which its words read from a GPU
            self._require(operation, "values", self.support, x)
        return x

    def _probability(self, value: Any) -> Tensor:
        """The argument of `icdf` as a checked tensor."""
        operation = f"{type(self).__name__}.icdf"
        like = next(x for _, x in self._tensors())
        p = operand_beside(like, value, operation)
        self._require(operation, "probabilities", unit_interval, p)
        return p

    # ------------------------------------------------------- what a distribution may offer

    @property
    def support(self) -> Constraint:
        """The values that can be drawn."""
        raise self._lacks("support")

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        raise self._lacks("mean")

    @property
    def mode(self) -> Tensor:
        """The most likely value."""
        raise self._lacks("mode")

    @property
    def variance(self) -> Tensor:
        """The expected squared distance from the mean."""
        raise self._lacks("variance")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw values of the shape ``sample_shape + batch_shape + event_shape``, without graph."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw as a differentiable function of the parameters (the reparametrization trick)."""
        raise self._lacks("rsample", "draw with sample()")

    def log_prob(self, value: Any) -> Tensor:
        """The logarithm of the density, or of the probability, at ``value``."""
        raise self._lacks("log_prob")

    def cdf(self, value: Any) -> Tensor:
        """The probability of a draw of at most ``value``."""
        raise self._lacks("cdf")

    def icdf(self, value: Any) -> Tensor:
        """The value below which a draw lies with the probability ``value``."""
        raise self._lacks("icdf")

    def entropy(self) -> Tensor:
        """The expected surprisal, ``E[-log p]``, in nats, over the batch."""
        raise self._lacks("entropy")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values that can be drawn, along a new first axis."""
        raise self._lacks("enumerate_support")

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return exp(self.entropy())

    def _lacks(self, name: str, hint: str = "") -> NotSupportedError:
        return NotSupportedError(
            message(f"{type(self).__name__}.{name}", expected="a distribution that has it",
                    got="one that does not", hint=hint)
        )  # fmt: skip

    def __repr__(self) -> str:
        held = ((name, self.__dict__.get(name)) for name in self.arg_constraints)
        given = ", ".join(
            f"{name}: {x if x.numel() == 1 else x.shape}" for name, x in held if x is not None
        )
        return f"{type(self).__name__}({given})"


def parameters(operation: str, *values: Any) -> tuple[Tensor, ...]:
    """Numbers, arrays and tensors as floating tensors of one shape, where the tensors lie."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    device = tensors[0].device if tensors else find_device(None)
    dtype = next((x.dtype for x in tensors if x.is_floating_point()), dtypes.get_default_dtype())
    made = []
    for value in values:
        x = from_value(value, device, beside=dtype, operation=operation)
        if dtypes.is_complex(x.dtype):
            raise DTypeError(message(operation, expected="real parameters", got=x.dtype.name))
        made.append(x if x.is_floating_point() else x.astype(dtype))
    try:
        np.broadcast_shapes(*(x.shape for x in made))
    except ValueError:
        got = " and ".join(f"shape {x.shape}" for x in made)
        raise ShapeError(
            message(operation, expected="parameters that broadcast", got=got)
        ) from None
    return tuple(broadcast_tensors(*made))


def _first_bad(value: Tensor, good: Tensor, event_dim: int) -> str:
    bad = ~good.numpy(force=True)
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    host = value.detach().numpy(force=True)
    if host.dtype in dtypes.HALVES:
        host = host.astype(np.float32)
    found = (host if event_dim else np.broadcast_to(host, bad.shape))[index].tolist()
    place = f" at {list(index)} of shape {value.shape}" if index else ""
    return f"{found}{place}"
