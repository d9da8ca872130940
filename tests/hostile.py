"""Calls the public API with arguments that do not fit, and tells what came of it.

Run as a program it is one worker: ``python tests/hostile.py PART OF SEED`` calls its share of all
calls, in a process whose memory is limited, and prints a JSON list of what went wrong: errors of
other types than gradlab's, and calls that did not return. tests/test_hostile.py runs the workers.
"""

from __future__ import annotations

import contextlib
import decimal
import faulthandler
import fractions
import importlib
import inspect
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 3  # of processor time, for one call
WAITING = 60  # seconds until a call that does nothing counts as hanging
MEMORY = 6 << 30


class Hang(BaseException):
    """A call that did not return in time."""


# ---------------------------------------------------------------------------------- arguments


def hostile() -> dict[str, Callable[[], Any]]:
    """Makers of values that some parameter will not expect, by name."""
    import gradlab as gl

    def itself() -> Any:
        made: list[Any] = [1.0]
        made.append(made)
        return made

    def deep() -> Any:
        made: Any = [1.0]
        for _ in range(5000):
            made = [made]
        return made

    class Bare:
        """Has nothing."""

    class Lying:
        """Says it has a shape and a length."""

        shape = "wide"
        ndim = dtype = device = None

        def __len__(self) -> int:
            return 1 << 40

        def __getitem__(self, index: Any) -> Any:
            raise KeyError(index)

    return {
        "None": lambda: None,
        "True": lambda: True,
        "0": lambda: 0,
        "2": lambda: 2,
        "-1": lambda: -1,
        "-7": lambda: -7,
        "2**31": lambda: 2**31,
        "-2**63": lambda: -(2**63),
        "2**70": lambda: 2**70,
        "10**400": lambda: 10**400,
        "0.5": lambda: 0.5,
        "-0.5": lambda: -0.5,
        "nan": lambda: float("nan"),
        "inf": lambda: float("inf"),
        "1e300": lambda: 1e300,
        "1j": lambda: 1 + 2j,
        "np.float64": lambda: np.float64(2.5),
        "np.int64": lambda: np.int64(1),
        "np.bool": lambda: np.bool_(True),
        "Decimal": lambda: decimal.Decimal("0.1"),
        "Fraction": lambda: fractions.Fraction(1, 3),
        "text": lambda: "mean",
        "empty text": lambda: "",
        "text with NUL": lambda: "a\0b",
        "bytes": lambda: b"abc",
        "ellipsis": lambda: ...,
        "slice": lambda: slice(None, None, -1),
        "[]": list,
        "()": lambda: (),
        "[1.0]": lambda: [1.0],
        "[[1.0, 2.0, 3.0]]": lambda: [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        "ragged": lambda: [[1.0], [2.0, 3.0]],
        "itself": itself,
        "deep": deep,
        "[None]": lambda: [None],
        "['a']": lambda: ["a", "b"],
        "(2, 3)": lambda: (2, 3),
        "(-1, -1)": lambda: (-1, -1),
        "(2**40, 2**40)": lambda: (2**40, 2**40),
        "65 ones": lambda: (1,) * 65,
        "dict": lambda: {"a": 1},
        "set": lambda: {1, 2},
        "range": lambda: range(3),
        "generator": lambda: (i for i in range(3)),
        "object": Bare,
        "lying": Lying,
        "class": lambda: Bare,
        "function": lambda: lambda *args: None,
        "module": lambda: os,
        "float array": lambda: np.arange(6.0).reshape(2, 3),
        "int array": lambda: np.arange(3),
        "object array": lambda: np.array([None, "a"], dtype=object),
        "text array": lambda: np.array(["a", "b"]),
        "date array": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
        "record array": lambda: np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        "dtype": lambda: gl.float64,
        "int8": lambda: gl.int8,
        "device": lambda: gl.device("cpu"),
        "tensor": lambda: gl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "int tensor": lambda: gl.tensor([0, 1, 1]),
        "bool tensor": lambda: gl.tensor([True, False]),
        "half tensor": lambda: gl.ones(2, 3, dtype=gl.float16),
        "bfloat16 tensor": lambda: gl.ones(2, 3, dtype=gl.bfloat16),
        "complex tensor": lambda: gl.tensor([1j, 2.0]),
        "number tensor": lambda: gl.tensor(2.0),
        "recorded number": lambda: gl.tensor(2.0, requires_grad=True),
        "recorded tensor": lambda: gl.ones(2, 3, requires_grad=True) * 2,
        "empty tensor": lambda: gl.ones(0, 3),
        "nan tensor": lambda: gl.full((2, 3), float("nan")),
        "huge empty tensor": lambda: gl.zeros(0, 2**40),
        "endless empty tensor": lambda: gl.zeros(2**40, 0),
        "8 axes": lambda: gl.ones(*(1,) * 8),
    }


def ordinary(name: str, annotation: str) -> Any:
    """A value that a parameter would usually get."""
    import gradlab as gl

    if name in ("dtype",):
        return None
    if name in ("index", "indices", "labels", "target") and "Tensor" in annotation:
        return gl.tensor([[0, 1, 0], [1, 0, 1]])
    for part, make in (
        ("Tensor", lambda: gl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])),
        ("Axis", lambda: 1),
        ("bool", lambda: False),
        ("int", lambda: 1),
        ("float", lambda: 0.5),
        ("str", lambda: "mean"),
        ("Callable", lambda: lambda x, *rest: x),
        ("Sequence", lambda: [1, 1]),
        ("None", lambda: None),
    ):
        if part in annotation:
            return make()
    return gl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


# ----------------------------------------------------------------------------------- targets

# What changes the process or the machine, waits for something on purpose, or is no function of
# its arguments alone.
LEFT_OUT = {
    "set_default_dtype", "set_default_tensor_type", "set_printoptions", "save", "load", "download",
    "FashionMNIST",    "set_default_device", "exit",
}  # fmt: skip
MODULES = (
    "gradlab", "gradlab.nn.functional", "gradlab.linalg", "gradlab.autograd",
    "gradlab.autograd.functional", "gradlab.nn.init", "gradlab.random", "gradlab.nn",
    "gradlab.nn.utils", "gradlab.optim", "gradlab.optim.lr_scheduler", "gradlab.distributions",
    "gradlab.data", "gradlab.cuda", "gradlab.testing", "gradlab.training",
)  # fmt: skip


def namespace(name: str) -> Any:
    import gradlab

    found: Any = gradlab
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        return found


def targets() -> dict[str, Callable[..., Any]]:
    """Every public function, class and method of tensors, by its name."""
    import gradlab as gl

    found: dict[str, Callable[..., Any]] = {}
    seen = set()
    for module in MODULES:
        space = namespace(module)
        for name in sorted(getattr(space, "__all__", dir(space))):
            value = getattr(space, name, None)
            if name.startswith("_") or name in LEFT_OUT or not callable(value):
                continue
            if id(value) in seen or (isinstance(value, type) and issubclass(value, BaseException)):
                continue
            if not getattr(value, "__module__", "").startswith("gradlab"):
                continue
            seen.add(id(value))
            found[f"{module.removeprefix('gradlab').lstrip('.') or 'gl'}.{name}"] = value
    for name in sorted(dir(gl.Tensor)):
        value = inspect.getattr_static(gl.Tensor, name)
        if inspect.isfunction(value) and not name.startswith("_"):
            found[f"Tensor.{name}"] = value
    return found | methods()


def instances() -> dict[str, Callable[[], Any]]:
    """Makers of objects whose public methods are called too."""
    import gradlab as gl

    nn, optim, distributions = gl.nn, gl.optim, gl.distributions

    def sgd() -> Any:
        return optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)

    third = gl.ones(3) / 3
    return {
        "Linear()": lambda: nn.Linear(3, 2),
        "Sequential()": lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
        "BatchNorm1d()": lambda: nn.BatchNorm1d(3),
        "Embedding()": lambda: nn.Embedding(3, 2),
        "CrossEntropyLoss()": nn.CrossEntropyLoss,
        "SGD()": sgd,
        "Adam()": lambda: optim.Adam(nn.Linear(3, 2).parameters()),
        "StepLR()": lambda: optim.lr_scheduler.StepLR(sgd(), 2),
        "ReduceLROnPlateau()": lambda: optim.lr_scheduler.ReduceLROnPlateau(sgd()),
        "Generator()": gl.Generator,
        "Normal()": lambda: distributions.Normal(0.0, 1.0),
        "Bernoulli()": lambda: distributions.Bernoulli(0.5),
        "Categorical()": lambda: distributions.Categorical(third),
        "Multinomial()": lambda: distributions.Multinomial(3, third),
        "Uniform()": lambda: distributions.Uniform(0.0, 1.0),
        "TensorDataset()": lambda: gl.data.TensorDataset(gl.ones(4, 2)),
        "DataLoader()": lambda: gl.data.DataLoader(gl.data.TensorDataset(gl.ones(4, 2)), 2),
    }


# Methods that do what they are asked for, however long it takes, and iterators, whose arguments
# are looked at when they are asked for values.
NOT_CALLED = {
    "bits", "named_modules", "named_parameters", "named_buffers", "parameters", "buffers",
}  # fmt: skip


def methods() -> dict[str, Callable[..., Any]]:
    """The public methods of an object of each kind, each called on an object of its own."""

    def bound(make: Callable[[], Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(make(), name)(*args, **kwargs)

        call.__signature__ = inspect.signature(getattr(make(), name))  # type: ignore[attr-defined]
        return call

    found = {}
    for kind, make in instances().items():
        cls = type(make())
        for name in sorted(dir(cls)):
            method = getattr(cls, name)
            if inspect.isfunction(method) and not name.startswith("_") and name not in NOT_CALLED:
                found[f"{kind}.{name}"] = bound(make, name)
    return found


def parameters(target: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):
        return []


def calls(part: int, of: int, seed: int, budget: int) -> Iterator[tuple[str, Any, list[Any], dict]]:
    """This worker's share of all calls: a target, and one argument (or two) exchanged."""
    makers = hostile()
    choices = random.Random(seed)
    for number, (name, target) in enumerate(targets().items()):
        own = random.Random(choices.random())
        if number % of != part:
            continue
        given = parameters(target)
        rows: list[dict[str, str]] = []
        for parameter in given:
            rows += [{parameter.name: value} for value in makers]
        for _ in range(len(rows) // 4):
            rows.append({p.name: own.choice(list(makers)) for p in given if own.random() < 0.7})
        own.shuffle(rows)
        for row in rows[:budget]:
            yield name, target, given, row


def arguments(target_name: str, given: list[Any], row: dict[str, str]) -> tuple[list[Any], dict]:
    makers = hostile()
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for i, p in enumerate(given):
        chosen = p.name in row
        if i == 0 and target_name.startswith("Tensor."):
            value = ordinary("x", "Tensor")
        elif chosen:
            value = makers[row[p.name]]()
        elif p.default is not p.empty or p.kind in (p.VAR_KEYWORD,):
            continue
        else:
            value = ordinary(p.name, str(p.annotation))
        if p.kind in (p.POSITIONAL_ONLY,) or (p.kind == p.POSITIONAL_OR_KEYWORD and len(args) == i):
            args.append(value)
        elif p.kind == p.VAR_POSITIONAL:
            if len(args) == i:
                args.append(value)
        elif p.kind == p.VAR_KEYWORD:
            if chosen:
                kwargs["unknown"] = value
        else:
            kwargs[p.name] = value
    return args, kwargs


# ------------------------------------------------------------------------------------- worker


def is_raw(error: BaseException, target: Any) -> bool:
    """Whether an error is another than gradlab's own, or Python's for a wrong signature."""
    from gradlab.errors import GradlabError

    if isinstance(error, GradlabError):
        return "\n" in str(error)
    if isinstance(error, OSError | NotImplementedError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, Hang) and any(
        frame.filename == __file__ and frame.name != "call" for frame in frames[1:]
    ):
        return False  # raised by an argument itself
    if isinstance(error, TypeError) and len(frames) <= 4:
        text = str(error)
        return not (
            "argument" in text
            and any(
                each in text for each in ("missing", "unexpected", "positional", "multiple values")
            )
        )
    return True


def set_timers(busy: float, waiting: float) -> None:
    """Raise `Hang` after ``busy`` seconds of processor time, or ``waiting`` by the clock.

    By the clock alone a call would hang wherever another process takes the processor.
    """
    signal.setitimer(signal.ITIMER_PROF, busy)
    signal.setitimer(signal.ITIMER_REAL, waiting)


def attempt(name: str, target: Any, given: list[Any], row: dict[str, str]) -> dict[str, Any] | None:
    args, kwargs = arguments(name, given, row)

    def alarm(number: int, frame: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGPROF, alarm)
    faulthandler.dump_traceback_later(2 * WAITING, exit=True, file=sys.__stderr__)
    set_timers(SECONDS, WAITING)
    try:
        result = target(*args, **kwargs)
        if inspect.isgenerator(result):
            next(result, None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        set_timers(0, 0)
        if not is_raw(error, target):
            return None
        frames = traceback.extract_tb(error.__traceback__)
        place = next(
            (
                f"{f.filename.rpartition('gradlab/')[2]}:{f.lineno} {f.name}"
                for f in reversed(frames)
                if "gradlab" in f.filename and "hostile" not in f.filename
            ),
            "?",
        )
        return {
            "call": name,
            "with": row,
            "error": type(error).__name__,
            "text": str(error)[:200],
            "place": place,
        }
    finally:
        set_timers(0, 0)
        faulthandler.cancel_dump_traceback_later()
    return None


def main(part: int, of: int, seed: int, budget: int) -> None:
    import gradlab as gl

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    for library in ("pandas", "sklearn.datasets"):  # seconds, which are not the first call's
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    found, count = [], 0
    out = sys.stdout
    log = Path(os.environ.get("HOSTILE_LOG", os.devnull))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, target, given, row in calls(part, of, seed, budget):
            log.write_text(f"{name} {row}")
            count += 1
            silent = io.StringIO()
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                problem = attempt(name, target, given, row)
            gl.set_grad_enabled(True)
            if problem is not None:
                found.append(problem)
    json.dump({"calls": count, "found": found}, out)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
