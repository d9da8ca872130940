"""The stand-in driver: it counts what is asked of it, and refuses what a GPU would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import nvrtc, source

import fake_cuda
import gradlab as gl
from cupy_standin import install
from gradlab.backends import cuda
from gradlab.errors import LaunchError

install.required()


def test_cuda_works(standin):
    assert gl.cuda.is_available()
    assert gl.cuda.device_count() == 1
    assert gl.cuda.get_device_capability() == (9, 0)
    standin.set_devices(2)
    assert gl.cuda.device_count() == 2


def test_memory_is_real(standin):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y = gl.tensor(x, device="cuda")
    assert standin.device_of(y.data_ptr()) == 0
    np.testing.assert_array_equal(y.cpu().numpy(), x)
    np.testing.assert_array_equal(y[1:].cpu().numpy(), x[1:])
    assert gl.zeros(3, device="cuda").tolist() == [0, 0, 0]


def test_what_is_counted(standin):
    x, y = gl.ones(4, device="cuda"), gl.tensor([1, 2], device="cuda")
    counts, kernels = standin.during(lambda: x + x)
    assert counts["launches"] == 1
    assert kernels == ["cupy_add__float32_float32_float32"]
    assert counts["waits"] == counts["copies_to_host"] == 0
    gl.cuda.reset_statistics()
    counts, kernels = standin.during(lambda: gl.softmax(x, 0))
    assert len(kernels) == counts["launches"] == gl.cuda.statistics().launches > 0
    for waiting in (x.tolist, lambda: y[0].item(), lambda: x.nonzero(), lambda: bool(y[1])):
        counts, _ = standin.during(waiting)
        assert counts["waits"] == counts["copies_to_host"] == 1
    counts, _ = standin.during(gl.cuda.synchronize)
    assert (counts["waits"], counts["copies_to_host"]) == (1, 0)
    counts, _ = standin.during(lambda: gl.tensor([1.0], device="cuda"))
    assert (counts["copies_to_device"], counts["waits"]) == (1, 0)


def test_what_is_refused(standin):
    import cupy

    standin.set_devices(2)
    module = cupy.cuda.Module()
    module.load(b"")
    kernel = module.get_function("k")
    kernel((1,), (32,), (), 48 << 10)
    for block, shared in ((1025, 0), (32, 49 << 10)):
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="invalid argument"):
            kernel((1,), (block,), (), shared)
    wrong = pytest.raises(cupy.cuda.driver.CUDADriverError, match="invalid resource handle")
    with cupy.cuda.Device(1), wrong:
        kernel((1,), (32,), ())
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="out of memory"):
        cupy.empty(1 << 33, np.uint8)
    with pytest.raises(ValueError, match="is different from the current device"):
        cupy.exp(gl.ones(3, device="cuda:1")._array)


def test_a_kernel_with_memory_of_another_gpu_is_noticed(standin):
    standin.set_devices(2)
    x = gl.ones(3, device="cuda:1")
    with pytest.raises(AssertionError, match="memory of GPU 1 on GPU 0"):
        cuda.driver().driver.launch("softmax.cu", "k", (), (1,), (32,), [x._array], 0)
    struct = np.array([(0, x.data_ptr())], [("n", np.int64), ("x", np.uint64)])
    with pytest.raises(AssertionError, match="memory of GPU 1 on GPU 0"):
        cuda.driver().driver.launch("softmax.cu", "k", (), (1,), (32,), [struct], 0)


def test_a_launch_that_is_refused_is_an_error_of_gradlabs(standin):
    with pytest.raises(LaunchError, match=r"kernel k of softmax\.cu was refused by the GPU"):
        cuda.driver().launch("softmax.cu", "k", (), (1,), (2048,), [], 0)


def test_kernels_can_be_compiled(standin):
    """Elsewhere nothing is: here one of CuPy's, by its own compiler, and one of gradlab's."""
    from cupy.cuda import compiler

    text = 'extern "C" __global__ void k(float* x) { x[threadIdx.x] = 1; }'
    made, _ = compiler.compile_using_nvrtc(text, (), "90", "k.cu")
    assert b"k" in made
    options = source.options((("DTYPE", "float32"),))
    made = nvrtc.compile_source(source.read("softmax.cu"), "softmax.cu", "sm_90a", options).cubin
    assert made.startswith(b"\x7fELF")


def test_cupy_has_the_loops_that_the_stand_in_that_computes_goes_by(standin):
    import cupy
    import cupyx.scipy.special as special
    from cupy._sorting import search

    def letter(kind: Any) -> str:
        return "V" if np.dtype(kind).name == "bfloat16" else np.dtype(kind).char

    def loop(each: Any) -> str:
        given = "".join(map(letter, each.in_types))
        return f"{given}>{'!' if each.error_func else ''.join(map(letter, each.out_types))}"

    for name, loops in fake_cuda.LOOPS.items():
        ufunc = getattr(cupy, name) if hasattr(cupy, name) else getattr(special, name)
        ufunc = search._where_ufunc if name == "where" else ufunc
        assert list(dict.fromkeys(map(loop, ufunc._ops.ops))) == loops, name
    for name in fake_cuda.ABSENT.split():
        assert not hasattr(cupy, name), name
