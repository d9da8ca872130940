"""Matrix products on the device: every kernel, layout and epilogue, and which one takes what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import matmul as kernels

import gradlab as gl
from gradlab import dtypes
from gradlab.dtypes import as_dtype
from gradlab.errors import OptionError
from gradlab.nn import functional
from gradlab.testing import assert_close, check_op

EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LAYOUTS = {
    "rows": lambda x: np.ascontiguousarray(x),
    "columns": lambda x: np.asfortranarray(x),
    "gaps": lambda x: np.repeat(np.repeat(x, 2, -1), 2, -2)[..., ::2, ::2],
    "backwards": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "one off": lambda x: np.pad(x, ((0, 0), (1, 0)))[:, 1:],  # no address a multiple of 16
}


def draw(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng((seed, *shape))
    if np.dtype(as_dtype(dtype)).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(as_dtype(dtype))


def on_device(driver: Any, x: Any) -> Any:
    """A host array on the device, in its own memory layout."""
    return driver.array_type(x, 0) if isinstance(x, np.ndarray) else x


def product(driver: Any, a: Any, b: Any, **options: Any) -> np.ndarray:
    given = {name: on_device(driver, value) for name, value in options.items()}
    y: np.ndarray = kernels.matmul(on_device(driver, a), on_device(driver, b), **given).get()
    return y


ACTIVATED = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(__import__("math").erf)(x / np.sqrt(2))),
}


def check(
    driver: Any, a: Any, b: Any, bias: Any = None, activation: str | None = None,
    residual: Any = None,
) -> np.ndarray:  # fmt: skip
    """A product against the same in float64, within what rounding each step once allows."""
    y = product(driver, a, b, bias=bias, activation=activation, residual=residual)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    expected, size = wide_a @ wide_b, abs(wide_a) @ abs(wide_b)
    if bias is not None:
        expected, size = expected + bias.astype(np.float64), size + abs(bias.astype(np.float64))
    expected = ACTIVATED[activation](expected)
    if residual is not None:
        wide = residual.astype(np.float64)
        expected, size = expected + wide, size + abs(wide)
    eps = EPS[a.dtype.name]
    # No activation has a slope above 1.13; their own last bits are allowed for by the constant.
    bound = (a.shape[-1] + 8) * max(EPS["float32"], eps if eps < 1e-10 else 0) * (1.2 * size + 2)
    if a.dtype.name in ("float16", "bfloat16"):
        bound = bound + eps * abs(expected)
    if a.dtype.name == "float64":
        bound = (a.shape[-1] + 8) * eps * (1.2 * size + 2)
    assert y.shape == expected.shape
    assert y.dtype == a.dtype
    assert y.flags.c_contiguous
    error = abs(y.astype(np.float64) - expected)
    assert (error <= bound).all(), (a.shape, b.shape, float((error - bound).max(initial=0)))
    return y


def symbols(driver: Any) -> list[str]:
    return [symbol for _, symbol in driver.launches]


@pytest.fixture
def tile(monkeypatch):
    """``tile(edge, parts)`` has every product that is not skinny computed so."""

    def choose(edge: int, parts: int = 1) -> None:
        found = next(each for each in kernels.TILES if each.edge == edge)
        monkeypatch.setattr(kernels, "choose_tile", lambda *_: (found, parts))
        kernels.plan.cache_clear()

    yield choose
    kernels.plan.cache_clear()


# ------------------------------------------------------------------------------- tiled kernels

# One compiled kernel at least of every kind of copy; the sanitizers see each kind once.
SANITIZED = [(128, "rows", "rows"), (64, "columns", "columns"), (32, "one off", "columns")]
KERNELS = [(128, "columns", "rows"), (128, "one off", "columns"), (64, "rows", "columns")]


@pytest.mark.parametrize(
    ("edge", "a_layout", "b_layout"),
    [*(pytest.param(*each, marks=pytest.mark.sanitized) for each in SANITIZED), *KERNELS],
)
def test_edges_of_tiles(emulator, tile, edge, a_layout, b_layout):
    tile(edge)
    for m, n, k in ((edge, edge, 16), (edge - 1, edge + 1, 17), (edge + 3, 20, 33), (20, 36, 8)):
        a, b = LAYOUTS[a_layout](draw(m, k)), LAYOUTS[b_layout](draw(k, n, seed=1))
        check(emulator, a, b)
    assert set(symbols(emulator)) == {"matmul_float32"}


@pytest.mark.parametrize("a_layout", LAYOUTS)
@pytest.mark.parametrize("b_layout", LAYOUTS)
def test_layouts_are_read_as_they_lie(emulator, tile, a_layout, b_layout):
    tile(64)
    a, b = LAYOUTS[a_layout](draw(33, 31)), LAYOUTS[b_layout](draw(31, 65, seed=1))
    reference = product(emulator, draw(33, 31), draw(31, 65, seed=1))
    np.testing.assert_array_equal(product(emulator, a, b), reference)


def test_zero_strides(emulator):
    check(emulator, np.broadcast_to(draw(1, 40), (36, 40)), np.broadcast_to(draw(40, 1), (40, 33)))


@pytest.mark.unlisted
def test_without_asynchronous_copies(emulator, tile, monkeypatch):
    """The way through registers, which GPUs before sm_80 take."""
    defines = kernels.tile_defines
    monkeypatch.setattr(kernels, "tile_defines", lambda *each: (*defines(*each), ("ASYNC", 0)))
    for edge, a_layout, b_layout in ((128, "columns", "rows"), (64, "rows", "columns")):
        tile(edge)
        for m, n, k in ((edge, edge, 16), (edge - 1, edge + 2, 21), (20, 33, 7)):
            a, b = LAYOUTS[a_layout](draw(m, k)), LAYOUTS[b_layout](draw(k, n, seed=1))
            check(emulator, a, b, bias=draw(n, seed=2), activation="relu")


@pytest.mark.parametrize("size", [1, 31, 32, 33, 127, 128, 129])
def test_sizes(emulator, size):
    check(emulator, draw(size, 33), draw(33, 40, seed=1))
    check(emulator, draw(40, size), draw(size, 33, seed=1))
    check(emulator, draw(33, 40), draw(40, size, seed=1))


def test_nan_and_infinity_stay_where_they_are(emulator, tile):
    """What pads the edge of a tile is multiplied with nothing that is in C."""
    tile(64)
    a, b = draw(70, 20), draw(20, 70, seed=1)
    a[69, 3], b[7, 0] = np.nan, np.inf
    y = product(emulator, a, b, activation="relu")
    assert np.isnan(y[69]).all()
    assert np.isfinite(y[:69, 1:]).all()


# ------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((5, 20, 30), (5, 30, 17)), ((5, 20, 30), (30, 17)), ((20, 30), (5, 30, 17)),
        ((2, 1, 20, 30), (3, 30, 17)), ((2, 3, 20, 30), (3, 30, 17)), ((2, 3, 1, 30), (30, 17)),
        ((1, 20, 30), (4, 30, 17)), ((3, 2, 40, 1), (3, 1, 1, 20)), ((4, 2, 33), (4, 33, 40)),
    ],
)  # fmt: skip
def test_batches_broadcast(emulator, a_shape, b_shape):
    check(emulator, draw(*a_shape), draw(*b_shape, seed=1))


def test_strided_batches(emulator):
    a, b = draw(4, 21, 3, 30)[::2].transpose(2, 0, 1, 3), draw(30, 17, 2, seed=1).transpose(2, 0, 1)
    residual = draw(2, 1, 17, seed=2)
    check(emulator, a, b, bias=draw(17, seed=3), activation="relu", residual=residual)


def stride(*shape: int) -> kernels.Strided:
    steps = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    return kernels.Strided(shape, tuple(steps), True)


def test_a_batch_against_one_matrix_is_one_tall_matrix():
    layout = kernels.lay_out(stride(8, 4, 20, 30), stride(30, 40), None, None)
    assert (layout.m, layout.batches, layout.batch) == (640, 1, ())
    turned = kernels.Strided((8, 20, 30), (600, 1, 20), True)
    layout = kernels.lay_out(turned, stride(30, 40), None, None)
    assert (layout.m, layout.batches) == (20, 8)


def test_axes_of_a_batch_are_joined():
    layout = kernels.lay_out(stride(8, 4, 20, 30), stride(8, 4, 30, 40), None, None)
    assert layout.batch == ((32, 600, 1200, 0),)
    layout = kernels.lay_out(stride(8, 4, 20, 30), stride(4, 30, 40), None, None)
    assert layout.batch == ((8, 2400, 0, 0), (4, 600, 1200, 0))


# ------------------------------------------------------------------------------- the epilogue

WAYS = {  # shapes (m, k, n) and the parts of k
    "tiled": (70, 20, 33, 1), "parts": (40, 200, 36, 3), "rows": (40, 64, 5, 1),
    "columns": (5, 20, 40, 1), "nothing to add": (4, 0, 5, 1),
}  # fmt: skip


@pytest.mark.sanitized
@pytest.mark.parametrize("way", WAYS)
def test_epilogue(emulator, tile, way):
    m, k, n, parts = WAYS[way]
    tile(64, parts)
    a, b, bias, residual = (
        draw(m, k), draw(k, n, seed=1), draw(n, seed=2), draw(m, n, seed=3),
    )  # fmt: skip
    for activation in kernels.ACTIVATIONS:
        check(emulator, a, b, bias=bias, activation=activation, residual=residual)
    check(emulator, a, b, activation="tanh")
    check(emulator, a, b, residual=np.asfortranarray(residual))
    check(emulator, a, b, bias=bias, residual=residual[:, :1])


def test_relu_keeps_nan(emulator):
    a = np.full((2, 20), np.nan, np.float32)
    assert np.isnan(product(emulator, a, draw(20, 2), activation="relu")).all()


def test_epilogue_in_float64(emulator):
    a, b, bias = (draw(*shape, dtype="float64") for shape in ((20, 30), (30, 20), (20,)))
    for activation in kernels.ACTIVATIONS:
        check(emulator, a, b, bias=bias, activation=activation)


# ------------------------------------------------------------------------------- parts of k


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_k(emulator, tile, parts):
    tile(64, parts)
    check(emulator, draw(66, 523), draw(523, 40, seed=1))
    assert symbols(emulator) == ["matmul_float32", "sum_parts_float32"]


@pytest.mark.parametrize("shape", [(40, 700, 36), (1, 20_000, 1), (3, 900, 70)])
def test_the_same_bits_every_time(fake_cuda, shape):
    """Whatever the order in which threads come to their turn."""
    m, k, n = shape
    a, b = draw(m, k), draw(k, n, seed=1)
    found = []
    for order in (0, 1, 0):
        fake_cuda.order = order
        found.append(product(fake_cuda, a, b).tobytes())
    assert any(symbol.startswith("sum_") for symbol in symbols(fake_cuda))
    assert len(set(found)) == 1


@pytest.mark.sanitized
def test_many_parts_of_few_values(emulator):
    a, b = draw(1, 60_000), draw(60_000, 1, seed=1)
    chosen = kernels._cut(60_000, 40)
    layout = kernels.lay_out(stride(1, 60_000), stride(60_000, 1), None, None)
    options = kernels._Options("float32", None, False, False)
    assert chosen == (1504, 40)
    assert kernels._sum_launch(layout, 40, options).symbol == "sum_many_parts_float32"
    emulator_properties = emulator.properties()
    wide = emulator_properties._replace(multiprocessors=20)
    emulator.properties = lambda: wide
    check(emulator, a, b)
    assert symbols(emulator) == ["rows_along_lanes_float32", "sum_many_parts_float32"]


# ------------------------------------------------------------------------------- skinny products


@pytest.mark.sanitized
@pytest.mark.parametrize(("m", "n"), [(33, 1), (131, 1), (33, 16), (131, 2), (40, 15)])
def test_skinny(emulator, m, n):
    bias, residual = draw(n, seed=2), draw(m, n, seed=3)
    for k, a_layout in ((32, "rows"), (300, "rows"), (35, "columns"), (300, "columns"),
                        (101, "one off")):  # fmt: skip
        for b_layout in ("rows", "columns"):
            a, b = LAYOUTS[a_layout](draw(m, k)), LAYOUTS[b_layout](draw(k, n, seed=1))
            y = check(emulator, a, b, bias=bias, residual=residual)
            turned = product(emulator, b.T, a.T, residual=residual.T)
            np.testing.assert_allclose(turned.T + bias, y, rtol=1e-4, atol=1e-4)
    assert not any(symbol.startswith("matmul") for symbol in symbols(emulator))


def test_wide_reads_of_skinny_products(emulator, monkeypatch):
    """16 bytes at a time where there are rows enough to fill the machine."""
    narrow = emulator.properties()._replace(multiprocessors=1)
    monkeypatch.setattr(emulator, "properties", lambda: narrow)
    for n in (1, 16):
        a, b = np.asfortranarray(draw(300, 40)), draw(40, n, seed=1)
        check(emulator, a, b)
        check(emulator, a[:298], b)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_skinny_dtypes(emulator, dtype):
    for n in (1, 16):
        check(emulator, draw(40, 70, dtype=dtype), draw(70, n, dtype=dtype, seed=1))
        check(emulator, draw(70, 40, dtype=dtype).T, draw(70, n, dtype=dtype, seed=1))


def test_skinny_batches(emulator):
    check(emulator, draw(3, 40, 70), draw(2, 1, 70, 2, seed=1))
    check(emulator, draw(2, 1, 3, 70), draw(3, 70, 50, seed=1))


# ------------------------------------------------------------------------------- other dtypes


@pytest.mark.parametrize(
    "dtype", [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")]
)
def test_integers_wrap_around_as_numpys_do(emulator, dtype):
    for m, k, n in ((65, 33, 40), (40, 50, 3), (20, 0, 20)):
        a, b = draw(m, k, dtype=dtype), draw(k, n, dtype=dtype, seed=1)
        np.testing.assert_array_equal(product(emulator, a, b), a @ b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_without_tensor_cores(emulator, monkeypatch, dtype):
    monkeypatch.setattr(kernels, "_tensor_cores", lambda: None)
    for m, k, n in ((65, 33, 40), (130, 70, 129), (20, 300, 40)):
        a, b = draw(m, k, dtype=dtype), draw(k, n, dtype=dtype, seed=1)
        check(emulator, a, b, bias=draw(n, dtype=dtype, seed=2), activation="relu")
    assert {symbol for symbol in symbols(emulator) if "sum" not in symbol} == {f"matmul_{dtype}"}


def test_halves_are_rounded_once(emulator):
    a = np.full((20, 4096), 1, np.float16)
    assert (product(emulator, a, a.T) == 4096).all()  # a float16 sum would stay at 2048


def test_float64(emulator):
    check(emulator, draw(65, 40, dtype="float64"), draw(40, 70, dtype="float64", seed=1))
    check(emulator, draw(20, 600, dtype="float64"), draw(600, 20, dtype="float64", seed=1))


# ------------------------------------------------------------------------------- which kernel


@pytest.mark.parametrize(
    ("m", "n", "k", "edge", "parts"),
    [
        (4096, 4096, 4096, 128, 1), (8192, 8192, 8192, 128, 1), (1024, 1024, 1024, 64, 1),
        (256, 256, 784, 64, 8), (256, 256, 10, 32, 1), (31, 33, 65, 32, 1),
        (128, 128, 100_000, 64, 32),
    ],
)  # fmt: skip
def test_tiles_on_a_large_machine(m, n, k, edge, parts):
    tile, found = kernels.choose_tile(m, n, k, 1, "float32", 132)
    assert (tile.edge, found) == (edge, parts)


def test_tiles_of_batches_need_no_parts():
    tile, parts = kernels.choose_tile(128, 128, 64, 512, "float32", 132)
    assert (tile.edge, parts) == (128, 1)


def test_every_dtype_has_a_tile():
    for dtype in set(kernels.KERNEL_DTYPES.values()):
        tile, _ = kernels.choose_tile(1, 1, 1, 1, dtype, 132)
        assert tile.edge in kernels.EDGES.get(dtype, (64,))


def test_parts_are_multiples_of_16_and_none_is_empty():
    for k in (1, 16, 17, 100, 784, 4097):
        for wanted in kernels.PARTS:
            part, parts = kernels._cut(k, wanted)
            assert part % 16 == 0
            assert part * (parts - 1) < k <= part * parts


@pytest.mark.parametrize(
    ("along_edge", "along_k", "edge", "k", "aligned", "batch", "mode"),
    [
        (1, 128, 64, 64, True, [], "DIRECT"), (128, 1, 64, 64, True, [], "TRANSPOSED"),
        (1, 127, 64, 64, True, [], "GENERAL"), (1, 128, 64, 64, False, [], "GENERAL"),
        (1, 128, 64, 64, True, [8192], "DIRECT"), (1, 128, 64, 64, True, [8193], "GENERAL"),
        (2, 128, 64, 64, True, [], "GENERAL"), (-1, 128, 64, 64, True, [], "GENERAL"),
        (5, 7, 64, 1, True, [], "TRANSPOSED"), (0, 1, 64, 64, True, [], "TRANSPOSED"),
        (1, -128, 64, 64, True, [], "DIRECT"), (7, 128, 1, 64, True, [], "DIRECT"),
    ],
)  # fmt: skip
def test_how_an_operand_is_copied(along_edge, along_k, edge, k, aligned, batch, mode):
    assert kernels._mode(along_edge, along_k, edge, k, aligned, batch) == mode


def test_skinny_geometry():
    rows = kernels.choose_skinny(4096, 1, 4096, 1, 4, "rows_along_lanes", True, 132)
    assert rows == ("rows_along_lanes", 1, True, 8, 1024, 1)
    few = kernels.choose_skinny(1, 1, 10**8, 1, 4, "rows_along_lanes", True, 132)
    assert (few.row_blocks, few.parts) == (1, 264)
    tall = kernels.choose_skinny(10**6, 1, 64, 1, 4, "rows_along_lanes", True, 132)
    assert tall.warps_k == 1  # a short k is not shared
    columns = kernels.choose_skinny(256, 10, 256, 1, 4, "columns_along_lanes", True, 132)
    assert (columns.vector, columns.row_blocks, columns.parts) == (False, 8, 1)


def test_scattered_operands_are_copied_where_that_is_cheaper(emulator, tile):
    tile(128)
    wide, narrow = draw(20, 500), draw(20, 40)
    a = LAYOUTS["gaps"](draw(36, 20))
    reference = product(emulator, a.copy(), wide)
    np.testing.assert_array_equal(product(emulator, a, wide), reference)
    kinds = [
        kernels.plan(
            (a.shape, a.strides), (b.shape, b.strides), None, None, (True, True), "float32", None, 4
        ).copies
        for b in (wide, narrow)
    ]
    assert kinds == [(True, False), (False, False)]


def test_too_many_blocks_are_refused_before_the_launch():
    many = ((2**33, 20, 20), (0, 80, 4))
    with pytest.raises(ValueError, match=r"products of 20x20 and 20x20 need more than 2\^31 block"):
        kernels.plan(many, many, None, None, (True, True), "float32", None, 132)


def test_what_is_refused(fake_cuda):
    """Refused here, such products go to the array library, by way of the op's array code."""

    def accepted(a: Any, b: Any, **options: Any) -> bool:
        given = {name: on_device(fake_cuda, value) for name, value in options.items()}
        return kernels.accepts(on_device(fake_cuda, a), on_device(fake_cuda, b), **given)

    a, b = draw(3, 4), draw(4, 5)
    assert accepted(a, b)
    assert accepted(a, b, bias=draw(5), activation="gelu", residual=draw(5))
    assert not accepted(a, b.astype(np.float64))
    assert not accepted(a.astype(np.complex64), b.astype(np.complex64))
    assert not accepted(a > 0, b > 0)
    assert not accepted(a, draw(5, 4))
    assert not accepted(draw(2, 3, 4), draw(3, 4, 5))
    assert not accepted(a, b, bias=draw(4))
    assert not accepted(a, b, bias=draw(1))
    assert not accepted(a, b, residual=draw(2, 3, 5))
    assert not accepted(a, b, activation="swish")
    assert not accepted(a.astype(int), b.astype(int), activation="relu")
    assert not kernels.accepts(on_device(fake_cuda, a), 2.0)


def test_every_variant_is_named_once():
    found = kernels.variants()
    assert len(found) == len(set(found))
    sources = {dict(each.defines)["DTYPE"] for each in found}
    assert sources == set(kernels.KERNEL_DTYPES.values())


# ------------------------------------------------------------------------------- ops


@pytest.mark.parametrize("op", ["matmul", "linear", "linear_act", "einsum"])
def test_op(fake_cuda, op):
    check_op(op, devices=["cuda"])
    assert {source for source, _ in fake_cuda.launches} >= {"matmul.cu"}


def tensors(*shapes: tuple[int, ...], dtype: str = "float32") -> list[gl.Tensor]:
    return [gl.tensor(draw(*shape, seed=i), dtype=dtype, device="cuda").requires_grad_()
            for i, shape in enumerate(shapes)]  # fmt: skip


def test_linear_is_one_launch_and_its_backward_reads_transposes_as_they_lie(fake_cuda):
    x, weight, bias = tensors((40, 30), (36, 30), (36,))
    fake_cuda.launches.clear()
    y = functional.linear(x, weight, bias)
    assert symbols(fake_cuda) == ["matmul_float32"]
    fake_cuda.launches.clear()
    y.sum().backward()
    of_products = [symbol for source, symbol in fake_cuda.launches if source == kernels.SOURCE]
    assert of_products == ["matmul_float32", "matmul_float32"]
    assert fake_cuda.copies_to_host == 0
    gy = np.ones((40, 36))
    assert_close(x.grad.cpu(), (gy @ draw(36, 30, seed=1)).astype(np.float32), 1e-5, 1e-4)
    assert_close(weight.grad.cpu(), (gy.T @ draw(40, 30)).astype(np.float32), 1e-5, 1e-4)
    assert_close(bias.grad.cpu(), gy.sum(0).astype(np.float32))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_linear_act(fake_cuda, activation):
    x, weight, bias = tensors((4, 10, 30), (36, 30), (36,))
    fake_cuda.launches.clear()
    y = functional.linear_act(x, weight, bias, activation)
    assert symbols(fake_cuda) == ["matmul_float32"]
    fake_cuda.launches.clear()
    y.backward(gl.ones_like(y))
    found = [symbol for source, symbol in fake_cuda.launches if source == kernels.SOURCE]
    assert found == ["activation_gradient_float32", "matmul_float32", "matmul_float32"]
    plain = [each.detach().clone().requires_grad_() for each in (x, weight, bias)]
    z = getattr(functional, activation)(functional.linear(*plain))
    z.backward(gl.ones_like(z))
    assert_close(y.detach(), z.detach(), 1e-5, 1e-5)
    for one, other in zip((x, weight, bias), plain, strict=True):
        assert_close(one.grad, other.grad, 1e-5, 1e-4)


@pytest.mark.parametrize("size", [1, 3, 4, 1023, 1025])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradient_of_an_activation(emulator, size, dtype):
    gy, y = draw(size, dtype=dtype), np.tanh(draw(size, dtype=dtype, seed=1))
    slopes = {
        "relu": lambda y: y > 0,
        "sigmoid": lambda y: y * (1 - y),
        "tanh": lambda y: 1 - y * y,
    }
    for activation, slope in slopes.items():
        got = kernels.activation_gradient(
            on_device(emulator, gy), on_device(emulator, y), activation
        ).get()
        wide = gy.astype(np.float64) * slope(y.astype(np.float64))
        np.testing.assert_allclose(got, wide, rtol=1e-6 if dtype == "float32" else 2e-3, atol=1e-6)


def test_mixed_dtypes_take_the_kernels_too(fake_cuda):
    x, y = gl.ones(3, 20, device="cuda"), gl.ones(20, 3, dtype="int32", device="cuda")
    assert (x @ y).dtype == dtypes.float32
    assert (x.half() @ x.mT).dtype == dtypes.float32
    assert set(symbols(fake_cuda)) == {"matmul_float32"}


def test_complex_products_are_the_librarys(fake_cuda):
    x = gl.ones(3, 3, dtype="complex64", device="cuda")
    assert (x @ x)[0, 0].item() == 3
    assert not fake_cuda.launches


def test_other_products_take_the_kernels(fake_cuda):
    a, b = gl.ones(3, 40, device="cuda"), gl.ones(40, 3, device="cuda")
    row, column = a[0], b.mT[0]
    for function in (
        lambda: gl.einsum("ij,jk->ki", a, b), lambda: gl.tensordot(a, b, 1), lambda: a @ column,
        lambda: gl.dot(row, column), lambda: row @ b, lambda: gl.inner(a, a),
    ):  # fmt: skip
        fake_cuda.launches.clear()
        y = function()
        assert {source for source, _ in fake_cuda.launches} == {kernels.SOURCE}
        assert (y == 40).all().item()


def test_einsum_of_halves_is_one_product_of_halves(fake_cuda, monkeypatch):
    monkeypatch.setattr(kernels, "_tensor_cores", lambda: None)
    a, b = (gl.tensor(draw(2, 20, 20, seed=i), dtype="float16", device="cuda") for i in (0, 1))
    y = gl.einsum("bij,bkj->bik", a, b)
    assert symbols(fake_cuda) == ["matmul_float16"]
    expected = a.cpu().astype("float32") @ b.cpu().astype("float32").mT
    assert_close(y.cpu(), expected.half(), 2e-3, 1e-2)
    fake_cuda.launches.clear()
    assert gl.einsum("bij,bkj->i", a, b).dtype == dtypes.float16
    assert "matmul_float16" not in symbols(fake_cuda)  # its sums are in float32


def test_linear_of_a_strided_batch_copies_nothing(fake_cuda):
    x = gl.tensor(draw(20, 3, 30), device="cuda").permute(1, 0, 2)
    weight = gl.tensor(draw(36, 30, seed=1), device="cuda")
    y = functional.linear(x, weight)
    assert symbols(fake_cuda) == ["matmul_float32"]
    assert_close(y.cpu(), functional.linear(x.cpu(), weight.cpu()), 1e-5, 1e-5)


@pytest.mark.parametrize("shapes", [((3, 4, 5), (5,)), ((4,), (2, 4, 3)), ((4,), (4,)),
                                    ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5))])  # fmt: skip
def test_gradients_of_vectors_and_batches(fake_cuda, shapes):
    here = [gl.tensor(draw(*shape)).requires_grad_() for shape in shapes]
    there = [x.detach().to("cuda").requires_grad_() for x in here]
    for x1, x2 in (here, there):
        y = x1 @ x2
        y.backward(gl.ones_like(y))
    for one, other in zip(here, there, strict=True):
        assert other.grad.shape == other.shape
        assert_close(other.grad.cpu(), one.grad, 1e-5, 1e-5)


# ------------------------------------------------------------------------------- precision


@pytest.fixture
def precision():
    yield gl.set_float32_matmul_precision
    gl.set_float32_matmul_precision("highest")


def test_precision_of_float32(fake_cuda, precision):
    a, b = gl.tensor(draw(40, 30), device="cuda"), gl.tensor(draw(30, 36), device="cuda")
    assert gl.get_float32_matmul_precision() == "highest"
    exact = a @ b
    precision("high")
    assert gl.get_float32_matmul_precision() == "high"
    rounded = a @ b
    assert symbols(fake_cuda)[0] == "matmul_float32"
    assert symbols(fake_cuda)[1].startswith("matmul_mma")
    assert_close(rounded.cpu(), exact.cpu(), 1e-2, 1e-2)
    assert not (rounded == exact).all().item()


def test_precision_leaves_other_products_alone(fake_cuda, precision):
    precision("medium")
    x = gl.ones(20, 20, dtype="float64", device="cuda")
    _ = x @ x, gl.ones(20, 40, device="cuda") @ gl.ones(40, device="cuda")
    assert symbols(fake_cuda) == ["matmul_float64", "rows_along_lanes_float32"]


@pytest.mark.parametrize("bad", ["tf32", "HIGH", None, 1])
def test_precisions_that_do_not_exist(bad):
    with pytest.raises(OptionError) as caught:
        gl.set_float32_matmul_precision(bad)
    assert str(caught.value).startswith("set_float32_matmul_precision: expected precision")
    assert "'highest', 'high', 'medium'" in str(caught.value)
    assert gl.get_float32_matmul_precision() == "highest"


def test_activations_that_do_not_exist():
    with pytest.raises(OptionError, match="linear_act: expected activation"):
        functional.linear_act(gl.ones(2, 3), gl.ones(4, 3), activation="gelu")
