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
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import guard_namespace
from gradlab.devices import DeviceLike, find_device
from gradlab.errors import DTypeError, OptionError, message
from gradlab.kernels.cuda import random as cuda
from gradlab.ops.core import Kernel, Op, apply, public, update
from gradlab.ops.samples import LARGE, Sample, values
from gradlab.ops.shape import new_shape as _shape
from gradlab.tensor import Tensor, from_value, is_integer

__all__ = [
    "Generator",
    "bernoulli",
    "dropout",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "multinomial",
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
            seed, calls = int(state["seed"]), int(state["calls"])
        except (KeyError, TypeError, ValueError):
            raise OptionError(
                message(
                    "Generator.set_state",
                    expected="a dict with the integers 'seed' and 'calls'",
                    got=repr(state),
                )
            ) from None
        self.manual_seed(seed)
        self._calls = calls
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
    drawn = _bits(seed, call, out[0].size) % np.uint64(span)
    _put(xp, out[0], drawn.astype(np.int64) + np.int64(low))


def _permutation(xp: Any, out: Any, *, seed: int, call: int) -> None:
    # Sorting random keys gives every order the same chance; two of n keys are equal with a
    # chance of n²/2⁶⁵, and a stable sort keeps even that the same everywhere.
    _put(xp, out[0], np.argsort(_bits(seed, call, out[0].size), kind="stable"))


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


def _floating(operation: str, dtype: Any) -> Any:
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_floating(wanted):
        raise DTypeError(message(operation, expected="a floating dtype", got=wanted.name))
    return wanted


def rand(
    *shape: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw uniforms from [0, 1) in the given shape: ``rand(2, 3)`` or ``rand((2, 3))``.

    float32 values are multiples of 2⁻²⁴, float64 values of 2⁻⁵³, and below 1 in both.
    """
    wanted = _floating("rand", dtype)
    sizes = _shape("rand", shape if size is None else (size,))
    return _draw(DRAW_UNIFORM, sizes, wanted, device, generator, requires_grad)


def randn(
    *shape: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw from the standard normal distribution: ``randn(2, 3)``, ``randn(size=())``."""
    wanted = _floating("randn", dtype)
    sizes = _shape("randn", shape if size is None else (size,))
    return _draw(DRAW_NORMAL, sizes, wanted, device, generator, requires_grad)


def uniform(
    low: float = 0.0, high: float = 1.0, size: Any = (), *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Draw uniforms from [low, high)."""
    u = rand(_shape("uniform", (size,)), generator=generator, dtype=dtype, device=device)
    return u * (high - low) + low


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Draw from normal distributions; without ``size``, one value per element of the tensors
    ``mean`` and ``std``.

    >>> normal(0, 1, (2, 3)).shape
    (2, 3)
    """
    if not isinstance(std, Tensor) and std < 0:
        raise OptionError(message("normal", expected="std of 0 or more", got=str(std)))
    if size is None:
        tensors = [each for each in (mean, std) if isinstance(each, Tensor)]
        size = np.broadcast_shapes(*(each.shape for each in tensors))
        device = tensors[0].device if tensors and device is None else device
    z = randn(_shape("normal", (size,)), generator=generator, dtype=dtype, device=device)
    made = z * std + mean
    return made.requires_grad_() if requires_grad else made


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Draw integers from [low, high), or [0, low) if one bound is given: ``randint(10, (3,))``."""
    if size is None:  # randint(high, size)
        low, high, size = 0, low, high
    if not isinstance(size, tuple | list):
        raise OptionError(message("randint", expected="a tuple for size", got=repr(size)))
    if high <= low:
        raise OptionError(message("randint", expected="low < high", got=f"{low} and {high}"))
    wanted = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    shape = _shape("randint", (size,))
    bounds: dict[str, Any] = {"low": int(low), "span": int(high) - int(low)}
    return _draw(DRAW_INTEGERS, shape, wanted, device, generator, **bounds)


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None
) -> Tensor:
    """Draw a random order of the integers 0 … n - 1."""
    if n < 0:
        raise OptionError(message("randperm", expected="n of 0 or more", got=str(n)))
    wanted = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    return _draw(DRAW_PERMUTATION, (int(n),), wanted, device, generator)


def rand_like(input: Tensor, **options: Any) -> Tensor:
    """`rand` with the shape, dtype and device of ``input``."""
    return rand(input.shape, **{"dtype": input.dtype, "device": input.device, **options})


def randn_like(input: Tensor, **options: Any) -> Tensor:
    """`randn` with the shape, dtype and device of ``input``."""
    return randn(input.shape, **{"dtype": input.dtype, "device": input.device, **options})


@public(None, "bernoulli")
def bernoulli(p: Any, *, generator: Generator | None = None) -> Tensor:
    """Draw 1 with probability ``p``, element by element, else 0; the dtype of ``p``."""
    p = p if isinstance(p, Tensor) else from_value(p, find_device(None))
    return (rand(p.shape, generator=generator, device=p.device) < p).astype(p.dtype)


@public(None, "multinomial")
def multinomial(
    weights: Tensor, num_samples: int, replacement: bool = False, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw class numbers with probabilities proportional to the last axis of ``weights``.

    Without replacement by the Gumbel-max rule: the largest of ``log(w) + Gumbel noise``.
    """
    if not replacement and num_samples > weights.shape[-1]:
        raise OptionError(
            message(
                "multinomial",
                expected=f"at most {weights.shape[-1]} samples without replacement",
                got=str(num_samples),
            )
        )
    shape = (*weights.shape[:-1], num_samples if replacement else 1, weights.shape[-1])
    u = rand(shape, generator=generator, dtype="float64", device=weights.device)
    noise = -(-(u.log())).log()
    scores = weights.astype("float64").log().unsqueeze(-2) + noise
    if replacement:
        return scores.argmax(axis=-1)
    return scores.squeeze(-2).argsort(axis=-1, descending=True)[..., :num_samples]


# ------------------------------------------------------------------------ in place on tensors


def _fill(name: str, draw: Any) -> None:
    def fill(x: Tensor, *args: Any, generator: Generator | None = None, **kwargs: Any) -> Tensor:
        return x.copy_(
            draw(*args, **kwargs, size=x.shape, generator=generator, dtype=x.dtype, device=x.device)
        )

    fill.__doc__ = f"In place: fill with random numbers as `{draw.__name__}` draws them."
    Tensor._add_method(name, fill)


_fill("uniform_", uniform)
_fill("normal_", normal)


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
