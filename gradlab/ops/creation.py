"""Making tensors: from values, filled, ranges, identity."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.devices import Device, DeviceLike, find_device
from gradlab.dtypes import DType
from gradlab.errors import DTypeError, OptionError, message
from gradlab.ops.core import public
from gradlab.ops.shape import new_shape as _shape
from gradlab.tensor import Tensor, from_value


def _finish(array: Any, device: DeviceLike, requires_grad: bool) -> Tensor:
    there = find_device(device)
    made = Tensor._wrap(there.backend.from_host(array), there)
    return made.requires_grad_() if requires_grad else made


_DLPACK_CUDA = 2  # kDLCUDA, https://dmlc.github.io/dlpack/latest/c_api.html


def _filled(name: str, device: DeviceLike, requires_grad: bool, *args: Any) -> Tensor:
    """What the array library's function ``name`` makes, on the device itself."""
    there = find_device(device)
    make = getattr(there.xp, name)
    try:
        made = Tensor._wrap(make(*args), there)
    except (MemoryError, RuntimeError) as error:
        raise there.backend.explain(name, error) from None
    return made.requires_grad_() if requires_grad else made


def _home(value: Any, device: DeviceLike) -> Device:
    """The device a tensor of ``value`` lies on: the one given, else that of ``value``."""
    if device is not None:
        return find_device(device)
    if isinstance(value, Tensor):
        return value.device
    if not hasattr(value, "__cuda_array_interface__"):
        return find_device("cpu")
    place = getattr(value, "device", None)  # CuPy calls its number id, PyTorch index
    return find_device(f"cuda:{getattr(place, 'id', getattr(place, 'index', None)) or 0}")


def _float_or(dtype: Any) -> Any:
    return dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)


def tensor(
    data: Any, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Make a tensor of numbers, nested lists, or an array; the values are always copied.

    Python floats become float32 (the default dtype), ints int64, bools bool; a NumPy array keeps
    its dtype. Raises `ShapeError` for ragged lists and `DTypeError` for anything but numbers.

    >>> tensor([[1, 2], [3, 4]], dtype="float32")
    tensor([[1., 2.],
            [3., 4.]])
    """
    where = _home(data, device)
    made = from_value(data, where, dtype=dtype, copy=True, move=True)
    return made.requires_grad_() if requires_grad else made


def asarray(
    obj: Any, *, dtype: Any = None, device: DeviceLike = None, copy: bool | None = None
) -> Tensor:
    """Make a tensor of ``obj``, sharing the memory of a tensor or array where that is possible.

    ``copy=True`` always copies; ``copy=False`` raises where a copy would be needed. Gradients flow
    through a tensor's change of dtype or device.
    """
    where = _home(obj, device)
    if isinstance(obj, Tensor):
        made = to(obj, device=where, dtype=dtype, copy=bool(copy))
    else:
        made = from_value(obj, where, dtype=dtype, copy=copy, operation="asarray")
    source = obj._array if isinstance(obj, Tensor) else obj
    if copy is False and not (
        isinstance(source, where.array_type) and where.xp.may_share_memory(made._array, source)
    ):
        raise OptionError("asarray: copy=False, but this input can only be had as a copy")
    return made


as_tensor = asarray


def from_numpy(array: np.ndarray) -> Tensor:
    """Make a CPU tensor that shares the memory of a NumPy array.

    >>> a = np.zeros(2, dtype=np.float32)
    >>> x = from_numpy(a)
    >>> a[0] = 7
    >>> x
    tensor([7., 0.])
    """
    if not isinstance(array, np.ndarray):
        raise OptionError(message("from_numpy", expected="a NumPy array", got=type(array).__name__))
    if not array.dtype.isnative:
        raise DTypeError(
            message(
                "from_numpy",
                expected="an array in this machine's byte order, whose memory can be shared",
                got=f"dtype {array.dtype.str!r}",
                hint="use tensor(array), which copies",
            )
        )
    return from_value(array, find_device("cpu"), operation="from_numpy")


def from_dlpack(x: Any) -> Tensor:
    """Make a tensor that shares the memory of any object with ``__dlpack__``, wherever it lies."""
    if not hasattr(x, "__dlpack__"):
        expected = "an object with __dlpack__"
        raise OptionError(message("from_dlpack", expected=expected, got=type(x).__name__))
    kind, index = x.__dlpack_device__() if hasattr(x, "__dlpack_device__") else (1, 0)
    if kind == _DLPACK_CUDA:
        there = find_device(f"cuda:{index}")
        return Tensor._wrap(there.xp.from_dlpack(x), there)
    return from_value(np.from_dlpack(x), find_device("cpu"))


def full(
    shape: Any, fill_value: Any, *, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a tensor with every element equal to ``fill_value``, whose kind gives the dtype."""
    (value,) = _numbers("full", fill_value)
    filled = from_value(value, find_device("cpu"), dtype=dtype, operation="full").numpy()
    wanted = dtypes.as_dtype(filled.dtype)
    number = float(filled) if wanted == dtypes.bfloat16 else filled.item()
    return _filled("full", device, requires_grad, _shape("full", (shape,)), number, wanted)


def _numbers(operation: str, *values: Any) -> tuple[Any, ...]:
    """Python numbers of numbers, NumPy scalars and tensors of one element."""
    numbers = tuple(
        value.item() if isinstance(value, Tensor | np.generic | np.ndarray) else value
        for value in values
    )
    for number in numbers:
        if not isinstance(number, bool | int | float | complex):
            raise DTypeError(message(operation, expected="numbers", got=repr(number)))
    return numbers


def zeros(
    *shape: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a tensor of zeros: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    sizes = _shape("zeros", shape if size is None else (size,))
    return _filled("zeros", device, requires_grad, sizes, _float_or(dtype))


def ones(
    *shape: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a tensor of ones: ``ones(2, 3)`` or ``ones((2, 3))``.

    The dtype is the default floating dtype, the device the CPU, unless given.

    >>> ones(2, 3)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    sizes = _shape("ones", shape if size is None else (size,))
    return _filled("ones", device, requires_grad, sizes, _float_or(dtype))


def empty(
    *shape: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a tensor whose values are whatever the memory held."""
    sizes = _shape("empty", shape if size is None else (size,))
    return _filled("empty", device, requires_grad, sizes, _float_or(dtype))


def _like(x: Tensor, dtype: Any, device: DeviceLike, requires_grad: bool = False) -> dict[str, Any]:
    return {
        "dtype": x.dtype if dtype is None else dtype,
        "device": device or x.device,
        "requires_grad": requires_grad,
    }


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Make zeros with the shape, dtype and device of ``input``."""
    return zeros(input.shape, **_like(input, dtype, device, requires_grad))


def ones_like(
    input: Tensor, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Make ones with the shape, dtype and device of ``input``."""
    return ones(input.shape, **_like(input, dtype, device, requires_grad))


def empty_like(
    input: Tensor, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Make a tensor of unset values with the shape, dtype and device of ``input``."""
    return empty(input.shape, **_like(input, dtype, device, requires_grad))


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a tensor of ``fill_value`` with the shape, dtype and device of ``input``."""
    return full(input.shape, fill_value, **_like(input, dtype, device, requires_grad))


def arange(
    start: Any = None, stop: Any = None, step: Any = 1, *, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False, end: Any = None,
) -> Tensor:  # fmt: skip
    """Make the values from ``start`` (0 if only one bound is given) up to, not including, ``stop``.

    PyTorch calls the second bound ``end``. The dtype is int64 if all arguments are ints, else the
    default floating dtype.

    >>> arange(3), arange(1, 2, 0.5)
    (tensor([0, 1, 2]), tensor([1.0000, 1.5000]))
    """
    stop = end if stop is None else stop
    if stop is None:
        start, stop = 0, start
    elif start is None:
        start = 0
    start, stop, step = _numbers("arange", start, stop, step)
    if not all(map(math.isfinite, (start, stop, step))):
        got = f"{start}, {stop} and {step}"
        raise OptionError(message("arange", expected="finite bounds and step", got=got))
    if step == 0:
        raise OptionError(message("arange", expected="a step other than 0", got="0"))
    whole = all(isinstance(each, int) for each in (start, stop, step))
    wanted = (
        dtypes.scalar_dtype(int if whole else float) if dtype is None else dtypes.as_dtype(dtype)
    )
    # Python's whole division is exact where a quotient of large integers is not.
    count = max(0, -(-(stop - start) // step) if whole else math.ceil((stop - start) / step))
    array = _steps("arange", start, step, count, wanted)
    return _finish(array, device, requires_grad)


def _steps(operation: str, start: Any, step: Any, count: int, dtype: DType) -> np.ndarray:
    """``start + i·step`` for ``count`` values, each rounded once: no error accumulates.

    Exact for integers of 64 bits; refused where an integer dtype does not hold the values.
    """
    ends = [start, start + max(count - 1, 0) * step] if count else []
    if dtypes.is_integer(dtype):
        from_value(ends, find_device("cpu"), dtype=dtype, operation=operation)
    if not all(isinstance(end, int) for end in (start, step)):
        return _scaled(start, step, np.arange(count, dtype=np.float64), dtype)
    if all(-(2**63) <= end < 2**63 for end in (*ends, start, step)):
        return _scaled(start, step, np.arange(count, dtype=np.int64), dtype)
    if dtypes.is_integer(dtype):  # beyond int64: uint64 wraps around to the right values
        return np.uint64(start % 2**64) + np.arange(count, dtype=np.uint64) * np.uint64(
            step % 2**64
        )
    return _scaled(float(start), step, np.arange(count, dtype=np.float64), dtype)


def _scaled(start: Any, step: Any, numbers: np.ndarray, dtype: DType) -> np.ndarray:
    """``start + numbers·step``, without the passes that change nothing."""
    if step != 1:
        numbers = numbers * step
    if start != 0:
        numbers = start + numbers
    return numbers.astype(dtype, copy=False)


def range(
    start: float, end: float | None = None, step: float = 1, *, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make the values from ``start`` (0 if only one bound is given) up to and including ``end``.

    PyTorch's older function: floating values also for integers. `arange` leaves the end out.

    >>> range(1, 3)
    tensor([1., 2., 3.])
    """
    start, end = (0, start) if end is None else (start, end)
    if step == 0 or (end - start) * step < 0:
        got = f"from {start} to {end} in steps of {step}"
        raise OptionError(message("range", expected="a step that leads to the end", got=got))
    whole = all(isinstance(each, int) for each in (start, end, step))
    count = ((end - start) // step if whole else math.floor((end - start) / step)) + 1
    array = _steps("range", start, step, int(count), _float_or(dtype))
    return _finish(array, device, requires_grad)


def linspace(
    start: float, stop: float | None = None, num: int = 100, *, endpoint: bool = True,
    dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False,
    steps: int | None = None, end: float | None = None,
) -> Tensor:  # fmt: skip
    """Make ``num`` values evenly spaced from ``start`` to ``stop``; PyTorch: ``steps``, ``end``."""
    stop = end if stop is None else stop
    count = num if steps is None else steps
    start, stop = _numbers("linspace", start, stop)
    if count < 0:
        raise OptionError(message("linspace", expected="0 values or more", got=str(count)))
    wanted = _float_or(dtype)
    if dtypes.is_integer(wanted):
        from_value([start, stop], find_device("cpu"), dtype=wanted, operation="linspace")
    if dtypes.is_integer(wanted) and max(abs(start), abs(stop)) > 2**52:
        array = _whole_steps(int(start), int(stop), count, endpoint, wanted)
    else:
        array = np.linspace(float(start), float(stop), count, endpoint=endpoint).astype(wanted)
    return _finish(array, device, requires_grad)


def _whole_steps(start: int, stop: int, count: int, endpoint: bool, dtype: DType) -> np.ndarray:
    """What `linspace` gives in integers beyond those of float64: rounded towards 0."""
    parts = max(count - 1 if endpoint else count, 1)
    sums = (start * parts + (stop - start) * i for i in builtins.range(count))
    return np.array([-(-n // parts) if n < 0 else n // parts for n in sums], dtype)


def logspace(
    start: float, stop: float, num: int = 100, base: float = 10.0, *, dtype: Any = None,
    device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Make ``num`` values evenly spaced on a logarithmic scale, base**start to base**stop."""
    array = np.logspace(start, stop, num, base=base)
    return _finish(array.astype(_float_or(dtype)), device, False)


def eye(
    n_rows: int, n_cols: int | None = None, *, k: int = 0, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Make a matrix with ones on diagonal ``k`` and zeros elsewhere."""
    rows, cols = _shape("eye", (n_rows, n_rows if n_cols is None else n_cols))
    return _finish(np.eye(rows, cols, k=k, dtype=_float_or(dtype)), device, requires_grad)


def to(
    x: Tensor,
    *args: Any,
    dtype: Any = None,
    device: DeviceLike | int = None,
    copy: bool = False,
    non_blocking: bool = False,
) -> Tensor:
    """Return ``x`` on another device, in another dtype, or both; itself where nothing changes.

    ``x.to("cuda")``, ``x.to(gradlab.float64)``, ``x.to("cpu", gradlab.float16)``, ``x.to(other)``.
    A device is also given by the number of a GPU.
    """
    for each in args:
        if isinstance(each, Tensor):
            dtype, device = each.dtype, each.device
        elif isinstance(each, bool):
            continue  # PyTorch's non_blocking
        elif isinstance(each, Device | int) or (isinstance(each, str) and _names_device(each)):
            device = each
        else:
            dtype = each
    y = x if device is None else _move(x, find_device(device))
    y = y if dtype is None else y.astype(dtype, copy=False)
    return y.clone() if copy and y is x else y


def _names_device(name: str) -> bool:
    if name in dtypes._BY_NAME:
        return False
    if name.partition(":")[0] not in ("cpu", "cuda", "auto"):
        expected = "a device such as 'cpu' or 'cuda:0', or a dtype such as 'float64'"
        raise OptionError(message("to", expected=expected, got=repr(name)))
    return True


def _move(x: Tensor, where: Any) -> Tensor:
    from gradlab.ops.transfer import transfer

    return x if x.device is where else transfer(x, where)


Tensor._add_method("to", to)


@public(None, "cpu")
def _to_cpu(x: Tensor) -> Tensor:
    """Return the tensor on the CPU; itself if it is there."""
    return to(x, device="cpu")


@public(None, "cuda")
def _to_cuda(x: Tensor, device: Any = None) -> Tensor:
    """Return the tensor on a GPU, the first or that of a number or name; itself if it is there."""
    where = find_device("cuda" if device is None else device)
    if where.type != "cuda":
        raise OptionError(message("cuda", expected="a CUDA device", got=str(where)))
    return to(x, device=where)


def _new_method(name: str, make: Any) -> None:
    def new(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return make(*args, **{**_like(x, None, None), **kwargs})

    new.__doc__ = f"`{make.__name__}` with this tensor's dtype and device."
    Tensor._add_method(name, new)


for _make in (zeros, ones, empty, full, tensor):
    _new_method(f"new_{_make.__name__}", _make)


def is_floating_point(x: Tensor) -> bool:
    """Return whether the dtype of ``x`` is a floating one."""
    return x.is_floating_point()


def is_complex(x: Tensor) -> bool:
    """Return whether the dtype of ``x`` is a complex one."""
    return x.is_complex()


@public(None, "is_nonzero")
def is_nonzero(x: Tensor) -> bool:
    """Return whether the only element of ``x`` is not 0: ``bool(x)``."""
    return bool(x)


def promote_types(dtype1: Any, dtype2: Any) -> DType:
    """Return the smallest dtype that both are converted to: of two dtypes, `result_type`.

    >>> promote_types("int32", "float32").name
    'float32'
    """
    return dtypes.result_type(dtypes.as_dtype(dtype1), dtypes.as_dtype(dtype2))


def is_tensor(x: Any) -> bool:
    """Return whether ``x`` is a tensor."""
    return isinstance(x, Tensor)


def numel(x: Tensor) -> int:
    """Return the number of elements of ``x``."""
    return x.numel()


def result_type(*values: Any) -> Any:
    """Return the dtype that an operation on these tensors, dtypes and Python scalars would give."""
    return dtypes.result_type(*(_kind(value) for value in values))


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return dtypes.as_dtype(value.dtype)
    return type(value) if type(value) in (bool, int, float, complex) else dtypes.as_dtype(value)
