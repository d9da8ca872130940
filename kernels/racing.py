"""`race`: every rung of a kernel family on the same data, checked, timed and set side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import Any

import numpy as np
from gradlab.kernels import ladder
from gradlab.kernels.cuda import driver

DTYPES = ("float16", "bfloat16", "float32", "float64")
COLUMNS = ("rung", "check", "error", "time", "rate", "of ceiling", "× library")
_SECONDS = 0.5  # about how long one rung is timed


@dataclass
class Row:
    """One rung's result. ``error`` is ‖result − exact‖/‖exact‖; None stands for not measured.

    ``seconds`` is the median of several runs, ``rate`` in TFLOP/s or GB/s, ``share`` the part of
    the machine's ceiling, ``ratio`` the library's time over this one's (above 1 is faster).
    """

    rung: str
    ok: bool
    error: float | None = None
    seconds: float | None = None
    rate: float | None = None
    share: float | None = None
    ratio: float | None = None
    note: str = ""


@dataclass
class Ceiling:
    """What the machine reached in the same run: bytes and floating-point operations per second."""

    copy_bandwidth: float
    matmul_flops: float | None = None


@dataclass(repr=False)
class RaceResult:
    """What `race` found: a `Row` per rung of the ladder, from its bottom up.

    ``str()`` is the table, which `race` has printed already, so that ``repr()`` is a line.
    """

    family: str
    function: str
    problem: dict[str, Any]
    device: str
    unit: str
    tolerance: float
    ceiling: Ceiling | None = None
    untimed: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where every rung that ran was right."""
        return all(row.ok for row in self.rows if row.error is not None)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        what = next(self._head())
        return f"<RaceResult {what}: {'right' if self.ok else 'WRONG'}, {len(self.rows)} rungs>"

    def _lines(self) -> Iterator[str]:
        yield from self._head()
        for row in self.rows:
            yield self._line(row)
        if self.untimed:
            yield f"No times: {self.untimed}."

    def _head(self) -> Iterator[str]:
        sizes = ", ".join(f"{name}={value}" for name, value in self.problem.items())
        yield f"{self.function}, {sizes}, on {self.device}"
        if self.ceiling is not None:
            peak = self.ceiling.matmul_flops
            flops = f", matmul {peak / 1e12:.4g} TFLOP/s" if peak else ""
            yield f"ceiling: copy {self.ceiling.copy_bandwidth / 1e9:.4g} GB/s{flops}"
        yield self._cells(COLUMNS)

    def _line(self, row: Row) -> str:
        cells = [row.rung, "ok" if row.ok else "WRONG", _number(row.error, ".1e")]
        if row.error is None:
            cells[1] = "left out"
        cells += [
            _duration(row.seconds),
            "" if row.rate is None else f"{row.rate:.4g} {self.unit}",
            "" if row.share is None else f"{row.share:.1%}",
            _number(row.ratio, ".3f"),
        ]
        return self._cells(cells) + (f"  {row.note}" if row.note else "")

    def _cells(self, cells: Sequence[str]) -> str:
        shown = cells[:3] if self.untimed else cells
        widths = (12, 9, 8, 10, 14, 11, 10)
        return " ".join(
            f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(shown, widths, strict=False))
        ).rstrip()


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"


# ------------------------------------------------------------------------------------- problems


@dataclass
class Problem:
    """What the rungs compute: the function, its inputs, the exact result and what it costs.

    ``length`` is the number of terms in a sum, on which rounding errors grow. ``flops`` is 0 where
    memory is the limit in any case.
    """

    family: str
    function: str
    sizes: dict[str, Any]
    dtype: np.dtype
    inputs: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    exact: Callable[..., Any]
    options: dict[str, Any]
    length: int
    flops: float
    bytes: float

    @property
    def tolerance(self) -> float:
        """What a right result keeps to: rounding of n terms added up one by one, and of the result.

        The error of such a sum grows with √n where roundings are independent (Higham, Accuracy and
        Stability of Numerical Algorithms, §2.8); 4 leaves room.
        """
        single = np.finfo(np.float64 if self.dtype == np.float64 else np.float32).eps
        rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(self.dtype.name, 0.0)
        return float(4 * single * math.sqrt(max(self.length, 1)) + 2 * rounding)


def _matmul(dtype: np.dtype, m: int = 1024, n: int = 1024, k: int = 1024) -> Problem:
    return Problem(
        "matmul", "matmul", {"m": m, "n": n, "k": k}, dtype,
        lambda rng: (_normal(rng, (m, k), dtype), _normal(rng, (k, n), dtype)),
        lambda xp, a, b: xp.matmul(a, b),
        {}, max(k, 1), 2.0 * m * n * k, float(dtype.itemsize * (m * k + k * n + m * n)),
    )  # fmt: skip


def _softmax(dtype: np.dtype, rows: int = 4096, columns: int = 4096) -> Problem:
    def exact(xp: Any, x: Any) -> Any:
        y = xp.exp(x - x.max(axis=-1, keepdims=True))
        return y / y.sum(axis=-1, keepdims=True)

    return Problem(
        "softmax", "softmax", {"rows": rows, "columns": columns}, dtype,
        lambda rng: (_normal(rng, (rows, columns), dtype),), exact,
        {"axis": 1}, columns, 0.0, 2.0 * rows * columns * dtype.itemsize,
    )  # fmt: skip


def _cross_entropy(dtype: np.dtype, rows: int = 4096, columns: int = 4096) -> Problem:
    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return _normal(rng, (rows, columns), dtype), rng.integers(0, columns, rows)

    def exact(xp: Any, x: Any, target: Any) -> Any:
        largest = x.max(axis=1, keepdims=True)
        total = xp.log(xp.exp(x - largest).sum(axis=1, keepdims=True)) + largest
        return (total - xp.take_along_axis(x, target[:, None], axis=1)).mean()

    return Problem(
        "cross_entropy", "cross_entropy", {"rows": rows, "columns": columns}, dtype, inputs, exact,
        {}, rows + columns, 0.0, float(rows * (columns * dtype.itemsize + 8)),
    )  # fmt: skip


def _reduction(
    dtype: np.dtype,
    rows: int = 4096,
    columns: int = 4096,
    axis: int | None = -1,
    operation: str = "sum",
) -> Problem:
    results = {None: 1, 0: columns, 1: rows, -1: rows, -2: columns}
    if axis not in results:
        raise ValueError(f"kernels.race: expected axis to be None, 0, 1 or negative, got {axis!r}")
    count = results[axis]
    sizes = {"rows": rows, "columns": columns, "axis": axis, "operation": operation}
    axes = None if axis is None else (axis % 2,)
    return Problem(
        "reduction", operation, sizes, dtype,
        # Not around 0, where a sum is small beside its terms and its relative error says nothing.
        lambda rng: ((rng.random((rows, columns), np.float32) + 0.5).astype(dtype),),
        lambda xp, x: getattr(xp, operation)(x, axis=axes),
        {"axis": axes, "keepdims": False}, rows * columns // max(count, 1), 0.0,
        float((rows * columns + count) * dtype.itemsize),
    )  # fmt: skip


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "matmul": _matmul, "softmax": _softmax, "cross_entropy": _cross_entropy,
    "reduction": _reduction,
}  # fmt: skip


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    kind = np.float64 if dtype == np.float64 else np.float32
    return rng.standard_normal(shape, kind).astype(dtype)


def _problem(family: str, dtype: Any, sizes: dict[str, Any]) -> Problem:
    if family not in PROBLEMS:
        known = ", ".join(PROBLEMS)
        raise ValueError(f"kernels.race: expected a family among {known}, got {family!r}")
    import ml_dtypes  # noqa: F401 - gives NumPy the name bfloat16

    make = PROBLEMS[family]
    _check_sizes(family, list(signature(make).parameters)[1:], sizes)
    try:
        floating = np.dtype(dtype)
    except TypeError:
        floating = None
    if floating is None or floating.name not in DTYPES:
        raise ValueError(f"kernels.race: expected dtype among {', '.join(DTYPES)}, got {dtype!r}")
    problem = make(floating, **sizes)
    functions = ladder.RUNGS.get(problem.family, {})
    if problem.function not in functions:
        raise ValueError(
            f"kernels.race: expected operation to be one of {', '.join(sorted(functions))}, "
            f"got {problem.function!r}"
        )
    return problem


def _check_sizes(family: str, known: Sequence[str], sizes: dict[str, Any]) -> None:
    for name, value in sizes.items():
        if name not in known:
            raise ValueError(
                f"kernels.race: expected sizes of {family} among {', '.join(known)}, got {name}"
            )
        if name in ("axis", "operation"):
            continue
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(
                f"kernels.race: expected {name} to be an integer of 1 or more, got {value!r}"
            )


# ------------------------------------------------------------------------------------- the race


def race(
    family: str, *, dtype: Any = "float32", seed: int = 0, quiet: bool = False, **sizes: Any
) -> RaceResult:
    """Run every rung of a kernel family on the same random data; print and return a table.

    ``race("matmul", m=4096, n=4096, k=4096)``, ``race("softmax", rows=4096, columns=4096)``,
    ``race("cross_entropy", rows=4096, columns=4096)`` or
    ``race("reduction", rows=4096, columns=4096, axis=-1, operation="sum")``, each with a
    ``dtype``. Each rung's result is compared with the same in float64: ‖result − exact‖/‖exact‖
    must stay within the rounding of its sums. Memory for a result is NaN before a rung writes to
    it, so what it leaves out shows.

    Then each is timed on the GPU with CUDA events: warm, the median of several runs, caches cold,
    inputs taken in turn from several sets. The rate is in TFLOP/s where arithmetic limits the
    problem and in GB/s where memory does; the share is of what this machine reaches copying or
    multiplying matrices with cuBLAS, measured first; the ratio says how many times faster than the
    library a rung is.

    Without a GPU it raises `DeviceError`; in the emulator of the tests it compares results only.
    ``quiet`` prints nothing. Raises ValueError for a family or a size that does not exist.

    >>> import gradlab as gl
    >>> gl.kernels.race("conv")
    Traceback (most recent call last):
        ...
    ValueError: kernels.race: expected a family among matmul, softmax, cross_entropy, reduction, got
    'conv'
    """
    ladder.load_all()
    problem = _problem(family, dtype, sizes)
    machine = driver.current()
    result = RaceResult(
        family, problem.function, {**problem.sizes, "dtype": problem.dtype.name},
        machine.properties().name, "GB/s", problem.tolerance, untimed=machine.untimed,
    )  # fmt: skip
    sets = _input_sets(machine, problem, np.random.default_rng(seed))
    if not result.untimed:
        result.ceiling = _measure_ceiling(machine, problem)
        result.unit = "TFLOP/s" if _is_compute_bound(problem, result.ceiling) else "GB/s"
    say: Callable[[str], None] = _silent if quiet else _say
    for line in result._head():
        say(line)
    exact = _exact(machine, problem, sets[0])
    for name in ladder.names(family, problem.function):
        row = _run(machine, problem, name, sets, exact, result)
        result.rows.append(row)
        say(result._line(row))
    _compare_with_library(result)
    if result.untimed:
        say(f"No times: {result.untimed}.")
    elif any(row.ratio is not None for row in result.rows):
        ratios = (f"{row.rung} {row.ratio:.3f}" for row in result.rows if row.ratio is not None)
        say(f"times faster than the library: {', '.join(ratios)}")
    return result


def _say(line: str) -> None:
    # As each rung ends: the lowest ones take their time.
    print(line, flush=True)  # noqa: T201


def _silent(line: str) -> None:
    del line


def _input_sets(machine: Any, problem: Problem, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Random inputs, in so many sets that the L2 cache cannot hold them all."""
    index = machine.current_device()
    first = tuple(machine.to_device(x, index) for x in problem.inputs(rng))
    size = sum(x.nbytes for x in first)
    count = min(8, max(2, -(-3 * machine.properties().l2_size // max(size, 1))))
    # The same values elsewhere in memory and in another order.
    return [first, *(tuple(_rolled(machine.xp, x, i) for x in first) for i in range(1, count))]


def _rolled(xp: Any, x: Any, by: int) -> Any:
    # As integers: what CuPy can do with bfloat16 is not much.
    return xp.roll(x.view(f"uint{8 * x.itemsize}"), by, axis=0).view(x.dtype)


def _exact(machine: Any, problem: Problem, inputs: tuple[Any, ...]) -> Any:
    wide = (x.astype(np.float64) if x.dtype == problem.dtype else x for x in inputs)
    return machine.xp.asarray(problem.exact(machine.xp, *wide))


def _run(
    machine: Any, problem: Problem, name: str, sets: Any, exact: Any, result: RaceResult
) -> Row:
    rung = ladder.RUNGS[problem.family][problem.function][name]
    why = rung.refuses(*sets[0], **problem.options)
    if why:
        return Row(name, ok=False, note=why)
    try:
        error = _error(machine, problem, rung, sets, exact)
    except Exception as failure:  # one broken rung does not end the race
        first = (str(failure).splitlines() or [""])[0]
        return Row(name, ok=False, error=math.nan, note=f"{type(failure).__name__}: {first}")
    row = Row(name, ok=error <= problem.tolerance, error=error)  # a NaN is not
    if row.ok and not result.untimed:  # how fast a wrong result comes means nothing
        _time(machine, problem, rung, sets, row, result)
    return row


def _result(returned: Any) -> Any:
    # A loss comes with what its backward pass needs.
    return returned[0] if isinstance(returned, tuple) else returned


def _error(machine: Any, problem: Problem, rung: Any, sets: Any, exact: Any) -> float:
    xp = machine.xp
    # A result whose memory becomes free full of NaN; the allocator gives the next one the same
    # block. Anything a rung does not write to is then NaN, and so is the error.
    stale = _result(rung.run(*sets[-1], **problem.options))
    if stale.flags.c_contiguous:
        stale.reshape(-1).view(np.uint8)[...] = 0xFF  # a NaN in every format
    else:
        stale[...] = math.nan
    del stale
    found = _result(rung.run(*sets[0], **problem.options))
    if found.shape != exact.shape or found.dtype != problem.dtype:
        raise ValueError(f"expected {problem.dtype} {exact.shape}, got {found.dtype} {found.shape}")
    difference = found.astype(np.float64) - exact
    norms = [float(machine.to_host(xp.sqrt((x * x).sum()))) for x in (difference, exact)]
    return norms[0] / norms[1] if norms[1] else norms[0]


# ---------------------------------------------------------------------------------------- times


def _time(
    machine: Any, problem: Problem, rung: Any, sets: Any, row: Row, result: RaceResult
) -> None:
    turn = 0

    def call() -> None:
        nonlocal turn
        turn = (turn + 1) % len(sets)
        rung.run(*sets[turn], **problem.options)

    ceiling = result.ceiling
    assert ceiling is not None
    row.seconds = seconds = _median(machine, call)
    if result.unit == "TFLOP/s":
        row.rate, best = problem.flops / seconds / 1e12, ceiling.matmul_flops
        row.share = None if best is None else problem.flops / seconds / best
    else:
        row.rate = problem.bytes / seconds / 1e9
        row.share = problem.bytes / seconds / ceiling.copy_bandwidth


def _median(machine: Any, call: Callable[[], Any]) -> float:
    call()
    once = machine.timed(call, 1)[0]
    repeats = int(min(50, max(3, _SECONDS / max(once, 1e-9))))
    return float(np.median(machine.timed(call, repeats)))


def _measure_ceiling(machine: Any, problem: Problem) -> Ceiling:
    xp = machine.xp
    free = machine.memory(machine.current_device())["free"]
    size = min(1 << 29, free // 8)  # far beyond the cache, and no load on a small GPU
    source = xp.zeros(size, np.uint8)
    target = xp.empty_like(source)
    copy = 2 * size / _median(machine, lambda: xp.copyto(target, source))
    return Ceiling(copy, _peak_matmul(machine, problem) if problem.flops else None)


def _peak_matmul(machine: Any, problem: Problem) -> float | None:
    size = 4096 if problem.dtype.itemsize > 4 else 8192
    library = ladder.RUNGS["matmul"]["matmul"].get("cublas")
    rng = np.random.default_rng(0)
    square = machine.to_device(_normal(rng, (size, size), problem.dtype), machine.current_device())
    if library is None or library.refuses(square, square):
        return None
    return 2.0 * size**3 / _median(machine, lambda: library.run(square, square))


def _is_compute_bound(problem: Problem, ceiling: Ceiling) -> bool:
    if not problem.flops or ceiling.matmul_flops is None:
        return bool(problem.flops)
    return problem.flops / ceiling.matmul_flops > problem.bytes / ceiling.copy_bandwidth


def _compare_with_library(result: RaceResult) -> None:
    seconds = {row.rung: row.seconds for row in result.rows}
    library = next((seconds[name] for name in ladder.LIBRARIES if seconds.get(name)), None)
    for row in result.rows:
        if library is not None and row.seconds is not None:
            row.ratio = library / row.seconds
