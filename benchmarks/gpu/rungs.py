"""Every rung of the ladder where there are several: plain Python, the vendor's library, and ours.

What is offered to a user as the same function in other ways has to give the same result: each rung
is called on fresh random inputs and compared with NumPy's float64, in every dtype that it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from gradlab.kernels import ladder
from gradlab.kernels.cuda.driver import FLOATS
from gradlab.kernels.ladder import Rung
from gradlab.kernels.numba_cuda.launch import missing

from benchmarks.gpu.sections import PEERS_SLACK, Record
from benchmarks.gpu.variants import dtype_of, wide
from benchmarks.gpu.verify import Limit, compare, poisoned, seed


def rungs() -> list[Rung]:
    """The rungs of the functions that have several, from the bottom of the ladder up."""
    ladder.load_all()
    return [
        functions[function][name]
        for family, functions in ladder.RUNGS.items()
        for function in functions
        if len(names := ladder.names(family, function)) > 1
        for name in names
    ]


def title(rung: Rung) -> str:
    return f"{rung.function} by {rung.name}"


def check(machine: Any, rung: Rung) -> Record:
    """Call a rung in every dtype that it takes; what is wrong is listed."""
    if rung.name in ladder.READABLE and missing():
        return {"left_out_because": missing()}
    random = np.random.default_rng(seed(*rung[:3], machine.seed))
    failures: list[str] = []
    count, refused = 0, ""
    for dtype in FLOATS:
        for arrays, options in _calls(rung, random, dtype, machine.dry):
            given = [machine.driver.to_device(x, 0) for x in arrays]
            if why := rung.refuses(*given, **options):
                refused = why
                continue
            count += 1
            with poisoned(machine):
                got = rung.run(*given, **options)
            verdict = compare(machine, got, *_exact(rung, arrays, options))
            if got.dtype != arrays[0].dtype or verdict.wrong:
                shapes = " and ".join(str(x.shape) for x in arrays)
                wrong = verdict.wrong or f"the result is {got.dtype}"
                failures.append(f"{dtype} {shapes}, {options}: {wrong}")
    if not count:
        failures.append(f"it took no call: {refused}")
    return {"checks": count, "failures": failures}


def _calls(
    rung: Rung, random: Any, dtype: str, small: bool
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Inputs and options, of sizes that are no multiple of anything; ``small`` for the emulator,
    where each thread of a kernel in Python is one of the host's."""

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(dtype_of(dtype))

    if rung.family == "matmul":
        for m, k, n in ((1, 1, 1), (9, 20, 5)) if small else ((33, 65, 17), (70, 300, 130)):
            yield [normal(m, k), normal(k, n)], {}
            yield [normal(k, m).T, normal(n, k).T], {}
        return
    for shape in ((1, 2), (3, 70)) if small else ((5, 7), (33, 257), (3, 3001)):
        if rung.family == "softmax":
            yield [normal(*shape)], {"axis": 1}
            continue
        for axes in ((1,), (0,), None):
            x = normal(*shape)
            if rung.function == "prod":
                x = (1 + 0.01 * wide(x)).astype(x.dtype)
            yield [x], {"axis": axes, "keepdims": False}


def _exact(rung: Rung, arrays: list[Any], options: dict[str, Any]) -> tuple[Any, Limit]:
    """The result in float64, and how far from it a rung may be."""
    x, *rest = (wide(each) for each in arrays)
    if rung.family == "matmul":
        k = x.shape[1]
        return x @ rest[0], Limit(k, math.sqrt(k), slack=PEERS_SLACK)
    if rung.family == "softmax":
        logs = x - x.max(axis=1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
        exact = logs if rung.function == "log_softmax" else np.exp(logs)
        return exact, Limit(terms=x.shape[1], slack=PEERS_SLACK)
    exact = np.asarray(getattr(np, rung.function)(x, axis=options["axis"]))
    count = x.size // max(exact.size, 1)
    if rung.function == "prod":
        return exact, Limit(factors=count, slack=PEERS_SLACK)
    scale = {"sum": math.sqrt(count), "mean": 1 / math.sqrt(count)}.get(rung.function, 0.0)
    return exact, Limit(terms=count, scale=scale, slack=PEERS_SLACK)
