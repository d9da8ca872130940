"""The op: everything about one operation in one place; and `apply`, which runs them all.

An `Op` names its forward (array-namespace code that runs on NumPy and CuPy alike), the gradient
of each input (written in differentiable ops), optional kernels and fused backward passes, and the
samples that tests and benchmarks draw from. A public function with the signature users see stands
under it and ends in ``apply(OP, inputs, attributes)``.

`apply` and its in-place sibling `apply_` are the choke point: no arithmetic on tensors happens
elsewhere. What happens in a call: one pass over the inputs collects their arrays, dtypes and
whether they require a gradient; one dict look-up finds what to run for those dtypes on that
device; the result is wrapped; and where a gradient is needed, a node is recorded.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial, wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gradlab import dtypes
from gradlab.autograd.graph import (
    ALL,
    NOTHING,
    Leaf,
    Node,
    Part,
    Plan,
    Version,
    next_number,
    version_of,
)
from gradlab.autograd.modes import mode
from gradlab.devices import Device, cpu
from gradlab.dtypes import DType
from gradlab.errors import (
    DeviceError,
    DTypeError,
    GradientError,
    GradlabError,
    OptionError,
    ShapeError,
    message,
)
from gradlab.kernels import ladder
from gradlab.kernels.cpu import halves
from gradlab.ops.samples import Sample
from gradlab.tensor import Tensor, copied, describe, from_value

REGISTRY: dict[str, Op] = {}

F = TypeVar("F", bound=Callable[..., Any])

_new = Tensor.__new__
_new_node = object.__new__
_SCALARS = frozenset({bool, int, float, complex})
# What array libraries raise for inputs that do not fit; anything else is a bug and shows as one.
_EXPLAINED = (ValueError, TypeError, IndexError, OverflowError)
# What devices raise: memory that is not there, kernels that fail.
_FAILURES = (MemoryError, RuntimeError)


class Kernel(NamedTuple):
    """A faster way to run an op's forward on one device.

    ``name`` is the stem of the files it stands in, as ``softmax`` in kernels/cuda.
    ``accepts(*arrays, **attributes)`` is a cheap test of shape, dtype and layout; where it says
    no, the op's own forward runs. The arrays come promoted and widened as the forward gets them;
    a kernel with ``casts=False`` gets them as they are, a float16 as a float16, and gives its
    result in the dtype that the op's rule asks for. Where its first array has another dtype than
    one of ``dtypes`` it is not even asked.
    """

    device: str
    name: str
    accepts: Callable[..., bool]
    run: Callable[..., Any]
    casts: bool = True
    dtypes: tuple[DType, ...] | None = None


def ladder_kernel(family: str, function: str, name: str = "") -> Kernel:
    """The CUDA kernel that is a function of one of the ladder's families, whichever rung it takes.

    ``name`` is the stem of its files where that is not the family's.
    """
    return Kernel(
        "cuda",
        name or family,
        partial(ladder.accepts, family, function),
        partial(ladder.run, family, function),
        casts=False,
    )


# How the result's dtype follows from the inputs'.
PROMOTE = "promote"  # the promoted dtype: add, maximum
FLOAT = "float"  # the promoted dtype, integers becoming the default floating dtype: exp, div
BOOL = "bool"  # inputs promoted, result bool: less, equal
OWN = "own"  # the forward decides; nothing is cast: getitem, argmax


# The dispatcher remembers what it found for up to so many inputs; a `cat` of thousands of tensors,
# a list of another length each time, would fill the memory with what is never asked for again.
_FEW = 16

# How the result of an op holds elements of its input, each once.
VIEW = "view"  # it looks at them, wherever they are: a slice
VIEW_OF_CONTIGUOUS = "view of contiguous memory"  # which else it copies: a reshape


class Op:
    """One operation.

    Parameters
    ----------
    name: the stem that names the op everywhere.
    forward: the name of a ufunc of the array namespace, or ``f(xp, *inputs, **attributes)``.
    gradients: by input name, ``f(gy, …)``. Its parameters say what it needs, by name: inputs,
        ``y`` (the result), attributes, and ``<input>_shape``. Only these are saved. An op with
        any number of inputs has one entry ``"*"``: ``f(gy, i, …)`` with ``xs`` for all inputs.
    why_not: why the op has no gradient, for the error message.
    dtype: how the result's dtype follows from the inputs' (`PROMOTE`, `FLOAT`, `BOOL`, `OWN`).
    kinds: the NumPy kind letters of the dtypes it is defined for (``"V"`` is bfloat16).
    halves: compute float16 and bfloat16 in float32 (sums, exponentials of sums).
    wide: compute the gradients of float16 and bfloat16 in float32, each rounded once: for those
        that put squares or quotients together, which a half does not hold on the way.
    fused: an op ``f(xp, gy, …, needs, **attributes)`` returning the gradients of all inputs, an
        optional fast path used when nobody asks for the gradient's own graph.
    aux: the forward returns ``(y, aux)``; ``aux`` is saved for `fused` alone.
    view: the result shares its input's memory.
    part: the result holds elements of the first input: `VIEW`, `VIEW_OF_CONTIGUOUS`, or
        ``f(xp, y, gy, *others, **attributes)``, which adds ``gy`` to ``y`` in place where the
        forward reads. In place of a gradient it says that this is zeros with ``gy`` in that place,
        and makes the backward of a loop over the rows of a tensor cost no more than one pass.
    mutates: the inputs that `update` changes in place (optimizers).
    check: ``f(*inputs, **attributes)`` raises the clear error for inputs the forward refused.
    """

    __slots__ = (
        "aux",
        "broadcasts",
        "check",
        "dtype",
        "forward",
        "function",
        "fused",
        "gradients",
        "halves",
        "inplace_table",
        "inputs",
        "kernels",
        "kinds",
        "methods",
        "mutates",
        "name",
        "part",
        "plans",
        "samples",
        "table",
        "view",
        "why_not",
        "wide",
    )

    def __init__(
        self,
        name: str,
        forward: str | Callable[..., Any],
        *,
        inputs: Sequence[str] = ("x",),
        gradients: dict[str, Callable[..., Any]] | None = None,
        why_not: str = "",
        dtype: str = OWN,
        kinds: str = "biufcV",
        halves: bool = False,
        wide: bool = False,
        broadcasts: bool = False,
        fused: Op | None = None,
        aux: bool = False,
        view: bool = False,
        part: str | Callable[..., None] = "",
        check: Callable[..., None] | None = None,
        kernels: Sequence[Kernel] = (),
        samples: Callable[[], Iterable[Sample]] | None = None,
        mutates: Sequence[str] = (),
        register: bool = True,
    ) -> None:
        self.name = name
        self.forward = forward
        self.inputs = tuple(inputs)
        self.gradients = gradients or {}
        self.why_not = why_not
        self.dtype, self.kinds, self.halves, self.wide = dtype, kinds, halves, wide
        self.broadcasts = broadcasts
        self.fused, self.aux, self.view = fused, aux, view
        self.check = check
        self.mutates = frozenset(mutates)
        self.kernels = list(kernels)
        self.samples = samples
        self.function: Callable[..., Any] = self._call
        self.methods: tuple[str, ...] = ()
        self.plans: dict[Any, Plan] = {}
        self.table: dict[Any, Callable[..., Any]] = {}
        self.inplace_table: dict[Any, Callable[..., Any] | None] = {}
        self._check_declaration()
        self.part = part
        if part and not self.gradients:
            self.gradients = {self.inputs[0]: _spread}
        if register:
            if name in REGISTRY:
                raise ValueError(f"an op named {name!r} is declared already")
            REGISTRY[name] = self
            dtypes._caches_to_clear.append(self.forget)

    def _check_declaration(self) -> None:
        """Refuse a gradient that asks for what nobody will give it, now and not in a backward."""
        known = {"gy", "y", *self.inputs}
        if callable(self.forward):
            known.update(_parameters(self.forward))
        for name, gradient in self.gradients.items():
            if name == "*":
                continue
            asked = _parameters(gradient)
            unknown = [each for each in asked if each not in (*known, f"{name}_shape")]
            if name not in self.inputs or unknown or asked[:1] != ("gy",):
                raise OptionError(
                    message(
                        f"Op {self.name!r}",
                        expected=f"gradients of {', '.join(self.inputs)} as f(gy, …) with "
                        f"parameters among {', '.join(sorted(known - {'xp'}))}, <input>_shape",
                        got=f"{name}: f({', '.join(asked)})",
                    )
                )

    def _call(self, *inputs: Any, **attributes: Any) -> Any:
        return apply(self, inputs, attributes)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def forget(self) -> None:
        """Drop what the dispatcher remembers, after a change of kernels or default dtype."""
        self.table.clear()
        self.inplace_table.clear()

    def plan(self, mask: int, count: int) -> Plan:
        """The plan for the inputs whose bits are set in ``mask``, of ``count`` inputs."""
        key = mask if "*" not in self.gradients else (mask, count)
        found = self.plans.get(key)
        if found is None:
            found = _make_plan(self, mask, count)
            if count <= _FEW:
                self.plans[key] = found
        return found


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _make_plan(op: Op, mask: int, count: int) -> Plan:
    """Read off the gradients' parameters what must be saved and how each is called."""
    if "*" in op.gradients:
        return _make_variadic_plan(op, mask, count)
    wanted = [(i, name) for i, name in enumerate(op.inputs) if mask >> i & 1]
    for _, name in wanted:
        if name not in op.gradients:
            reason = f": {op.why_not}" if op.why_not else ""
            raise GradientError(
                f"{op.name} has no gradient with respect to {name}{reason}; "
                f"call it on {name}.detach(), or inside no_grad()"
            )
    plan = Plan()
    if _spread in op.gradients.values():
        plan.saves = tuple(range(1, count))
        plan.part = PART
        return plan
    functions = [(i, op.gradients[name], f"{name}_shape") for i, name in wanted]
    readers = [function for _, function, _ in functions]
    if op.fused is not None:
        readers.append(op.fused.forward)  # type: ignore[arg-type]
    read = {name for function in readers for name in _parameters(function)}
    saves = tuple(i for i, name in enumerate(op.inputs) if name in read)
    plan.saves = ALL if len(saves) == count else saves
    plan.saves_output = "y" in read
    place = {op.inputs[i]: at for at, i in enumerate(saves)} | {"y": len(saves)}
    calls = []
    for i, function, shape_name in functions:
        names = _parameters(function)[1:]
        places = tuple(place[name] for name in names if name in place)
        rest = tuple(name for name in names if name not in place and name != shape_name)
        run = _in_float32(function) if op.wide else function
        calls.append((i, run, places, rest, shape_name if shape_name in names else ""))
    plan.calls = tuple(calls)
    if op.fused is not None:
        plan.fused = _fused_call(op.fused, mask, len(op.inputs), place)
        plan.overwrites = "gy" in op.fused.mutates
    return plan


def _in_float32(gradient: Callable[..., Any]) -> Callable[..., Any]:
    """``gradient`` for halves that are widened first; its result is rounded once."""

    def run(gy: Tensor, *values: Any, **keywords: Any) -> Any:
        half = gy.dtype
        if half not in dtypes.HALVES:
            return gradient(gy, *values, **keywords)
        return gradient(*map(widened, (gy, *values)), **keywords).astype(half)

    return run


def widened(x: Any) -> Any:
    """A tensor or an array of float16 or bfloat16 as float32; anything else as it is."""
    return x.astype(dtypes.float32) if getattr(x, "dtype", None) in dtypes.HALVES else x


def in_float32(function: F) -> F:
    """Let a function that is put together from ops compute halves in float32, rounded once."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if not any(x.dtype in dtypes.HALVES for x in given):
            return function(*args, **kwargs)
        half = dtypes.result_type(*[x.dtype for x in given if x.is_floating_point()])
        named = {name: widened(x) for name, x in kwargs.items()}
        y = function(*map(widened, args), **named)
        return y.astype(half, copy=False)

    return run  # type: ignore[return-value]


def _fused_call(fused: Op, mask: int, count: int, place: dict[str, int]) -> Callable[..., Any]:
    names = _parameters(fused.forward)  # type: ignore[arg-type]
    places = tuple(place[name] for name in names if name in place)
    keywords = [name for name in names[2:] if name not in place and name != "needs"]
    needs = tuple(bit == "1" for bit in reversed(f"{mask:0{count}b}"))

    def call(gy: Tensor, values: list[Any], attributes: dict[str, Any]) -> Any:
        given: dict[str, Any] = {"needs": needs}
        for name in keywords:  # a comprehension would cost a call more
            given[name] = attributes[name]
        if places:
            return apply(fused, (gy, *[values[at] for at in places]), given)
        return apply(fused, (gy,), given)

    return call


class _VariadicCalls:
    """The calls of a plan for any number of inputs, made as they are asked for: a fused backward
    never does, and thousands of closures are work for the garbage collector."""

    __slots__ = ("gradient", "mask", "rest")

    def __init__(self, gradient: Callable[..., Any], mask: int, *rest: Any) -> None:
        self.gradient, self.mask, self.rest = gradient, mask, rest

    def _call(self, i: int, gy: Tensor, *xs: Any, **attributes: Any) -> Any:
        return self.gradient(gy, i, xs, **attributes) if xs else self.gradient(gy, i, **attributes)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for i, bit in enumerate(reversed(f"{self.mask:b}")):
            if bit == "1":
                yield i, partial(self._call, i), *self.rest


def _make_variadic_plan(op: Op, mask: int, count: int) -> Plan:
    plan = Plan()
    gradient = op.gradients["*"]
    names = _parameters(gradient)
    saves_all = "xs" in names
    plan.saves = ALL if saves_all else ()
    keywords = tuple(name for name in names[2:] if name not in ("xs", "x_shape"))
    shape_name = "x_shape" if "x_shape" in names else ""
    places = tuple(range(count)) if saves_all else ()
    plan.calls = _VariadicCalls(gradient, mask, places, keywords, shape_name)
    if op.fused is not None:
        plan.fused = _fused_call(op.fused, mask, count, {})
    return plan


# ------------------------------------------------------------------------------------- apply


def apply(  # noqa: C901, PLR0915 - the hot path, unrolled: see the measurement inside
    op: Op, inputs: Sequence[Any], attributes: dict[str, Any] | None = None
) -> Any:
    """Run ``op`` on ``inputs`` (tensors; Python scalars where the op allows them).

    Returns a tensor, or a tuple of tensors for an op with several results. This is the one place
    where arrays are computed from tensors and where the graph is recorded.
    """
    count = len(inputs)
    x1, x2 = (inputs[0], inputs[1]) if count == 2 else (inputs[0] if count else None, None)
    if (
        count <= 2
        and x1.__class__ is Tensor
        and (
            count == 1
            or (x2.__class__ is Tensor and x2.device is x1.device)
            or x2.__class__ in _SCALARS
        )
    ):
        # One tensor, or two, or one and a scalar: unrolled, since dispatch is most of the time of
        # a small op. The loop of `collect` would add 0.3 µs to the 0.8 µs that this way takes.
        device = x1.device
        array1 = x1._array
        nodes: Any = (x1._node, None)
        mask = 0 if nodes[0] is None else 1
        written = x1._version is not None
        if x2.__class__ is Tensor:
            array2 = x2._array
            key: Any = (device, array1.dtype, array2.dtype)
            if x2._node is not None:
                nodes = (nodes[0], x2._node)
                mask += 2
            written = written or x2._version is not None
        elif count == 2:
            array2 = x2
            key = (device, array1.dtype, x2.__class__)
        else:
            key = (device, array1.dtype)
        if written and refresh_views(inputs):
            return apply(op, inputs, attributes)
        arrays: Any = None
    else:
        collected = collect(op, inputs)
        if collected is None:
            return apply(op, convert_inputs(op.name, inputs, op.broadcasts), attributes)
        device, arrays, key, nodes, mask, written = collected
    run = op.table.get(key)
    try:
        if run is None:
            run = resolve(op, key)
        if arrays is not None:
            array = mode.quietly(run, *arrays, **(attributes or {}))
        elif count == 1:
            array = (
                mode.quietly(run, array1, **attributes) if attributes else mode.quietly(run, array1)
            )
        elif attributes:
            array = mode.quietly(run, array1, array2, **attributes)
        else:
            array = mode.quietly(run, array1, array2)
    except _EXPLAINED as error:
        raise explain(op, inputs, attributes, error) from None
    except _FAILURES as error:
        if mode.refused_reentry():
            return mode.reentrantly(apply, op, inputs, attributes)
        raise device.backend.explain(op.name, error) from None
    aux = None
    if array.__class__ is not device.array_type:
        if array.__class__ is tuple:
            if not op.aux:
                return _wrap_all(array, device)
            array, aux = array
        array = device.xp.asarray(array)  # NumPy gives a scalar where a result has no axes
    y = _new(Tensor)
    y._array = array
    y.device = device
    y.grad = y._node = y._view = y._version = None
    if op.view:
        share_memory(op, inputs, attributes, y)
    if mask and mode.grad and op.gradients:
        recorded = y._node = record(op, inputs, attributes, mask, nodes, written, array)
        if aux is not None:
            recorded.aux = aux
        if recorded.plan.saves_output:
            version = y._counter()
            recorded.output = (array, version, version.count)
    return y


def collect(op: Op, inputs: Sequence[Any]) -> tuple[Any, ...] | None:  # noqa: C901 - the hot path
    """Everything `apply` needs to know of any number of inputs; None if some must be converted,
    or moved."""
    device = None
    mask, bit, written = 0, 1, False
    arrays: list[Any] = []
    key: list[Any] = [None]
    nodes: list[Node | Leaf | None] = []
    for x in inputs:
        if isinstance(x, Tensor):
            array = x._array
            arrays.append(array)
            key.append(array.dtype)
            if x.device is not device:
                if device is not None:
                    if op.broadcasts and _others_are_numbers(inputs):
                        return None
                    raise mixed_devices(op.name, inputs)
                device = key[0] = x.device
            if x._version is not None:
                written = True
                refresh_views((x,))
            node = x._node
            nodes.append(node)
            if node is not None:
                mask |= bit
        elif x.__class__ in _SCALARS:
            arrays.append(x)
            key.append(x.__class__)
            nodes.append(None)
        else:
            return None
        bit += bit
    if device is None:  # Python scalars only
        return None
    if len(key) > _FEW and op.dtype == OWN and not op.halves:  # nothing is cast: each kind once
        key = list(dict.fromkeys(key))
    return device, arrays, tuple(key), nodes, mask, written


def record(
    op: Op, inputs: Sequence[Any], attributes: Any, mask: int, nodes: Sequence[Any],
    written: bool, array: Any,
) -> Node:  # fmt: skip
    """Make the node of a call: its inputs' ``nodes``, those in ``mask`` requiring a gradient.

    ``written`` says that some input may have been written in place, so that versions matter.
    """
    plan = op.plans.get(mask) or op.plan(mask, len(inputs))
    node: Node = _new_node(Node)
    node.op = op
    node.plan = plan
    node.attributes = attributes
    node.parents = nodes
    # Plain branches: a comprehension costs 0.15 µs in Python 3.11, as much as the rest of this.
    if plan.saves is ALL:
        saved = node.saved = inputs
    elif plan.saves:
        saved = node.saved = [inputs[i] for i in plan.saves]
    else:
        saved = node.saved = NOTHING
    node.versions = [version_of(x) for x in saved] if written and saved else None
    node.shape = array.shape
    node.dtype = array.dtype
    node.number = next_number()
    node.hooks = node.output = node.aux = None
    return node


def _wrap_all(arrays: tuple[Any, ...], device: Device) -> tuple[Tensor | None, ...]:
    # Several results come from ops without a gradient: fused backward passes, index searches.
    array_type = device.array_type
    found: list[Tensor | None] = []
    for array in arrays:
        if array is None:
            found.append(None)
            continue
        y = _new(Tensor)
        y._array = array if array.__class__ is array_type else device.xp.asarray(array)
        y.device = device
        y.grad = y._node = y._view = y._version = None
        found.append(y)
    return tuple(found)


def _others_are_numbers(inputs: Sequence[Any]) -> bool:
    """Whether the tensors are on one device but for some without axes on the CPU."""
    rest = {x.device for x in inputs if isinstance(x, Tensor) and (x.shape or x.device is not cpu)}
    return len(rest) == 1


def convert_inputs(
    operation: str, inputs: Sequence[Any], broadcasts: bool = True
) -> tuple[Any, ...]:
    """Make tensors of NumPy arrays and Python scalars of NumPy scalars among the inputs, and move
    numbers, tensors without axes, from the CPU to the device of the others, as PyTorch does."""
    devices = [x.device for x in inputs if isinstance(x, Tensor)]
    device = next((each for each in devices if each is not cpu), devices[0] if devices else cpu)
    beside = _common_dtype(inputs) if broadcasts else None
    converted = []
    for x in inputs:
        if isinstance(x, Tensor) and x.device is cpu and not x.shape:
            x = x.to(device)
        elif isinstance(x, np.generic) and x.dtype in dtypes.ALL:
            x = x.item()
        elif not isinstance(x, Tensor) and x.__class__ not in _SCALARS:
            x = from_value(x, device, beside=beside, operation=operation)
        converted.append(x)
    if not any(isinstance(x, Tensor) for x in converted):
        converted[0] = from_value(converted[0], device, operation=operation)
    return tuple(converted)


def _common_dtype(inputs: Sequence[Any]) -> DType | None:
    """The dtype that the tensors among the inputs share, which numbers in lists take."""
    kinds = [x.dtype for x in inputs if isinstance(x, Tensor)]
    return dtypes.result_type(*kinds) if kinds else None


# --------------------------------------------------------------------------------- dispatcher


def resolve(op: Op, key: tuple[Any, ...]) -> Callable[..., Any]:
    """Find what runs ``op`` for a device and dtypes (Python types for scalars); remember it."""
    device, *kinds = key
    for kind in kinds:
        _check_kind(op, kind)
    run = implementation(op, device)
    if op.dtype != OWN:
        run = _with_promotion(op, run, kinds)
    elif op.halves and any(kind in dtypes.HALVES for kind in kinds):
        half = next(kind for kind in kinds if kind in dtypes.HALVES)
        casts = [dtypes.float32 if kind in dtypes.HALVES else None for kind in kinds]
        run = _with_casts(op, run, casts, half)
    kernels = _kernels(op, device, casts=False)
    kernels = [each for each in kernels if each.dtypes is None or kinds[0] in each.dtypes]
    run = _behind_kernels(kernels, run)
    run = op.table[key] = device.backend.bind(run)
    return run


def _check_kind(op: Op, kind: Any) -> None:
    letter = {bool: "b", int: "i", float: "f", complex: "c"}.get(kind) or kind.kind
    if letter not in op.kinds:
        names = {"b": "bool", "i": "integer", "f": "floating", "c": "complex"}
        allowed = [name for each, name in names.items() if each in op.kinds]
        got = kind.name if isinstance(kind, np.dtype) else f"a Python {kind.__name__}"
        raise DTypeError(
            message(
                op.name,
                expected=f"{' or '.join(allowed)} values",
                got=got,
                hint="cast with .astype(...)",
            )
        )


def implementation(op: Op, device: Device) -> Callable[..., Any]:
    """The forward for a device, behind the kernels that may take its place."""
    xp = device.backend.xp
    plain = getattr(xp, op.forward) if isinstance(op.forward, str) else partial(op.forward, xp)
    return _behind_kernels(_kernels(op, device, casts=True), plain)


def _kernels(op: Op, device: Device, casts: bool) -> list[Kernel]:
    return [each for each in op.kernels if each.device == device.type and each.casts == casts]


def _behind_kernels(kernels: list[Kernel], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    if not kernels:
        return otherwise

    def run(*arrays: Any, **attributes: Any) -> Any:
        for kernel in kernels:
            if kernel.accepts(*arrays, **attributes):
                return kernel.run(*arrays, **attributes)
        return otherwise(*arrays, **attributes)

    return run


def _with_promotion(op: Op, run: Callable[..., Any], kinds: list[Any]) -> Any:
    result = dtypes.result_type(*kinds)
    if op.dtype == BOOL and dtypes.is_floating(result) and _has_integers(kinds):
        return _exact_comparison(run, kinds)
    if op.dtype == FLOAT and not (dtypes.is_floating(result) or dtypes.is_complex(result)):
        result = dtypes.get_default_dtype()
    compute = dtypes.float32 if op.halves and result in dtypes.HALVES else result
    # A ufunc takes a Python scalar in the dtype of the array beside it. Other array code may make a
    # float64 of it (log(2.0)), and bfloat16, a dtype from outside NumPy, does not know the rule.
    weak = isinstance(op.forward, str) and compute != dtypes.bfloat16
    casts = [
        None if (kind == compute if isinstance(kind, np.dtype) else weak) else compute
        for kind in kinds  # a Python type is no dtype, though float == np.dtype("float64")
    ]
    final = None if op.dtype == BOOL or compute == result else result
    if compute in dtypes.HALVES and isinstance(run, np.ufunc) and op.name not in _BY_BITS:
        run = _wide_where_large(run, compute)
    if all(cast is None for cast in casts) and final is None:
        return run
    return _with_casts(op, run, casts, final)


def _has_integers(kinds: list[Any]) -> bool:
    return any(isinstance(kind, np.dtype) and dtypes.is_integer(kind) for kind in kinds)


def _exact_comparison(run: Callable[..., Any], kinds: list[Any]) -> Callable[..., Any]:
    """The comparison ``run`` of integers with floats, right for all 64 bits.

    A number is compared as the integer that it is. Arrays are compared in a dtype that holds both,
    float64 for most; where two are equal as such, integers beyond those of float64 decide.
    """
    whole = [isinstance(kind, np.dtype) and kind.kind in "iu" for kind in kinds]
    first = whole[0]
    dtype = kinds[0] if first else kinds[1]

    def compare(x1: Any, x2: Any) -> Any:
        integers: Any
        floats: Any
        integers, floats = (x1, x2) if first else (x2, x1)
        if isinstance(floats, float):
            floats, is_whole = _as_bound(floats, dtype)
            integers = integers if is_whole else integers.astype(np.float64)
            return run(integers, floats) if first else run(floats, integers)
        if floats.dtype == dtypes.bfloat16:  # which array libraries do not promote
            floats = floats.astype(np.float32)
        y = run(integers, floats) if first else run(floats, integers)
        if dtype.itemsize < 8 or _fit_float64(integers):
            return y
        floats = floats.astype(np.float64, copy=False)
        tie = integers.astype(np.float64) == floats
        order = _order_of_ties(integers, floats, tie)
        return (y & ~tie) | (run(order if first else -order, 0) & tie)

    return compare


def _as_bound(number: float, dtype: DType) -> tuple[float, bool]:
    """A number that compares with integers of ``dtype`` as the given one, and whether as one of
    them; beyond their range it is infinite."""
    info = np.iinfo(dtype)
    if not info.min <= number <= info.max:  # NaN too
        return (number if number != number else math.inf if number > 0 else -math.inf), False
    return (int(number), True) if number == int(number) else (number, False)


def _fit_float64(integers: Any) -> bool:
    """Whether float64 holds all of them, where looking at them costs no waiting."""
    if type(integers) is not np.ndarray or not integers.size:
        return type(integers) is np.ndarray
    return bool(integers.max() <= 2**53 and integers.min() >= -(2**53))


def _order_of_ties(integers: Any, floats: Any, tie: Any) -> Any:
    """1, 0 or -1 where an integer is above, at or below the float that it equals in float64."""
    beyond = float(np.iinfo(integers.dtype).max + 1)  # rounded up to: the float is the larger
    reached = floats >= beyond
    values = (floats * (tie & ~reached)).astype(integers.dtype)
    above, below = (integers > values) & ~reached, (integers < values) | reached
    return above.astype(np.int8) - below.astype(np.int8)


# NumPy and ml_dtypes compute halves in float32 too, an element at a time. Whole arrays that are
# widened take half to a tenth of the time; less where an op only looks at bits.
_BY_BITS = frozenset({"neg", "abs", "sign", "conj", "fmod"})


def _wide_where_large(ufunc: np.ufunc, half: DType) -> Callable[..., Any]:
    count = ufunc.nin

    def run(*arrays: Any) -> Any:  # with one array more, into that
        for array in arrays:
            if array.__class__ not in _SCALARS and halves.is_large(array):
                break
        else:
            return ufunc(*arrays)
        y = halves.apply_wide(ufunc, arrays[:count], half)
        if len(arrays) > count:
            np.copyto(arrays[count], y)
        return y

    run.ufunc = ufunc  # type: ignore[attr-defined]
    return run


def wide_kernel(ufunc: np.ufunc, *others: float) -> Kernel:
    """A kernel for large arrays of halves, where the forward of an op is not the ufunc itself."""

    def run(x: Any) -> Any:
        return halves.apply_wide(ufunc, (x, *others), x.dtype)

    return Kernel("cpu", "halves", halves.is_large, run, casts=False, dtypes=dtypes.HALVES)


def _with_casts(
    op: Op, run: Callable[..., Any], casts: list[Any], final: DType | None
) -> Callable[..., Any]:
    """``run`` behind casts of its inputs and of its floating result."""

    def narrow(y: Any) -> Any:
        if y is None or final is None or y.dtype != dtypes.float32:
            return y
        return halves.cast(y, final)

    def cast_and_run(*arrays: Any, **attributes: Any) -> Any:
        given = [
            array
            if to is None
            else to.type(array)
            if array.__class__ in _SCALARS
            else halves.cast(array, to)
            for array, to in zip(arrays, casts, strict=True)
        ]
        y = run(*given, **attributes)
        if y.__class__ is not tuple:
            return narrow(y)
        # A saved auxiliary stays as computed; the results of a fused backward pass do not.
        return (narrow(y[0]), *y[1:]) if op.aux else tuple(map(narrow, y))

    return cast_and_run


# -------------------------------------------------------------------------------------- views


def share_memory(op: Op, inputs: Sequence[Any], attributes: Any, y: Tensor) -> None:
    """Note that ``y`` is a view of its first input: one version, and the way back to it."""
    x = inputs[0]
    if mode.inference:
        return
    # A reshape copies where the layout leaves no other way; a copy is no view.
    if not x._array.flags.c_contiguous and not device_shares(x, y):
        return
    version = y._version = x._counter()
    if mode.grad:
        y._view = (x, op, attributes, x._node, version.count)
    else:
        # Only the way back is kept, to refuse a recorded write through it later; a strong
        # reference would keep the graph of x alive.
        y._view = (weakref.ref(x), None, None, None, 0)


def device_shares(x: Tensor, y: Tensor) -> bool:
    return bool(x.device.xp.may_share_memory(x._array, y._array))


def refresh_views(inputs: Sequence[Any]) -> bool:
    """Refresh the history of each view among ``inputs``; True if one changed."""
    changed = False
    if not mode.grad:
        return changed
    for x in inputs:
        if isinstance(x, Tensor) and x._view is not None:
            before = x._node
            refresh_view(x)
            changed |= x._node is not before
    return changed


def refresh_view(y: Tensor) -> None:
    """Record a view anew if the tensor it looks into was written in place since."""
    version = y._counter()
    stale = []
    # Up to a tensor that is no view, or that nothing was written to since it was recorded.
    while y._view is not None and y._view[1] is not None and y._view[4] != version.count:
        stale.append(y)
        y = y._view[0]
    for y in reversed(stale):
        _record_again(y, version)


def _record_again(y: Tensor, version: Version) -> None:
    x, op, attributes, node, _ = y._view  # type: ignore[misc]
    if x._version is not version:  # x has other memory now: x.data was assigned
        y._view = None
        return
    # A leaf is not made by writing: a view taken before requires_grad_() stays without history.
    if x._node is not node and x._node.__class__ is Node:
        before, mode.grad = mode.grad, True
        try:
            y._node = apply(op, (x,), attributes)._node
        finally:
            mode.grad = before
    y._view = (x, op, attributes, x._node, version.count)


# -------------------------------------------------------------------------------------- parts


class _Place(NamedTuple):
    """Which elements of a tensor an op read, and of those another op, if ``inner`` is given."""

    op: Op
    others: tuple[Tensor, ...]
    attributes: dict[str, Any]
    inner: _Place | None = None

    def add_to(self, xp: Any, y: Any, gy: Any, write: bool = False) -> None:
        """Add ``gy`` in this place of ``y``, or write it to a view."""
        for op, others, attributes in self.steps():
            if isinstance(op.part, str):
                y = op.forward(xp, y, **attributes)  # type: ignore[operator]
            else:
                op.part(xp, y, gy, *[each._array for each in others], **attributes)
                return
        if write:
            y[...] = gy
        else:
            xp.add(y, gy, out=y)

    def read(self, x: Tensor) -> Tensor:
        for op, others, attributes in self.steps():
            x = apply(op, (x, *others), attributes)
        return x

    def steps(self) -> Iterator[tuple[Op, tuple[Tensor, ...], dict[str, Any]]]:
        place: _Place | None = self
        while place is not None:
            yield place[:3]
            place = place.inner


def _place_of(node: Node, saved: Sequence[Any]) -> _Place:
    return _Place(node.op, tuple(saved), node.attributes)


def _place_within(node: Node, place: _Place) -> _Place | None:
    kind = node.op.part
    if place.op.part == VIEW and (kind in (VIEW, VIEW_OF_CONTIGUOUS)):
        return _Place(node.op, (), node.attributes, place)
    return None


def _spread_forward(
    xp: Any, *gys: Any, places: Sequence[_Place], shape: tuple[int, ...], apart: bool = False
) -> Any:
    dtype = gys[0].dtype
    # The first is written, as added to zeros a -0 would lose its sign; so are all that are apart.
    write = isinstance(places[0].op.part, str)
    wide = dtype in dtypes.HALVES and not (write and (apart or len(gys) == 1))
    y = xp.zeros(shape, dtypes.float32 if wide else dtype)
    for gy, place in zip(gys, places, strict=True):
        place.add_to(xp, y, gy.astype(y.dtype, copy=False), write)
        write = apart
    return y.astype(dtype, copy=False)


# The gradient of ops whose results hold elements of their input, as a slice does: zeros, with the
# gradient of each result added in its place.
SPREAD = Op(
    "spread",
    _spread_forward,
    inputs=("*xs",),
    gradients={"*": lambda gy, i, places: places[i].read(gy)},
)


def _spread(gys: Sequence[Tensor], places: Sequence[_Place], shape: tuple[int, ...]) -> Tensor:
    return apply(SPREAD, gys, {"places": places, "shape": shape})


def put_together(
    parts: Sequence[Tensor], op: Op, attributes: Sequence[dict[str, Any]], shape: tuple[int, ...]
) -> Tensor:
    """Zeros of ``shape`` with each part where ``op``, a view, reads with its attributes; the places
    do not overlap."""
    places = [_Place(op, (), each) for each in attributes]
    y: Tensor = apply(SPREAD, parts, {"places": places, "shape": shape, "apart": True})
    return y


def spread(
    gy: Tensor, op: Op, attributes: dict[str, Any], shape: tuple[int, ...], *others: Tensor
) -> Tensor:
    """Zeros of ``shape`` with ``gy`` added where ``op`` reads."""
    return _spread((gy,), (_Place(op, others, attributes),), shape)


def _add_part_forward(xp: Any, y: Any, gy: Any, *, place: _Place, owned: bool) -> Any:
    if y.dtype in dtypes.HALVES:
        y = y.astype(dtypes.float32, order="C")
    elif not (owned and y.flags.c_contiguous):
        y = y.copy(order="C")
    place.add_to(xp, y, gy.astype(y.dtype, copy=False))
    return y


# The sum of a gradient and one more part, in the memory of the gradient where that is free.
ADD_PART = Op("add_part", _add_part_forward, inputs=("y", "gy"), why_not="it changes its input")


def _add_part(whole: Tensor, gy: Tensor, place: _Place, owned: bool) -> Tensor:
    return apply(ADD_PART, (whole, gy), {"place": place, "owned": owned})


PART = Part(_place_of, _place_within, _add_part, _spread)


# ------------------------------------------------------------------------- writes through views


def _scatter_view(xp: Any, x: Any, v: Any, *, view: Op, attributes: Any) -> Any:
    y = x.copy()
    run: Any = view.forward
    run(xp, y, **(attributes or {}))[...] = v
    return y


def _scatter_view_backward(xp: Any, gy: Any, *, needs: Any, view: Op, attributes: Any) -> Any:
    run: Any = view.forward
    place = run(xp, gy, **(attributes or {}))
    gv = place.copy() if needs[1] else None
    if needs[0]:
        place[...] = 0
    return gy if needs[0] else None, gv


# What an in-place write to a view means for the tensor it looks into: x, with v where the view is.
SCATTER_VIEW = Op(
    "scatter_view",
    _scatter_view,
    inputs=("x", "v"),
    gradients={
        "x": lambda gy, view, attributes: _clear_view(gy, view, attributes),
        "v": lambda gy, view, attributes: apply(view, (gy,), attributes),
    },
    # In the gradient's own memory: a copy for each write would make a loop of writes quadratic.
    fused=Op("scatter_view_backward", _scatter_view_backward, inputs=("gy",), mutates=("gy",)),
)


def _clear_view(gy: Tensor, view: Op, attributes: Any) -> Tensor:
    region = apply(view, (gy,), attributes)
    zeros = Tensor._wrap(gy.device.xp.zeros(region.shape, region.dtype), gy.device)
    return apply(SCATTER_VIEW, (gy, zeros), {"view": view, "attributes": attributes})


# ----------------------------------------------------------------------------------- in place


def apply_(
    op: Op,
    x: Tensor,
    others: Sequence[Any] = (),
    attributes: Any = None,
    name: str = "",
) -> Tensor:
    """``x`` becomes ``op(x, *others)``, keeping its object, memory, shape and dtype.

    ``name`` is what messages call the write, ``<op>_`` if not given.
    """
    name = name or f"{op.name}_"
    if mode.grad:
        check_writable(x, name)
        if needs_record(x, others):
            return _apply_recorded(op, x, others, attributes, name)
    try:
        if not _write_directly(op, x, others, attributes, name):
            before = mode.grad
            mode.grad = False  # no call before the try: Ctrl-C is looked for in calls
            try:
                write(x, apply(op, (x, *others), attributes), name)
            finally:
                mode.grad = before
    except _FAILURES as error:
        if mode.refused_reentry():
            return mode.reentrantly(apply_, op, x, others, attributes, name)
        raise x.device.backend.explain(name, error) from None
    mark_written(x, name)
    return x


def needs_record(x: Tensor, others: Sequence[Any]) -> bool:
    return x._node is not None or any(
        isinstance(other, Tensor) and other._history() is not None for other in others
    )


def check_writable(x: Tensor, name: str) -> None:
    """Refuse to write to a leaf that requires a gradient, or into a view of one."""
    if x._view is not None:
        refresh_view(x)
    target: Tensor | None = x
    unrecorded = False
    while target is not None:
        if unrecorded and target._node.__class__ is Node:
            raise GradientError(
                message(
                    name,
                    expected="a tensor whose writes can be recorded",
                    got="a view made inside no_grad() of a tensor that requires a gradient",
                    hint="make the view outside no_grad(), or write inside it",
                )
            )
        if isinstance(target._node, Leaf):
            what = "a leaf tensor" if target is x else "a view of a leaf tensor"
            raise GradientError(
                message(
                    name,
                    expected="a tensor whose value may change",
                    got=f"{what} that requires a gradient, of shape {x.shape}",
                    hint="write inside no_grad(), or to a clone()",
                )
            )
        if target._view is None:
            return
        source, op, *_ = target._view
        unrecorded |= op is None
        target = source() if op is None else source


def _write_directly(op: Op, x: Tensor, others: Sequence[Any], attributes: Any, name: str) -> bool:
    """Let a ufunc write its result straight into ``x``; False where that is not possible."""
    if not isinstance(op.forward, str) or attributes:
        return False
    array = x._array
    key: list[Any] = [x.device, array.dtype]
    arrays = [array]
    for other in others:
        if isinstance(other, Tensor):
            if other.device is not x.device:
                return False
            arrays.append(other._array)
            key.append(other._array.dtype)
        elif other.__class__ in _SCALARS:
            arrays.append(other)
            key.append(other.__class__)
        else:
            return False
    found = tuple(key)
    if found not in op.inplace_table:
        op.inplace_table[found] = _inplace_run(op, key)
    run = op.inplace_table[found]
    if run is None:
        return False
    try:
        mode.quietly(run, *arrays, array)
    except _EXPLAINED as error:
        if read_only(x, name, error) is not error:
            raise read_only(x, name, error) from None
        return False  # the general way explains it
    return True


def _inplace_run(op: Op, key: list[Any]) -> Callable[..., Any] | None:
    device, own, *rest = key
    ufunc = getattr(device.xp, str(op.forward))
    same = op.dtype in (PROMOTE, FLOAT) and not op.halves and own != dtypes.bfloat16
    try:
        run = resolve(op, tuple(key))
    except Exception:
        return None  # the general way reports it
    same = same and getattr(run, "ufunc", run) is ufunc
    return run if same and dtypes.result_type(own, *rest) == own else None


def write(x: Tensor, y: Tensor, name: str) -> None:
    """Copy ``y`` into the memory of ``x``, which keeps its shape and dtype."""
    _check_fits(x, y, name)
    try:
        mode.run(x.device.xp.copyto, x._array, y._array, casting="unsafe")
    except ValueError as error:
        raise read_only(x, name, error) from None
    except _FAILURES as error:
        raise x.device.backend.explain(name, error) from None


def read_only(x: Tensor, name: str, error: Exception) -> Exception:
    """The clear error for a write to memory that cannot be written to; else ``error`` itself."""
    if x.device.type != "cpu" or x._array.flags.writeable:
        return error
    return OptionError(
        message(
            name,
            expected="memory that may be written to",
            got=f"a read-only tensor of shape {x.shape}, from expand() or a read-only array",
            hint="write to a clone()",
        )
    )


def _check_fits(x: Tensor, y: Tensor, name: str) -> None:
    if y.device is not x.device:
        raise mixed_devices(name, (x, y))
    if y.shape != x.shape:
        raise ShapeError(
            message(
                name,
                expected=f"a result of the shape {x.shape} that is written to",
                got=f"a result of shape {y.shape}",
                hint="use the out-of-place form",
            )
        )
    if dtypes._level(y.dtype) > dtypes._level(x.dtype):
        raise DTypeError(
            message(
                name,
                expected=f"a result that fits {x.dtype.name}, the dtype written to",
                got=f"{y.dtype.name}",
                hint="use the out-of-place form, or cast first with .astype(...)",
            )
        )


def mark_written(x: Tensor, name: str) -> None:
    """Count a write, for the values that nodes saved."""
    version = x._counter()
    version.count += 1
    version.writer = name


def _apply_recorded(op: Op, x: Tensor, others: Any, attributes: Any, name: str) -> Tensor:
    """An in-place op that gradients flow through: the new value gets its own node."""
    before = Tensor._wrap(x._array, x.device)
    before._node = x._node
    # In x *= x the second operand is the value before the write as well.
    inputs = [before, *(before if each is x else each for each in others)]
    mask = sum(
        1 << i
        for i, each in enumerate(inputs)
        if isinstance(each, Tensor) and each._node is not None
    )
    saves = op.plan(mask, len(inputs)).saves
    if saves is ALL or any(inputs[i] is before for i in saves):
        before._array = copied(x)  # the gradient needs the value about to be overwritten
    y = apply(op, inputs, attributes)
    _check_fits(x, y, name)
    rebase(x, y if y.dtype == x.dtype else y.astype(x.dtype), name)
    return x


def rebase(x: Tensor, y: Tensor, name: str) -> None:
    """Give ``x`` the value and the history of ``y``, and so the tensors that ``x`` looks into."""
    write(x, y, name)
    x._node = y._node
    mark_written(x, name)
    _rebase_parents(x)


def _rebase_parents(x: Tensor) -> None:
    # The memory is shared and holds the new values already: only the history is missing.
    while x._view is not None and x._view[1] is not None:
        parent, view, attributes, *_ = x._view
        if parent._version is not x._version:  # its memory was replaced: x.data was assigned
            x._view = None
            return
        before = Tensor._wrap(parent._array, parent.device)
        before._node = parent._node
        mask = (before._node is not None) | (x._node is not None) << 1
        options = {"view": view, "attributes": attributes}
        nodes = (before._node, x._node)
        parent._node = record(SCATTER_VIEW, (before, x), options, mask, nodes, False, parent._array)
        x._view = (parent, view, attributes, parent._node, x._counter().count)
        x = parent


def update(op: Op, tensors: Sequence[Sequence[Tensor]], attributes: dict[str, Any]) -> None:
    """Run an op over lists of tensors of one device, changing those of ``op.mutates`` in place.

    An optimizer updates all parameters of a group in one such call: ``tensors`` holds one list per
    input of the op (parameters, gradients, states), equally long.
    """
    if not tensors[0]:
        return
    device = _only_device(op, tensors)
    key = (device,)
    run = op.table.get(key)
    if run is None:
        run = op.table[key] = device.backend.bind(implementation(op, device))
    try:
        mode.quietly(run, *[[x._array for x in group] for group in tensors], **attributes)
    except _FAILURES as error:
        if mode.refused_reentry():
            mode.reentrantly(update, op, tensors, attributes)
            return
        raise device.backend.explain(op.name, error) from None
    for name, group in zip(op.inputs, tensors, strict=True):
        if name in op.mutates:
            for x in group:
                mark_written(x, op.name)


def _only_device(op: Op, tensors: Sequence[Sequence[Tensor]]) -> Device:
    first = tensors[0][0]
    device = first.device
    for group in tensors:
        for x in group:
            if x.device is not device:
                raise mixed_devices(op.name, [first, x])
    return device


# ------------------------------------------------------------------------------------- errors


def explain(op: Op, inputs: Sequence[Any], attributes: Any, error: Exception) -> Exception:
    """Turn what the array library raised into one line in the user's terms."""
    if isinstance(error, GradlabError):
        return error
    if op.check is not None:
        try:
            op.check(*inputs, **(attributes or {}))
        except GradlabError as clear:
            return clear
    got = ", ".join(describe(x) for x in inputs)
    unlike = _broadcast_error(op, inputs) if op.broadcasts else None
    if unlike is not None:
        return unlike
    kind = DTypeError if isinstance(error, TypeError | OverflowError) else ShapeError
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return kind(f"{op.name}: {first_line}; got {got}")


def _broadcast_error(op: Op, inputs: Sequence[Any]) -> ShapeError | None:
    shapes = [x.shape for x in inputs if isinstance(x, Tensor)]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        pass
    else:
        return None
    width = max(map(len, shapes))
    padded = [(1,) * (width - len(shape)) + shape for shape in shapes]
    axis = next(
        i - width for i in reversed(range(width)) if len({shape[i] for shape in padded} - {1}) > 1
    )
    sizes = " and ".join(str(shape[axis]) for shape in padded if shape[axis] != 1)
    return ShapeError(
        message(
            op.name,
            expected="shapes that broadcast (equal sizes, or 1, counted from the last axis)",
            got=f"{' and '.join(map(str, shapes))}, which differ at axis {axis}: {sizes}",
            hint="reshape or transpose one of them",
        )
    )


def mixed_devices(name: str, inputs: Sequence[Any]) -> DeviceError:
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    # A GPU is where the work was meant to be.
    device = next(x.device for x in tensors if x.device.type != "cpu")
    return DeviceError(
        message(
            name,
            expected="tensors on one device",
            got=", ".join(f"{x.shape} on {x.device}" for x in tensors),
            hint=f'move one of them, for example with .to("{device}")',
        )
    )


# ----------------------------------------------------------------------------------- registry


# NumPy's names of ufuncs for which gradlab has another one.
_UFUNC_NAMES = {
    "power": "pow",
    "rint": "round",
    "degrees": "rad2deg",
    "radians": "deg2rad",
}


@cache
def _function_of_ufunc(name: str) -> Callable[..., Any] | None:
    """The public function that computes a ufunc: of the op whose forward it is, or of its name."""
    op = next((op for op in REGISTRY.values() if op.forward == name), None)
    if op is not None:
        return op.function
    name = _UFUNC_NAMES.get(name, name)
    return REGISTRY[name].function if name in REGISTRY else getattr(Tensor, name, None)


def apply_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What a NumPy ufunc called on tensors gives: the result of the function that computes it.

    With an array to write to, as in ``array += tensor``, the result goes there.
    """
    function = _function_of_ufunc(ufunc.__name__)
    out = options.pop("out", (None,))[0]
    if function is None or method != "__call__" or options:
        what = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        raise DTypeError(
            message(
                what,
                expected="NumPy arrays",
                got="a tensor, for which gradlab has no such function",
                hint="call it on x.numpy()",
            )
        )
    x, *others = convert_inputs(ufunc.__name__, inputs)
    if not isinstance(x, Tensor):  # a function that is a method of tensors wants one first
        tensor = next(each for each in others if isinstance(each, Tensor))
        dtype = dtypes.result_type(type(x), tensor.dtype)
        x = from_value(x, tensor.device, dtype=dtype, operation=ufunc.__name__)
    y = function(x, *others)
    if out is None:
        return y
    if isinstance(out, Tensor):
        return out.copy_(y)
    try:
        np.copyto(out, y.numpy(), casting="same_kind")
    except TypeError as error:
        raise DTypeError(f"np.{ufunc.__name__}: {error}; use the out-of-place form") from None
    return out


def public(op: Op | None = None, *methods: str) -> Callable[[F], F]:
    """Make a function the public face of ``op`` and the named methods of `Tensor`."""

    def declare(function: F) -> F:
        if op is not None:
            op.function = function
            op.methods = methods
        for name in methods:
            Tensor._add_method(name, function)
        return function

    return declare


def kernels_table() -> list[dict[str, str]]:
    """A row per kernel: the op, the device, the kernel's name."""
    return [
        {"op": op.name, "device": kernel.device, "kernel": kernel.name}
        for op in REGISTRY.values()
        for kernel in op.kernels
    ]
