"""The tensor: an array, the device it lies on, its history, and its ways to other libraries.

Methods that compute come from the op registry; here stands only what a tensor *is*.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab import dtypes
from gradlab._methods import TensorMethods
from gradlab.arguments import guard_methods, guarded, show
from gradlab.autograd.graph import Hooks, Leaf, Node, Version
from gradlab.autograd.modes import mode
from gradlab.devices import Device, DeviceLike, cpu, find_device
from gradlab.dtypes import DType
from gradlab.errors import (
    AxisError,
    DeviceError,
    DTypeError,
    GradientError,
    OptionError,
    OutOfMemoryError,
    ShapeError,
    message,
)

if TYPE_CHECKING:
    from typing import Self


class Tensor(TensorMethods):
    """An array of numbers of one dtype on one device, which may record what made it.

    Make one with `gradlab.tensor`, `gradlab.zeros`, `gradlab.from_numpy` and so on. The class
    itself, as PyTorch's, makes the default floating dtype of whatever it is given, unless ``dtype``
    says otherwise: ``Tensor([1, 2])`` holds float32. Given sizes, as in ``Tensor(2, 3)``, it makes
    a tensor of that shape with whatever values the memory held.

    >>> import gradlab as gl
    >>> x = gl.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    # _array: the values.  _node: the Node that made it, its Leaf, or None.
    # _version: counts in-place writes, shared by all views of the memory; None until needed.
    # _view: where this is a view, the tensor it looks into, the op and its attributes, and that
    #     tensor's node and the count of writes when this view was last recorded.
    __slots__ = ("__weakref__", "_array", "_node", "_version", "_view", "device", "grad")

    _array: Any
    _node: Node | Leaf | None
    _version: Version | None
    _view: tuple[Any, ...] | None
    device: Device
    grad: Tensor | None

    __array_priority__ = 1000
    __hash__ = object.__hash__

    def __init__(
        self,
        *data: Any,
        dtype: Any = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
    ) -> None:
        made = _construct(data, dtypes.get_default_dtype() if dtype is None else dtype, device)
        self._array, self.device = made._array, made.device
        self.grad = self._node = self._version = self._view = None
        if requires_grad:
            self.requires_grad_()

    @staticmethod
    def _wrap(array: Any, device: Device) -> Tensor:
        """A tensor around an array that lies on ``device``, without history."""
        made = Tensor.__new__(Tensor)
        made._array, made.device = array, device
        made.grad = made._node = made._version = made._view = None
        return made

    def _like(self, array: Any, node: Node | Leaf | None) -> Tensor:
        made = Tensor._wrap(array, self.device)
        made._node = node
        return made

    @classmethod
    def _add_method(cls, name: str, function: Any) -> None:
        if name in cls.__dict__:
            raise ValueError(f"Tensor has a method {name!r} already")
        # An operator hands its operands to `apply`, which refuses what does not fit by itself.
        is_bare = name.startswith("__") and name != "__setitem__"
        setattr(cls, name, function if is_bare else guarded(function))

    # ------------------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, a plain tuple."""
        return self._array.shape

    def size(self, axis: int | None = None) -> Any:
        """The shape, or the size of one axis (as in PyTorch)."""
        return self.shape if axis is None else _at_axis("size", self.shape, axis)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements, a NumPy dtype."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    def dim(self) -> int:
        """The number of axes (PyTorch's name for `ndim`)."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    ndimension, nelement = dim, numel  # as in PyTorch

    @property
    def nbytes(self) -> int:
        """The bytes the elements take."""
        return int(self._array.nbytes)

    @property
    def itemsize(self) -> int:
        return int(self._array.itemsize)

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.itemsize

    def is_contiguous(self) -> bool:
        """True where the elements lie in memory in row-major order without gaps."""
        return bool(self._array.flags.c_contiguous)

    def stride(self, axis: int | None = None) -> Any:
        """Steps in memory from one element to the next along each axis, in elements."""
        steps = tuple(step // self.itemsize for step in self._array.strides)
        return steps if axis is None else _at_axis("stride", steps, axis)

    def data_ptr(self) -> int:
        """The address of the first element: equal for tensors that share their memory."""
        interface = getattr(self._array, "__array_interface__", None)
        if interface is None:
            interface = self._array.__cuda_array_interface__
        return int(interface["data"][0])

    def is_floating_point(self) -> bool:
        return dtypes.is_floating(self.dtype)

    def is_complex(self) -> bool:
        return dtypes.is_complex(self.dtype)

    @property
    def is_cuda(self) -> bool:
        """True where the tensor lies on a GPU."""
        return self.device.type == "cuda"

    def get_device(self) -> int:
        """The number of the GPU the tensor lies on; -1 for the CPU."""
        return -1 if self.device.index is None else self.device.index

    # --------------------------------------------------------------------------- gradients

    def _history(self) -> Node | Leaf | None:
        """The node, brought up to date where this is a view of what was written in place."""
        if self._view is not None:
            from gradlab.ops.core import refresh_view

            refresh_view(self)
        return self._node

    @property
    def requires_grad(self) -> bool:
        """True where operations on this tensor are recorded for `backward`."""
        return self._history() is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Start or stop to record what is computed from this leaf; returns the tensor itself."""
        node = self._history()
        if requires_grad and node is None:
            if not self.is_floating_point():
                raise DTypeError(
                    message(
                        "requires_grad_",
                        expected="a floating dtype",
                        got=self.dtype.name,
                        hint="cast first, for example with .astype(gradlab.float32)",
                    )
                )
            self._node = Leaf(self)
            self._view = None  # a leaf of its own: what is written to the base is not its history
        elif not requires_grad and node is not None:
            if not isinstance(node, Leaf):
                raise GradientError(
                    "requires_grad_(False): expected a leaf, got a result of "
                    f"{node.name}; use .detach() to leave the graph"
                )
            self._node = None
        return self

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that no recorded op made."""
        node = self._history()
        return node is None or isinstance(node, Leaf)

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor, None for a leaf."""
        node = self._history()
        return None if isinstance(node, Leaf) else node

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Compute the gradients of this tensor with respect to the leaves it depends on.

        They are added to each leaf's ``grad``. A tensor with more than one element needs
        ``gradient``, the gradient of some scalar with respect to it, of its own shape. The values
        saved for the pass are freed after it unless ``retain_graph``; with ``create_graph`` the
        gradients are themselves differentiable.

        Raises `GradientError` where the tensor records nothing, or was gone through before.
        """
        from gradlab import autograd

        autograd.backward(
            [self],
            [gradient],
            retain_graph=retain_graph,
            create_graph=create_graph,
            inputs=inputs,
        )

    def detach(self) -> Tensor:
        """A tensor that shares this one's memory and records nothing."""
        made = Tensor._wrap(self._array, self.device)
        made._version = self._counter()
        return made

    def _counter(self) -> Version:
        """The count of writes to the memory of this tensor, made when it is first asked for."""
        if self._version is None:
            self._version = Version()
        return self._version

    def detach_(self) -> Self:
        """Forget the history of this tensor, in place."""
        self._node = self._view = None
        return self

    @property
    def data(self) -> Tensor:
        """The values without history; assigning replaces the memory of the tensor."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise DTypeError(message("data", expected="a tensor", got=type(value).__name__))
        self._replace(value)

    def _replace(self, value: Tensor) -> None:
        """Take over the memory of ``value``, keeping the object and its place as a leaf."""
        self._array, self.device = value._array, value.device
        self._version, self._view = value._counter(), None

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in ``grad`` at the next backward pass."""
        node = self._history()
        if node is None:
            raise GradientError(
                "retain_grad: expected a tensor that requires a gradient, got one that does not"
            )
        if isinstance(node, Node):
            self._hooks(node).retaining = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHook:
        """Call ``hook(gradient)`` in every backward pass; what it returns replaces the gradient.

        Returns a handle whose ``remove()`` takes the hook away again.
        """
        node = self._history()
        if node is None:
            raise GradientError(
                "register_hook: expected a tensor that requires a gradient, got one that does not; "
                "call requires_grad_() first"
            )
        if not callable(hook):
            got = repr(hook)  # type: ignore[unreachable]
            raise OptionError(message("register_hook", expected="a function", got=got))
        return RemovableHook(self._hooks(node).functions, hook)

    @staticmethod
    def _hooks(node: Node | Leaf) -> Hooks:
        if node.hooks is None:
            node.hooks = Hooks()
        return node.hooks

    # ------------------------------------------------------------------- to Python and NumPy

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares the tensor's memory.

        Raises where the tensor requires a gradient or is on another device; ``force=True`` then
        detaches and copies as needed.
        """
        if not force:
            if self.requires_grad:
                raise GradientError(
                    "numpy: expected a tensor that does not require a gradient, got one that does; "
                    "use .detach().numpy()"
                )
            if self.device is not cpu:
                raise DeviceError(
                    f"numpy: expected a tensor on the cpu, got one on {self.device}; "
                    'use .to("cpu").numpy()'
                )
        return self.device.backend.to_host(self._array)

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self._array.size != 1:
            raise ShapeError(
                message(
                    "item",
                    expected="a tensor of one element",
                    got=f"shape {self.shape}",
                    hint="use .tolist() or index it first",
                )
            )
        array = self._array if self.device is cpu else self.device.backend.to_host(self._array)
        return array.item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers (a number for a tensor of no axes)."""
        array = self.device.backend.to_host(self._array)
        return (array.astype(np.float32) if self.dtype == dtypes.bfloat16 else array).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Let ``np.exp(tensor)`` and ``array + tensor`` run gradlab's op, recorded as usual."""
        from gradlab.ops.core import apply_ufunc

        return apply_ufunc(ufunc, method, inputs, options)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise GradientError("__dlpack__: the tensor requires a gradient; use .detach()")
        return self.device.backend.bind(self._array.__dlpack__)(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import gradlab

        return gradlab

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ShapeError(
                message(
                    "bool",
                    expected="a tensor of one element",
                    got=f"shape {self.shape}, whose truth is ambiguous",
                    hint="use .any() or .all()",
                )
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype not in dtypes.INTEGERS:
            raise DTypeError(
                message("index", expected="an integer tensor of one element", got=describe(self))
            )
        return int(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise ShapeError("len: expected a tensor with at least one axis, got a scalar tensor")
        return int(self.shape[0])

    def __contains__(self, value: Any) -> bool:
        equal: Any = self == value
        if not isinstance(equal, Tensor):  # Python's own answer where no numbers meet
            raise DTypeError(message("in", expected="a number or a tensor", got=show(value)))
        return bool(equal.any())

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise ShapeError("iteration: expected at least one axis, got a scalar tensor")
        require_parts("iteration", self, len(self))
        return (self[i] for i in range(len(self)))

    def __format__(self, spec: str) -> str:
        if self.ndim == 0:
            return format(self.item(), spec)
        return object.__format__(self, spec)  # which refuses a format for numbers

    def __repr__(self) -> str:
        from gradlab.formatting import format_tensor

        # An excerpt of a large array is taken on its device.
        return self.device.backend.bind(format_tensor)(
            self._array,
            to_host=self.device.backend.to_host,
            default_dtype=dtypes.get_default_dtype(),
            device=None if self.device is cpu else str(self.device),
            grad_fn=None if (made_by := self.grad_fn) is None else made_by.name,
            requires_grad=self.requires_grad,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise GradientError(
                "deepcopy: expected a leaf tensor, got a result of "
                f"{self._node.name}; copy .detach() instead"  # type: ignore[union-attr]
            )
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made._array, made.device = copied(self), self.device
        made._node = made._version = made._view = None
        made.grad = None if self.grad is None else self.grad.__deepcopy__(memo)
        if self.requires_grad:
            made.requires_grad_()
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.device.backend.to_host(self._array)
        return _rebuild, (type(self), array, str(self.device), self.requires_grad)


guard_methods(Tensor)


def _rebuild(kind: type[Tensor], array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    made = kind.__new__(kind)
    there = find_device(device)
    made._array, made.device = there.backend.from_host(array), there
    made.grad = made._node = made._version = made._view = None
    return made.requires_grad_(requires_grad)


def _construct(data: tuple[Any, ...], dtype: Any, device: DeviceLike) -> Tensor:
    """The tensor of what the constructor was given: values, sizes, or nothing."""
    where = find_device(device)
    if len(data) == 1 and not is_integer(data[0]):
        return from_value(data[0], where, dtype=dtype, copy=True, operation="Tensor", move=True)
    if not all(is_integer(size) and size >= 0 for size in data):
        raise OptionError(
            message(
                "Tensor",
                expected="the values as one list, array or tensor, or the sizes as integers",
                got=", ".join(map(repr, data)),
            )
        )
    return Tensor._wrap(where.xp.empty(data or (0,), dtypes.as_dtype(dtype)), where)


def _at_axis(operation: str, values: tuple[int, ...], axis: int) -> int:
    if not -len(values) <= axis < len(values):
        expected = f"an axis from {-len(values)} to {len(values) - 1}"
        raise AxisError(message(operation, expected=expected, got=str(axis)))
    return values[axis]


class RemovableHook:
    """The handle of a registered hook; ``remove()`` takes it away, as does leaving a ``with``."""

    _count = 0

    def __init__(self, hooks: dict[int, Any], hook: Callable[..., Any]) -> None:
        RemovableHook._count += 1
        self._hooks, self._key = hooks, RemovableHook._count
        hooks[self._key] = hook

    def remove(self) -> None:
        self._hooks.pop(self._key, None)

    def __enter__(self) -> RemovableHook:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


# ------------------------------------------------------------------------ tensors from values


def describe(x: Any) -> str:
    """``float32 (2, 3)`` for a tensor, the value itself for a Python scalar."""
    if isinstance(x, Tensor):
        return f"{x.dtype.name} {x.shape}"
    return repr(x) if isinstance(x, bool | int | float | complex) else type(x).__name__


def from_value(
    value: Any,
    device: Device,
    *,
    dtype: Any = None,
    beside: DType | None = None,
    copy: bool | None = None,
    operation: str = "tensor",
    move: bool = False,
) -> Tensor:
    """A tensor of ``value``: a number, nested lists, an array, a tensor, a DLPack object.

    Python numbers take the default dtypes (float32, int64, bool); arrays keep theirs. The memory
    of an array on the same device is shared unless ``copy``. A tensor on another device stays
    there, for the operation to refuse, unless ``move``.

    ``beside`` is the dtype of the tensor that ``value`` is computed with: Python numbers take
    it, as in ``x + 0.1``, and the default of their kind where it is of another kind. So labels
    stay integers beside floating scores, and promotion rounds them once.
    """
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    if isinstance(value, Tensor):
        return _from_tensor(value, device if move else value.device, wanted, copy)
    if device is not cpu and hasattr(value, "__cuda_array_interface__"):
        return _from_device_array(value, device, wanted, copy)
    if beside is not None and isinstance(value, np.generic) and value.dtype in dtypes.ALL:
        value = value.item()
    array = _host_array(value, operation, wanted or beside)
    if wanted is None:
        wanted = _common_dtype(value, array, beside)
    if copy and isinstance(value, np.ndarray):
        array = array.copy()
    elif array.dtype != wanted and not _has_dtype(value):
        _check_fits(array, wanted, operation)
    if array.dtype != wanted:
        # 1e300 is infinite in float32, without a word.
        array = mode.run(array.astype, dtypes.as_dtype(wanted))
    return Tensor._wrap(device.backend.from_host(array), device)


_MOST_PARTS = 2**24


def require_parts(operation: str, x: Tensor, count: int) -> None:
    """Refuse to take a tensor apart into millions of parts that hold nothing, which would not end.

    A tensor without elements may have an axis of any size.
    """
    if count > _MOST_PARTS and count > x.numel():
        expected = f"at most {_MOST_PARTS} parts, or as many as there are elements"
        got = f"{show(count)} parts of a tensor of shape {x.shape}"
        raise OptionError(message(operation, expected=expected, got=got))


def operand_beside(x: Tensor, value: Any, operation: str) -> Tensor:
    """``value`` as a tensor for an operation with ``x``: see ``beside`` of `from_value`."""
    return from_value(value, x.device, beside=x.dtype, operation=operation)


def value_for(x: Tensor, value: Any, operation: str) -> Tensor:
    """``value`` as a tensor to be written into ``x``.

    Python numbers are rounded once, to the dtype of ``x``, and refused where it does not hold
    them; tensors and arrays keep theirs, which the write casts.
    """
    dtype = None if _has_dtype(value) else x.dtype
    return from_value(value, x.device, dtype=dtype, operation=operation)


def _check_fits(array: np.ndarray, dtype: DType, operation: str) -> None:
    """Refuse Python numbers that a dtype does not hold: large ones in integers, complex in real."""
    if array.dtype.kind == "b":
        return
    if array.dtype.kind == "c":
        bad = array.reshape(-1)[:0] if dtypes.is_complex(dtype) else array
        expected = f"a value that fits {dtype.name}"
    elif dtypes.is_integer(dtype):
        info = np.iinfo(dtype)
        # What lies behind the point goes. In floats info.max + 1 is exact where info.max is not.
        whole = np.trunc(array) if array.dtype.kind == "f" else array
        bad = array[~((whole >= info.min) & (whole < info.max + 1))]
        expected = f"values that fit {dtype.name}, from {info.min} to {info.max}"
    else:
        return
    if bad.size:
        raise DTypeError(message(operation, expected=expected, got=str(bad.flat[0])))


def _from_tensor(value: Tensor, device: Device, dtype: DType | None, copy: bool | None) -> Tensor:
    array = value._array
    if value.device is not device:
        array = device.backend.from_host(value.device.backend.to_host(array))
    if dtype is not None and array.dtype != dtype:
        array = device.backend.bind(array.astype)(dtype)
    if array is not value._array:
        return Tensor._wrap(array, device)
    return Tensor._wrap(copied(value), device) if copy else value


def copied(x: Tensor) -> Any:
    """A copy of a tensor's array, on the tensor's device: CuPy copies to the current one."""
    return x.device.backend.bind(x._array.copy)()


def _from_device_array(
    value: Any, device: Device, dtype: DType | None, copy: bool | None
) -> Tensor:
    """A tensor of an array that lies on a GPU: CuPy's, PyTorch's, Numba's."""
    made = Tensor._wrap(device.xp.asarray(value), device)
    return _from_tensor(made, device, dtype, copy)


def _host_array(value: Any, operation: str, wanted: DType | None = None) -> np.ndarray:
    if isinstance(value, np.ndarray):
        array = np.asarray(value)  # without what np.matrix and the like change about it
    else:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        try:
            if isinstance(value, list | tuple):
                value = _numbers(value)
            array = np.asarray(value)
        except RecursionError:
            raise ShapeError(
                message(
                    operation,
                    expected=f"lists nested at most {_MOST_AXES} deep",
                    got=f"{show(value)}, which is nested deeper, or holds itself",
                )
            ) from None
        except MemoryError:
            got = f"{type(value).__name__} of length {len(value)}"
            raise OutOfMemoryError(
                message(operation, expected="values that fit in memory", got=got)
            ) from None
        except ValueError:
            raise ShapeError(
                message(
                    operation,
                    expected="nested lists whose rows have equal lengths",
                    got="rows of different lengths",
                    hint="pad them, or make one tensor per row",
                )
            ) from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if isinstance(value, list | tuple | int) and array.dtype in _OF_LONG_INTEGERS:
        array = _long_integers(value, array, wanted)
    if array.dtype not in dtypes.ALL:
        raise DTypeError(
            message(
                operation,
                expected="numbers",
                got=f"{type(value).__name__} holding {_kind_name(array)}",
                hint="convert it to a numeric dtype first",
            )
        )
    return array


def _numbers(value: Any) -> Any:
    """Nested lists with each tensor in them as a NumPy array."""
    if isinstance(value, Tensor):
        return value.detach().numpy(force=True)
    if isinstance(value, list | tuple) and any(
        issubclass(kind, Tensor | list | tuple) for kind in set(map(type, value))
    ):
        return [_numbers(each) for each in value]
    return value


_MOST_AXES = 64  # as NumPy


# NumPy makes Python objects of integers beyond 64 bits, and float64 of 2⁶³ and 1.
_OF_LONG_INTEGERS = (np.dtype(object), np.dtype(np.float64))


def _long_integers(value: Any, array: np.ndarray, wanted: DType | None) -> np.ndarray:
    """The array of ``value``, whose integers it holds exactly, or as floats where such are
    ``wanted``; Python objects where no dtype holds them."""
    if array.dtype != object:
        if _begins_with_a_float(value) or not (np.abs(array) >= 2.0**63).any():
            return array
        array = np.asarray(value, dtype=object)
    if not all(isinstance(each, int) for each in array.flat):
        return np.asarray(value)
    low, high = min(array.flat), max(array.flat)
    if low >= 0 and high < 2**64:
        return array.astype(np.uint64)
    floats = wanted is not None and dtypes._level(wanted) > 1
    return array.astype(np.float64) if floats and -(2**1023) < low <= high < 2**1023 else array


def _begins_with_a_float(value: Any) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, float)


def _kind_name(array: np.ndarray) -> str:
    if array.dtype.kind == "O" and all(isinstance(each, int) for each in array.flat):
        beyond = any(not -(2**63) <= each < 2**64 for each in array.flat)
        return "integers beyond 64 bits" if beyond else "integers below 0 and from 2**63 up"
    names = {"U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "time spans"}
    return names.get(array.dtype.kind, array.dtype.name)


def _common_dtype(value: Any, array: np.ndarray, beside: DType | None) -> DType:
    """The dtype of ``value``, whose numbers are in ``array``: that which its numbers share.

    A Python number counts as what it is ``beside`` a tensor, or without one as the default
    dtype of its kind, so that ``[np.float32(1), 2.0]`` is float32, as in PyTorch.
    """
    if hasattr(value, "dtype") or hasattr(value, "dtypes"):
        return array.dtype
    kinds: set[Any] = set()
    if isinstance(value, list | tuple):
        _collect_kinds(value, kinds)
    if kinds <= _PYTHON_NUMBERS:
        return _number_dtype(array.dtype, beside)
    return dtypes.result_type(
        *(
            _number_dtype(np.dtype(kind), beside) if kind in _PYTHON_NUMBERS else kind
            for kind in kinds
        )
    )


def _number_dtype(dtype: DType, beside: DType | None) -> DType:
    """The dtype of Python numbers that NumPy gives ``dtype``."""
    exact = dtype.kind in "biu"
    if beside is None or (exact and dtypes._level(beside) != dtypes._level(dtype)):
        return dtypes.default_for(dtype)
    return dtypes.result_type(beside, _PYTHON_KINDS[dtype.kind])


_PYTHON_KINDS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "c": complex}
_PYTHON_NUMBERS = frozenset(_PYTHON_KINDS.values())


def _collect_kinds(values: Sequence[Any], kinds: set[Any]) -> None:
    """Add the Python types and the dtypes of the numbers in nested lists."""
    types = set(map(type, values))
    kinds |= types & _PYTHON_NUMBERS
    if types <= _PYTHON_NUMBERS:
        return
    for value in values:
        if isinstance(value, list | tuple):
            _collect_kinds(value, kinds)
        elif hasattr(value, "dtype"):
            kinds.add(np.dtype(value.dtype))


def _has_dtype(value: Any) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return hasattr(value, "dtype") or hasattr(value, "dtypes")


def require_option(operation: str, name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that is not one of ``allowed``."""
    # By type first: an array would be compared element by element.
    if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
        options = ", ".join(map(repr, allowed))
        raise OptionError(message(operation, expected=f"{name} one of {options}", got=show(value)))


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python's or NumPy's; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require_integer(operation: str, name: str, value: Any, least: int = 1) -> int:
    """Return a value as an int; refuse what is no integer of ``least`` or more."""
    number = value
    if not isinstance(value, bool):
        with suppress(TypeError, ValueError):  # a tensor or an array of one integer is one
            number = operator.index(value)
    if not is_integer(number) or number < least:
        expected = f"an integer {name} of {least} or more"
        raise OptionError(message(operation, expected=expected, got=show(value)))
    return int(number)


def require_number(operation: str, value: Any, role: str = "") -> float:
    """Return a number, or a tensor or array of one element, as a float; refuse everything else.

    ``role`` ends what the message expects, as in ``" as y"``.
    """
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError):
        got = f"shape {value.shape}" if hasattr(value, "shape") else repr(value)
        hint = "take its .sum() or .mean() first" if hasattr(value, "sum") else ""
    expected = f"a number or a tensor of one element{role}"
    raise ShapeError(message(operation, expected=expected, got=got, hint=hint))


__all__ = ["RemovableHook", "Tensor", "describe", "from_value"]
