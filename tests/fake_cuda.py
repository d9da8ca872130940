"""A CUDA machine made of host memory: the driver of gradlab.backends.cuda without a GPU.

Its arrays are of a type of their own and behave as CuPy's do where CuPy differs from NumPy: a host
array among device arrays is refused, no array turns into a host array by itself, results without
axes stay arrays, and what CuPy's namespace does not have is not there.

Arrays know which device they lie on. As in CuPy, what is computed or copied lies on the current
device, a view where its array lies, and an array of another device than the current one is refused:
where CuPy gives a result on the current device all the same, this is stricter, but for the copies
that CuPy makes from any device. tests/cupy_standin compares the two.
"""

from __future__ import annotations

import ctypes
import json
import operator
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from gradlab.kernels.cuda.driver import Properties
from numpy.lib.array_utils import byte_bounds

import python_kernels
from cuda_emulator import build
from gradlab.backends.gate import counters

# Functions of NumPy that cupy/__init__.py (15.0) does not import.
ABSENT = """
    asmatrix block bmat busday_count busday_offset datetime_as_string datetime_data einsum_path
    frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall histogram_bin_edges
    info insert is_busday isnat matvec nanpercentile nanquantile nested_iters polyder polydiv
    polyint setbufsize seterr seterrcall show_runtime spacing test unstack vecdot vecmat
"""
# The methods of ufuncs that CuPy has (cupy/_core/_kernel.pyx), and the dtypes of its atomics.
REDUCE = {"add": {"reduce", "accumulate", "reduceat"}, "multiply": {"reduce", "accumulate"}}
AT = {"add": "int32 int64 float16 float32 float64 uint32 uint64", "subtract": "int32 uint32",
      "maximum": "int32 int64 float32 float64 uint32 uint64",
      "minimum": "int32 int64 float32 float64 uint32 uint64"}  # fmt: skip

# The loops of CuPy's ufuncs (14.2) in their order: "VV>V" takes two bfloat16 and gives one, "??>!"
# refuses two bools. test_devices.py compares them with CuPy's own where CuPy is installed.
LOOPS: dict[str, list[str]] = {
    name: loops.split()
    for name, loops in json.loads(
        Path(__file__).with_name("cupy_loops.json").read_text(encoding="utf-8")
    ).items()
}
# Functions that know NumPy's dtypes only (Thrust, cuSOLVER, atomics, or loops of their own).
NO_BFLOAT16 = """
    sort argsort partition argpartition lexsort searchsorted unique bincount cumsum cumprod clip
    svd qr det slogdet inv pinv solve eigh eigvalsh cholesky round around nan_to_num
"""

# Functions in which CuPy waits: those whose result's shape depends on values, and two that check
# or convert indices on the host.
WAITING = """
    nonzero flatnonzero argwhere unique extract compress union1d intersect1d setdiff1d bincount
    argpartition unravel_index
"""

# Functions and methods that give views, or tell no values: they ask for no device.
VIEWS = """
    ascontiguousarray astype atleast_1d atleast_2d broadcast_to conj diagonal expand_dims flip
    may_share_memory moveaxis ravel reshape shares_memory split squeeze swapaxes transpose view
"""


class _Current(threading.local):
    """The device that new arrays lie on; each thread begins on the first."""

    index = 0


_current = _Current()


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError: what CUDA answers, by its number."""

    NAMES: ClassVar[dict[int, str]] = {
        1: "cudaErrorInvalidValue: invalid argument",
        700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
        701: "cudaErrorLaunchOutOfResources: too many resources requested for launch",
    }

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(self.NAMES[status])


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )


def _wait() -> None:
    """The host reads a value from the device, and waits for it."""
    counters.synchronizations += 1


@contextmanager
def Device(index: int) -> Iterator[None]:  # noqa: N802 - cupy.cuda.Device
    """The device on which arrays are made, as ``with cupy.cuda.Device(1):``."""
    before, _current.index = _current.index, index
    try:
        yield
    finally:
        _current.index = before


class Flags:
    """CuPy's flags: there is no ``writeable`` among them."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = flags.owndata


class Array:
    """An array in device memory."""

    __slots__ = ("device_index", "values")
    __array_ufunc__ = None  # NumPy leaves `host + device` to the reflected operator here
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: np.ndarray, index: int) -> None:
        self.values, self.device_index = values, index

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.values.__array_interface__

    @property
    def flags(self) -> Flags:
        return Flags(self.values.flags)

    @property
    def base(self) -> Any:
        return self.values.base

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=self.device_index)

    def get(self) -> np.ndarray:
        _wait()
        return self.values.copy()

    def item(self) -> Any:
        _wait()
        return self.values.item()

    def tolist(self) -> Any:
        _wait()
        return self.values.tolist()

    def copy(self, order: str = "C") -> Array:
        return Array(self.values.copy(), _current.index)  # from any device to the current one

    def flatten(self) -> Array:
        return Array(self.values.flatten(), _current.index)

    def __getitem__(self, index: Any) -> Any:
        seen = [self]
        chosen = _index(index, seen)
        if not _is_basic(chosen):
            _check_current(seen)
        if _selects(chosen):
            _wait()
        found = self.values[chosen]
        if isinstance(found, np.generic):  # CuPy gives a view without axes
            found = self.values[(*chosen, ...) if isinstance(chosen, tuple) else (chosen, ...)]
        return Array(found, self.device_index)

    def __setitem__(self, index: Any, value: Any) -> None:
        seen = [self]
        chosen, given = _index(index, seen), _host(value, seen)
        _check_current(seen)
        if _selects(chosen) and isinstance(value, Array) and value.values.ndim:
            _wait()
        if isinstance(given, int | float):  # CuPy casts a number as a kernel does, without a look
            with np.errstate(all="ignore"):
                given = np.asarray(given).astype(self.values.dtype)
        self.values[chosen] = given

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        _wait()
        return bool(self.values)

    def __int__(self) -> int:
        _wait()
        return int(self.values)

    def __float__(self) -> float:
        _wait()
        return float(self.values)

    def __index__(self) -> int:
        _wait()
        return operator.index(self.values)

    def __repr__(self) -> str:
        return f"<device {self.device_index}: {self.values!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.values, name)
        if callable(found):
            return lambda *args, **kwargs: _run(found, args, kwargs, [self])
        return Array(found, self.device_index) if isinstance(found, np.ndarray) else found

    def __deepcopy__(self, memo: Any) -> Array:
        return Array(self.values.copy(), self.device_index)


def _dtype(letter: str) -> np.dtype:
    return BFLOAT16 if letter == "V" else np.dtype(letter)


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}  # and 3 for bfloat16


@cache
def _loop(name: str, kinds: tuple[Any, ...], dtype: np.dtype | None) -> tuple[np.dtype, ...]:
    """The dtypes of the results of CuPy's ufunc, for dtypes, or types of Python's scalars.

    CuPy takes the first loop to which all inputs can be cast (cupy/_core/_kernel.pyx). So what has
    no loop for bfloat16 is computed in float32, and gives a float32.
    """
    strong = [_KINDS.get(kind.kind, 3) for kind in kinds if isinstance(kind, np.dtype)]
    scalars = [_KINDS[np.dtype(kind).kind] for kind in kinds if isinstance(kind, type)]
    weak = bool(strong and scalars) and max(strong) >= max(scalars)

    def fits(kind: Any, to: np.dtype) -> bool:
        if np.can_cast(np.dtype(kind), to):
            return True
        try:
            return weak and isinstance(kind, type) and np.result_type(kind(0), to) == to
        except TypeError:
            return False

    for loop in LOOPS[name]:
        inputs, _, outputs = loop.partition(">")
        if dtype is None:
            chosen = all(map(fits, kinds, map(_dtype, inputs)))
        else:
            chosen = outputs != "!" and all(_dtype(each) == dtype for each in outputs)
        if chosen and outputs == "!":
            break
        if chosen:
            return tuple(map(_dtype, outputs))
    raise TypeError(f"Wrong type ({dtype or kinds}) of arguments for cupy_{name}")


def _as_cupy(name: str, inputs: Any, found: Any, dtype: Any = None) -> Any:
    """What NumPy's ufunc found, in the dtypes that CuPy's gives it."""
    kinds = tuple(
        each.dtype if isinstance(each, Array | np.generic) else type(each) for each in inputs
    )
    given = _loop(name, kinds, None if dtype is None else np.dtype(dtype))
    if isinstance(found, tuple):
        return tuple(map(_cast, found, given))
    return _cast(found, given[0])


def _cast(found: Any, dtype: np.dtype) -> Any:
    if not isinstance(found, Array) or found.dtype == dtype:
        return found
    return Array(found.values.astype(dtype), found.device_index)


def _operator(name: str) -> Callable[..., Any]:
    ufunc, turned = UFUNCS.get(name), False
    if ufunc is None and name.startswith("r"):
        ufunc, turned = UFUNCS.get(name[1:]), True

    def method(self: Array, *others: Any) -> Any:
        found = _run(getattr(self.values, f"__{name}__"), others, {}, [self])
        if ufunc is None or found is NotImplemented:
            return found
        return _as_cupy(ufunc, (*others, self) if turned else (self, *others), found)

    return method


UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal", "neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert",
}  # fmt: skip
ARITHMETIC = "add sub mul truediv floordiv mod pow and or xor lshift rshift"
OTHERS = "matmul rmatmul lt le gt ge eq ne neg pos abs invert"
for _name in [*ARITHMETIC.split(), *(f"r{each}" for each in ARITHMETIC.split()), *OTHERS.split()]:
    setattr(Array, f"__{_name}__", _operator(_name))


def _in_place(name: str) -> Callable[..., Any]:
    def method(self: Array, other: Any) -> Array:
        _run(getattr(self.values, name), (other,), {}, [self])
        return self

    return method


for _name in ARITHMETIC.split():
    setattr(Array, f"__i{_name}__", _in_place(f"__i{_name}__"))


def _selects(index: Any) -> bool:
    """True for an index with a mask: how many elements it takes, only the device knows."""
    each = index if isinstance(index, tuple) else (index,)
    return any(isinstance(i, np.ndarray) and i.dtype == bool for i in each)


def _index(index: Any, seen: list[Array]) -> Any:
    """An index with host arrays for device arrays; it may hold both, as CuPy copies the others."""
    if isinstance(index, tuple):
        return tuple(_index(each, seen) for each in index)
    return index if isinstance(index, np.ndarray) else _host(index, seen)


def _is_basic(index: Any) -> bool:
    """True for an index that gives a view."""
    each = index if isinstance(index, tuple) else (index,)
    basic = (int, np.integer, slice, type(None), type(Ellipsis))
    return all(isinstance(i, basic) for i in each)


def _check_current(arrays: list[Array]) -> None:
    places = {each.device_index for each in arrays}
    if places - {_current.index}:
        raise ValueError(
            f"Array device must be same as the current device: arrays on {sorted(places)}, "
            f"current {_current.index}"
        )


def _host(value: Any, seen: list[Array]) -> Any:
    """Take device arrays apart, noting them in ``seen``; host arrays are refused."""
    if isinstance(value, Array):
        seen.append(value)
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}: a host array among device arrays")
    if isinstance(value, list | tuple):
        return type(value)([_host(each, seen) for each in value])
    return value


def _device(value: Any, index: int) -> Any:
    if isinstance(value, np.ndarray):
        return Array(value, index)
    if isinstance(value, np.generic):
        return Array(np.asarray(value), index)
    if isinstance(value, list | tuple):
        made = [_device(each, index) for each in value]
        return made if isinstance(value, list) else tuple(made)
    return value


def _run(function: Any, args: Any, kwargs: Any, arrays: list[Array]) -> Any:
    """Run NumPy's function on the host values; the result lies on the current device."""
    seen = list(arrays)
    name = getattr(function, "__name__", "")
    if name in WAITING.split():
        _wait()
    args = [_host(each, seen) for each in args]
    kwargs = {name: _host(each, seen) for name, each in kwargs.items()}
    if name in VIEWS.split() and seen:
        found = function(*args, **kwargs)
        if not isinstance(found, np.ndarray) or np.may_share_memory(found, seen[0].values):
            return _device(found, seen[0].device_index)
    _check_current(seen)
    return _device(function(*args, **kwargs), _current.index)


class Ufunc:
    """A ufunc with the methods that CuPy's have."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc, self.__name__, self.nin = ufunc, ufunc.__name__, ufunc.nin

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if unknown := set(kwargs) - {"out", "dtype", "casting", "where"}:
            raise TypeError(f"Wrong arguments {unknown}")
        found = _run(self._ufunc, args, kwargs, [])
        if self.__name__ not in LOOPS or kwargs.get("out") is not None or len(args) > self.nin:
            return found
        return _as_cupy(self.__name__, args, found, kwargs.get("dtype"))

    def outer(self, *args: Any, **kwargs: Any) -> Any:
        return _run(self._ufunc.outer, args, kwargs, [])

    def at(self, array: Array, indices: Any, *b: Any) -> None:
        if array.dtype.name not in AT.get(self.__name__, "").split():
            raise TypeError(f"cupy.{self.__name__}.at does not support {array.dtype.name}")
        _run(self._ufunc.at, (array, indices, *b), {}, [])

    def __getattr__(self, name: str) -> Any:
        if name not in ("reduce", "accumulate", "reduceat"):
            raise AttributeError(f"'cupy._core._kernel.ufunc' object has no attribute '{name}'")
        if name not in REDUCE.get(self.__name__, ()):
            raise NotImplementedError(f"`cupy_{self.__name__}.{name}` is not supported yet")
        method = getattr(self._ufunc, name)

        def run(array: Any, *args: Any, **kwargs: Any) -> Any:
            if set(kwargs) - {"axis", "dtype", "out", "keepdims", "indices"}:
                raise TypeError(f"{name}() got an unexpected keyword argument among {set(kwargs)}")
            return _run(method, (array, *args), kwargs, [])

        return run


def _without_bfloat16(function: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(each, Array) and each.dtype == BFLOAT16 for each in args):
            raise TypeError(f"cupy.{function.__name__}: unsupported dtype bfloat16")
        return _run(function, args, kwargs, [])

    return run


def _in_float32(function: Any) -> Callable[..., Any]:
    """A reduction that CuPy computes in float32 for float16."""

    def run(x: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(x, "dtype", None) != np.float16 or args or kwargs.get("dtype") is not None:
            return _run(function, (x, *args), kwargs, [])
        return _run(function, (x,), {**kwargs, "dtype": np.float32}, []).astype(np.float16)

    return run


class Grid:
    """``ogrid`` and ``mgrid``."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid

    def __getitem__(self, index: Any) -> Any:
        return _device(self._grid[index], _current.index)


class Namespace:
    """NumPy's functions, on device arrays."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT.split():
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        made = self._find(getattr(self._module, name))
        setattr(self, name, made)  # one object per function, as in a module
        return made

    @staticmethod
    def _find(found: Any) -> Any:
        if isinstance(found, np.ufunc):
            return Ufunc(found)
        if isinstance(found, ModuleType):
            return LinAlg(found) if found is np.linalg else Namespace(found)
        if isinstance(found, type(np.ogrid) | type(np.mgrid)):
            return Grid(found)
        if isinstance(found, type) or not callable(found):
            return found
        if getattr(found, "__name__", "") in NO_BFLOAT16.split():
            return _without_bfloat16(found)
        if found in (np.sum, np.prod):
            return _in_float32(found)
        return lambda *args, **kwargs: _run(found, args, kwargs, [])

    def where(self, condition: Any, *chosen: Any) -> Any:
        found = _run(np.where, (condition, *chosen), {}, [])
        return _as_cupy("where", (condition, *chosen), found) if chosen else found

    def tril(self, x: Array, k: int = 0) -> Any:
        return self.where(
            Array(np.tri(*x.shape[-2:], k=k, dtype=bool), _current.index), x, x.dtype.type(0)
        )

    def triu(self, x: Array, k: int = 0) -> Any:
        mask = Array(np.tri(*x.shape[-2:], k=k - 1, dtype=bool), _current.index)
        return self.where(mask, x.dtype.type(0), x)

    # Explicit copies to the device are what these are for.

    def asarray(self, value: Any, dtype: Any = None, **kwargs: Any) -> Array:
        if isinstance(value, Array) and value.device_index == _current.index:
            array = np.asarray(value.values, dtype)
            return value if array is value.values else Array(array, _current.index)
        return self.array(value, dtype)

    def array(self, value: Any, dtype: Any = None, **kwargs: Any) -> Array:
        given = value.values if isinstance(value, Array) else _host_inside(value)
        return Array(np.array(given, dtype), _current.index)  # from any device to the current one

    def diagonal(self, *args: Any, **kwargs: Any) -> Array:
        made: Array = _run(np.diagonal, args, kwargs, [])
        made.values.flags.writeable = True  # as CuPy's, unlike NumPy's
        return made

    def asnumpy(self, value: Any) -> np.ndarray:
        return value.get() if isinstance(value, Array) else np.asarray(value)

    ndarray = Array

    class cuda:
        Device = staticmethod(Device)


class LinAlg(Namespace):
    """cupy.linalg (14.2): it broadcasts no batches, and says nothing of singular matrices."""

    def solve(self, a: Array, b: Array) -> Array:
        if a.shape[:-1] != b.shape[:-1]:
            raise ValueError(
                "a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b"
            )
        return self._silently("solve", a, b)

    def inv(self, a: Array) -> Array:
        return self._silently("inv", a)

    def cholesky(self, a: Array) -> Array:
        # cuSOLVER stops at a pivot that is not positive and leaves it in its place.
        return self._silently("cholesky", a, failed=np.tril)

    raises: ClassVar[list[bool]] = [False]

    @classmethod
    @contextmanager
    def errstate(cls, *, linalg: str) -> Iterator[None]:
        """cupyx.errstate: with ``"raise"`` the host waits for the status of each call."""
        before, cls.raises[0] = cls.raises[0], linalg == "raise"
        try:
            yield
        finally:
            cls.raises[0] = before

    def _silently(self, name: str, *args: Array, failed: Any = None) -> Array:
        def run(*args: Any) -> Any:
            try:
                return getattr(np.linalg, name)(*args)
            except np.linalg.LinAlgError:
                if self.raises[0]:
                    raise
                return failed(args[-1]) if failed else np.full_like(args[-1], np.nan)

        run.__name__ = name
        found: Array = _run(run, args, {}, [])
        return found


def _host_inside(value: Any) -> Any:
    return value if isinstance(value, np.ndarray) else _host(value, [])


def _extents(args: Any) -> list[tuple[int, int]] | None:
    """Where the arrays of a launch lie; None where a struct may hold further addresses."""
    for struct in (x for x in args if isinstance(x, np.ndarray)):
        words = np.frombuffer(struct.tobytes()[: struct.nbytes // 8 * 8], np.uint64)
        if ((words >= 1 << 32) & (words < 1 << 48)).any():
            return None
    return [byte_bounds(x.values) if x.size else (0, 0) for x in args if isinstance(x, Array)]


def _check_arguments(grid: Any, block: Any, args: Any) -> None:
    """Refuse what cupy.cuda.Function would refuse, or pass in another size."""
    for each in (*grid, *block):
        if type(each) is not int:
            raise TypeError(f"grid {grid}, block {block}: expected tuples of ints")
    if type(grid) is not tuple or type(block) is not tuple:
        raise TypeError(f"Expected tuple, got {type(grid)}, {type(block)}")
    for x in args:
        if isinstance(x, np.ndarray) and x.size != 1:
            raise TypeError("Only numpy.ndarrays of size one can be passed by value")
        if not isinstance(x, Array | np.ndarray | int | float) or isinstance(x, bool):
            raise TypeError(f"an argument of type {type(x)}")


class FakeDriver:
    """Stands where CuPy's driver stands: ``use_driver(FakeDriver())``."""

    untimed = "the emulator runs kernels on the CPU"

    def __init__(self, devices: int = 2, *, mode: str = "") -> None:
        self.devices = devices
        self.xp = Namespace(np)
        self.array_type = Array
        self.copies_to_host = 0
        self.waits = 0
        self.emptied: list[int] = []  # the devices whose cache was emptied
        self.mode = mode or build.MODE
        self.order = 0  # 1: the threads of a block run from the last to the first
        self.launches: list[tuple[str, str]] = []  # source and symbol

    def properties(self) -> Properties:
        return Properties("emulator", (9, 0), 4, 227 << 10, 1 << 20)

    def pointer(self, array: Array) -> int:
        return int(array.values.ctypes.data)

    def tensor_map(
        self, address: int, dtype: str, shape: Any, strides: Any, box: Any
    ) -> np.ndarray:
        """A map as tests/cuda_emulator/ptx.h reads it, refused where CUDA would refuse it."""
        assert len(shape) == len(box) == len(strides) + 1 == 3
        assert address % 16 == 0, address
        assert all(each % 16 == 0 and 0 < each < 1 << 40 for each in strides), strides
        assert all(0 < each <= 1 << 32 for each in shape), shape
        assert all(0 < each <= 256 for each in box), box
        itemsize = {"float16": 2, "bfloat16": 2, "float32": 4}[dtype]
        assert box[0] * itemsize <= 128, box
        words = [address, *shape, *strides, *box, itemsize]
        return np.array([*words, *[0] * (16 - len(words))], np.uint64)

    def launch(
        self, source: str, symbol: str, defines: Any, grid: Any, block: Any, args: Any, shared: int
    ) -> None:
        self.launches.append((source, symbol))
        _check_arguments(grid, block, args)
        given = [ctypes.c_void_p(self.pointer(x)) if isinstance(x, Array) else x for x in args]
        places = {x.device_index for x in args if isinstance(x, Array)}
        if places - {_current.index}:
            raise ValueError(f"{symbol}: arrays on {sorted(places)}, current {_current.index}")
        if (cluster := dict(defines).get("CLUSTER", 1)) > 1:  # one emulated block, see ptx.h
            assert grid[0] % cluster == 0, (grid, cluster)
            grid, block, shared = (grid[0] // cluster,), (block[0] * cluster,), shared * cluster
        build.kernel(source, symbol, defines, self.mode).launch(
            grid, block, given, shared, self.order, _extents(args), cluster
        )

    def launch_ptx(self, kernel: Any, grid: Any, block: Any, args: Any) -> None:
        """The PTX is only compiled: the Python kernel that it was made from runs."""
        self.launches.append((f"{kernel.source.name}.ptx", kernel.symbol))
        _check_arguments(grid, block, args)
        places = {x.device_index for x in args if isinstance(x, Array)}
        if places - {_current.index}:
            raise ValueError(
                f"{kernel.symbol}: arrays on {sorted(places)}, current {_current.index}"
            )
        # One register-sized parameter for each word, or a GPU would read beyond them.
        words = kernel.words(args, self.pointer)
        head = kernel.ptx.partition(kernel.symbol + "(")[2].partition(")")[0]
        assert head.count(".param") == len(words), (head, words)
        given = [x.values if isinstance(x, Array) else x for x in args]
        source = kernel.source
        with np.errstate(all="ignore"):
            python_kernels.run(source.build, source.constants, grid, block, given, bool(self.order))

    def timed(self, function: Callable[[], Any], repeats: int) -> list[float]:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return seconds

    def device_count(self) -> int:
        return self.devices

    def current_device(self) -> int:
        return _current.index

    def device(self, index: int) -> Any:
        return Device(index)

    def to_device(self, array: np.ndarray, index: int) -> Array:
        assert type(array) is np.ndarray, type(array)
        return Array(array.copy(), index)

    def to_host(self, array: Array) -> np.ndarray:
        assert type(array) is Array, type(array)
        self.copies_to_host += 1
        return array.values.copy()

    def synchronize(self, index: int) -> None:
        self.waits += 1

    def memory(self, index: int) -> dict[str, int]:
        return {"used": 0, "free": 1 << 30, "total": 1 << 30}

    def empty_cache(self, index: int) -> None:
        self.emptied.append(index)


def special_modules() -> dict[str, ModuleType]:
    """``cupyx.scipy.special``, for sys.modules."""
    import scipy.special

    names = ("cupyx", "cupyx.scipy", "cupyx.scipy.special")
    modules = {name: ModuleType(name) for name in names}
    for name in ("betainc", "digamma", "erf", "erfinv", "expit", "gammaln", "zeta"):
        setattr(modules[names[2]], name, Namespace._find(getattr(scipy.special, name)))
    modules["cupyx"].errstate = LinAlg.errstate  # type: ignore[attr-defined]
    modules["cupyx"].scipy = modules["cupyx.scipy"]  # type: ignore[attr-defined]
    modules["cupyx.scipy"].special = modules[names[2]]  # type: ignore[attr-defined]
    return modules
