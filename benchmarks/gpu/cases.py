"""What is timed: every family over a grid of sizes and dtypes, and the peers that do the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import gradlab as gl
from benchmarks.gpu.judges import judge_draws, judge_dropout
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.verify import Limit, seed
from gradlab.nn import functional as F

Arrays = tuple[Any, ...]


PEERS = {"cublas": "cuBLAS", "cupy": "CuPy", "pytorch": "PyTorch", "triton": "Triton"}


@dataclass(frozen=True)
class Target:
    """What is asked of a case: a share of the ceiling, or the speed relative to a peer's."""

    share: float | None = None
    faster_than: tuple[str, float] | None = None  # the peer, and the factor

    def __str__(self) -> str:
        if self.share is not None:
            return f"≥ {self.share:.0%} of the ceiling"
        assert self.faster_than is not None
        peer, factor = self.faster_than
        return f"≥ {factor:.2f}× {PEERS[peer]}"


@dataclass(frozen=True)
class Case:
    """One call on arrays of one dtype and shape.

    ``peers`` maps a library to a function of its own tensors. ``flops`` and ``bytes`` are what the
    call cannot do without: each input read once, each output written once. ``exact`` computes the
    result from float64 arrays of NumPy's kind, and a result has to keep to it within ``limit``.
    Random numbers have no such result: ``judge(machine, peer, result, arrays)`` says what is wrong
    with them.
    """

    title: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    peers: dict[str, Callable[..., Any]]
    flops: float = 0.0
    bytes: float = 0.0
    exact: Callable[..., Any] | None = None
    judge: Callable[[Machine, str, Any, Arrays], str] | None = None
    limit: Limit = Limit()  # noqa: RUF009 - it is frozen
    targets: tuple[Target, ...] = ()
    ceiling: str = "copy"  # or the dtype's "matmul"
    headline: bool = False  # a row of the README's table
    arrays: Callable[[Any, Any], Arrays] | None = field(default=None)

    def inputs(self, machine: Machine, number: int) -> Arrays:
        """The random arrays of an input set, on the device: of this case and this run alone."""
        chosen = seed(self.title, self.dtype, number, machine.seed)
        if self.arrays is not None:
            return self.arrays(machine, np.random.default_rng(chosen))
        return tuple(normal(machine, shape, self.dtype, chosen, i)
                     for i, shape in enumerate(self.shapes))  # fmt: skip


def normal(machine: Machine, shape: tuple[int, ...], dtype: str, seed: int, i: int) -> Any:
    """Standard normal numbers, drawn on the device."""
    drawn: Any = "float64" if dtype == "float64" else "float32"
    if machine.dry:
        values = np.random.default_rng((seed, i)).standard_normal(shape, drawn)
        return machine.xp.asarray(values).astype(_numpy_dtype(dtype))
    random = machine.xp.random.default_rng((seed, i))
    return random.standard_normal(shape, dtype=drawn).astype(_numpy_dtype(dtype))


def _numpy_dtype(name: str) -> Any:
    return getattr(gl, name)


def itemsize(dtype: str) -> int:
    return int(_numpy_dtype(dtype).itemsize)


def sized(dry: bool, *sizes: int) -> tuple[int, ...]:
    """The sizes; on the emulator much smaller ones."""
    return tuple(min(n, 33) for n in sizes) if dry else sizes


# --------------------------------------------------------------------------------------- matmul


def matmul(machine: Machine) -> Iterator[Case]:
    """Squares, layouts, skinny and batched products, and the MLP's with bias and ReLU."""
    float32 = Target(faster_than=("cublas", 0.95))
    half = Target(faster_than=("cublas", 0.90))
    grid = [
        ("float32", (4096, 4096, 4096), "nn", float32),
        ("bfloat16", (8192, 8192, 8192), "nn", half),
        ("float16", (8192, 8192, 8192), "nn", half),
        ("float32", (8192, 8192, 8192), "nn", None),
        ("float32", (2048, 2048, 2048), "nn", None),
        ("float32", (1024, 1024, 1024), "nn", None),
        ("bfloat16", (4096, 4096, 4096), "nn", None),
        ("bfloat16", (2048, 2048, 2048), "nn", None),
        ("bfloat16", (1024, 1024, 1024), "nn", None),
        ("float32", (4096, 4096, 4096), "nt", None),
        ("float32", (4096, 4096, 4096), "tn", None),
        ("bfloat16", (8192, 8192, 8192), "nt", None),
        ("bfloat16", (8192, 8192, 8192), "tn", None),
        ("bfloat16", (4095, 4097, 4099), "nn", None),
        ("float32", (4095, 4097, 4099), "nn", None),
        ("float32", (64, 4096, 4096), "nn", None),
        ("bfloat16", (64, 8192, 8192), "nn", None),
        ("bfloat16", (1, 8192, 8192), "nn", None),
        ("float32", (256, 256, 65536), "nn", None),
        ("bfloat16", (256, 256, 65536), "nn", None),
        ("float64", (2048, 2048, 2048), "nn", None),
    ]
    for dtype, (m, n, k), layout, target in grid:
        m, n, k = sized(machine.dry, m, n, k)
        yield _product(dtype, m, n, k, layout, target)
    b, n = (2, 9) if machine.dry else (64, 512)
    for dtype in ("float32", "bfloat16"):
        # CuPy multiplies bfloat16 with cuBLAS, but not batches of it.
        left_out = "cublas" if dtype == "bfloat16" else ""
        yield Case(
            f"matmul {b} × {n}×{n}×{n}", dtype, ((b, n, n), (b, n, n)),
            {name: function for name, function in _MATMUL.items() if name != left_out},
            flops=2.0 * b * n**3, bytes=3.0 * b * n * n * itemsize(dtype), exact=_exact_matmul,
            limit=_sums(n), ceiling="matmul",
        )  # fmt: skip
    for rows, inner, columns in ((256, 784, 256), (4096, 4096, 4096)):
        yield _linear_relu(*sized(machine.dry, rows, inner, columns))


def _sums(n: int) -> Limit:
    """The typical size of a sum of n products of standard normal numbers: √n."""
    return Limit(terms=n, scale=math.sqrt(n))


def _exact_matmul(xp: Any, a: Any, b: Any) -> Any:
    return xp.matmul(a, b)


_MATMUL: dict[str, Callable[..., Any]] = {
    "gradlab": lambda a, b: a @ b,
    "cublas": lambda a, b: a @ b,
    "pytorch": lambda a, b: a @ b,
}


def _product(dtype: str, m: int, n: int, k: int, layout: str, target: Target | None) -> Case:
    a = (m, k) if layout[0] == "n" else (k, m)
    b = (k, n) if layout[1] == "n" else (n, k)

    def turned(product: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arrays: Any) -> Any:
            *rest, a, b = arrays  # the exact one is given the namespace, too
            a = a if layout[0] == "n" else a.T
            return product(*rest, a, b if layout[1] == "n" else b.T)

        return run

    return Case(
        f"matmul {m}×{n}×{k}" + (f", {layout}" if layout != "nn" else ""), dtype, (a, b),
        {name: turned(product) for name, product in _MATMUL.items()},
        flops=2.0 * m * n * k, bytes=float((m * k + k * n + m * n) * itemsize(dtype)),
        exact=turned(_exact_matmul), limit=_sums(k), ceiling="matmul",
        targets=() if target is None else (target,), headline=target is not None,
    )  # fmt: skip


def _linear_relu(rows: int, inner: int, columns: int) -> Case:
    def pytorch(x: Any, w: Any, b: Any) -> Any:
        import torch

        return torch.nn.functional.linear(x, w, b).relu_()

    return Case(
        f"relu(linear), {rows} rows, {inner} to {columns}", "float32",
        ((rows, inner), (columns, inner), (columns,)),
        {
            "gradlab": lambda x, w, b: F.relu(F.linear(x, w, b)),
            "cublas": lambda x, w, b: (x @ w.T + b).clip(0, None),
            "pytorch": pytorch,
        },
        flops=2.0 * rows * inner * columns,
        bytes=4.0 * (rows * inner + inner * columns + rows * columns),
        exact=lambda xp, x, w, b: xp.maximum(xp.matmul(x, w.T) + b, 0), limit=_sums(inner),
        ceiling="matmul",
        targets=(Target(faster_than=("pytorch", 1.0)),), headline=True,
    )  # fmt: skip


# -------------------------------------------------------------------------------------- softmax


def softmax(machine: Machine) -> Iterator[Case]:
    """softmax and its kin along short, long and middle axes; backward; cross-entropy."""
    grid = [
        ("softmax", "float32", (8192, 4096), -1),
        ("softmax", "bfloat16", (8192, 8192), -1),
        ("softmax", "float32", (524288, 64), -1),
        ("softmax", "float32", (65536, 1024), -1),
        ("softmax", "float32", (4096, 32768), -1),
        ("softmax", "float32", (512, 262144), -1),
        ("softmax", "float32", (4096, 8192), 0),
        ("log_softmax", "float32", (8192, 8192), -1),
        ("logsumexp", "float32", (8192, 8192), -1),
    ]
    for name, dtype, shape, axis in grid:
        yield _softmax(machine, name, dtype, sized(machine.dry, *shape), axis)
    for dtype in ("float32", "bfloat16"):
        yield _softmax_backward(dtype, sized(machine.dry, 8192, 4096))
    for dtype in ("float32", "bfloat16"):
        yield _cross_entropy(machine, dtype, *sized(machine.dry, 8192, 50304), backward=False)
        yield _cross_entropy(machine, dtype, *sized(machine.dry, 8192, 50304), backward=True)


def _exact_softmax(name: str, axis: int) -> Callable[..., Any]:
    def exact(xp: Any, x: Any) -> Any:
        x = x - (top := x.max(axis=axis, keepdims=True))
        total = xp.exp(x).sum(axis=axis, keepdims=True)
        if name == "logsumexp":
            return (xp.log(total) + top).squeeze(axis)
        return x - xp.log(total) if name == "log_softmax" else xp.exp(x) / total

    return exact


def _softmax(machine: Machine, name: str, dtype: str, shape: tuple[int, ...], axis: int) -> Case:
    size, width = math.prod(shape), itemsize(dtype)
    written = size // shape[axis] if name == "logsumexp" else size
    plain = _exact_softmax(name, axis)
    peers: dict[str, Callable[..., Any]] = {
        "gradlab": lambda x: getattr(gl, name)(x, axis=axis),
        "cupy": lambda x: plain(machine.xp, x),
        "pytorch": lambda x: getattr(x, name)(axis),
    }
    if name == "softmax" and axis == -1 and machine.triton is not None:
        from benchmarks.gpu.triton_softmax import softmax as fused

        peers["triton"] = fused
    large = size * width > 64 << 20 or machine.dry
    # Rows of which all that are under way at once do not fit the L2 are read twice: at most 67%.
    share = 0.60 if axis == -1 and shape[-1] * width > 1 << 19 else 0.90
    return Case(
        f"{name}, {' × '.join(map(str, shape))}, axis {axis}", dtype, (shape,), peers,
        bytes=float((size + written) * width), exact=plain, limit=Limit(terms=shape[axis]),
        targets=(Target(share=share),) if large else (), headline=large and name == "softmax",
    )  # fmt: skip


def _exact_softmax_backward(xp: Any, x: Any) -> Any:
    y = _exact_softmax("softmax", -1)(xp, x)
    return y * (x - (x * y).sum(axis=-1, keepdims=True))


def _softmax_backward(dtype: str, shape: tuple[int, ...]) -> Case:
    def gradlab(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = x.softmax(-1)
        y.backward(x.detach())
        return x.grad

    return Case(
        f"softmax forward and backward, {' × '.join(map(str, shape))}", dtype, (shape,),
        {"gradlab": gradlab, "pytorch": gradlab},
        bytes=5.0 * math.prod(shape) * itemsize(dtype),
        exact=_exact_softmax_backward, limit=Limit(shape[-1], through=4),
    )  # fmt: skip


def _exact_cross_entropy(backward: bool, xp: Any, x: Any, labels: Any) -> Any:
    logs = _exact_softmax("log_softmax", -1)(xp, x)
    at = (xp.arange(len(labels)), labels)
    if not backward:
        return -logs[at].mean()
    gradient = xp.exp(logs)
    gradient[at] = gradient[at] - 1
    return gradient / len(labels)


def _cross_entropy(
    machine: Machine, dtype: str, rows: int, classes: int, *, backward: bool
) -> Case:
    def with_backward(run: Callable[..., Any]) -> Callable[..., Any]:
        def both(x: Any, labels: Any) -> Any:
            x = x.detach().requires_grad_()
            run(x, labels).backward()
            return x.grad

        return both if backward else run

    def pytorch(x: Any, labels: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(x, labels)

    def arrays(machine: Machine, random: Any) -> Arrays:
        labels = machine.xp.asarray(random.integers(0, classes, rows))
        return normal(machine, (rows, classes), dtype, int(random.integers(1 << 20)), 0), labels

    return Case(
        f"cross_entropy{' forward and backward' if backward else ''}, {rows} × {classes}", dtype,
        ((rows, classes),),
        {"gradlab": with_backward(F.cross_entropy), "pytorch": with_backward(pytorch)},
        bytes=(3.0 if backward else 1.0) * rows * classes * itemsize(dtype), arrays=arrays,
        exact=partial(_exact_cross_entropy, backward), limit=Limit(classes),
        targets=(Target(share=0.90),), headline=True,
    )  # fmt: skip


# ----------------------------------------------------------------------------------- reductions


def reduction(machine: Machine) -> Iterator[Case]:
    """Sums, extrema, variance and running sums along the last, the first, the middle, all axes."""
    grid = [
        ("sum", "float32", (16384, 8192), -1),
        ("sum", "float32", (16384, 8192), 0),
        ("sum", "float32", (134217728,), None),
        ("sum", "bfloat16", (16384, 8192), -1),
        ("sum", "float32", (512, 512, 512), 1),
        ("mean", "float32", (16384, 8192), -1),
        ("max", "float32", (16384, 8192), -1),
        ("argmax", "float32", (16384, 8192), -1),
        ("var", "float32", (16384, 8192), -1),
        ("prod", "float32", (16384, 8192), -1),
        ("any", "bool", (16384, 8192), -1),
        ("sum", "int32", (16384, 8192), -1),
        ("sum", "float64", (8192, 8192), -1),
        ("sum", "float32", (1048576, 64), -1),
        ("sum", "float32", (64, 1048576), 0),
        ("cumsum", "float32", (16384, 8192), -1),
        ("cumsum", "float32", (134217728,), 0),
    ]
    for name, dtype, shape, axis in grid:
        shape = sized(machine.dry, *shape)
        size = math.prod(shape)
        kept = size if name == "cumsum" else size // (size if axis is None else shape[axis])
        yield Case(
            f"{name}, {' × '.join(map(str, shape))}, axis {axis}", dtype, (shape,),
            _reduction_peers(name, axis),
            bytes=float(size * itemsize(dtype) + kept * 4),
            exact=_exact_reduction(name, axis), limit=_reduction_limit(name, size // kept),
            arrays=_reduction_inputs(name, dtype, shape),
            targets=(
                # One long series is read twice, once for the totals of its parts: at most 67%.
                Target(share=0.60 if name == "cumsum" and len(shape) == 1 else 0.90),
                Target(faster_than=("cupy", 1.5)),
            ),
            headline=dtype == "float32" and name in ("sum", "max", "var", "argmax"),
        )  # fmt: skip


def _reduction_limit(name: str, count: int) -> Limit:
    if name == "prod":
        return Limit(factors=count)
    scale = {"sum": math.sqrt(count), "mean": 1 / math.sqrt(count)}.get(name, 0.0)
    return Limit(terms=min(count, 4096), scale=scale)  # sums go in many parts at once


def _reduction_inputs(name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    """Inputs of which the result says something; None: standard normal numbers."""

    def arrays(machine: Machine, random: np.random.Generator) -> Arrays:
        x = normal(machine, shape, "float32", int(random.integers(1 << 31)), 0)
        if name == "prod":  # of standard normal numbers it would be 0
            return (1 + 0.01 * x,)
        if name == "any":  # about every third row has one
            return (x > 4.0,)
        return ((1000 * x).astype(dtype),)

    return arrays if name == "prod" or dtype in ("bool", "int32") else None


def _exact_reduction(name: str, axis: int | None) -> Callable[..., Any]:
    return lambda xp, x: getattr(xp, name)(x, axis=axis)


def _reduction_peers(name: str, axis: int | None) -> dict[str, Callable[..., Any]]:
    def pytorch(x: Any) -> Any:
        if name in ("max", "prod", "any") and axis is not None:
            return x.amax(axis) if name == "max" else getattr(x, name)(axis)
        if name == "var":
            return x.var(axis, correction=0)
        return getattr(x, name)() if axis is None else getattr(x, name)(axis)

    def gradlab(x: Any) -> Any:
        options = {"correction": 0} if name == "var" else {}
        return getattr(gl, name)(x, axis=axis, **options)

    return {
        "gradlab": gradlab,
        "cupy": lambda x: getattr(x, name)(axis=axis),
        "pytorch": pytorch,
    }


# -------------------------------------------------------------------- normalization, random numbers


def normalization(machine: Machine) -> Iterator[Case]:
    """LayerNorm and RMSNorm, forward and backward."""
    for name in ("layer_norm", "rms_norm"):
        for dtype, shape in (("float32", (16384, 4096)), ("bfloat16", (16384, 8192)),
                             ("float32", (131072, 256))):  # fmt: skip
            for backward in (False, True):
                yield _norm(name, dtype, sized(machine.dry, *shape), backward)


def _norm(name: str, dtype: str, shape: tuple[int, ...], backward: bool) -> Case:
    def peer(library: str) -> Callable[..., Any]:
        def run(x: Any, weight: Any) -> Any:
            if library == "pytorch":
                import torch

                norm = getattr(torch.nn.functional, name)
            else:
                norm = getattr(F, name)
            if not backward:
                return norm(x, (shape[-1],), weight, eps=1e-5)
            x = x.detach().requires_grad_()
            norm(x, (shape[-1],), weight, eps=1e-5).backward(x.detach())
            return x.grad

        return run

    def exact(xp: Any, x: Any, weight: Any) -> Any:
        centred = name == "layer_norm"
        g, root = x * weight, x
        if centred:
            root = x - x.mean(axis=-1, keepdims=True)
        scale = 1 / xp.sqrt((root * root).mean(axis=-1, keepdims=True) + 1e-5)
        xhat = root * scale
        if not backward:
            return xhat * weight
        along = xhat * (g * xhat).mean(axis=-1, keepdims=True)
        return (g - along - (g.mean(axis=-1, keepdims=True) if centred else 0.0)) * scale

    return Case(
        f"{name}{' forward and backward' if backward else ''}, {shape[0]} × {shape[1]}", dtype,
        (shape, shape[-1:]), {name: peer(name) for name in ("gradlab", "pytorch")},
        bytes=(5.0 if backward else 2.0) * math.prod(shape) * itemsize(dtype), exact=exact,
        limit=Limit(terms=shape[-1]),
        targets=(Target(share=0.90),), headline=dtype == "float32" and shape[1] == 4096,
    )  # fmt: skip


def random(machine: Machine) -> Iterator[Case]:
    """Uniform and normal numbers, dropout: the numbers differ from library to library."""
    (n,) = sized(machine.dry, 1 << 28)
    draws: dict[str, dict[str, Callable[..., Any]]] = {
        "rand": {
            "gradlab": lambda x: gl.rand(n, device=x.device),
            "cupy": lambda x: machine.xp.random.random(n, dtype="float32"),
            "pytorch": lambda x: x.new_empty(n).uniform_(),
        },
        "randn": {
            "gradlab": lambda x: gl.randn(n, device=x.device),
            "cupy": lambda x: machine.xp.random.standard_normal(n, dtype="float32"),
            "pytorch": lambda x: x.new_empty(n).normal_(),
        },
    }
    for name, peers in draws.items():
        if machine.dry:
            peers = {"gradlab": peers["gradlab"]}
        yield Case(
            f"{name}, {n} numbers", "float32", ((1,),), peers, bytes=4.0 * n,
            judge=partial(judge_draws, name),
        )  # fmt: skip

    def pytorch(x: Any) -> Any:
        import torch

        return torch.nn.functional.dropout(x, 0.5)

    for dtype in ("float32", "bfloat16"):
        yield Case(
            f"dropout, {n} numbers", dtype, ((n,),),
            {"gradlab": lambda x: F.dropout(x, 0.5), "pytorch": pytorch},
            bytes=2.0 * n * itemsize(dtype), judge=judge_dropout,
            # Random numbers come at 0.7e12 a second (random.cu), and halves would need 1.07e12.
            targets=(Target(share=0.60 if itemsize(dtype) == 2 else 0.90),), headline=True,
        )  # fmt: skip


FAMILIES: dict[str, Callable[[Machine], Iterator[Case]]] = {
    "matmul": matmul,
    "softmax": softmax,
    "reduction": reduction,
    "normalization": normalization,
    "random": random,
}
