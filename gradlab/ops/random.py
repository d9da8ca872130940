"""Random numbers: one Philox stream per generator, keyed by its seed and the count of its calls.

Philox [1]_ is counter-based: random bits are a function of (key, counter). The key is the seed;
the counter's high words hold the number of the call, its low words the block within the call. So
call number 7 under seed 0 gives the same integers on every device, in whatever order elements are
computed. Uniforms are the top bits of those integers; normals follow from them by Box-Muller [2]_.

A drawing is an op that fills a new tensor, given by `update`: on the CPU NumPy's Philox does it, on
a GPU the kernels of ``kernels/cuda/random.cu``, and nothing is copied from the host.

.. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x64-10)
.. [2] Box and Muller, "A note on the generation of random normal deviates", 1958
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import guard_namespace
from gradlab.devices import DeviceLike, find_device
from gradlab.dtypes import DType
from gradlab.errors import DTypeError, OptionError, message
from gradlab.kernels.cuda import random as cuda
from gradlab.ops.core import Kernel, Op, apply, public, update
from gradlab.ops.samples import LARGE, Sample, values
from gradlab.ops.shape import new_shape as _shape
from gradlab.tensor import Tensor, is_integer, require_integer

__all__ = [
    "Generator",
    "dropout",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
    "uniform",
]

_MASK64 = (1 << 64) - 1


def _restored(state: dict[str, int]) -> Generator:
    return Generator().set_state(state)


class Generator:
    """A stream of random numbers: a seed, and how many calls have drawn from it.

    The state is two integers, so a checkpoint holds it exactly and any device can go on from it.

    >>> a, b = Generator(3), Generator(3)
    >>> bool((rand(4, generator=a) == rand(4, generator=b)).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed``, an integer from -2⁶³ to 2⁶⁴ - 1, from its beginning."""
        if not is_integer(seed):
            got = f"{seed!r} of type {type(seed).__name__}"
            raise OptionError(message("manual_seed", expected="an integer", got=got))
        if not -(1 << 63) <= seed <= _MASK64:
            raise OptionError(
                message("manual_seed", expected="an integer of 64 bits", got=str(seed))
            )
        self._seed = int(seed) & _MASK64
        self._calls = 0
        return self

    def seed(self) -> int:
        """Start from a seed that the operating system's randomness chooses, and return it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed the stream started from."""
        return self._seed

    def get_state(self) -> dict[str, int]:
        """The state, as plain integers: ``{"seed": …, "calls": …}``."""
        return {"seed": self._seed, "calls": self._calls}

    def set_state(self, state: dict[str, int]) -> Generator:
        """Go on from a state that `get_state` gave."""
        try:
            seed, calls = state["seed"], state["calls"]
        except (KeyError, TypeError, IndexError):
            seed = calls = -1
        if not (is_integer(seed) and is_integer(calls) and 0 <= calls <= _MASK64):
            raise OptionError(
                message(
                    "Generator.set_state",
                    expected="a dict with the integers 'seed' and 'calls'",
                    got=repr(state),
                )
            )
        self.manual_seed(seed)
        self._calls = int(calls)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.get_state(),)

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, calls={self._calls})"

    def next_call(self) -> int:
        """Take the number of the next call."""
        with self._lock:
            self._calls += 1
            return self._calls - 1

    def bits(self, count: int, call: int) -> np.ndarray:
        """The first ``count`` 64-bit integers of call number ``call``."""
        return _bits(self._seed, call, count)


class _Kept(threading.local):
    """A bit generator per thread: setting its state costs 1 µs, making a new one 8 µs."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)


_kept = _Kept()


def _bits(seed: int, call: int, count: int) -> np.ndarray:
    philox = _kept.philox
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, 0, call, 0], dtype=np.uint64),
            "key": np.array([seed, 0], dtype=np.uint64),
        },
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return philox.random_raw(count)


default_generator = Generator(secrets.randbits(32))


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, which all devices share, and return it.

    >>> _ = manual_seed(0); a = rand(2)
    >>> _ = manual_seed(0); bool((a == rand(2)).all())
    True
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system's randomness; return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> dict[str, int]:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: dict[str, int]) -> None:
    """Put the default generator back into a state that `get_rng_state` gave."""
    default_generator.set_state(state)


# -------------------------------------------------------------- from bits to distributions
#
# Each fills the one array of a list, `out`, which is new and contiguous.


def _put(xp: Any, out: Any, drawn: np.ndarray) -> None:
    drawn = drawn.reshape(out.shape)
    out[...] = drawn if xp is np else xp.asarray(drawn)


def _uniform01(seed: int, call: int, count: int, wide: bool, out: Any = None) -> np.ndarray:
    """Uniforms in [0, 1): float64 with 53 bits if ``wide``, else float32 with 24."""
    if wide:
        return np.multiply(_bits(seed, call, count) >> np.uint64(11), 2.0**-53, out=out)
    words = _bits(seed, call, (count + 1) // 2).view("<u4")[:count]
    return np.multiply((words >> np.uint32(8)).astype(np.float32), np.float32(2.0**-24), out=out)


def _uniform(xp: Any, out: Any, *, seed: int, call: int) -> None:
    x = out[0]
    wide = x.dtype == dtypes.float64
    if xp is np and (wide or x.dtype == dtypes.float32):
        _uniform01(seed, call, x.size, wide, x.reshape(-1))
        return
    drawn = _uniform01(seed, call, x.size, wide)
    if x.dtype in dtypes.HALVES:  # rounding to a half may reach 1
        drawn = np.minimum(drawn, np.float32(1 - dtypes.finfo(x.dtype).eps / 2))
    _put(xp, x, drawn)


def _normal(xp: Any, out: Any, *, seed: int, call: int) -> None:
    """Standard normals by Box-Muller: a pair from each pair of uniforms."""
    x = out[0]
    half = (x.size + 1) // 2
    wide = x.dtype == dtypes.float64
    kind = np.float64 if wide else np.float32
    if wide:
        words = _bits(seed, call, 2 * half)
        # +0.5 keeps the first uniform off 0, whose logarithm is -inf.
        u = ((words >> np.uint64(11)) + 0.5) * 2.0**-53
    else:
        words = _bits(seed, call, half).view("<u4")
        u = (words.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    radius = np.sqrt(kind(-2) * np.log(u[:half]))
    angle = kind(2 * math.pi) * u[half:]
    pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    _put(xp, x, pairs[: x.size])


def _integers(xp: Any, out: Any, *, seed: int, call: int, low: int, span: int) -> None:
    # The remainder favours small values by at most span / 2⁶⁴.
    drawn = _bits(seed, call, out[0].size)
    if span <= _MASK64:  # else all 64 bits
        drawn %= np.uint64(span)
    _put(xp, out[0], drawn.view(np.int64) + _signed(low))


def _permutation(xp: Any, out: Any, *, seed: int, call: int) -> None:
    # Sorting random keys gives every order the same chance. Pairs whose keys agree in the bits that
    # count, two of 2¹⁷ elements, none of 10⁶ and 45 of 10⁷, keep the order of their positions.
    keys = _bits(seed, call, out[0].size)
    if keys.size > cuda.SHORT:
        _put(xp, out[0], cuda.order_of(np, keys))
        return
    # The same by their 32 high bits, which NumPy sorts in two passes, ten times as fast.
    low, high = (np.ascontiguousarray(keys.view("<u2")[i::4]) for i in (2, 3))
    order = np.argsort(low, kind="stable")
    _put(xp, out[0], order[np.argsort(high[order], kind="stable")])


def _declare(name: str, forward: Any, fill: Any, accepts: Any) -> Op:
    kernel = Kernel(
        "cuda", "random",
        accepts=lambda out, **_: accepts(out[0]),
        run=lambda out, **options: fill(out[0], **options),
    )  # fmt: skip
    return Op(name, forward, inputs=("out",), mutates=("out",), kernels=[kernel])


DRAW_UNIFORM = _declare("draw_uniform", _uniform, cuda.uniform, cuda.fits)
DRAW_NORMAL = _declare("draw_normal", _normal, cuda.normal, cuda.fits)
DRAW_INTEGERS = _declare("draw_integers", _integers, cuda.integers, lambda _: True)
DRAW_PERMUTATION = _declare("draw_permutation", _permutation, cuda.permutation, lambda _: True)


def _draw(
    op: Op, shape: tuple[int, ...], dtype: Any, device: DeviceLike, generator: Any,
    requires_grad: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """A new tensor that ``op`` fills with the numbers of the generator's next call."""
    source = default_generator if generator is None else generator
    where = find_device(device)
    out = Tensor._wrap(where.xp.empty(shape, dtype), where)
    update(op, [[out]], {"seed": source.initial_seed(), "call": source.next_call(), **options})
    made = Tensor._wrap(out._array, where)  # without the count of writes: nobody saw it empty
    return made.requires_grad_() if requires_grad else made


def _signed(word: int) -> np.int64:
    """The low 64 bits of an integer, as NumPy's sums wrap around."""
    return np.uint64(word & _MASK64).astype(np.int64)


# ------------------------------------------------------------------- what can be drawn from
#
# A distribution that does not exist is refused: bounds the wrong way round, NaN, a scale below 0.
# The values of tensors are looked at on the CPU alone, as on a GPU that would make the host wait.


def floating(operation: str, dtype: Any) -> Any:
    """The dtype of draws of real numbers."""
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_floating(wanted):
        raise DTypeError(message(operation, expected="a floating dtype", got=wanted.name))
    return wanted


def require_all(
    operation: str, expected: str | DType, test: Callable[..., Any], *values: Any
) -> None:
    """Refuse parameters for which ``test`` does not hold everywhere, NaN among them.

    A dtype for ``expected`` is that of bounds, whose name would take longer than the test.
    """
    if any(isinstance(value, Tensor) and value.device.type != "cpu" for value in values):
        return
    numbers = all(value.__class__ in (int, float) for value in values)
    if not (test(*values) if numbers else _hold(test, values)):
        got = " and ".join(
            _described(value) if isinstance(value, Tensor) else repr(value) for value in values
        )
        if not isinstance(expected, str):
            expected = f"low <= high, finite and no further apart than {expected.name} can tell"
        raise OptionError(message(operation, expected=expected, got=got))


def _hold(test: Callable[..., Any], values: Sequence[Any]) -> bool:
    arrays = [x._array if isinstance(x, Tensor) else np.asarray(x) for x in values]
    if any(array.dtype.kind not in "biufV" for array in arrays):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.all(test(*(array.astype(np.float64) for array in arrays))))


def _described(x: Tensor) -> str:
    return str(x.detach().tolist()) if x.numel() <= 4 else f"a tensor of shape {x.shape}"


def require_moments(operation: str, mean: Any, std: Any, dtype: DType) -> None:
    """Refuse what is no mean or no standard deviation, or lies beyond the draws' dtype."""
    largest = float(dtypes.finfo(dtype).max)
    finite = f"finite in {dtype.name}"
    expected = f"a std of 0 or more, {finite}"
    require_all(operation, expected, lambda s: (s >= 0) & (s <= largest), std)
    require_all(operation, f"a mean {finite}", lambda m: abs(m) <= largest, mean)


def _require_bounds(operation: str, low: Any, high: Any, dtype: Any) -> None:
    largest = float(dtypes.finfo(dtype).max)

    def fit(a: Any, b: Any) -> Any:
        return (abs(a) <= largest) & (abs(b) <= largest) & (a <= b) & (b - a <= largest)

    require_all(operation, dtype, fit, low, high)


def _require_integers(operation: str, dtype: Any, low: int, high: int) -> None:
    """Refuse a range of integers, low <= i < high, that a dtype does not hold exactly."""
    if dtypes.is_complex(dtype):
        raise DTypeError(message(operation, expected="a real dtype", got=dtype.name))
    least, largest = exact_range(dtype)
    if low < least or high - 1 > largest:
        expected = f"integers that {dtype.name} holds exactly, from {least} to {largest}"
        raise OptionError(message(operation, expected=expected, got=f"{low} to {high - 1}"))


def exact_range(dtype: Any) -> tuple[int, int]:
    """The least and the largest integer up to which a dtype holds all exactly."""
    if dtype == dtypes.bool_:
        return 0, 1
    if dtypes.is_floating(dtype):
        exact = round(2 / float(dtypes.finfo(dtype).eps))
        return -exact, exact
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def rand(
    *shape: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw uniforms from [0, 1) in the given shape: ``rand(2, 3)`` or ``rand((2, 3))``.

    float32 values are multiples of 2⁻²⁴, float64 values of 2⁻⁵³, and below 1 in both.
    """
    wanted = floating("rand", dtype)
    sizes = _shape("rand", shape if size is None else (size,))
    return _draw(DRAW_UNIFORM, sizes, wanted, device, generator, requires_grad)


def randn(
    *shape: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw from the standard normal distribution: ``randn(2, 3)``, ``randn(size=())``."""
    wanted = floating("randn", dtype)
    sizes = _shape("randn", shape if size is None else (size,))
    return _draw(DRAW_NORMAL, sizes, wanted, device, generator, requires_grad)


def uniform(
    low: float = 0.0, high: float = 1.0, size: Any = (), *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Draw uniforms from [low, high).

    Raises `OptionError` unless low <= high are finite and no further apart than the dtype can tell.
    """
    return draw_uniform("uniform", low, high, size, generator, dtype, device)


def draw_uniform(
    operation: str, low: Any, high: Any, size: Any, generator: Generator | None, dtype: Any,
    device: DeviceLike,
) -> Tensor:  # fmt: skip
    """`uniform`, under the name of ``operation``."""
    wanted = floating(operation, dtype)
    _require_bounds(operation, low, high, wanted)
    u = _draw(DRAW_UNIFORM, _shape(operation, (size,)), wanted, device, generator)
    numbers = not isinstance(low, Tensor) and not isinstance(high, Tensor)
    if numbers and (low, high) == (0, 1):
        return u
    made = u * (high - low) + low
    if numbers and low != 0 and low < high:
        # Rounding of the sum may reach ``high``, which is left out.
        last = np.nextafter(wanted.type(high), wanted.type(low))
        made = made.clamp(max=float(last))
    return made


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw from normal distributions; without ``size``, one value per element of the tensors
    ``mean`` and ``std``, whose dtype is that of the draws unless one is given.

    Raises `OptionError` for a mean or std that is not finite in the dtype, and a std below 0 (of
    tensors on the CPU; on a GPU a look at the values would wait for them).

    >>> normal(0, 1, (2, 3)).shape
    (2, 3)
    """
    tensors = [each for each in (mean, std) if isinstance(each, Tensor)]
    if size is None:
        size = np.broadcast_shapes(*(each.shape for each in tensors))
        device = tensors[0].device if tensors and device is None else device
    floats = [each.dtype for each in tensors if each.is_floating_point()]
    if dtype is None and floats:
        dtype = dtypes.result_type(*floats)
    made = draw_normal("normal", mean, std, size, generator, dtype, device)
    return made.requires_grad_() if requires_grad else made


def draw_normal(
    operation: str, mean: Any, std: Any, size: Any, generator: Generator | None, dtype: Any,
    device: DeviceLike,
) -> Tensor:  # fmt: skip
    """`normal` of a given size, under the name of ``operation``."""
    wanted = floating(operation, dtype)
    require_moments(operation, mean, std, wanted)
    z = _draw(DRAW_NORMAL, _shape(operation, (size,)), wanted, device, generator)
    return (z * std + mean).astype(wanted, copy=False)


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Draw integers from [low, high), or [0, low) if one bound is given: ``randint(10, (3,))``.

    Raises `OptionError` unless low < high are integers and ``dtype`` (int64) holds them exactly.
    """
    if size is None:  # randint(high, size)
        low, high, size = 0, low, high
    return draw_integers("randint", low, high, size, generator, dtype, device)


def draw_integers(
    operation: str, low: Any, high: Any, size: Any, generator: Generator | None, dtype: Any,
    device: DeviceLike,
) -> Tensor:  # fmt: skip
    """`randint`, under the name of ``operation``."""
    if not isinstance(size, tuple | list):
        raise OptionError(message(operation, expected="a tuple for size", got=repr(size)))
    try:
        first, end = low.__index__(), high.__index__()
    except AttributeError:
        got = f"{low!r} and {high!r}"
        raise OptionError(message(operation, expected="integer bounds", got=got)) from None
    if end <= first:
        raise OptionError(message(operation, expected="low < high", got=f"{low} and {high}"))
    wanted = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    _require_integers(operation, wanted, first, end)
    bounds: dict[str, Any] = {"low": first, "span": end - first}
    return _draw(DRAW_INTEGERS, _shape(operation, (size,)), wanted, device, generator, **bounds)


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None
) -> Tensor:
    """Draw a random order of the integers 0 … n - 1, which ``dtype`` (int64) must hold exactly."""
    count = require_integer("randperm", "n", n, 0)
    wanted = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    _require_integers("randperm", wanted, 0, count)
    return _draw(DRAW_PERMUTATION, (count,), wanted, device, generator)


def rand_like(input: Tensor, **options: Any) -> Tensor:
    """`rand` with the shape, dtype and device of ``input``."""
    return rand(input.shape, **{"dtype": input.dtype, "device": input.device, **options})


def randn_like(input: Tensor, **options: Any) -> Tensor:
    """`randn` with the shape, dtype and device of ``input``."""
    return randn(input.shape, **{"dtype": input.dtype, "device": input.device, **options})


# ------------------------------------------------------------------------ in place on tensors


@public(None, "uniform_")
def uniform_(
    x: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """In place: draw uniforms from [low, high), finite bounds that the dtype can tell apart."""
    return x.copy_(draw_uniform("uniform_", low, high, x.shape, generator, x.dtype, x.device))


@public(None, "normal_")
def normal_(
    x: Tensor, mean: Any = 0.0, std: Any = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """In place: draw from the normal distribution N(mean, std²), finite, std of 0 or more."""
    return x.copy_(draw_normal("normal_", mean, std, x.shape, generator, x.dtype, x.device))


# ------------------------------------------------------------------------------------ dropout


def _scale(x: Any, p: float) -> Any:
    return x.dtype.type(0.0 if p == 1 else 1 / (1 - p))


def _dropout_forward(xp: Any, x: Any, *, p: float, seed: int, call: int) -> Any:
    if xp is np:
        u = _uniform01(seed, call, x.size, wide=False).reshape(x.shape)
    else:
        u = xp.empty(x.shape, np.float32)
        cuda.uniform(u, seed, call)
    mask = xp.greater_equal(u, np.float32(p))
    return xp.multiply(xp.multiply(x, mask), _scale(x, p)), mask


def _dropout_backward(
    xp: Any, gy: Any, *, needs: Any, p: float, seed: int, call: int, aux: Any
) -> Any:
    # The kernel draws the mask again; on the CPU that would take several times as long as to
    # read a kept one.
    return (xp.multiply(xp.multiply(gy, aux), _scale(gy, p)),)


def _dropout_samples() -> Iterator[Sample]:
    for shape in ((3, 4), (0, 3), (33,), (2, 3, 7)):
        yield Sample((values(shape), 0.5, True), {"generator": Generator(0)}, f"{shape}")
    yield Sample((values((3, 4)), 1.0, True), {"generator": Generator(0)}, "everything")
    yield Sample((values((3, 4)), 0.5, False), {}, "in evaluation")
    yield Sample((values(LARGE), 0.1, True), {"generator": Generator(1)}, "large", large=True)


def _drops(x: Any, **_: Any) -> bool:
    return x.dtype.name in cuda.FLOATS


DROPOUT = Op(
    "dropout",
    _dropout_forward,
    gradients={
        "x": lambda gy, p, seed, call: apply(DROPOUT, (gy,), {"p": p, "seed": seed, "call": call})
    },
    fused=Op(
        "dropout_backward",
        _dropout_backward,
        inputs=("gy",),
        halves=True,
        kernels=[
            Kernel(
                "cuda", "random", _drops, casts=False,
                run=lambda gy, *, p, seed, call, **_: (cuda.dropout(gy, p, seed, call),),
            )
        ],
    ),
    aux=True,
    kinds="fcV",
    halves=True,
    samples=_dropout_samples,
    kernels=[
        Kernel(
            "cuda", "random", _drops, casts=False,
            run=lambda x, **options: (cuda.dropout(x, **options), ()),
        )
    ],
)  # fmt: skip


@public(DROPOUT)
def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Set each element to 0 with probability ``p`` and scale the rest by ``1 / (1 - p)`` [1]_.

    Outside ``training`` returns ``x`` itself.

    .. [1] Srivastava et al., "Dropout", JMLR 15, 2014
    """
    if not 0 <= p <= 1:
        raise OptionError(message("dropout", expected="p from 0 to 1", got=str(p)))
    if not (x.is_floating_point() or x.is_complex()):
        raise DTypeError(message("dropout", expected="a floating dtype", got=x.dtype.name))
    if not training or p == 0:
        return x
    source = default_generator if generator is None else generator
    drawn = {"seed": source.initial_seed(), "call": source.next_call()}
    return apply(DROPOUT, (x,), {"p": float(p), **drawn})


guard_namespace(globals())
