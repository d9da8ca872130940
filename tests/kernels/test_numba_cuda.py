"""The kernels in plain Python: their results thread by thread, in Numba's simulator, and as PTX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gradlab.kernels import ladder
from gradlab.kernels.numba_cuda import launch, matmul, reduction, softmax

import gradlab as gl
import python_kernels


@pytest.fixture(autouse=True)
def _compiler():
    if launch.missing():
        pytest.skip(launch.missing())


ladder.load_all()
RUNGS = pytest.mark.parametrize("name", ladder.READABLE)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def compute(driver, family, function, name, *arrays, **options):
    """The result of a rung for NumPy arrays; None where it refuses them."""
    rung = ladder.RUNGS[family][function][name]
    given = [driver.xp.asarray(x) for x in arrays]
    assert rung.refuses(*given, **options) == ""
    return rung.run(*given, **options).values


# ------------------------------------------------------------------------------------- results


@RUNGS
@DTYPES
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (17, 33, 16), (2, 0, 3)])
def test_matmul(emulator, name, dtype, sizes):
    m, k, n = sizes
    a, b = normal((m, k), dtype), normal((k, n), dtype, seed=1)
    found = compute(emulator, "matmul", "matmul", name, a, b)
    np.testing.assert_allclose(found, a @ b, rtol=0, atol=20 * TOLERANCE[dtype])


@RUNGS
def test_matmul_of_transposed_and_empty_matrices(emulator, name):
    a, b = normal((5, 4), "float32").T, normal((6, 10), "float32", seed=1)[:5, ::3]
    np.testing.assert_allclose(
        compute(emulator, "matmul", "matmul", name, a, b), a @ b, rtol=0, atol=1e-5
    )
    assert compute(emulator, "matmul", "matmul", name, a[:0], b).shape == (0, 4)


@RUNGS
def test_matmul_with_bias_and_activation(emulator, name):
    a, b, bias = normal((3, 4), "float32"), normal((4, 5), "float32"), normal(5, "float32")
    device = emulator.xp.asarray(bias)
    for activation, function in (
        ("relu", lambda y: np.maximum(y, 0)), ("tanh", np.tanh), (None, lambda y: y),
        ("sigmoid", lambda y: 1 / (1 + np.exp(-y))),
    ):  # fmt: skip
        found = compute(
            emulator, "matmul", "matmul", name, a, b, bias=device, activation=activation
        )
        np.testing.assert_allclose(found, function(a @ b + bias), rtol=1e-5, atol=1e-6)


@RUNGS
@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (2, 300), (9, 2)])
def test_softmax(emulator, name, dtype, shape):
    x = 50 * normal(shape, dtype)
    for axis in (0, 1):
        y = np.exp(x - x.max(axis, keepdims=True))
        found = compute(emulator, "softmax", "softmax", name, x, axis=axis)
        np.testing.assert_allclose(
            found, y / y.sum(axis, keepdims=True), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@RUNGS
def test_softmax_of_nan_and_infinity(emulator, name):
    x = np.float32([[0, np.nan, 1], [-np.inf, 0, 0], [1000, -1000, 1000]])
    found = compute(emulator, "softmax", "softmax", name, x, axis=1)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], [[0, 0.5, 0.5], [0.5, 0, 0.5]], rtol=1e-6)


@RUNGS
@DTYPES
@pytest.mark.parametrize("function", ["sum", "max"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (2, 257), (9, 2)])
def test_reductions(emulator, name, dtype, function, shape):
    x = normal(shape, dtype)
    for axis, keepdims in ((0, False), (1, True), ((1,), False), (None, False), ((0, 1), True)):
        found = compute(emulator, "reduction", function, name, x, axis=axis, keepdims=keepdims)
        expected = getattr(np, function)(x, axis=axis, keepdims=keepdims)
        assert found.shape == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=100 * TOLERANCE[dtype])


@RUNGS
def test_reductions_of_more_than_the_parts(fake_cuda, name, monkeypatch):
    monkeypatch.setattr(reduction, "PARTS", 8)
    x = normal(8 * 5 + 3, "float64")
    for function in ("sum", "max"):
        found = compute(fake_cuda, "reduction", function, name, x, axis=None)
        np.testing.assert_allclose(found, getattr(np, function)(x), rtol=1e-12)


@RUNGS
def test_a_nan_is_the_largest(fake_cuda, name):
    x = np.float32([[1, np.nan, 3], [4, 5, -np.inf]])
    found = compute(fake_cuda, "reduction", "max", name, x, axis=1)
    np.testing.assert_array_equal(found, [np.nan, 5])


@RUNGS
@pytest.mark.parametrize(
    ("family", "function", "arrays", "options", "why"),
    [
        ("matmul", "matmul", [np.ones((2, 2), "int32")] * 2, {}, "float32 and float64, not int32"),
        ("matmul", "matmul", [np.ones((2, 2, 2), "f4")] * 2, {}, "matrices, not shape (2, 2, 2)"),
        ("matmul", "matmul", [np.ones((2, 2), "f4"), np.ones((2, 2))], {}, "one dtype, not"),
        ("matmul", "matmul", [np.ones((2, 2), "f4")] * 2, {"activation": "gelu"}, "has no gelu"),
        ("softmax", "softmax", [np.ones(3, "f4")], {"axis": 0}, "matrices, not shape (3,)"),
        ("reduction", "sum", [np.ones((0, 3), "f4")], {"axis": 0}, "nothing to reduce"),
        ("reduction", "sum", [np.ones((2, 3), "f4").T], {"axis": None}, "contiguous"),
        ("reduction", "sum", [np.ones((2, 3, 4), "f4")], {"axis": (0, 1)}, "one axis of a matrix"),
    ],
)  # fmt: skip
def test_what_they_refuse(fake_cuda, name, family, function, arrays, options, why):
    given = [fake_cuda.xp.asarray(x) if x.flags.c_contiguous else fake_cuda.xp.asarray(x.T).T
             for x in arrays]  # fmt: skip
    rung = ladder.RUNGS[family][function][name]
    assert why in rung.refuses(*given, **options)
    assert not rung.accepts(*given, **options)


# ----------------------------------------------------------------------------- the runner itself


def no_barrier(cuda):
    def kernel(x, y):
        shared = cuda.shared.array(4, np.float32)
        shared[cuda.threadIdx.x] = x[cuda.threadIdx.x]
        y[cuda.threadIdx.x] = shared[(cuda.threadIdx.x + 1) % 4]

    return kernel


def half_a_barrier(cuda):
    def kernel(x, y):
        if cuda.threadIdx.x < 2:
            cuda.syncthreads()
        y[cuda.threadIdx.x] = x[cuda.threadIdx.x]

    return kernel


def test_the_runner_finds_a_missing_barrier():
    found = []
    for backwards in (False, True):
        x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
        python_kernels.run(no_barrier, (), (1,), (4,), (x, y), backwards)
        found.append(y)
    assert np.isnan(found[0]).any()  # shared memory begins as NaN
    assert not np.array_equal(*found)  # and the order of threads shows


def test_the_runner_finds_a_barrier_that_not_all_threads_reach():
    with pytest.raises(python_kernels.KernelError, match="2 of 4 threads of a block returned"):
        python_kernels.run(half_a_barrier, (), (1,), (4,), (np.ones(4), np.ones(4)))


# ------------------------------------------------------------------------------ real compilation

BUILDS = {
    "matmul_naive": (matmul.matmul_naive, (), 3), "matmul_tiled": (matmul.matmul_tiled, (), 3),
    "softmax_naive": (softmax.softmax_naive, (), 2),
    "softmax_tiled": (softmax.softmax_tiled, (), 2),
    "sum_naive": (reduction.reduce_naive, (False,), 2),
    "sum_tiled": (reduction.reduce_tiled, (False,), 2),
    "max_naive": (reduction.reduce_naive, (True,), 2),
    "max_tiled": (reduction.reduce_tiled, (True,), 2),
}  # fmt: skip


@DTYPES
@pytest.mark.parametrize("name", BUILDS)
def test_ptx_for_sm_90(name, dtype):
    build, options, count = BUILDS[name]
    kernel = launch.PythonKernel(build, np.dtype(dtype).type, *options)
    axes = [2] * count if count == 3 or "softmax" in name else [2, 1]
    kinds = [(np.dtype(dtype), each, "A") for each in axes]
    compiled = launch.CompiledKernel(kernel, kinds, (9, 0))
    assert ".target sm_90" in compiled.ptx
    assert f".entry {compiled.symbol}(" in compiled.ptx
    assert ("bar.sync" in compiled.ptx) == name.endswith("tiled")
    assert (".shared" in compiled.ptx) == name.endswith("tiled")
    if dtype == "float32":
        assert ".f64" not in compiled.ptx  # no constant widened the arithmetic


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_ptx_is_assembled(capability):
    """By the assembler that GPUs' drivers have too, from PTX that old ones of them understand."""
    nvjitlink = pytest.importorskip("cuda.bindings.nvjitlink")
    try:
        nvjitlink.version()
    except Exception as missing_library:
        pytest.skip(f"nvidia-nvjitlink is not installed: {missing_library!r:.80}")
    for build, options, count in BUILDS.values():
        kernel = launch.PythonKernel(build, np.float32, *options)
        axes = [2] * count if not options else [2, 1]
        kinds = [(np.dtype("f4"), each, "A") for each in axes]
        ptx = launch.CompiledKernel(kernel, kinds, capability).ptx
        assert float(ptx.partition(".version ")[2].split()[0]) <= 8.8
        linker = nvjitlink.create(2, ["-arch=sm_{}{}".format(*capability), "-verbose"])
        text = ptx.encode() + b"\0"
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
        nvjitlink.destroy(linker)
        assert b"0 bytes spill stores, 0 bytes spill loads" in log


def test_arrays_become_the_words_that_numba_expects(fake_cuda):
    """Against Numba's own launch code, which writes the same list from its device arrays."""
    kernel = launch.kernel(matmul.matmul_naive, np.float32)
    kinds = [(np.dtype("f4"), 2, "A")] * 3
    compiled = launch.CompiledKernel(kernel, kinds, (9, 0))
    x = fake_cuda.xp.asarray(np.zeros((2, 6), np.float32))[:, ::2]
    address = x.values.ctypes.data
    assert compiled.words([x], fake_cuda.pointer) == [0, 0, 6, 4, address, 2, 3, 24, 8]
    assert compiled.words([7, 1.5], fake_cuda.pointer) == [7, 1.5]
    # nine words for each matrix
    assert compiled.ptx.partition(f"{compiled.symbol}(")[2].partition(")")[0].count(".param") == 27


def test_a_kernel_is_compiled_once_for_a_kind_of_argument(fake_cuda, monkeypatch):
    compiled = []
    original = launch.compile_ptx
    monkeypatch.setattr(
        launch, "compile_ptx", lambda *args: (compiled.append(args), original(*args))[1]
    )
    launch.kernel.cache_clear()
    for shape in ((2, 3), (5, 1)):
        for _ in range(2):
            x = np.ones(shape, np.float32)
            compute(fake_cuda, "softmax", "softmax", "numba_naive", x, axis=1)
    assert len(compiled) == 1


# ----------------------------------------------------------------------------- Numba's simulator


def test_in_numbas_simulator():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("simulated.py"))],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "simulated\n", done.stderr


def test_tensors_take_them(emulator):
    a, b = (gl.tensor(normal((5, 5), "float32"), device="cuda", requires_grad=True) for _ in "ab")
    with gl.kernels.use(matmul="numba_tiled", reduction="numba_tiled"):
        (a @ b).sum().backward()
    with gl.kernels.use(softmax="numba_naive"), gl.no_grad():
        a.softmax(-1)
    launched = [source for source, _ in emulator.launches]
    assert launched.count("matmul_tiled.ptx") == 3  # forward, and a gradient for each input
    assert {"softmax_naive.ptx", "reduce_tiled.ptx"} <= set(launched)
