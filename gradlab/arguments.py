"""The door of the public functions: arguments that do not fit become tensors, or one clear line.

A public function is written for the arguments that its annotations name. `guarded` puts a door
before it, which costs a call that succeeds nothing but the way through. Where a call fails, the
door looks at the arguments: lists, arrays and numbers that were given for tensors are converted
and the call repeated; for all else the error says in the user's terms what was expected. Errors
raised in user code, such as a callback or a method of a user's object, pass through unchanged.
"""

from __future__ import annotations

import functools
import inspect
import operator
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from numbers import Integral, Real
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any

import numpy as np

from gradlab.errors import (
    AxisError,
    DTypeError,
    GradlabError,
    OptionError,
    OutOfMemoryError,
    ShapeError,
    message,
    printable,
)

# Whose code is not the user's: what gradlab is made of and calls.
_OURS = frozenset(
    {"gradlab", "numpy", "scipy", "ml_dtypes", "cupy", "cupyx", "cupy_backends", "numba"}
)
_LIBRARIES = _OURS | (sys.stdlib_module_names - {"__main__"})


def guarded(function: Any) -> Any:
    """The door before ``function``: the same one each time, or the function if it needs none."""
    if not isinstance(function, FunctionType):
        return function
    known = getattr(function, "__door__", None)
    # `functools.wraps` copies the attribute to functions that have another door, or none.
    if known is function or (known and known.__wrapped__ is function):
        return known
    numbers = _number_parameters(function)
    if not numbers and _is_thin(function):
        return function
    door: Any = functools.wraps(function)(_door_before(function, numbers))
    door.__door__ = door
    function.__dict__["__door__"] = door
    return door


def _is_thin(function: FunctionType) -> bool:
    """Whether a function hands its one or two operands to `apply`, which refuses by itself."""
    code = function.__code__
    names = [name for name in code.co_names if not name.isupper()]
    return names == ["apply"] and code.co_argcount <= 2 and not hasattr(function, "__wrapped__")


def _number_parameters(function: FunctionType) -> dict[int, str]:
    """The parameters that are numbers and never tensors, by position."""
    plain = inspect.unwrap(function)
    found = {}
    for at, name in enumerate(_names(plain.__code__)):
        kinds = set(_alternatives(plain.__annotations__.get(name, "Any")))
        if "float" in kinds and kinds <= {"float", "None"}:
            found[at] = name
    return found


def _names(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


# A door takes the parameters of its function by name. One of ``*args, **kwargs`` would add 0.2 µs
# to a call, a sixth of a small addition; this adds 0.04 µs.
_DOOR = """
def made(_function):
    def door({parameters}):
        try:
            {before}
            return _function({arguments})
        except Exception as _error:
            _found = _second_try(_function, ({positional}), {named}, _error)
            if _found is None:
                raise
            return _found[0]
    return door
"""


def _door_before(function: FunctionType, numbers: Mapping[int, str]) -> Any:
    """A door that also converts what is given for a number to a Python number, before the call.

    An array function would take a tensor, and the gradient would not pass through it.
    """
    code = function.__code__
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return _wide_door_before(function, numbers)
    names = _names(code)
    positional, named = list(names[: code.co_argcount]), names[code.co_argcount :]
    parameters = list(positional)
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    if code.co_flags & inspect.CO_VARARGS:
        positional.append("*" + code.co_varnames[len(names)])
        parameters.append(positional[-1])
    elif named:
        parameters.append("*")
    made = _made(
        ", ".join([*parameters, *named]),
        ", ".join([*positional, *(f"{name}={name}" for name in named)]),
        "".join(f"{name}, " for name in positional),
        "{" + ", ".join(f"{name!r}: {name}" for name in named) + "}",
        tuple(
            f"if {name}.__class__ not in _PLAIN: {name} = _as_number(_function, {name!r}, {name})"
            for name in numbers.values()
        ),
    )(function)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made


def _wide_door_before(function: Any, numbers: Mapping[int, str]) -> Any:
    """The door before a function that a decorator made, of any arguments."""
    before = []
    plain = function.__dict__.get("__renames__")
    if plain and plain is getattr(function, "__wrapped__", None):
        function = plain  # the door renames in its place: two such calls would take 0.2 µs more
        before = ["if kwargs: renamed(kwargs)"]
    if numbers:
        before += [f"args = _with_numbers(_function, {dict(numbers)}, args, kwargs)"]
    return _made("*args, **kwargs", "*args, **kwargs", "*args, ", "kwargs", tuple(before))(function)


@functools.cache
def _made(
    parameters: str, arguments: str, positional: str, named: str, before: tuple[str, ...]
) -> Callable[[FunctionType], Any]:
    source = _DOOR.format(
        parameters=parameters,
        arguments=arguments,
        positional=positional,
        named=named,
        before="\n            ".join(before),
    )
    found: dict[str, Any] = {}
    exec(compile(source, "<door>", "exec"), globals(), found)

    def door_before(function: FunctionType) -> FunctionType:
        door = found["made"](function)
        # Code of its own for each door: CPython remembers in the code which function it calls.
        code = door.__code__.replace(co_name=function.__name__)
        return FunctionType(code, globals(), function.__name__, None, door.__closure__)

    return door_before


_PLAIN = frozenset({float, int, bool, type(None)})


def _as_number(function: Callable[..., Any], name: str, value: Any) -> Any:
    if not _is_tensor(value):  # NumPy's numbers and fractions would give a result their own dtype
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if isinstance(value, np.bool_ | Integral):
            return int(value)
        return float(value) if isinstance(value, Real) else value
    if value.requires_grad or value.numel() != 1:
        got = f"a tensor of shape {value.shape}"
        hint = "take its .item()" if value.numel() == 1 else "take one of its elements"
        if value.requires_grad:
            got += " that requires a gradient, which does not flow through a number"
        raise OptionError(
            message(_operation(function), expected=f"{name} as a number", got=got, hint=hint)
        )
    return value.item()


def _with_numbers(
    function: Callable[..., Any],
    numbers: Mapping[int, str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, ...]:
    """``args``, and ``kwargs`` in place, with numbers where tensors were given for such."""
    for name in numbers.values():
        if name in kwargs:
            kwargs[name] = _as_number(function, name, kwargs[name])
    return tuple(
        _as_number(function, numbers[at], value) if at in numbers else value
        for at, value in enumerate(args)
    )


def accepts_dim(function: Callable[..., Any]) -> Callable[..., Any]:
    """Accept PyTorch's ``dim`` and ``keepdim`` for ``axis`` and ``keepdims``."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            renamed(kwargs)
        return function(*args, **kwargs)

    call.__renames__ = function  # type: ignore[attr-defined]
    call.__accepts_dim__ = True  # type: ignore[attr-defined]
    return call


def renamed(arguments: dict[str, Any]) -> dict[str, Any]:
    """Name ``dim`` and ``keepdim``, PyTorch's names, ``axis`` and ``keepdims``, in place."""
    if "dim" in arguments:
        arguments["axis"] = arguments.pop("dim")
    if "keepdim" in arguments:
        arguments["keepdims"] = arguments.pop("keepdim")
    if arguments.get("out", "") is None:  # np.sum(x) calls x.sum(axis=None, out=None)
        del arguments["out"]
    return arguments


def guard_namespace(namespace: dict[str, Any], *, methods: bool = True) -> None:
    """Put doors before the functions in a module's ``__all__``, and what its classes define."""
    module = namespace["__name__"]
    for name in namespace["__all__"]:
        value = namespace.get(name)
        if not str(getattr(value, "__module__", "")).startswith("gradlab"):
            continue
        if isinstance(value, type):
            guard_constructor(value)
            for cls in value.__mro__ if methods else ():
                if cls.__module__.startswith("gradlab."):
                    guard_methods(cls)
        elif (door := guarded(value)) is not value:
            namespace[name] = door
            if door.__module__ == inspect.unwrap(door).__module__:
                # Where pickle finds it under this name: the function's own module has it bare.
                door.__module__, door.__qualname__ = module, name


def guard_constructor(cls: type) -> None:
    """Put a door before the constructor that a class defines."""
    made = cls.__dict__.get("__init__")
    if isinstance(made, FunctionType) and not hasattr(made, "__door__"):
        cls.__init__ = guarded(made)  # type: ignore[misc]


def guard_methods(cls: type) -> None:
    """Put doors before the public methods that a class defines, if they take an argument."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, staticmethod) and not name.startswith("_"):
            setattr(cls, name, staticmethod(guarded(method.__func__)))
        if name.startswith("_") or not isinstance(method, FunctionType):
            continue
        if method.__code__.co_argcount + method.__code__.co_kwonlyargcount > 1:
            setattr(cls, name, guarded(method))


# ---------------------------------------------------------------------------- after a failure


def _second_try(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> tuple[Any] | None:
    """Call again with tensors where those were missing, or raise the clear error.

    Returns the result in a tuple; None where ``error`` is to be raised as it is.
    """
    if _passes(error):
        return None
    bound = _bind(function, args, kwargs)
    if bound is None:  # Python's own error for a wrong signature says it best
        return None
    name = _operation(function)
    refused = isinstance(error, GradlabError)
    # Ops take lists and arrays for tensors everywhere; others may have refused them on purpose.
    converts = function.__module__.startswith("gradlab.ops.") or not refused
    if converts and not name.endswith("_") and _convert(name, bound):
        try:
            return (function(*bound.args, **bound.kwargs),)
        except Exception as second:
            if _passes(second) or isinstance(second, GradlabError):
                raise
            raise _explained(name, bound, second) from second
    if refused:
        return None
    raise _explained(name, bound, error) from error


def _passes(error: Exception) -> bool:
    """Whether an error needs no explanation, or was raised in user code."""
    return isinstance(error, _PASSING) or _is_of_the_user(error.__traceback__)


# Files that are missing, warnings made errors, methods that a subclass has to define.
_PASSING = (OSError, Warning, NotImplementedError)


def _operation(function: Callable[..., Any]) -> str:
    """What messages call a function; constructors and layers go by the name of the class."""
    *_, owner, name = ("Tensor", *function.__qualname__.split("."))
    if owner in ("Tensor", "<locals>"):
        return name
    return owner if name in ("__init__", "forward") else f"{owner}.{name}"


def _is_of_the_user(traceback: TracebackType | None) -> bool:
    """Whether an error went through code that is neither gradlab's nor of a library it calls."""
    while traceback is not None:
        if _package(traceback.tb_frame) not in _LIBRARIES:
            return True
        traceback = traceback.tb_next
    return False


def _bind(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    if getattr(function, "__accepts_dim__", False):
        kwargs = renamed({**kwargs})
    try:
        return inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return None


def _convert(operation: str, bound: inspect.BoundArguments) -> bool:
    """Make tensors of the values that were given for tensors; whether there were any."""
    found = False
    # Whose device lists go to, and whose dtype the numbers in them take: see `from_value`.
    beside = next((value for _, value in _given(bound) if _is_tensor(value)), None)
    for parameter, value in _given(bound):
        kinds = set(_alternatives(parameter.annotation))
        several = parameter.kind is parameter.VAR_POSITIONAL or "Sequence[Tensor]" in kinds
        if not kinds & {"Tensor", "TensorLike", "Sequence[Tensor]"} or value is None:
            continue
        if parameter.name == "out":  # what is written to a copy is lost
            continue
        changed: Any = value
        if several and isinstance(value, list | tuple):
            if not all(map(_is_tensor, value)):
                changed = tuple(_as_tensor(operation, each, beside) for each in value)
        elif not several and not ("TensorLike" in kinds and isinstance(value, _NUMBERS)):
            changed = _as_tensor(operation, value, beside)
        if changed is not value:
            bound.arguments[parameter.name] = changed
            found = True
    return found


def _as_tensor(operation: str, value: Any, beside: Any) -> Any:
    from gradlab.devices import cpu
    from gradlab.tensor import Tensor, from_value, operand_beside

    if isinstance(value, Tensor) or not _holds_numbers(value):
        return value
    if beside is None:
        return from_value(value, cpu, operation=operation)
    return operand_beside(beside, value, operation)


_NUMBERS = (bool, int, float, complex, np.generic)


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple, *_NUMBERS)) or any(
        hasattr(type(value), name) for name in ("__array__", "__dlpack__")
    )


def _given(bound: inspect.BoundArguments) -> Iterator[tuple[inspect.Parameter, Any]]:
    """The arguments and their parameters, but for those left at the default."""
    for name, value in list(bound.arguments.items()):
        parameter = bound.signature.parameters[name]
        if value is not parameter.default:
            yield parameter, value


def _explained(operation: str, bound: inspect.BoundArguments, error: Exception) -> GradlabError:
    """The error in the user's terms: the argument that does not fit, or all that were given."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"{operation}: not enough memory; got {_described(bound)}")
    for parameter, value in _given(bound):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name != "self" and not _fits(parameter.annotation, value):
            kinds = _alternatives(parameter.annotation)
            expected = f"{parameter.name} as {' or '.join(map(_called, kinds))}"
            wrong = DTypeError if {"Tensor", "TensorLike"} & set(kinds) else OptionError
            return wrong(message(operation, expected=expected, got=show(value)))
    kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), OptionError)
    if isinstance(error, AttributeError | TypeError | KeyError | RecursionError):
        parameters = ", ".join(map(str, _public(bound.signature)))
        expected = f"arguments that fit {operation}({parameters})"
        return kind(message(operation, expected=expected, got=_described(bound)))
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return kind(printable(f"{operation}: {line}; got {_described(bound)}"))


# What is raised for what an array library or Python raised; the first that fits.
_KINDS: tuple[tuple[type[Exception], type[GradlabError]], ...] = (
    (IndexError, AxisError),
    (OverflowError, OptionError),
    (ArithmeticError, OptionError),
    (ValueError, ShapeError),
    (RecursionError, ShapeError),
    (KeyError, OptionError),
    (AttributeError, DTypeError),
    (TypeError, DTypeError),
)


def _public(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [each for each in signature.parameters.values() if each.name != "self"]


def _described(bound: inspect.BoundArguments) -> str:
    return ", ".join(
        f"{parameter.name}={show(value)}"
        for parameter, value in _given(bound)
        if parameter.name != "self"
    )


class _Short(reprlib.Repr):
    """`repr` that is one line, short, and fails for no value."""

    def repr_instance(self, x: Any, level: int) -> str:
        if hasattr(x, "_array"):
            return f"{x.dtype.name} {x.shape}"
        if isinstance(x, np.ndarray):
            return f"array of {x.dtype.name} {x.shape}"
        if isinstance(x, np.generic | np.dtype) or x is None or x is ... or x is NotImplemented:
            return repr(x)
        if isinstance(x, type) or callable(x):
            return getattr(x, "__name__", type(x).__name__)
        text = super().repr_instance(x, level)
        return type(x).__name__ if text.startswith("<") else text


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside gradlab that the call came from."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) == "gradlab":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "?").partition(".")[0]


_short = _Short()
_short.maxother = _short.maxstring = _short.maxlong = 60


def show(value: Any) -> str:
    """A value for a message: short, on one line, whatever it is."""
    try:
        text = _short.repr(value)
    except Exception:
        text = type(value).__name__
    return " ".join(text.split())


# -------------------------------------------------------------------------------- annotations


@functools.cache
def _alternatives(annotation: Any) -> tuple[str, ...]:
    """The kinds of values that an annotation allows: ``float | None`` allows two."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    parts.append(current.strip())
    return tuple(name for part in parts for name in _ALIASES.get(part, (part,)))


_ALIASES: Mapping[str, tuple[str, ...]] = {"Axis": ("int", "Sequence[int]", "None")}


def _is_integer(value: Any) -> bool:
    try:
        operator.index(value)
    except Exception:  # whatever a stranger's __index__ raises
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.number) or _is_integer(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or (
        hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str)
    )


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "_array")


_CHECKS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "Tensor": ("a tensor", _is_tensor),
    "TensorLike": ("a tensor or a number", lambda value: _is_tensor(value) or _is_number(value)),
    "int": ("an integer", _is_integer),
    "float": ("a number", _is_number),
    "bool": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "str": ("a string", lambda value: isinstance(value, str)),
    "None": ("None", lambda value: value is None),
    "Generator": ("a Generator", lambda value: type(value).__name__ == "Generator"),
    "Sequence[int]": (
        "a sequence of integers",
        lambda value: _is_sequence(value) and all(map(_is_integer, islice(value, 1000))),
    ),
    "Sequence[Tensor]": (
        "a sequence of tensors",
        lambda value: _is_sequence(value) and all(map(_is_tensor, islice(value, 1000))),
    ),
}


def _check_of(kind: str) -> tuple[str, Callable[[Any], bool]] | None:
    if kind in _CHECKS:
        return _CHECKS[kind]
    if kind.startswith("Sequence"):
        return "a sequence", _is_sequence
    if kind.startswith("Callable"):
        return "a function", callable
    return None


def _called(kind: str) -> str:
    check = _check_of(kind)
    return kind if check is None else check[0]


def _fits(annotation: Any, value: Any) -> bool:
    checks = [_check_of(kind) for kind in _alternatives(annotation)]
    try:
        return any(check is None or check[1](value) for check in checks)
    except Exception:  # an object that refuses to be looked at
        return False
