"""The sections of a run: what each does, and for how long it may.

Nothing is timed whose result was not compared with float64 (`benchmarks.gpu.verify`).

`python -m benchmarks.gpu.sections NAME --out FILE` runs one and writes a line of JSON before and
after each piece of it, so that nothing is lost where a piece takes the process down.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.machine import Machine, is_fatal, median
from benchmarks.gpu.verify import Limit, Verdict, compare, poisoned, seed

Record = dict[str, Any]
Piece = tuple[str, Callable[[], Record]]

CORES = os.cpu_count() or 2
# Processes that share a GPU take turns on it at every wait: more of them would not be faster.
SHARDS = max(2, min(6, CORES - 2))
COMPILING = max(2, min(14, CORES - 2))  # processes of the section that only compiles


class Section(NamedTuple):
    """``pieces(machine)`` yields titles and functions; ``seconds`` is the most it may take.

    A piece that takes longer than ``patience`` is taken to hang: its process is ended, and another
    continues with the next piece. ``part`` is the part of a run that it belongs to: check, time or
    sanitize.
    """

    name: str
    pieces: Callable[[Machine], Iterable[Piece]]
    seconds: float
    shards: int = 1  # processes that share the pieces
    patience: float = 25.0
    part: str = "time"


# --------------------------------------------------------------------------------------- ceilings


def ceilings(machine: Machine) -> Iterator[Piece]:
    """What the machine reaches at best: bytes copied, and products of the vendor's library."""
    yield "copy", lambda: _copy(machine)
    for dtype in ("float32", "bfloat16", "float16", "float64", "tf32"):
        yield f"matmul {dtype}", partial(_peak_matmul, machine, dtype)


def _copy(machine: Machine) -> Record:
    from benchmarks.gpu.cases import normal

    count = 64 if machine.dry else 1 << 28
    sets = [normal(machine, (count,), "float32", seed("copy", machine.seed), i) for i in range(2)]
    with poisoned(machine):
        y = machine.xp.empty(count, "float32")
    found = machine.seconds({"copy": lambda i: machine.xp.copyto(y, sets[i % 2])}, 1.0)
    machine.xp.copyto(y, sets[1])
    verdict = compare(machine, y, sets[1].astype("float64"), Limit())
    seconds = None if verdict.wrong else median(found["copy"])
    return {
        "bytes_per_second": None if seconds is None else 2 * y.nbytes / seconds,
        "failures": [f"copy: {verdict.wrong}"] if verdict.wrong else [],
    }


def _peak_matmul(machine: Machine, dtype: str) -> Record:
    from benchmarks.gpu.cases import normal

    n = 33 if machine.dry else 4096 if dtype == "float64" else 8192
    stored = "float32" if dtype == "tf32" else dtype
    chosen = seed("peak", dtype, machine.seed)
    sets = [tuple(normal(machine, (n, n), stored, chosen + i, j) for j in range(2))
            for i in range(2)]  # fmt: skip
    peers: dict[str, Any] = {"cublas": lambda i: sets[i % 2][0] @ sets[i % 2][1]}
    if dtype == "tf32":
        del peers["cublas"]
    if machine.torch is not None:
        tensors = [tuple(machine.to_torch(x) for x in pair) for pair in sets]
        peers["pytorch"] = lambda i: tensors[i % 2][0] @ tensors[i % 2][1]
        machine.torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    able, _ = _those_that_run(machine, peers)
    exact = machine.xp.matmul(*(x.astype("float64") for x in sets[0]))
    limit = Limit(norm=1e-3) if dtype == "tf32" else Limit(n, math.sqrt(n), slack=PEERS_SLACK)
    right, wrong = {}, []
    for name, step in able.items():
        verdict = _judged(machine, step, 0, partial(_against, exact, limit))
        if verdict.wrong:
            wrong.append(f"{name}: {verdict.wrong}")
        else:
            right[name] = step
    times = [median(each) for each in machine.seconds(right, 1.0).values()] if right else []
    best = min((each for each in times if each), default=None)
    return {"flops_per_second": None if best is None else 2.0 * n**3 / best, "failures": wrong}


def _those_that_run(machine: Machine, peers: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The peers that can do it at all, and what the others said: some do not know a dtype."""
    able, said = {}, {}
    for name, step in peers.items():
        try:
            step(0)
            machine.wait()
        except Exception as error:
            if is_fatal(error):
                raise
            said[name] = _line(error)
            continue
        able[name] = step
    return able, said


# ------------------------------------------------------------------------------------ compilation


def compilation(machine: Machine) -> Iterator[Piece]:
    """Every module for this GPU, on all cores, so that no later section waits for the compiler.

    In processes rather than threads: nothing that they share makes one wait for another.
    """
    from gradlab.kernels.cuda import resources

    capability = machine.driver.properties().capability
    wanted = [each for each in resources.variants() if each.capability <= capability]
    for i in range(COMPILING):
        yield f"modules, part {i + 1}", partial(_compile, machine, wanted[i::COMPILING])


_LAST_START = 70.0  # seconds after which no module is begun


def _compile(machine: Machine, wanted: list[Any]) -> Record:
    from gradlab.kernels.cuda import compiler

    arch = compiler.architecture(machine.driver.properties().capability)
    start = time.perf_counter()
    failures, left = [], 0
    for variant in [] if machine.dry else wanted:
        if time.perf_counter() - start > _LAST_START:
            left += 1  # whoever needs it compiles it
            continue
        try:
            compiler.cubin(variant.source, variant.defines, arch)
        except RuntimeError as error:
            failures.append(str(error))
    return {
        "modules": len(wanted) - left, "modules_left": left, "failures": failures,
        "compiling_seconds": time.perf_counter() - start,
    }  # fmt: skip


# --------------------------------------------------------------------------------------- families


def family(name: str, machine: Machine) -> Iterator[Piece]:
    """The cases of a family, beside their peers."""
    from benchmarks.gpu.cases import FAMILIES

    cases = {f"{case.title}, {case.dtype}": case for case in FAMILIES[name](machine)}
    for title, case in cases.items():  # on the emulator several sizes are one
        yield title, partial(_time_case, machine, case)


PEERS_SLACK = 16.0  # the error that others' sums may have, times ours: some go one by one


def _time_case(machine: Machine, case: Any) -> Record:
    """Check each library's result, then time those that are right; nobody, where ours is wrong."""
    first = case.inputs(machine, 0)
    size = max(1, sum(x.nbytes for x in first))
    # Enough input sets that none is still in the L2 when its turn comes again.
    count = 1 if machine.dry else max(2, min(16, -(-4 * machine.l2_size // size)))
    sets = [first, *(case.inputs(machine, number) for number in range(1, count))]
    peers, said = _peers(machine, case, sets)
    able, refused = _those_that_run(machine, peers)
    said |= refused
    failures = [own] if (own := said.pop("gradlab", None)) else []
    errors, wrong = _check_peers(machine, case, able, sets[0], 0)
    times: dict[str, list[float]] = {}
    if not failures and "gradlab" not in wrong:
        times = machine.seconds({name: able[name] for name in errors}, 0.4)
        # Once more after the timing, on another input set.
        ours = {"gradlab": able["gradlab"]}
        _, late = _check_peers(machine, case, ours, sets[-1], count - 1)
        wrong |= {name: f"after the timing: {why}" for name, why in late.items()}
    if "gradlab" in wrong:
        failures.append(f"wrong: {wrong.pop('gradlab')}")
    said |= {name: f"wrong: {why}" for name, why in wrong.items()}
    return {
        "family_case": case.title, "dtype": case.dtype, "shapes": case.shapes,
        "flops": case.flops, "bytes": case.bytes, "ceiling": case.ceiling,
        "targets": [{"share": each.share, "faster_than": each.faster_than, "text": str(each)}
                    for each in case.targets],
        "headline": case.headline, "failures": failures, "peers_left_out": said,
        # A case that is wrong has no times, its peers' neither.
        "checked": {} if failures else errors,
        "seconds": {} if failures else {name: median(each) for name, each in times.items()},
    }  # fmt: skip


def _peers(machine: Machine, case: Any, sets: list[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The libraries that are here, each with a step on its own kind of arrays."""
    import gradlab as gl

    wrapped = [tuple(gl.asarray(x, device="cuda") for x in arrays) for arrays in sets]
    forms: dict[str, Any] = {"gradlab": wrapped, "cublas": sets, "cupy": sets}
    said: dict[str, str] = {}
    if machine.torch is not None:
        machine.torch.backends.cuda.matmul.allow_tf32 = False
        try:
            tensors = [tuple(machine.to_torch(x) for x in arrays) for arrays in sets]
            forms |= {"pytorch": tensors, "triton": tensors}
        except (RuntimeError, TypeError, ValueError, BufferError) as error:
            said["pytorch"] = _line(error)
    return {
        name: partial(_call, function, forms[name])
        for name, function in case.peers.items()
        if name in forms
    }, said


def _call(function: Callable[..., Any], sets: list[Any], i: int) -> Any:
    return function(*sets[i % len(sets)])


def _check_peers(
    machine: Machine, case: Any, peers: dict[str, Any], arrays: Any, number: int
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The errors of those who are right on an input set, and what is wrong with the others."""
    if case.judge is None:
        as_float64 = [x.astype("float64") if x.dtype.kind in "fV" else x for x in arrays]
        exact = machine.xp.asarray(case.exact(machine.xp, *as_float64))
        del as_float64
    errors: dict[str, float | None] = {}
    wrong: dict[str, str] = {}
    for name, step in peers.items():
        if case.judge is not None:
            judge = partial(_by_judge, case.judge, name, arrays)
        else:
            slack = 1.0 if name == "gradlab" else PEERS_SLACK
            judge = partial(_against, exact, replace(case.limit, slack=slack * case.limit.slack))
        verdict = _judged(machine, step, number, judge)
        if verdict.wrong:
            wrong[name] = verdict.wrong
        else:
            errors[name] = verdict.error
    return errors, wrong


def _judged(
    machine: Machine, step: Callable[[int], Any], number: int, judge: Callable[..., Verdict]
) -> Verdict:
    """What a call gives in poisoned memory, judged. PyTorch's memory is its own: there the result
    of a first call is poisoned, whose memory the next one gets."""
    with poisoned(machine):
        result = step(number)
        if machine.torch is not None and isinstance(result, machine.torch.Tensor):
            result.detach().reshape(-1).view(machine.torch.uint8).fill_(0xFF)
            del result
            result = step(number)
        array = machine.array(result)
    return judge(machine, array)


def _against(exact: Any, limit: Limit, machine: Machine, result: Any) -> Verdict:
    return compare(machine, result, exact, limit)


def _by_judge(judge: Any, name: str, arrays: Any, machine: Machine, result: Any) -> Verdict:
    return Verdict(judge(machine, name, result, arrays))


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]


# ----------------------------------------------------------------------- optimizers and training


def optimizers(machine: Machine) -> Iterator[Piece]:
    """One step over the parameters of a model: many small tensors, and a few large ones."""
    shapes = {
        "100 tensors of 1,000,000": [(1000, 1000)] * 100,
        "500 tensors of 1,000": [(1000,)] * 500,
    }
    if machine.dry:
        shapes = {"5 tensors of 7": [(7,)] * 5}
    for title, each in shapes.items():
        for kind, options in (("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 1e-3})):
            yield f"{kind}, {title}", partial(_optimizer_step, machine, kind, options, each)


def _optimizer_step(machine: Machine, kind: str, options: Any, shapes: Any) -> Record:
    import gradlab as gl
    from benchmarks.gpu.cases import normal

    chosen = seed(kind, len(shapes), machine.seed)
    values, grads = (
        [normal(machine, shape, "float32", chosen + i, j) for j, shape in enumerate(shapes)]
        for i in range(2)
    )
    exact = _joined(machine, _exact_updates(machine.xp, kind, values, grads))
    made: dict[str, Any] = {"gradlab": lambda x: gl.asarray(x, device="cuda")}
    if machine.torch is not None:
        made["pytorch"] = machine.to_torch
    peers: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    errors: dict[str, float | None] = {}
    for name, wrap in made.items():
        parameters = [wrap(x.copy()).requires_grad_() for x in values]
        for parameter, g in zip(parameters, grads, strict=True):
            parameter.grad = wrap(g)
        library = gl if name == "gradlab" else machine.torch
        optimizer = getattr(library.optim, kind)(parameters, **options)
        with poisoned(machine):
            optimizer.step()
            optimizer.step()
        got = _joined(machine, [machine.array(p) for p in parameters])
        verdict = compare(machine, got, exact, Limit(terms=16, scale=1.0))
        _note(name, verdict, errors, wrong)
        peers[name] = _stepping(optimizer)
    size = sum(4 * math.prod(shape) for shape in shapes)
    moved = {"SGD": 5, "AdamW": 7}[kind]  # parameter, gradient, states: read, and written
    right = {} if "gradlab" in wrong else {name: peers[name] for name in errors}
    return {
        **_checked(errors, wrong),
        "seconds": _medians(machine.seconds, right, 0.5),
        "wall_seconds": _medians(machine.wall, right, 0.5),
        "bytes": float(moved * size), "ceiling": "copy",
    }  # fmt: skip


def _stepping(optimizer: Any) -> Callable[[int], Any]:
    return lambda i: optimizer.step()


def _note(name: str, verdict: Verdict, errors: dict[str, Any], wrong: dict[str, str]) -> None:
    if verdict.wrong:
        wrong[name] = verdict.wrong
    else:
        errors[name] = verdict.error


def _checked(errors: dict[str, Any], wrong: dict[str, str]) -> Record:
    """What a record says of its check: where ours is wrong, that nothing counts."""
    own = wrong.get("gradlab")
    return {
        "checked": {} if own else errors,
        "failures": [f"wrong: {own}"] if own else [],
        "peers_left_out": {n: f"wrong: {why}" for n, why in wrong.items() if n != "gradlab"},
    }


def _medians(measure: Any, peers: dict[str, Any], budget: float) -> dict[str, Any]:
    if not peers:
        return {}
    return {name: median(each) for name, each in measure(peers, budget).items()}


def _joined(machine: Machine, arrays: Any) -> Any:
    return machine.xp.concatenate([x.reshape(-1) for x in arrays])


def _exact_updates(xp: Any, kind: str, values: Any, grads: Any) -> Iterator[Any]:
    """Parameters after two steps with the same gradients, in float64."""
    for value, gradient in zip(values, grads, strict=True):
        p, g = value.astype("float64"), gradient.astype("float64")
        if kind == "SGD":  # buffers of g, then 0.9 g + g
            yield p - 0.1 * g - 0.1 * 1.9 * g
            continue
        mean, square = g * 0.0, g * 0.0
        for step in (1, 2):  # AdamW's defaults: betas (0.9, 0.999), eps 1e-8, decay 0.01
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
            root = xp.sqrt(square / (1 - 0.999**step)) + 1e-8
            p = p * (1 - 1e-3 * 0.01) - 1e-3 * mean / (1 - 0.9**step) / root
        yield p


def training(machine: Machine) -> Iterator[Piece]:
    """Whole steps (zero_grad, forward, backward, update) of multilayer perceptrons."""
    models = {
        "MLP 784-256-10, batch 256": (784, 256, 10, 256, 1),
        "MLP 784-1024-1024-10, batch 1024": (784, 1024, 10, 1024, 2),
        "MLP 4096-4096-4096-1000, batch 4096": (4096, 4096, 1000, 4096, 2),
    }
    if machine.dry:
        models = {"MLP 7-5-3, batch 4": (7, 5, 3, 4, 1)}
    for title, sizes in models.items():
        yield title, partial(_training_step, machine, *sizes)


LEARNING_RATE = 0.01


def _training_step(
    machine: Machine, inner: int, hidden: int, classes: int, batch: int, layers: int
) -> Record:
    import gradlab as gl
    from benchmarks.gpu.cases import normal

    chosen = seed("training", inner, batch, machine.seed)
    x = normal(machine, (batch, inner), "float32", chosen, 0)
    labels = machine.xp.asarray(np.random.default_rng(chosen).integers(0, classes, batch))
    widths = [inner, *[hidden] * layers, classes]

    def made(library: Any, wrap: Callable[[Any], Any]) -> tuple[Any, Any]:
        nn = library.nn
        parts = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
        model = nn.Sequential(*parts[:-1]).to("cuda")
        optimizer = library.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        inputs, targets = wrap(x), wrap(labels)

        def step(i: int) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    sides: dict[str, Any] = {"gradlab": made(gl, lambda x: gl.asarray(x, device="cuda"))}
    if machine.torch is not None:
        machine.torch.backends.cuda.matmul.allow_tf32 = False
        sides["pytorch"] = made(machine.torch, machine.to_torch)
    errors: dict[str, float | None] = {}
    wrong: dict[str, str] = {}
    for name, (model, step) in sides.items():
        _note(name, _check_step(machine, model, step, x, labels), errors, wrong)
    _, step = sides["gradlab"]
    gl.cuda.reset_statistics()
    step(0)
    passed = gl.cuda.statistics()
    right = {} if "gradlab" in wrong else {name: sides[name][1] for name in errors}
    record = _checked(errors, wrong)
    if passed.synchronizations:
        record["failures"].append("a step waited for the device")
    return {
        **record,
        "wall_seconds": _medians(machine.wall, right, 3.0),
        "statistics": passed._asdict(),
    }


def _check_step(machine: Machine, model: Any, step: Any, x: Any, labels: Any) -> Verdict:
    """The first step's loss, gradients and updates against float64.

    By their norms: where a unit's input is 0 but for rounding, the ReLU may take either side, and
    a few elements of the gradients differ.
    """
    parameters = list(model.parameters())
    before = [machine.array(p).astype("float64") for p in parameters]
    with poisoned(machine):
        loss = machine.array(step(0))
    exact, gradients = _exact_gradients(machine.xp, before, x.astype("float64"), labels)
    found = [compare(machine, loss, exact, Limit(terms=x.shape[1]))]
    for p, start, gradient in zip(parameters, before, gradients, strict=True):
        # The update is small beside the parameter, and its rounding shows.
        moved = machine.array(p).astype("float64") - start
        found += [
            compare(machine, machine.array(p.grad), gradient, Limit(norm=5e-3)),
            compare(machine, moved, -LEARNING_RATE * gradient, Limit(norm=5e-2)),
        ]
    worst = max((each.error or 0.0 for each in found[1::2]), default=0.0)
    return Verdict(next((each.wrong for each in found if each.wrong), ""), worst)


def _exact_gradients(xp: Any, parameters: list[Any], x: Any, labels: Any) -> tuple[Any, list[Any]]:
    """The loss of linear layers with ReLU between them, and its gradients."""
    weights, biases = parameters[::2], parameters[1::2]
    seen = [x]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        y = xp.matmul(seen[-1], weight.T) + bias
        seen.append(xp.maximum(y, 0.0) if i < len(weights) - 1 else y)
    scores = seen.pop()
    logs = scores - scores.max(axis=1, keepdims=True)
    logs = logs - xp.log(xp.exp(logs).sum(axis=1, keepdims=True))
    at = (xp.arange(len(labels)), labels)
    g = xp.exp(logs)
    g[at] = g[at] - 1
    g = g / len(labels)
    gradients: list[Any] = []
    for weight, x in zip(reversed(weights), reversed(seen), strict=True):
        gradients[:0] = [xp.matmul(g.T, x), g.sum(axis=0)]
        g = xp.matmul(g, weight) * (x > 0)
    return xp.asarray(-logs[at].mean()), gradients


def overhead(machine: Machine) -> Iterator[Piece]:
    """What a call costs beside its work: tiny inputs, many calls, one wait."""
    calls: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "x + y": (lambda x: x + x, lambda x: x + x),
        "x @ y": (lambda x: x @ x, lambda x: x @ x),
        "x.sum()": (lambda x: x.sum(), lambda x: np.asarray(x.sum())),
        "x.softmax(-1)": (
            lambda x: x.softmax(-1),
            lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
        ),
    }
    for title, (call, exact) in calls.items():
        yield title, partial(_overhead, machine, title, call, exact)


def _overhead(machine: Machine, title: str, call: Any, exact: Any) -> Record:
    import gradlab as gl
    from benchmarks.gpu.cases import normal

    x = normal(machine, (8, 8), "float32", seed(title, machine.seed), 0)
    inputs = {"gradlab": gl.asarray(x, device="cuda"), "cupy": x}
    if title == "x.softmax(-1)":
        del inputs["cupy"]
    if machine.torch is not None:
        inputs["pytorch"] = machine.to_torch(x)
    right = exact(machine.host(x).astype("float64"))
    errors: dict[str, float | None] = {}
    wrong: dict[str, str] = {}
    peers = {name: partial(_ignoring_number, call, each) for name, each in inputs.items()}
    for name, step in peers.items():
        judge = partial(_against, right, Limit(terms=64, scale=8.0))
        _note(name, _judged(machine, step, 0, judge), errors, wrong)
    timed = {} if "gradlab" in wrong else {name: peers[name] for name in errors}
    return {**_checked(errors, wrong), "wall_seconds": _medians(machine.wall, timed, 0.5)}


def _ignoring_number(call: Callable[[Any], Any], x: Any, i: int) -> Any:
    return call(x)


# --------------------------------------------------------------------------------------- checking


def kernels(machine: Machine) -> Iterator[Piece]:
    """Every module of every kernel that this GPU can be asked for, forced, against float64; and
    what else may take a kernel's place."""
    from benchmarks.gpu import rungs, variants

    for variant in variants.wanted(machine):
        work = partial(variants.force, machine, variant, machine.seed)
        yield variants.title(variant), work
    for rung in rungs.rungs():
        yield rungs.title(rung), partial(rungs.check, machine, rung)


def operations(machine: Machine) -> Iterator[Piece]:
    """Every op on its samples, in several dtypes, against the CPU; its gradients; and programs
    with the ops that have no samples."""
    from benchmarks.gpu import checks, programs

    for op in checks.sampled():
        yield op.name, partial(_in_poison, machine, checks.check, op, machine.dry)
    for name in programs.PROGRAMS:
        terms = 3000 if machine.dry else LONG
        work = partial(_in_poison, machine, checks.check_program, name, terms)
        yield f"program {name.replace('_', ' ')}", work


LONG = 20_000_000  # terms of a sum: beyond 2²⁴, up to which float32 counts


def _in_poison(machine: Machine, work: Callable[..., Record], *arguments: Any) -> Record:
    with poisoned(machine):
        return work(*arguments)


def sanitizer(machine: Machine) -> Iterator[Piece]:
    """compute-sanitizer over a few ops and variants of each family: bad accesses, and races."""
    from benchmarks.gpu import checks

    for tool in ("memcheck", "racecheck"):
        yield tool, partial(checks.sanitize, tool, machine.dry)


SECTIONS = {
    section.name: section
    for section in (
        Section("compilation", compilation, 80, COMPILING, patience=120, part="check"),
        Section("kernels", kernels, 150, SHARDS, patience=60, part="check"),
        Section("operations", operations, 220, SHARDS, part="check"),
        Section("ceilings", ceilings, 30),
        Section("matmul", partial(family, "matmul"), 80),
        Section("softmax", partial(family, "softmax"), 65),
        Section("reduction", partial(family, "reduction"), 65),
        Section("training", training, 40),
        Section("optimizers", optimizers, 30),
        Section("normalization", partial(family, "normalization"), 45),
        Section("random", partial(family, "random"), 25),
        Section("overhead", overhead, 15),
        Section("sanitizer", sanitizer, 420, shards=2, patience=420, part="sanitize"),
    )
}
PARTS = ("check", "time", "sanitize")


def names(part: str) -> list[str]:
    """The sections of a part of the run."""
    return [name for name, section in SECTIONS.items() if section.part == part]


def run(
    section: Section, machine: Machine, write: Callable[[Record], None], seconds: float,
    first: int = 0, shard: tuple[int, int] = (0, 1),
) -> None:  # fmt: skip
    """Run a section's pieces from number ``first`` on, telling ``write`` what begins and ends."""
    end = time.monotonic() + seconds
    pieces = list(section.pieces(machine))
    for number in range(first, len(pieces)):
        title, work = pieces[number]
        if number % shard[1] != shard[0]:
            continue
        if time.monotonic() > end:
            left = len(range(number, len(pieces), shard[1]))
            write({"left_out": left, "number": number})
            return
        write({"begin": title, "number": number})
        start = time.perf_counter()
        try:
            record = work()
        except Exception as error:
            record = {"failed": _line(error)}
            if is_fatal(error):  # this process can do nothing more with the GPU
                write({"title": title, **record, "took": time.perf_counter() - start})
                raise
        write({"title": title, **record, "took": time.perf_counter() - start})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.sections", description=__doc__)
    parser.add_argument("name", choices=SECTIONS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    shard = tuple(int(each) for each in options.shard.split("/"))
    with options.out.open("a", encoding="utf-8") as file:

        def write(record: Record) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        machine = Machine(options.dry_run, options.seed)
        _ = machine.torch, machine.triton  # imported before a piece is waited for
        write({"ready": True})
        run(SECTIONS[options.name], machine, write, options.seconds, options.first, shard)
    return 0


if __name__ == "__main__":
    sys.exit(main())
