"""`Parameter`: a tensor that a `Module` counts among what it learns."""

from __future__ import annotations

from typing import Any, Never

from gradlab.devices import cpu
from gradlab.dtypes import is_floating
from gradlab.errors import DTypeError, StateError, message
from gradlab.tensor import Tensor, from_value


class Parameter(Tensor):
    """A leaf tensor that registers itself when it is assigned to an attribute of a module.

    Parameters
    ----------
    data: a tensor, whose memory is shared and whose history is left behind; or an array or list.
    requires_grad: False for a parameter that is saved and moved, but not trained.

    Raises `DTypeError` for a dtype that cannot have gradients, unless ``requires_grad=False``.

    >>> import gradlab as gl
    >>> gl.nn.Parameter(gl.zeros(2))
    Parameter containing:
    tensor([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any = (), requires_grad: bool = True) -> None:
        source = data if isinstance(data, Tensor) else from_value(data, cpu, operation="Parameter")
        if requires_grad and not is_floating(source.dtype):
            raise DTypeError(
                message(
                    "Parameter",
                    expected="a floating dtype",
                    got=source.dtype.name,
                    hint="cast it with .astype(...), or pass requires_grad=False",
                )
            )
        shared = source.detach()
        self._array, self.device = shared._array, shared.device
        self._version = shared._version
        self.grad = self._node = self._view = None
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


# Where a tensor keeps its array, for the subclass below that hides it.
_SLOT: Any = Tensor.__dict__["_array"]


class UninitializedParameter(Parameter):
    """A parameter of a lazy layer before its first forward: it has a dtype and a device, no shape.

    Its ``data`` is an empty tensor, so that code which sets the values of all layers runs, and
    changes nothing. Reading anything else of it raises `StateError`. `materialize` turns it, in
    place, into the `Parameter` it stands for, so that whoever holds it then holds the real one.
    """

    # No slots and no __dict__ beyond Tensor's: only so may an object change its class.
    __slots__ = ()

    def __init__(
        self, pattern: tuple[int, ...], *, dtype: Any, device: Any, requires_grad: bool = True
    ) -> None:
        """``pattern``: the shape, with 0 for each size that is not known yet."""
        _SLOT.__set__(self, device.xp.empty(pattern, dtype))
        self.device = device
        self.grad = self._node = self._version = self._view = None
        self.requires_grad_(requires_grad)

    def placeholder(self) -> Tensor:
        """A plain tensor of the shape ``pattern``, with this parameter's dtype and device."""
        return Tensor._wrap(_SLOT.__get__(self), self.device)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True where ``shape`` agrees with the sizes that are known."""
        known = self.placeholder().shape
        return len(known) == len(shape) and all(
            a in (0, b) for a, b in zip(known, shape, strict=True)
        )

    def materialize(self, shape: tuple[int, ...]) -> None:
        """Become a `Parameter` of ``shape`` whose values are not set yet."""
        array = self.device.xp.empty(shape, self.dtype)
        self.__class__ = Parameter  # type: ignore[assignment]
        self._array = array

    @property
    def dtype(self) -> Any:
        return _SLOT.__get__(self).dtype

    @property
    def data(self) -> Tensor:
        """An empty tensor: there are no values yet."""
        return Tensor._wrap(self.device.xp.empty((0,), self.dtype), self.device)

    @data.setter
    def data(self, value: Tensor) -> None:
        raise StateError(
            "data: a parameter of a lazy layer takes no values before the layer's first forward; "
            "run the model on one batch first"
        )

    @property
    def _array(self) -> Never:
        raise StateError(
            "a parameter of a lazy layer has no shape and no values before the layer's first "
            "forward; run the model on one batch first"
        )

    @_array.setter
    def _array(self, array: Any) -> None:
        _SLOT.__set__(self, array)

    def __repr__(self) -> str:
        return "<UninitializedParameter>"

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        kind, arguments = self.__reduce__()
        made = memo[id(self)] = kind(*arguments)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self.placeholder().shape
        return _uninitialized, (shape, self.dtype, self.device, self.requires_grad)


def _uninitialized(
    pattern: tuple[int, ...], dtype: Any, device: Any, requires_grad: bool
) -> UninitializedParameter:
    return UninitializedParameter(pattern, dtype=dtype, device=device, requires_grad=requires_grad)
