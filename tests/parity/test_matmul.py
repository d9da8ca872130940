"""Products, einsum and diagonals against PyTorch: values, gradients and second gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gradlab.autograd import grad
from gradlab.ops import matmul as M
from gradlab.ops.creation import tensor

torch = pytest.importorskip("torch")


def random(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def compare(
    ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: np.ndarray, rtol: float = 1e-10
) -> None:
    """Values, gradients, and gradients of a function of the gradients."""
    xs = [tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(*ts)

    def close(a: Any, b: Any) -> None:
        a, b = a.detach().numpy(), b.detach().numpy()
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = np.abs(b).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)

    close(y, t)
    start = random(*y.shape, seed=1).astype(arrays[0].dtype)
    plain = grad(y, xs, tensor(start), create_graph=True)
    quick = grad(y, xs, tensor(start), retain_graph=True)
    wanted = torch.autograd.grad(t, ts, torch.tensor(start), create_graph=True)
    for a, b, c in zip(plain, quick, wanted, strict=True):
        close(a, c)
        close(b, c)
    second = sum((g * g).sum() for g in plain)
    wanted_second = sum((g * g).sum() for g in wanted)
    if not wanted_second.requires_grad:  # linear in its inputs
        return
    options: dict[str, Any] = {"allow_unused": True}
    for a, b in zip(
        grad(second, xs, **options),
        torch.autograd.grad(wanted_second, ts, **options),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b)


@st.composite
def product_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes that have a matrix product: vectors, matrices, batches that broadcast."""
    size = st.integers(1, 4)
    k = draw(size)
    batch = draw(st.lists(size, max_size=2))
    batches = [
        [n if draw(st.booleans()) else 1 for n in batch[draw(st.integers(0, len(batch))) :]]
        for _ in range(2)
    ]
    first = (k,) if not batches[0] and draw(st.booleans()) else (*batches[0], draw(size), k)
    second = (k,) if not batches[1] and draw(st.booleans()) else (*batches[1], k, draw(size))
    return first, second


@given(product_shapes(), st.integers(0, 9))
def test_matmul(shapes, seed):
    x1, x2 = (random(*shape, seed=seed) for shape in shapes)
    compare(M.matmul, torch.matmul, x1, x2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "int64", "uint8"])
def test_matmul_dtypes(dtype):
    x1, x2 = (np.rint(random(*shape) * 3) for shape in ((33, 65), (65, 17)))
    if dtype.startswith("u"):
        x1, x2 = abs(x1), abs(x2)
    ours = M.matmul(tensor(x1, dtype=dtype), tensor(x2, dtype=dtype))
    kind = getattr(torch, dtype)
    theirs = torch.tensor(x1).to(kind) @ torch.tensor(x2).to(kind)
    assert ours.dtype.name == dtype
    np.testing.assert_array_equal(ours.astype("float64").numpy(), theirs.double().numpy())


NAMED = [
    ("mm", (3, 4), (4, 2)),
    ("mv", (3, 4), (4,)),
    ("bmm", (2, 3, 4), (2, 4, 5)),
    ("dot", (5,), (5,)),
    ("vdot", (5,), (5,)),
    ("inner", (2, 4), (3, 4)),
    ("inner", (4,), (2, 3, 4)),
    ("outer", (3,), (4,)),
]


@pytest.mark.parametrize(("name", "shape1", "shape2"), NAMED)
def test_named_products(name, shape1, shape2):
    x1, x2 = random(*shape1), random(*shape2, seed=1)
    compare(getattr(M, name), getattr(torch, name), x1, x2)


def test_addmm():
    arrays = random(3), random(2, 4), random(4, 3)
    compare(
        lambda *xs: M.addmm(*xs, beta=0.5, alpha=2.0),
        lambda *xs: torch.addmm(*xs, beta=0.5, alpha=2.0),
        *arrays,
    )


@pytest.mark.parametrize("dims", [0, 1, 2, ([1], [0]), ([0, 2], [2, 1])])
def test_tensordot(dims):
    shapes = ((2, 3, 4), (3, 4, 2)) if dims != 1 else ((2, 3), (3, 4))
    if dims == ([1], [0]):
        shapes = ((2, 3, 4), (3, 5))
    x1, x2 = (random(*shape) for shape in shapes)
    compare(lambda a, b: M.tensordot(a, b, dims), lambda a, b: torch.tensordot(a, b, dims), x1, x2)


def test_vecdot():
    x1, x2 = random(2, 3, 4), random(3, 4, seed=1)
    compare(M.vecdot, torch.linalg.vecdot, x1, x2)
    compare(
        lambda a, b: M.vecdot(a, b, axis=-2),
        lambda a, b: torch.linalg.vecdot(a, b, dim=-2),
        x1,
        x2,
    )


@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 4, 3), (1, 3), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    arrays = [random(*shape), random(4, 3), random(4)][: 3 if bias else 2]
    compare(M.linear, torch.nn.functional.linear, *arrays)


def test_linear_in_float32():
    arrays = [random(*shape, dtype=np.float32) for shape in ((256, 784), (64, 784), (64,))]
    compare(M.linear, torch.nn.functional.linear, *arrays, rtol=2e-5)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An equation of one to three operands, with ellipses, sizes 1 and repeated labels."""
    sizes = dict(zip("abcd", (2, 3, 4, 2), strict=True))
    broadcast = draw(st.sampled_from([(), (2,), (3, 2)]))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        labels = draw(st.lists(st.sampled_from("abcd"), max_size=3))
        term, shape = "".join(labels), [sizes[label] for label in labels]
        if broadcast and draw(st.booleans()):
            at = draw(st.integers(0, len(term)))
            term = f"{term[:at]}...{term[at:]}"
            shape[at:at] = [n if draw(st.booleans()) else 1 for n in broadcast]
        terms.append(term)
        shapes.append(tuple(shape))
    known = sorted(set("".join(terms)) - {"."})
    output = "".join(draw(st.permutations(known)))[: draw(st.integers(0, len(known)))]
    arrow = draw(st.sampled_from(["", "->" + output, "->..." + output]))
    if arrow.startswith("->...") and not any("..." in term for term in terms):
        arrow = "->" + output
    if arrow == "->" + output and any("..." in term for term in terms):
        arrow = "->..." + output
    return ",".join(terms) + arrow, shapes


@given(equations(), st.integers(0, 9))
def test_einsum(case, seed):
    equation, shapes = case
    arrays = [random(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    compare(lambda *xs: M.einsum(equation, *xs), lambda *xs: torch.einsum(equation, *xs), *arrays)


@pytest.mark.parametrize("offset", [-2, 0, 1])
def test_diagonals(offset):
    x = random(3, 4, 5)
    compare(lambda a: a.diagonal(offset), lambda a: a.diagonal(offset), x)
    compare(
        lambda a: a.diagonal(offset, dim1=2, dim2=0),
        lambda a: a.diagonal(offset, dim1=2, dim2=0),
        x,
    )
    compare(lambda a: M.diag_embed(a, offset), lambda a: torch.diag_embed(a, offset), x)
    compare(lambda a: M.diag(a, offset), lambda a: torch.diag(a, offset), x[0])
    compare(lambda a: M.diag(a, offset), lambda a: torch.diag(a, offset), x[0, 0])


def test_trace():
    compare(M.trace, torch.trace, random(3, 4))
    integers = np.arange(6, dtype=np.int32).reshape(2, 3)
    ours, theirs = M.trace(tensor(integers)), torch.trace(torch.tensor(integers))
    assert (ours.item(), ours.dtype.name) == (theirs.item(), "int64")
