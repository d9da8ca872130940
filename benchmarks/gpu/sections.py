"""The sections of a run: what each does, and for how long it may.

`python -m benchmarks.gpu.sections NAME --out FILE` runs one and writes a line of JSON before and
after each piece of it, so that nothing is lost where a piece takes the process down.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.machine import Machine, is_fatal, median

Record = dict[str, Any]
Piece = tuple[str, Callable[[], Record]]


# Processes of the sections that compile: each kernel of CuPy, too, takes its time when first used.
SHARDS = max(2, min(14, (os.cpu_count() or 2) - 2))


class Section(NamedTuple):
    """``pieces(machine)`` yields titles and functions; ``seconds`` is the most it may take.

    A piece that takes longer than ``patience`` is taken to hang: its process is ended, and another
    goes on with the next piece.
    """

    name: str
    pieces: Callable[[Machine], Iterable[Piece]]
    seconds: float
    shards: int = 1  # processes that share the pieces
    patience: float = 25.0


# --------------------------------------------------------------------------------------- ceilings


def ceilings(machine: Machine) -> Iterator[Piece]:
    """What the machine reaches at best: bytes copied, and products of the vendor's library."""
    yield "copy", lambda: _copy(machine)
    for dtype in ("float32", "bfloat16", "float16", "float64", "tf32"):
        yield f"matmul {dtype}", partial(_peak_matmul, machine, dtype)


def _copy(machine: Machine) -> Record:
    count = 64 if machine.dry else 1 << 28
    sets = [machine.xp.ones(count, "float32") for _ in range(2)]
    y = machine.xp.empty(count, "float32")
    found = machine.seconds({"copy": lambda i: machine.xp.copyto(y, sets[i % 2])}, 1.0)
    seconds = median(found["copy"])
    return {"bytes_per_second": None if seconds is None else 2 * y.nbytes / seconds}


def _peak_matmul(machine: Machine, dtype: str) -> Record:
    from benchmarks.gpu.cases import normal

    n = 33 if machine.dry else 4096 if dtype == "float64" else 8192
    stored = "float32" if dtype == "tf32" else dtype
    sets = [tuple(normal(machine, (n, n), stored, i, j) for j in range(2)) for i in range(2)]
    peers: dict[str, Any] = {"cublas": lambda i: sets[i % 2][0] @ sets[i % 2][1]}
    if dtype == "tf32":
        del peers["cublas"]
    if machine.torch is not None:
        tensors = [tuple(machine.to_torch(x) for x in pair) for pair in sets]
        peers["pytorch"] = lambda i: tensors[i % 2][0] @ tensors[i % 2][1]
        machine.torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    able, _ = _those_that_run(machine, peers)
    times = [median(each) for each in machine.seconds(able, 1.0).values()]
    best = min((each for each in times if each), default=None)
    return {"flops_per_second": None if best is None else 2.0 * n**3 / best}


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
    for i in range(SHARDS):
        yield f"modules, part {i + 1}", partial(_compile, machine, wanted[i::SHARDS])


_COMPILING = 70.0  # seconds after which no module is begun


def _compile(machine: Machine, wanted: list[Any]) -> Record:
    from gradlab.kernels.cuda import compiler

    arch = compiler.architecture(machine.driver.properties().capability)
    start = time.perf_counter()
    failures, left = [], 0
    for variant in [] if machine.dry else wanted:
        if time.perf_counter() - start > _COMPILING:
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


def _time_case(machine: Machine, case: Any) -> Record:
    import gradlab as gl

    first = case.inputs(machine, 0)
    size = max(1, sum(x.nbytes for x in first))
    # Enough input sets that none is still in the L2 when its turn comes again.
    count = 1 if machine.dry else max(2, min(16, -(-4 * machine.l2_size // size)))
    sets = [first, *(case.inputs(machine, seed) for seed in range(1, count))]
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
    peers = {
        name: partial(_call, function, forms[name])
        for name, function in case.peers.items()
        if name in forms
    }
    able, refused = _those_that_run(machine, peers)
    said |= refused
    own = said.pop("gradlab", None)
    found = machine.seconds(able, 0.4)
    return {
        "family_case": case.title, "dtype": case.dtype, "shapes": case.shapes,
        "flops": case.flops, "bytes": case.bytes, "ceiling": case.ceiling,
        "targets": [{"share": each.share, "faster_than": each.faster_than, "text": str(each)}
                    for each in case.targets],
        "headline": case.headline,
        "seconds": {name: median(times) for name, times in found.items()},
        "error": None if own else _error(machine, case, first, wrapped[0]),
        "failures": [own] if own else [],
        "peers_left_out": said,
    }  # fmt: skip


def _call(function: Callable[..., Any], sets: list[Any], i: int) -> Any:
    return function(*sets[i % len(sets)])


def _error(machine: Machine, case: Any, arrays: Any, tensors: Any) -> float | None:
    """‖result − exact‖ / ‖exact‖, the exact result in float64 on the same device."""
    if case.exact is None or 6 * 8 * sum(x.size for x in arrays) > machine.memory:
        return None
    xp = machine.xp
    wide = [x.astype("float64") if x.dtype.kind in "fV" else x for x in arrays]
    exact = case.exact(xp, *wide).astype("float64")
    result = case.peers["gradlab"](*tensors)._array.astype("float64")
    norm = float(xp.sqrt((exact * exact).sum()))
    return float(xp.sqrt(((result - exact) ** 2).sum())) / (norm or 1.0)


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

    def made(library: Any, optim: Any) -> Any:
        parameters = []
        for shape in shapes:
            x = library.zeros(shape, device="cuda", requires_grad=True)
            x.grad = library.ones(shape, device="cuda")
            parameters.append(x)
        optimizer = getattr(optim, kind)(parameters, **options)
        return lambda i: optimizer.step()

    peers = {"gradlab": made(gl, gl.optim)}
    if machine.torch is not None:
        peers["pytorch"] = made(machine.torch, machine.torch.optim)
    size = sum(4 * _size(shape) for shape in shapes)
    moved = {"SGD": 5, "AdamW": 7}[kind]  # parameter, gradient, states: read, and written
    return {
        "seconds": {name: median(each) for name, each in machine.seconds(peers, 0.5).items()},
        "wall_seconds": {name: median(each) for name, each in machine.wall(peers, 0.5).items()},
        "bytes": float(moved * size), "ceiling": "copy",
    }  # fmt: skip


def _size(shape: tuple[int, ...]) -> int:
    import math

    return math.prod(shape)


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


def _training_step(
    machine: Machine, inner: int, hidden: int, classes: int, batch: int, layers: int
) -> Record:
    import gradlab as gl

    def made(library: Any) -> Any:
        nn = library.nn
        parts = []
        width = inner
        for _ in range(layers):
            parts += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        model = nn.Sequential(*parts, nn.Linear(width, classes)).to("cuda")
        optimizer = library.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        x = library.randn(batch, inner, device="cuda")
        labels = library.randint(0, classes, (batch,), device="cuda")

        def step(i: int) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    peers = {"gradlab": made(gl)}
    peers["gradlab"](0)
    gl.cuda.reset_statistics()
    peers["gradlab"](0)
    passed = gl.cuda.statistics()
    if machine.torch is not None:
        machine.torch.backends.cuda.matmul.allow_tf32 = False
        peers["pytorch"] = made(machine.torch)
    return {
        "wall_seconds": {name: median(each) for name, each in machine.wall(peers, 3.0).items()},
        "statistics": passed._asdict(),
        "failures": ["a step waited for the device"] if passed.synchronizations else [],
    }


def overhead(machine: Machine) -> Iterator[Piece]:
    """What a call costs beside its work: tiny inputs, many calls, one wait."""
    import gradlab as gl

    def on(make: Callable[[Any], Any]) -> dict[str, Any]:
        peers = {
            "gradlab": make(gl.ones((8, 8), device="cuda")),
            "cupy": make(machine.xp.ones((8, 8), "f4")),
        }
        if machine.torch is not None:
            peers["pytorch"] = make(machine.torch.ones((8, 8), device="cuda"))
        return peers

    calls: dict[str, dict[str, Any]] = {
        "x + y": on(lambda x: lambda i: x + x),
        "x @ y": on(lambda x: lambda i: x @ x),
        "x.sum()": on(lambda x: lambda i: x.sum()),
        "x.softmax(-1)": {
            name: step for name, step in on(lambda x: lambda i: x.softmax(-1)).items()
            if name != "cupy"
        },
    }  # fmt: skip
    for title, peers in calls.items():
        yield title, partial(_overhead, machine, peers)


def _overhead(machine: Machine, peers: dict[str, Any]) -> Record:
    found = machine.wall(peers, 0.5)
    return {"wall_seconds": {name: median(times) for name, times in found.items()}}


# --------------------------------------------------------------------------------------- checking


def operations(machine: Machine) -> Iterator[Piece]:
    """Every op on its samples, in several dtypes, against the CPU; and its gradients."""
    from benchmarks.gpu import checks

    for op in checks.sampled():
        yield op.name, partial(checks.check, op, machine.dry)


def sanitizer(machine: Machine) -> Iterator[Piece]:
    """compute-sanitizer over a few ops of each family: bad accesses, and races."""
    from benchmarks.gpu import checks

    for tool in ("memcheck", "racecheck"):
        yield tool, partial(checks.sanitize, tool, machine.dry)


SECTIONS = {
    section.name: section
    for section in (
        Section("ceilings", ceilings, 30),
        Section("compilation", compilation, 75, shards=SHARDS, patience=120),
        Section("operations", operations, 80, shards=SHARDS),
        Section("matmul", partial(family, "matmul"), 55),
        Section("softmax", partial(family, "softmax"), 40),
        Section("reduction", partial(family, "reduction"), 40),
        Section("training", training, 30),
        Section("optimizers", optimizers, 20),
        Section("normalization", partial(family, "normalization"), 25),
        Section("random", partial(family, "random"), 15),
        Section("overhead", overhead, 15),
        Section("sanitizer", sanitizer, 60, shards=2, patience=80),
    )
}


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
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    shard = tuple(int(each) for each in options.shard.split("/"))
    with options.out.open("a", encoding="utf-8") as file:

        def write(record: Record) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        machine = Machine(options.dry_run)
        run(SECTIONS[options.name], machine, write, options.seconds, options.first, shard)
    return 0


if __name__ == "__main__":
    sys.exit(main())
