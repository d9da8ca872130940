"""Matrix products on tensor cores, against float64.

Most operands are small integers, whose sums float32 holds exactly: then the result is the exact
product rounded once, and is compared bit for bit.
"""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np
import pytest
import scipy.special
from gradlab.kernels.cuda import nvrtc, source, tensor_cores as kernels, tensor_map
from gradlab.kernels.cuda.driver import Properties

import gradlab as gl
from fake_cuda import Array, FakeDriver

NUMBERS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
FUNCTIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "gelu": lambda x: x * scipy.special.ndtr(x),
}
MMA, MMA_TF32 = kernels.TILES, kernels.TILES_TF32
CLUSTERED, BIG, SMALL = kernels.TILES_WGMMA
# Two blocks in the shared memory of one: the emulator runs a cluster as one block.
SMALL_CLUSTERED = SMALL._replace(cluster=2, stages=2)

# Layouts of A and B: "n" as C order has it, "t" transposed.


def watched(*case):
    """A case that also runs under the sanitizers."""
    return pytest.param(*case, marks=pytest.mark.sanitized)


@pytest.fixture
def only(fake_cuda):
    """Leave one tile to choose from."""
    with pytest.MonkeyPatch.context() as patch:

        def limit(tile, stands_in=False):
            wgmma = tile.source == kernels.WGMMA
            if not wgmma:
                patch.setattr(
                    kernels, "_candidates",
                    lambda _, aligned: (tile,) if aligned else kernels.TILES_UNALIGNED,
                )  # fmt: skip
            patch.setattr(kernels, "_wgmma_candidates", lambda *_: (tile,) if wgmma else ())
            # Its estimate might lose against the other kernel's on sizes like these.
            patch.setattr(kernels, "_rate", lambda source, _: 1e9 if source == tile.source else 1)
            if stands_in:  # for a variant that the emulator has no room for, and is none itself
                fake_cuda.launch = partial(FakeDriver.launch, fake_cuda)
            _forget()

        _forget()
        yield limit
    _forget()


def _forget():
    kernels._plan.cache_clear()
    kernels._choose.cache_clear()


def integers(shape, dtype, seed, layout="n", largest=4):
    rng = np.random.default_rng([seed, *shape])
    if layout == "t":
        shape = (*shape[:-2], shape[-1], shape[-2])
    made = rng.integers(-largest, largest + 1, shape).astype(NUMBERS[dtype])
    return made.swapaxes(-1, -2) if layout == "t" else made


def multiply(a, b, *, precision="high", **options):
    """`matmul` of host arrays, after `accepts`."""
    on_device = {
        name: Array(each, 0) if isinstance(each, np.ndarray) else each
        for name, each in options.items()
    }
    left, right = Array(a, 0), Array(b, 0)
    asked = {name: each for name, each in on_device.items() if name != "out"}
    assert kernels.accepts(left, right, precision=precision, **asked)
    return kernels.matmul(left, right, precision=precision, **on_device).values


def wide(*arrays):
    return [each.astype(np.float64) for each in arrays]


def check(a, b, **options):
    """The exact product, rounded once."""
    got = multiply(a, b, **options)
    left, right = wide(a, b)
    expected = (left @ right).astype(a.dtype)
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(got, expected)


def symbols(driver):
    return [symbol for source, symbol in driver.launches if source in (kernels.MMA, kernels.WGMMA)]


# --------------------------------------------------------------------------------- mma.sync


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [watched("float16", "nn"), ("float16", "nt"), ("float16", "tn"), ("float16", "tt"),
     ("bfloat16", "nt"), ("float32", "nt"), watched("float32", "tn")],
)  # fmt: skip
def test_layouts(emulator, only, dtype, layout):
    only(MMA[2])
    a = integers((72, 104), dtype, 1, layout[0])
    b = integers((104, 136), dtype, 2, layout[1])
    check(a, b)
    assert symbols(emulator) == [f"matmul_mma_{dtype}"]


@pytest.mark.parametrize(
    ("dtype", "layout", "size"),
    [watched("float16", "nn", (71, 93, 37)), ("float16", "nn", (130, 129, 65)),
     ("float32", "tt", (3, 131, 33))],
)  # fmt: skip
def test_lines_that_are_not_aligned(emulator, dtype, layout, size):
    m, n, k = size
    check(integers((m, k), dtype, 1, layout[0]), integers((k, n), dtype, 2, layout[1]))
    # The same with a line length that would be aligned, from an address that is not.
    a, b = integers((m, 137), dtype, 3)[:, 1 : k + 1], integers((k, n + 8), dtype, 4)[:, 3 : n + 3]
    check(a, b)


@pytest.mark.parametrize(
    "size",
    [(1, 8, 8), (8, 8, 1), (1, 8, 0), (64, 64, 32), (65, 64, 40), (63, 72, 24), (128, 8, 64)],
)
@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_edges(emulator, only, size, layout):
    only(MMA[2])
    m, n, k = size
    check(integers((m, k), "float16", 1, layout[0]), integers((k, n), "float16", 2, layout[1]))


@pytest.mark.parametrize("k", [8, 32, 64, 96, 128, 160, 328])
def test_pipelining(emulator, only, k):
    """Fewer stages than there are, as many, and more."""
    only(MMA[2]._replace(rate=1e-9))  # not to be split
    check(integers((16, k), "float16", 1), integers((k, 72), "float16", 2))
    assert symbols(emulator) == ["matmul_mma_float16"]


@pytest.mark.parametrize(
    ("tile", "dtype"), [(MMA[0], "float16"), (MMA[1], "bfloat16"), (MMA_TF32[0], "float32")]
)
def test_large_tiles(emulator, only, tile, dtype):
    only(tile)
    check(integers((136, 72), dtype, 1), integers((72, 264), dtype, 2))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 0)])
def test_nothing_to_compute(fake_cuda, shape):
    m, n, k = shape
    assert multiply(np.ones((m, k), "f2"), np.ones((k, n), "f2")).shape == (m, n)
    assert not fake_cuda.launches


def test_k_of_0_is_what_is_added(emulator):
    bias = integers((8,), "float16", 1)
    got = multiply(np.ones((3, 0), "f2"), np.ones((0, 8), "f2"), bias=bias)
    np.testing.assert_array_equal(got, np.broadcast_to(bias, (3, 8)))


@pytest.mark.parametrize(("n", "k"), [(40, 3000), watched(45, 1001)])
def test_a_long_sum_is_split(emulator, n, k):
    a, b = integers((24, k), "float16", 1, largest=1), integers((k, n), "float16", 2, largest=1)
    bias, residual = integers((n,), "float16", 3), integers((24, n), "float16", 4)
    got = multiply(a, b, bias=bias, activation="relu", residual=residual)
    left, right, x, y = wide(a, b, bias, residual)
    expected = (np.maximum(left @ right + x, 0) + y).astype(a.dtype)
    np.testing.assert_array_equal(got, expected)
    assert symbols(emulator) == ["matmul_mma_float16", "matmul_mma_finish_float16"]


BATCHES = [
    ((3, 40, 16), (3, 16, 24)),
    ((3, 40, 16), (16, 24)),  # one taller product
    ((5, 1, 16), (16, 24)),
    ((40, 16), (3, 16, 24)),
    ((2, 1, 9, 16), (3, 16, 24)),
    ((2, 3, 9, 16), (2, 3, 16, 24)),
    ((1, 1, 9, 16), (2, 1, 2, 16, 24)),
]


@pytest.mark.parametrize("shapes", BATCHES)
@pytest.mark.parametrize("kernel", ["mma", "wgmma"])
def test_batches(emulator, only, shapes, kernel):
    only(MMA[2] if kernel == "mma" else SMALL)
    a, b = (integers(shape, "float16", i) for i, shape in enumerate(shapes))
    check(a, b)


@pytest.mark.parametrize("kernel", ["mma", "wgmma"])
def test_batch_axes_in_any_order(emulator, only, kernel):
    """Heads in the middle, as attention has them."""
    only(MMA[2] if kernel == "mma" else SMALL)
    q, k = (integers((24, 3, 16), "float16", i).swapaxes(0, 1) for i in range(2))
    check(q, k.swapaxes(-1, -2))
    assert symbols(emulator) == [f"matmul_{kernel}_float16"]


def test_neither_axis_in_lines(emulator):
    a = integers((48, 80), "float16", 1)[::2, ::2]
    b = integers((80, 80), "float16", 2)[::2, 1::2]
    check(a, b)
    check(a[::-1, ::-1], b[::-1])


def test_rows_from_the_last_to_the_first(emulator):
    check(integers((40, 32), "float16", 1)[::-1], integers((32, 24), "float16", 2)[:, :])


# ---------------------------------------------------------------------------------- outputs


def near(got, a, b, bias, activation, residual):
    """Within the rounding of the result, and of float32 sums."""
    left, right = wide(a, b)
    expected = FUNCTIONS[activation](left @ right + bias.astype(np.float64))
    expected = expected + residual.astype(np.float64)
    unit = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-10}[a.dtype.name]
    bound = 1.01 * unit * np.abs(expected) + 1e-6 * (np.abs(left) @ np.abs(right)) + 1e-7
    assert (np.abs(got.astype(np.float64) - expected) <= bound).all()


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_activations(emulator, only, activation, dtype):
    only(MMA[2])
    rng = np.random.default_rng(5)
    # Multiples of 1/16 are the same in TF32.
    a, b = (np.round(rng.normal(size=s) * 4).astype(dtype) / 16 for s in ((24, 32), (32, 72)))
    bias, residual = (rng.normal(size=s).astype(dtype) for s in ((72,), (24, 72)))
    got = multiply(a, b, bias=bias, activation=activation, residual=residual)
    near(got, a, b, bias, activation, residual)


def test_an_activation_that_is_compiled_into_wgmma(emulator, only):
    only(BIG, stands_in=True)
    rng = np.random.default_rng(6)
    a, b = (rng.normal(size=s).astype(np.float16) for s in ((24, 32), (72, 32)))
    bias, residual = (rng.normal(size=s).astype(np.float16) for s in ((72,), (24, 72)))
    got = multiply(a, b.T, bias=bias, activation="gelu", residual=residual)
    near(got, a, b.T, bias, "gelu", residual)
    assert symbols(emulator) == ["matmul_wgmma_float16"]


@pytest.mark.parametrize("kernel", ["mma", "wgmma"])
@pytest.mark.parametrize(
    "shape", [(2, 40, 72), (40, 72), (72,), (2, 1, 1), (1, 40, 1), (), (2, 40, 72, "t")]
)
def test_residuals_broadcast(emulator, only, kernel, shape):
    only(MMA[2] if kernel == "mma" else SMALL)
    a, b = integers((2, 40, 16), "float16", 1), integers((2, 16, 72), "float16", 2)
    bias = integers((144,), "float16", 3)[::2]
    layout = "t" if shape[-1:] == ("t",) else "n"
    residual = integers(shape[:3], "float16", 4, layout)
    got = multiply(a, b, bias=bias, activation="relu", residual=residual)
    left, right, x, y = wide(a, b, bias, residual)
    np.testing.assert_array_equal(got, (np.maximum(left @ right + x, 0) + y).astype(np.float16))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_nan_and_infinity_pass(emulator, dtype):
    a, b = integers((8, 16), dtype, 1), np.eye(16, dtype=NUMBERS[dtype])
    a[2, 3], a[5, 7] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = np.maximum(a.astype(np.float64) @ b.astype(np.float64), 0)
    got = multiply(a, b, activation="relu").astype(np.float64)
    np.testing.assert_array_equal(got, expected)


def test_out(emulator):
    a, b = integers((24, 16), "float16", 1), integers((16, 40), "float16", 2)
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float16)
    place = np.zeros((24, 48), np.float16)
    assert np.shares_memory(multiply(a, b, out=place[:, 3:43]), place)
    np.testing.assert_array_equal(place[:, 3:43], expected)
    assert not place[:, :3].any()
    assert not place[:, 43:].any()
    across = np.zeros((40, 24), np.float16).T  # no row in one piece: computed beside, and copied
    np.testing.assert_array_equal(multiply(a, b, out=across), expected)


# ------------------------------------------------------------------------------------- wgmma


@pytest.mark.parametrize(
    ("tile", "dtype", "layout"),
    [watched(BIG, "bfloat16", "nt"), (BIG, "float16", "tn"), (SMALL, "float16", "nn"),
     (SMALL, "bfloat16", "tt"), (SMALL_CLUSTERED, "float16", "nn"),
     (SMALL_CLUSTERED, "bfloat16", "tt")],
)  # fmt: skip
def test_wgmma_layouts(emulator, only, tile, dtype, layout):
    only(tile, stands_in=tile is SMALL_CLUSTERED)
    m, n, k = 136, tile.n + 8, 72
    check(integers((m, k), dtype, 1, layout[0]), integers((k, n), dtype, 2, layout[1]))
    assert symbols(emulator) == [f"matmul_wgmma_{dtype}"]


@pytest.mark.parametrize(
    "size", [(1, 8, 8), (64, 64, 64), (65, 136, 64), (128, 128, 128), (129, 120, 56), (8, 8, 200)]
)
def test_wgmma_edges(emulator, only, size):
    only(SMALL)
    m, n, k = size
    check(integers((m, k), "float16", 1), integers((k, n), "float16", 2))
    assert symbols(emulator) == ["matmul_wgmma_float16"]


@pytest.mark.parametrize("tile", [SMALL, SMALL_CLUSTERED], ids=["alone", "clustered"])
@pytest.mark.parametrize(("blocks", "k"), [watched(4, 64), (2, 200), (2, 520)])
def test_wgmma_blocks_take_several_tiles(emulator, only, monkeypatch, tile, blocks, k):
    """The ring goes on from tile to tile, from stage to stage and from phase to phase."""
    few = Properties("few", (9, 0), blocks, 227 << 10, 1 << 20)
    monkeypatch.setattr(emulator, "properties", lambda: few)
    only(tile, stands_in=tile is SMALL_CLUSTERED)
    check(integers((264, k), "float16", 1), integers((k, 264), "float16", 2))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((9, 12), "f2"), np.ones((12, 8), "f2")),  # lines of A that are not aligned
        (np.ones((8, 16), "f2"), np.ones((16, 9), "f2")),
        (np.broadcast_to(np.ones(16, "f2"), (8, 16)), np.ones((16, 8), "f2")),
        (np.ones((2, 1, 8, 16), "f2"), np.ones((3, 16, 8), "f2")),  # two batch axes
    ],
)
def test_what_the_copy_engine_cannot_read_is_for_mma(emulator, a, b):
    check(a, b)
    assert symbols(emulator) == ["matmul_mma_float16"]


# ------------------------------------------------------------------------------------ choices


def plan(m, n, k, dtype="bfloat16", capability=(9, 0), multiprocessors=132, **options):
    itemsize = 4 if dtype == "float32" else 2
    arrays = [
        kernels.Array((rows, columns), (columns * itemsize, itemsize), 0)
        for rows, columns in ((m, k), (k, n), (m, n))
    ]
    properties = Properties("some", capability, multiprocessors, 163 << 10, 40 << 20)
    activation = options.get("activation")
    return kernels._plan(dtype, *arrays, None, None, activation, properties)


def tile_of(made):
    defines = dict(made.defines)
    return made.source, defines.get("TILE_M", 128), defines["TILE_N"]


def test_large_products_take_large_tiles():
    assert tile_of(plan(8192, 8192, 8192)) == (kernels.WGMMA, 128, 256)
    assert plan(8192, 8192, 8192).blocks == 132
    assert tile_of(plan(8192, 8192, 8192, capability=(8, 0))) == (kernels.MMA, 128, 256)
    assert tile_of(plan(8192, 8192, 8192, "float32")) == (kernels.MMA, 128, 128)
    assert tile_of(plan(512, 512, 512, capability=(8, 0)))[1:] == (64, 64)


def test_two_blocks_share_b_on_a_whole_gpu():
    assert dict(plan(8192, 8192, 8192).defines)["CLUSTER"] == 2
    assert dict(plan(8192, 8192, 8192, multiprocessors=16).defines)["CLUSTER"] == 1
    assert dict(plan(128, 65536, 8192).defines)["CLUSTER"] == 1  # no second row of tiles


def test_tensor_maps_are_encoded_by_the_driver(monkeypatch):
    called = []
    monkeypatch.setattr(tensor_map, "_function", lambda: lambda *args: called.append(args) or 0)
    made = tensor_map.encode(4096, "bfloat16", (104, 70, 3), (208, 14560), (64, 128, 1))
    place, dtype, rank, address, shape, strides, box, steps, *choices = called[0]
    assert (place % 64, made.nbytes, made.ctypes.data) == (0, 128, place)
    assert (dtype, rank, address) == (9, 3, 4096)
    lists = [list(each) for each in (shape, strides, box, steps)]
    assert lists == [[104, 70, 3], [208, 14560], [64, 128, 1], [1, 1, 1]]
    assert choices == [0, 3, 2, 0]
    monkeypatch.setattr(tensor_map, "_function", lambda: lambda *_: 1)
    with pytest.raises(RuntimeError, match="cuTensorMapEncodeTiled: CUDA error 1 for shape"):
        tensor_map.encode(4096, "float16", (8, 8), (16,), (8, 8))


def test_few_tiles_and_a_long_sum_are_split():
    made = plan(256, 256, 65536, capability=(8, 0), multiprocessors=108)
    splits = int(made.problem["splits"])
    assert splits > 4
    assert made.partial == splits * 256 * 256
    assert plan(8192, 8192, 512).partial == 0


def test_a_sum_too_long_for_a_counter_is_split():
    made = plan(8192, 8192, 3 << 30, capability=(8, 0))
    assert int(made.problem["split_k"]) < 1 << 30
    assert int(made.problem["splits"]) * int(made.problem["split_k"]) >= 3 << 30


def test_more_blocks_than_a_grid_has_are_refused():
    with pytest.raises(ValueError, match=r"need more than 2\^31 blocks; multiply them in several"):
        plan(1 << 24, 1 << 24, 8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0)])
def test_every_choice_is_listed(dtype, capability):
    """`variants` is what the compile check knows of."""
    listed = {(each.source, each.defines) for each in kernels.variants()}
    for m in (1, 40, 1000, 4096):
        for n in (8, 100, 1001, 4096):
            for activation in kernels.ACTIVATIONS:
                made = plan(m, n, 512, dtype, capability, activation=activation)
                assert (made.source, made.defines) in listed


def test_shared_memory_and_threads_are_within_limits():
    for tile in (*kernels.TILES, *kernels.TILES_TF32):
        assert tile.stages * (tile.m + tile.n) * 64 <= 99 << 10  # of sm_89
        assert tile.threads <= 1024
    for m, n in ((8192, 8192), (128, 128)):
        assert plan(m, n, 8192).shared <= 227 << 10


def test_accepts(fake_cuda, monkeypatch):
    def accepts(a, b, *options, **named):
        return kernels.accepts(Array(a, 0), Array(b, 0), *options, **named)

    half, single = np.ones((4, 4), np.float16), np.ones((4, 4), np.float32)
    assert accepts(half, half)
    assert not accepts(single, single)
    assert accepts(single, single, None, None, None, "high")
    assert accepts(single, single, precision="medium")
    assert not accepts(half, single, precision="high")
    assert not accepts(np.ones((4, 4)), np.ones((4, 4)), precision="high")
    assert not accepts(half, half[:3])
    assert not accepts(half, half[0])
    assert not accepts(half, half, activation="silu")
    assert accepts(half, half, bias=Array(half[0], 0), residual=Array(half, 0))
    assert not accepts(half, half, bias=Array(half, 0))
    assert not accepts(half, half, residual=Array(single, 0))
    assert not accepts(half, half, residual=Array(np.ones((2, 4, 4), np.float16), 0))
    old = Properties("old", (7, 5), 40, 64 << 10, 1 << 20)
    monkeypatch.setattr(fake_cuda, "properties", lambda: old)
    assert not accepts(half, half)


def test_products_of_tensors_come_here(emulator):
    a, b = integers((40, 48), "float16", 1), integers((48, 56), "float16", 2)
    x = gl.tensor(a, device="cuda").requires_grad_()
    y = x @ gl.tensor(b, device="cuda")
    y.backward(gl.ones_like(y))
    assert len(symbols(emulator)) == 2
    left, right = wide(a, b)
    np.testing.assert_array_equal(y.detach().cpu().numpy(), (left @ right).astype(np.float16))
    expected = np.broadcast_to(right.sum(axis=1), (40, 48)).astype(np.float16)
    np.testing.assert_array_equal(x.grad.cpu().numpy(), expected)


@pytest.mark.skipif(bool(nvrtc.available()), reason=nvrtc.available())
def test_the_producer_of_wgmma_calls_no_function():
    """One that both roles call, as for a 64-bit division, has registers that it gave up."""
    variant = next(v for v in kernels.variants() if v.source == kernels.WGMMA)
    options = source.options(variant.defines)
    made = nvrtc.compile_source(source.read(kernels.WGMMA), kernels.WGMMA, "sm_90a", options)
    assert b"matmul_wgmma" in made.cubin
    assert b"$__internal" not in made.cubin
