"""Checks for functions and ops: gradients against differences, values against a reference.

`assert_close` compares values. `gradcheck` compares the gradients of any function with numeric
ones. `check_op` runs all that can be checked of an op on the op's own samples; it is what
gradlab's tests run over every op, and it works on an `Op` of your own just as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradlab import dtypes
from gradlab.arguments import guard_namespace, show
from gradlab.autograd import enable_grad, grad, no_grad
from gradlab.devices import Device, find_device, is_available
from gradlab.errors import GradientError, GradlabError, OptionError, message
from gradlab.ops.core import BOOL, FLOAT, OWN, PROMOTE, REGISTRY, Op
from gradlab.ops.creation import from_numpy, tensor
from gradlab.ops.samples import Sample
from gradlab.ops.user import Elementwise
from gradlab.tensor import Tensor

__all__ = [
    "CheckError",
    "KinkError",
    "assert_close",
    "check_op",
    "check_sample",
    "gradcheck",
    "gradgradcheck",
]


class CheckError(GradlabError, AssertionError):
    """A value or a gradient that is not what it should be."""


class KinkError(CheckError):
    """A function without a derivative at the point where its gradient was to be checked."""


# ------------------------------------------------------------------------------ assert_close

# Relative and absolute tolerance per dtype: about the square root of its resolution for float64,
# a few roundings for the narrower ones.
_TOLERANCE = {
    dtypes.float16: (1e-3, 1e-5),
    dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.float64: (1e-7, 1e-7),
    dtypes.complex64: (1.3e-6, 1e-5),
    dtypes.complex128: (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    *,
    equal_nan: bool = False,
    check_dtype: bool = True,
    check_device: bool = True,
) -> None:
    """Raise `CheckError`, an AssertionError, unless values are close.

    Close means ``|actual - expected| <= atol + rtol·|expected|``, element by element. Takes
    tensors, NumPy arrays and numbers, and lists, tuples and dicts of these. Shapes must be equal,
    and dtypes where both sides have one. Without ``rtol`` and ``atol`` the tolerance is that of the
    less precise dtype: relative 1e-3 and absolute 1e-5 for float16, 1.6e-2 and 1e-5 for bfloat16,
    1.3e-6 and 1e-5 for float32, 1e-7 for float64, and none for integers and bool. The message
    names the place of the greatest difference.

    >>> import gradlab as gl
    >>> assert_close(gl.tensor([1.0, 2.0]), [1.0, 2.0 + 1e-7])
    >>> try:
    ...     assert_close(gl.tensor([1.0, 2.0]), [1.0, 2.5])
    ... except AssertionError as error:
    ...     print(str(error)[:69])
    assert_close: 1 of 2 elements differs; the most at [1]: 2.0, expected
    """
    options = (rtol, atol, equal_nan, check_dtype, check_device)
    _compare("assert_close", actual, expected, options)


def _compare(where: str, actual: Any, expected: Any, options: tuple[Any, ...]) -> None:
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or set(actual) != set(expected):
            names = sorted(map(str, actual)) if isinstance(actual, Mapping) else type(actual)
            raise CheckError(message(where, expected=f"keys {sorted(expected)}", got=str(names)))
        for key in expected:
            _compare(f"{where}, {key!r}", actual[key], expected[key], options)
    elif isinstance(actual, list | tuple) and any(
        isinstance(each, Tensor | np.ndarray | Mapping) for each in (*actual, *expected)
    ):
        if len(actual) != len(expected):
            raise CheckError(
                message(where, expected=f"{len(expected)} items", got=str(len(actual)))
            )
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            _compare(f"{where}, item {i}", one, other, options)
    else:
        _compare_arrays(where, actual, expected, options)


def _compare_arrays(where: str, actual: Any, expected: Any, options: tuple[Any, ...]) -> None:
    rtol, atol, equal_nan, check_dtype, check_device = options
    _check_same_device(where, actual, expected, check_device)
    x, y = _host(actual), _host(expected)
    if x.shape != y.shape:
        raise CheckError(message(where, expected=f"shape {y.shape}", got=str(x.shape)))
    both_typed = hasattr(actual, "dtype") and hasattr(expected, "dtype")
    if check_dtype and both_typed and x.dtype != y.dtype:
        raise CheckError(message(where, expected=f"dtype {y.dtype.name}", got=x.dtype.name))
    dtyped = [each.dtype for each, given in ((x, actual), (y, expected)) if hasattr(given, "dtype")]
    loosest = max(_TOLERANCE.get(dtype, (0.0, 0.0)) for dtype in dtyped or [x.dtype, y.dtype])
    rtol = loosest[0] if rtol is None else rtol
    atol = loosest[1] if atol is None else atol
    wide = np.result_type(*(_widen(each).dtype for each in (x, y)))
    x, y = _widen(x).astype(wide), _widen(y).astype(wide)
    with np.errstate(all="ignore"):
        allowed = atol + rtol * np.abs(y)
        difference = np.abs(x - y)
        close = (x == y) | ((difference <= allowed) & np.isfinite(y.astype(np.complex128)))
        if equal_nan:
            close |= (x != x) & (y != y)  # NaN alone differs from itself
    if not close.all():
        raise CheckError(f"{where}: {_worst(x, y, close, difference, allowed)}")


def _check_same_device(where: str, actual: Any, expected: Any, check: bool) -> None:
    if not (check and isinstance(actual, Tensor) and isinstance(expected, Tensor)):
        return
    if actual.device is not expected.device:
        raise CheckError(
            message(
                where,
                expected=f"a tensor on {expected.device}",
                got=f"one on {actual.device}",
                hint=f'move it with .to("{expected.device}"), or pass check_device=False',
            )
        )


def _host(value: Any) -> np.ndarray:
    return value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)


def _widen(x: np.ndarray) -> np.ndarray:
    """Values in a dtype that holds their differences."""
    if x.dtype in dtypes.FLOATS:
        return x.astype(np.float64)
    if x.dtype.kind in "bc":
        return x.astype(np.float64) if x.dtype.kind == "b" else x.astype(np.complex128)
    # Python integers, where int64 and uint64 would lose the last digits in float64.
    wide = x.size and int(np.max(np.abs(x.astype(object)))) >= 2**53
    return x.astype(object) if wide else x.astype(np.float64)


def _worst(x: Any, y: Any, close: Any, difference: Any, allowed: Any) -> str:
    # A NaN or infinity on one side is worse than any finite difference.
    difference = np.asarray(difference)
    size = np.where(np.isnan(difference.astype(float)), np.inf, difference)
    rank = np.where(close, -1.0, size)
    place = np.unravel_index(int(np.argmax(rank)), x.shape)
    index = "[" + ", ".join(str(int(i)) for i in place) + "]"
    count = int((~close).sum())
    return (
        f"{count} of {close.size} elements {'differs' if count == 1 else 'differ'}; the most at "
        f"{index}: {x[place]}, expected {y[place]}, difference {float(difference[place]):.3g}, "
        f"allowed {float(np.asarray(allowed)[place]):.3g}"
    )


# --------------------------------------------------------------------------------- gradcheck


class _Tolerances(NamedTuple):
    eps: float
    atol: float
    rtol: float


_HIGHEST = 8  # each order takes several times as long as the one below


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    *,
    order: int = 1,
    eps: float = 1e-3,
    atol: float = 1e-8,
    rtol: float = 1e-6,
    seed: int = 0,
) -> bool:
    """Check the gradients of ``function(*inputs)`` against numeric ones; True, or an error.

    All inputs are moved at once along one random direction u, and the change of a random weighting
    w of the results is compared with what the gradients promise, ``Σ gradient·u``: the cost does
    not grow with the number of elements. The numeric side is in float64, from central
    differences at ``eps``, ``eps/2`` and ``eps/4`` extrapolated to step 0 [1]_.

    Checked are the tensors in ``inputs`` that require a gradient, or, if none does, all floating
    tensors and arrays. ``order=2`` also checks the gradient of the gradient, and so on up to 10.

    Raises `CheckError` naming the input, the analytic and the numeric value; `KinkError` where the
    function has a kink or a jump so close that no numeric gradient exists.

    >>> import gradlab as gl
    >>> gradcheck(lambda x, y: (x * y).sin(), [gl.rand(3, 1), gl.rand(4)], order=2)
    True

    .. [1] W. Romberg, Vereinfachte numerische Integration, 1955.
    """
    if not 1 <= order <= _HIGHEST:
        expected = f"order from 1 to {_HIGHEST}"
        raise OptionError(message("gradcheck", expected=expected, got=show(order)))
    given = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    random = np.random.default_rng(seed)
    tolerances = _Tolerances(eps, atol, rtol)
    title = _name(function)
    point = _Point(given)
    for level in range(1, order + 1):
        results = _check_directions(f"gradcheck of {title}, order {level}", function, point,
                                    tolerances, random)  # fmt: skip
        if level < order:
            function, point = _gradient_of(function, point, results, random)
    return True


def _name(function: Callable[..., Any]) -> str:
    """What to call a function in a message: the class, for the `apply` of one."""
    name = getattr(function, "__name__", type(function).__name__)
    owner = getattr(function, "__self__", None)
    return f"{owner.__name__}.{name}" if isinstance(owner, type) else name


def gradgradcheck(function: Callable[..., Any], inputs: Any, **options: Any) -> bool:
    """`gradcheck` of order 2: the gradients, and the gradients of the gradients."""
    return gradcheck(function, inputs, order=2, **options)


class _Point:
    """Where a function is checked: its arguments, and the numbers of those that are checked."""

    def __init__(self, given: Sequence[Any]) -> None:
        self.arguments = [tensor(each) if isinstance(each, np.ndarray) else each for each in given]
        self.values: dict[int, np.ndarray] = {}
        asked = set()
        for i, each in enumerate(self.arguments):
            if isinstance(each, Tensor) and each.is_floating_point():
                self.values[i] = _host(each).astype(np.float64)
                self.arguments[i] = each.detach().astype(dtypes.float64)
                if each.requires_grad or isinstance(given[i], np.ndarray):
                    asked.add(i)
        self.checked = sorted(asked or self.values)
        if not self.checked:
            raise OptionError("gradcheck: expected an input of a floating dtype, got none")

    def tracked(self) -> list[Any]:
        """The arguments, the checked ones as leaves that require a gradient."""
        return [
            self._tensor(i, self.values[i]).requires_grad_() if i in self.checked else each
            for i, each in enumerate(self.arguments)
        ]

    def moved(self, direction: Mapping[int, np.ndarray], step: float) -> list[Any]:
        """The arguments, those in ``direction`` moved along it by ``step``."""
        return [
            self._tensor(i, self.values[i] + step * direction[i]) if i in direction else each
            for i, each in enumerate(self.arguments)
        ]

    def _tensor(self, i: int, values: np.ndarray) -> Tensor:
        return tensor(values, device=self.arguments[i].device)


def _floating_results(results: Any) -> list[Tensor]:
    results = results if isinstance(results, tuple | list) else (results,)
    return [each for each in results if isinstance(each, Tensor) and each.is_floating_point()]


def _weighted(results: Sequence[Tensor], weights: Sequence[np.ndarray]) -> tuple[float, float]:
    """The sum of the results times their weights, and the sum of the magnitudes added up."""
    # A weight of 0 leaves out results that are infinite or NaN.
    terms = [np.where(w, _host(y), 0.0) * w for y, w in zip(results, weights, strict=True)]
    # Sums by NumPy, not by the ops that may be under test.
    return (
        float(sum(np.sum(term) for term in terms)),
        float(sum(np.sum(np.abs(term)) for term in terms)),
    )


def _check_directions(
    title: str,
    function: Callable[..., Any],
    point: _Point,
    tolerances: _Tolerances,
    random: np.random.Generator,
) -> list[Tensor]:
    """Check the gradients along one direction for all inputs; returns the function's results."""
    arguments = point.tracked()
    with enable_grad():
        results = _floating_results(function(*arguments))
    weights = [random.standard_normal(y.shape) * np.isfinite(_host(y)) for y in results]
    gradients = _gradients(results, [arguments[i] for i in point.checked], weights)
    direction = {i: _unit(random.standard_normal(point.values[i].shape)) for i in point.checked}
    line = _Line(function, point, direction, weights, tolerances)
    line.check_repeatable(title, results)
    analytic = [
        float(np.sum(_host(gradient) * direction[i]))
        for gradient, i in zip(gradients, point.checked, strict=True)
    ]
    if (problem := line.compare(sum(analytic), title)) is None:
        return results
    # Only now that something is wrong, find out which input it is.
    for value, i in zip(analytic, point.checked, strict=True):
        alone = _Line(function, point, {i: direction[i]}, weights, tolerances)
        name = f"{title}, input {i} (shape {arguments[i].shape})"
        if (found := alone.compare(value, name)) is not None:
            raise CheckError(found)
    raise CheckError(problem)


def _unit(u: np.ndarray) -> np.ndarray:
    # No element moves by more than one step, however many there are.
    return u / np.max(np.abs(u)) if u.size else u


def _gradients(
    results: Any, leaves: Any, weights: Sequence[Any], create_graph: bool = False
) -> list[Tensor]:
    recorded = [(y, w) for y, w in zip(results, weights, strict=True) if y.requires_grad]
    if not recorded:
        return [tensor(np.zeros(x.shape), device=x.device) for x in leaves]
    outputs, starts = zip(*recorded, strict=True)
    starts = tuple(
        w if isinstance(w, Tensor) else tensor(w, dtype=y.dtype, device=y.device)
        for y, w in recorded
    )
    return list(grad(outputs, leaves, starts, create_graph=create_graph, materialize_grads=True))


class _Line:
    """The weighted results of a function along a line through a point."""

    def __init__(
        self,
        function: Callable[..., Any],
        point: _Point,
        direction: Mapping[int, np.ndarray],
        weights: Sequence[np.ndarray],
        tolerances: _Tolerances,
    ) -> None:
        self.function, self.point, self.direction = function, point, direction
        self.weights, self.tolerances = weights, tolerances
        self.centre, self.size = self._at(0.0)

    def _at(self, step: float) -> tuple[float, float]:
        with no_grad():
            results = _floating_results(self.function(*self.point.moved(self.direction, step)))
        return _weighted(results, self.weights)

    def check_repeatable(self, title: str, results: Sequence[Tensor]) -> None:
        value, _ = _weighted(results, self.weights)
        if value != self.centre and np.isfinite(value):
            raise CheckError(
                message(
                    title,
                    expected="the same result for the same input",
                    got=f"{value} and {self.centre}",
                    hint="set the seed inside the function (random numbers, dropout)",
                )
            )

    def compare(self, analytic: float, title: str) -> str | None:
        """What is wrong with the ``analytic`` derivative along the line, None if nothing is."""
        eps, atol, rtol = self.tolerances
        steps = [eps, eps / 2, eps / 4]
        ahead = [self._at(h)[0] for h in steps]
        behind = [self._at(-h)[0] for h in steps]
        # What the rounding of the results alone does to a difference over the smallest step.
        noise = 8 * np.finfo(np.float64).eps * self.size / steps[-1]
        central = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
        rough, numeric = _extrapolate(central)
        allowed = atol + rtol * max(abs(analytic), abs(numeric)) + noise
        # The derivatives from the left and from the right: their gap shrinks with the step,
        # unless there is a kink (it stays) or a jump (it grows).
        gaps = [
            abs(a - 2 * self.centre + b) / h for a, b, h in zip(ahead, behind, steps, strict=True)
        ]
        kink = gaps[-1] > 0.6 * gaps[0] and gaps[-1] > 100 * allowed
        if kink or abs(rough - numeric) > max(100 * allowed, 1e-3 * abs(numeric)):
            raise KinkError(
                message(
                    title,
                    expected="a function that is smooth here",
                    got=f"slopes {central[0]:.6g}, {central[1]:.6g}, {central[2]:.6g} over steps "
                    f"{steps[0]:.1e} to {steps[2]:.1e}, and {gaps[-1]:.3g} between left and right",
                    hint="check it elsewhere, or with a smaller eps",
                )
            )
        if abs(analytic - numeric) <= allowed:
            return None
        return (
            f"{title}: analytic {analytic:.9g}, numeric {numeric:.9g}, "
            f"difference {abs(analytic - numeric):.3g}, allowed {allowed:.3g}"
        )


def _extrapolate(central: list[float]) -> tuple[float, float]:
    """Central differences at h, h/2, h/4 extrapolated to step 0, with errors h⁴ and h⁶."""
    once = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(central)]
    return once[1], (16 * once[1] - once[0]) / 15


def _gradient_of(
    function: Callable[..., Any],
    point: _Point,
    results: Sequence[Tensor],
    random: np.random.Generator,
) -> tuple[Callable[..., Any], _Point]:
    """The gradients as a function of the arguments and the gradients that come in, and a point."""
    count, checked = len(point.arguments), point.checked

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        xs = list(arguments[:count])
        with enable_grad():
            for i in checked:
                if not xs[i].requires_grad:
                    xs[i] = xs[i].detach().requires_grad_()
            made = _floating_results(function(*xs))
            leaves = [xs[i] for i in checked]
            return tuple(_gradients(made, leaves, arguments[count:], create_graph=True))

    gradients.__name__ = _name(function)
    incoming = [tensor(random.standard_normal(y.shape), device=y.device) for y in results]
    return gradients, _Point([*point.tracked(), *(w.requires_grad_() for w in incoming)])


# ---------------------------------------------------------------------------------- check_op


def check_op(op: Op | Elementwise | str, *, devices: Sequence[Any] | None = None) -> int:
    """Check an op on all of its samples, as `check_sample` does; returns how many there were.

    ``op`` is an `Op`, its name, or what `gradlab.elementwise` made.
    ``devices`` are those to compare with the CPU (None: ``"cuda"``, where one works).

    >>> import gradlab as gl
    >>> check_op("tanh") > 10
    True
    """
    found = _find_op(op)
    if found.samples is None:
        raise OptionError(
            message("check_op", expected=f"samples of {found.name}", got="none",
                    hint="give the Op samples=, a function that yields Sample(...)")
        )  # fmt: skip
    count = 0
    for sample in found.samples():
        check_sample(found, sample, devices=devices)
        count += 1
    return count


def _find_op(op: Op | Elementwise | str) -> Op:
    if isinstance(op, Elementwise):
        return op.op
    if isinstance(op, Op):
        return op
    if op not in REGISTRY:
        import difflib

        close = difflib.get_close_matches(op, REGISTRY, n=1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise OptionError(message("check_op", expected="an op's name", got=repr(op), hint=hint))
    return REGISTRY[op]


def check_sample(op: Op, sample: Sample, *, devices: Sequence[Any] | None = None) -> None:
    """Check one call of an op.

    - every dtype the op takes: the result against the op's own in float64, and its dtype;
    - strided, reversed and Fortran-ordered inputs against contiguous ones;
    - inputs stay as they are, and only a view shares memory with them;
    - in float64, first and second gradients against numeric ones, and a fused backward pass
      against the plain gradients (not for large samples, nor at kinks);
    - every other device against the CPU.

    Raises `CheckError` naming the op, the sample and what differs.
    """
    call = _Call(op, sample)
    try:
        with no_grad():
            _check_result_memory(call)
            _check_dtypes(call)
            if not sample.large:
                _check_layouts(call)
        if not sample.large:
            _check_gradients(call)
        for each in _other_devices(devices):
            _check_device(call, each)
    except CheckError as error:
        raise type(error)(f"{op.name}, sample '{sample.name}': {error}") from None


def _other_devices(devices: Sequence[Any] | None) -> list[Device]:
    names = (["cuda"] if is_available("cuda") else []) if devices is None else devices
    return [each for each in map(find_device, names) if each.type != "cpu"]


class _Call:
    """A call of an op's public function, with its floating arrays taken out."""

    def __init__(self, op: Op, sample: Sample) -> None:
        self.op, self.sample = op, sample
        self.arrays: list[np.ndarray] = []
        for value in (*sample.args, *sample.kwargs.values()):
            _replace_floats(value, self._take)

    def _take(self, array: np.ndarray) -> np.ndarray:
        self.arrays.append(array)
        return array

    def run(self, given: Sequence[Any], device: Any = None) -> list[Tensor]:
        """Call the function with ``given`` for the floating arrays; returns its tensors."""
        left: Iterator[Any] = iter(given)

        def place(value: Any) -> Any:
            return _replace_floats(value, lambda _: next(left), device)

        args = [place(value) for value in self.sample.args]
        kwargs = {name: place(value) for name, value in self.sample.kwargs.items()}
        results = self.op.function(*args, **kwargs)
        return [
            each
            for each in (results if isinstance(results, tuple | list) else (results,))
            if isinstance(each, Tensor)
        ]

    def tensors(self, device: Any = None) -> list[Tensor]:
        return [tensor(array, device=device) for array in self.arrays]


def _replace_floats(value: Any, take: Callable[[np.ndarray], Any], device: Any = None) -> Any:
    """``value`` with ``take(array)`` for floating arrays and tensors for the other arrays."""
    if isinstance(value, np.ndarray | np.floating):  # arithmetic on arrays without axes gives these
        value = np.asarray(value)
        return take(value) if value.dtype.kind in "fV" else tensor(value, device=device)
    if isinstance(value, list | tuple):
        return type(value)([_replace_floats(each, take, device) for each in value])
    return copy.deepcopy(value)  # a random generator starts each call in the same state


def _check_result_memory(call: _Call) -> None:
    """Inputs keep their values; a result shares memory with one if, and only if, it is a view."""
    inputs = call.tensors()
    before = [x.numpy().copy() for x in inputs]
    results = call.run(inputs)
    for x, values in zip(inputs, before, strict=True):
        assert_close(x, values, 0, 0, equal_nan=True)
    for y in results:
        if any(y is x for x in inputs) or not y.numel():
            continue
        shares = any(np.shares_memory(y.numpy(), x.numpy()) for x in inputs)
        if call.op.view and not shares:
            raise CheckError("expected a view, got a result with memory of its own")
        if shares and not call.op.view:
            raise CheckError(
                "expected a result with memory of its own, got one that shares its input's; "
                "declare the Op with view=True"
            )


# Products and sums of rounded values err by a few roundings of the largest.
_SAMPLE_RTOL = {
    dtypes.float16: 4e-3,
    dtypes.bfloat16: 3.2e-2,
    dtypes.float32: 2e-5,
    dtypes.complex64: 2e-5,
}


def _check_dtypes(call: _Call) -> None:
    op = call.op
    if not call.arrays:
        call.run([])
        return
    for dtype in [dtypes.float32] if call.sample.large else dtypes.ALL:
        cast = [_in_range(array, dtype) for array in call.arrays]
        takes = dtype.kind in op.kinds
        try:
            results = call.run([tensor(array, dtype=dtype) for array in cast])
        except GradlabError as error:
            # A function may be narrower than its op, and integers may be no probabilities.
            if takes and dtypes.is_floating(dtype):
                raise CheckError(f"{dtype.name} is refused ({error})") from None
            continue
        if not takes and dtypes.is_floating(dtype):
            raise CheckError(f"{dtype.name} is not among the op's kinds, yet gave a result")
        wide = dtypes.complex128 if dtypes.is_complex(dtype) else dtypes.float64
        expected = call.run([tensor(array.astype(wide)) for array in cast])
        for y, reference in zip(results, expected, strict=True):
            _check_dtype_rule(call, y, dtype)
            _check_against(f"in {dtype.name}", y, reference)


def _in_range(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The values of a sample as a dtype holds them: integers need whole numbers of some size."""
    if dtype == dtypes.bool_:
        return array > 0
    if dtypes.is_integer(dtype):
        values = np.rint(np.abs(array) * 3) if dtype in dtypes.UNSIGNED else np.rint(array * 3)
        return np.clip(values, -100, 100).astype(dtype)
    if dtypes.is_complex(dtype):
        return (array + 0.5j * array[..., ::-1] if array.ndim else array + 0.5j).astype(dtype)
    return array.astype(dtype)


def _check_dtype_rule(call: _Call, y: Tensor, dtype: Any) -> None:
    op, args = call.op, call.sample.args
    free = "dtype" in call.sample.kwargs
    if dtypes.is_floating(y.dtype) and dtypes.is_floating(dtype) and y.dtype != dtype and not free:
        raise CheckError(f"expected a {dtype.name} result of {dtype.name}, got {y.dtype.name}")
    if op.dtype == OWN or len(args) != len(op.inputs):
        return
    arrays = (np.ndarray, np.floating)
    if not all(isinstance(each, (bool, int, float, *arrays)) for each in args):
        return
    kinds = [dtype if isinstance(each, arrays) else type(each) for each in args]
    expected = dtypes.result_type(*kinds)
    if op.dtype == FLOAT and not (dtypes.is_floating(expected) or dtypes.is_complex(expected)):
        expected = dtypes.get_default_dtype()
    if op.dtype == BOOL:
        expected = dtypes.bool_
    if op.dtype in (FLOAT, BOOL, PROMOTE) and y.dtype != expected:
        raise CheckError(f"expected a {expected.name} result of {dtype.name}, got {y.dtype.name}")


def _check_against(what: str, y: Tensor, reference: Tensor) -> None:
    """Compare with the result in float64, allowing for the roundings of the result's dtype."""
    got, wanted = y.numpy(), reference.numpy()
    if got.shape != wanted.shape:
        raise CheckError(f"{what}: expected shape {wanted.shape}, got {got.shape}")
    if got.dtype.kind in "biu" and wanted.dtype.kind not in "biu":
        low, high = _limits(got.dtype)
        # An integer result of an op that float64 takes out of range has wrapped, as in NumPy.
        if not wanted.size or not ((wanted >= low) & (wanted <= high)).all():
            return
        wanted = np.trunc(wanted)
    scale = float(np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0.0))
    rtol = _SAMPLE_RTOL.get(y.dtype, 0.0 if y.dtype.kind in "biu" else 1e-12)
    _compare_arrays(what, got, wanted, (rtol, rtol * max(scale, 1e-3), True, False, False))


def _limits(dtype: Any) -> tuple[float, float]:
    if dtype == dtypes.bool_:
        return 0, 1
    info = np.iinfo(dtype)
    return info.min, info.max


def _check_layouts(call: _Call) -> None:
    expected = call.run([tensor(array.copy()) for array in call.arrays])
    for name, arrange in _LAYOUTS.items():
        # `tensor(array)` would copy to a contiguous one; this shares the memory, strides and all.
        strided = [from_numpy(arrange(array)) for array in call.arrays]
        for y, reference in zip(call.run(strided), expected, strict=True):
            _compare(f"inputs laid out {name}", y, reference, (1e-12, 1e-12, True, True, True))


def _with_gaps(array: np.ndarray) -> np.ndarray:
    every_second: Any = (*[slice(None, None, 2)] * array.ndim, Ellipsis)
    wide = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    view: np.ndarray = wide[every_second]
    view[...] = array
    return view


def _backwards(array: np.ndarray) -> np.ndarray:
    flipped: Any = (*[slice(None, None, -1)] * array.ndim, Ellipsis)
    view: np.ndarray = array[flipped].copy()[flipped]
    return view


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "with gaps": _with_gaps,
    "backwards": _backwards,
    "in Fortran order": lambda array: np.array(array, order="F"),
}


def _differentiable(call: _Call) -> list[int]:
    """The numbers of the floating arrays that the function has a gradient for."""
    found = []
    for i in range(len(call.arrays)):
        inputs = call.tensors()
        inputs[i].requires_grad_()
        try:
            results = call.run(inputs)
        except GradientError:
            continue
        if any(y.requires_grad for y in results):
            found.append(i)
    return found


def _check_gradients(call: _Call) -> None:
    wanted = _differentiable(call) if call.op.gradients else []
    if not wanted:
        return

    def function(*chosen: Tensor) -> list[Tensor]:
        given: list[Any] = call.tensors()
        for i, x in zip(wanted, chosen, strict=True):
            given[i] = x
        return call.run(given)

    function.__name__ = call.op.name
    arrays = [call.arrays[i] for i in wanted]
    if call.sample.smooth:
        gradcheck(function, arrays, order=2, rtol=1e-5)
    for dtype in (dtypes.float64, dtypes.float32):
        _check_fused(call, function, [array.astype(dtype) for array in arrays])


def _check_fused(call: _Call, function: Callable[..., Any], arrays: list[np.ndarray]) -> None:
    """The quick backward pass gives what the differentiable one gives, in fresh memory."""
    inputs = [tensor(array, requires_grad=True) for array in arrays]
    results = [y for y in _floating_results(function(*inputs)) if y.requires_grad]
    random = np.random.default_rng(1)
    starts = [tensor(random.standard_normal(y.shape)).astype(y.dtype) for y in results]
    before = [start.numpy().copy() for start in starts]
    options = {"retain_graph": True, "materialize_grads": True}
    plain = grad(results, inputs, starts, create_graph=True, **options)
    quick = grad(results, inputs, starts, **options)
    for x, one, other in zip(inputs, quick, plain, strict=True):
        if (one.shape, one.dtype) != (x.shape, x.dtype):
            raise CheckError(
                f"expected a gradient {x.dtype.name} {x.shape}, got {one.dtype.name} {one.shape}"
            )
        scale = float(np.max(np.abs(_host(other)), initial=0.0))
        rtol = 1e-10 if x.dtype == dtypes.float64 else 2e-5
        _compare("gradients", one.detach(), other.detach(), (rtol, rtol * scale, True, True, True))
    for start, values in zip(starts, before, strict=True):
        _compare("the incoming gradient, after", start, values, (0, 0, True, True, True))


def _check_device(call: _Call, device: Device) -> None:
    with no_grad():
        expected = call.run([tensor(array, dtype=dtypes.float32) for array in call.arrays])
        there = call.run(
            [tensor(array, dtype=dtypes.float32, device=device) for array in call.arrays], device
        )
    for y, reference in zip(there, expected, strict=True):
        _check_place("result", y, device)
        # A sum of many terms errs by roundings of the largest of its partial sums.
        values = _host(reference)
        scale = float(np.max(np.abs(values), where=np.isfinite(values), initial=5.0))
        assert_close(y, reference, 2e-5, 2e-6 * scale, equal_nan=True, check_device=False)
    if call.sample.large or not call.op.gradients:
        return
    for one, other in zip(
        _gradients_on(call, device), _gradients_on(call, find_device("cpu")), strict=True
    ):
        _check_place("gradient", one, device)
        assert_close(one, other, 1e-9, 1e-9, equal_nan=True, check_device=False)


def _check_place(what: str, y: Tensor, device: Device) -> None:
    """The tensor says that it lies on ``device``, and its memory does."""
    if y.device is not device:
        raise CheckError(f"expected a {what} on {device}, got one on {y.device}")
    index = getattr(y._array.device, "id", None)  # a NumPy array's device has none
    if index != device.index:
        raise CheckError(f"expected a {what} on {device}, got one whose memory is on GPU {index}")


def _gradients_on(call: _Call, device: Device) -> list[Tensor]:
    inputs = call.tensors(device)
    for i in _differentiable(call):
        inputs[i].requires_grad_()
    results = [y for y in _floating_results(call.run(inputs, device)) if y.requires_grad]
    random = np.random.default_rng(1)
    starts = [random.standard_normal(y.shape) for y in results]
    leaves = [x for x in inputs if x.requires_grad]
    return _gradients(results, leaves, starts) if leaves else []


guard_namespace(globals())
