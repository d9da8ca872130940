"""What goes wrong on a GPU is told in one line, with the op, the kernel and what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gradlab.kernels.cuda import compiler, driver

import fake_cuda as fake
import gradlab as gl
from gradlab import devices
from gradlab.backends import cuda, gate
from gradlab.errors import (
    CompileError,
    DeviceError,
    GradlabError,
    LaunchError,
    MissingDependencyError,
    OutOfMemoryError,
)
from gradlab.ops.core import Kernel, Op, apply

ILLEGAL = "cudaErrorIllegalAddress: an illegal memory access was encountered"


@pytest.fixture
def failing(fake_cuda, monkeypatch):
    """Make a function of the driver fail: ``failing("launch", error)``."""

    def fail(name, error):
        def raise_it(*_, **__):
            raise error

        monkeypatch.setattr(fake_cuda, name, raise_it)

    return fail


def launches(x):
    driver.launch("some.cu", "twice_float32", (4,), (256,), (x, x.size), shared=1024)
    return x


@pytest.fixture
def twice():
    """An op whose kernel is launched for every input."""
    kernel = Kernel("cuda", "twice", accepts=lambda x: True, run=launches)
    return Op("twice", lambda xp, x: x + x, kernels=[kernel], register=False)


@pytest.fixture
def x(fake_cuda):
    return gl.ones(3, device="cuda")


# ------------------------------------------------------------------------------ out of memory


def array_op(error):
    def forward(xp, x):
        raise error

    return Op("greedy", forward, register=False)


def test_out_of_memory_names_the_request_the_free_memory_and_the_largest_arrays(fake_cuda):
    kept = [gl.zeros(1000, 500, device="cuda") for _ in range(3)]
    kept += [kept[0][:500], kept[0].T]  # views hold nothing
    others = [gl.zeros(1500, 400, device="cuda:1"), gl.ones(600, 100, dtype="int8", device="cuda")]
    small = [gl.ones(5, device="cuda") for _ in range(10)]
    op = array_op(fake.OutOfMemoryError(6 << 30, 1 << 29))
    with pytest.raises(OutOfMemoryError) as caught:
        apply(op, (kept[0],))
    assert str(caught.value) == (
        "greedy: out of memory on cuda:0: 6 GiB asked for, 1 GiB free of 1 GiB; the largest arrays "
        "alive: 3 × float32 (1000, 500), 5.722 MiB; 1 × int8 (600, 100), 58.59 KiB; "
        "10 × float32 (5,), 200 bytes"
    )
    assert isinstance(caught.value, MemoryError)
    del others, small


def test_out_of_memory_on_the_other_device(fake_cuda):
    x = gl.zeros(50, 10, device="cuda:1")
    expected = r"greedy: out of memory on cuda:1: 1 KiB .* 1 × float32 \(50, 10\), 1.953 KiB$"
    with pytest.raises(OutOfMemoryError, match=expected):
        apply(array_op(fake.OutOfMemoryError(1024, 0)), (x,))


def test_out_of_memory_while_moving_a_tensor(failing):
    failing("to_device", fake.OutOfMemoryError(1 << 20, 0))
    with pytest.raises(OutOfMemoryError, match=r"^to: out of memory on cuda:0: 1 MiB asked for"):
        gl.ones(3).to("cuda")


def test_out_of_memory_inside_a_library(fake_cuda, x):
    error = RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
    with pytest.raises(OutOfMemoryError, match="greedy: out of memory on cuda:0: CUBLAS_STATUS_A"):
        apply(array_op(error), (x,))


def test_out_of_memory_in_an_optimizer(fake_cuda, monkeypatch):
    w = gl.ones(3, device="cuda", requires_grad=True)
    w.grad = gl.ones(3, device="cuda")
    optimizer = gl.optim.SGD([w], lr=0.1)
    for op in gl.ops.core.REGISTRY.values():
        if op.mutates:
            op.forget()
            monkeypatch.setattr(
                op, "forward", lambda *_, **__: array_op(fake.OutOfMemoryError(9, 0)).forward(0, 0)
            )
            monkeypatch.setattr(op, "kernels", [])
    with pytest.raises(OutOfMemoryError, match="out of memory on cuda:0: 9 bytes asked for"):
        optimizer.step()
    for op in gl.ops.core.REGISTRY.values():
        op.forget()


def test_out_of_memory_on_the_cpu():
    with pytest.raises(OutOfMemoryError, match=r"^greedy: out of memory on cpu: no room$"):
        apply(array_op(MemoryError("no room")), (gl.ones(3),))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (139 << 30, "139 GiB"),
     (3 << 41, "6 TiB"), (5 << 52, "2.048e+04 TiB")],
)  # fmt: skip
def test_amounts(size, text):
    assert gate.amount(size) == text


# ---------------------------------------------------------------------- kernels that fail


def test_a_kernel_that_failed_earlier_is_told_at_the_next_gate(failing, twice, x):
    failing("launch", fake.CUDARuntimeError(700))
    with pytest.raises(LaunchError) as caught:
        apply(twice, (x,))
    assert str(caught.value) == (
        f"twice: a kernel launched earlier has failed ({ILLEGAL}), which CUDA reports late; run "
        "again with GRADLAB_SYNC=1 to find its place, and in a new process, since this one can no "
        "longer use the GPU"
    )


@pytest.mark.parametrize(
    ("name", "use", "operation"),
    [
        ("to_host", lambda x: x.item(), "copy to the host"),
        ("to_host", lambda x: x.cpu(), "copy to the host"),
        ("to_device", lambda x: gl.ones(1).to("cuda"), "to"),
        ("synchronize", lambda x: gl.synchronize("cuda"), "synchronize"),
    ],
)
def test_every_gate_tells_it(name, use, operation, failing, fake_cuda):
    x = gl.ones(1, device="cuda")
    failing(name, fake.CUDARuntimeError(700))
    with pytest.raises(LaunchError, match=rf"^{operation}: a kernel launched earlier has failed"):
        use(x)


def test_an_op_of_the_array_library_tells_it_too(x):
    with pytest.raises(LaunchError, match=r"^greedy: a kernel launched earlier has failed"):
        apply(array_op(fake.CUDARuntimeError(700)), (x,))


def test_a_library_that_meets_it_tells_it_too(x):
    with pytest.raises(
        LaunchError, match=r"^greedy: a kernel launched earlier has failed \(CUBLAS"
    ):
        apply(array_op(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED")), (x,))


def test_a_write_in_place_tells_it_too(x, monkeypatch):
    def fail(*_):
        raise fake.CUDARuntimeError(700)

    monkeypatch.setattr(fake.Ufunc, "__call__", fail)
    with pytest.raises(LaunchError, match=r"^add_?: a kernel launched earlier has failed"):
        x += x


def test_a_launch_that_is_refused_names_kernel_and_geometry(failing, twice, x):
    failing("launch", fake.CUDARuntimeError(701))
    with pytest.raises(LaunchError) as caught:
        apply(twice, (x,))
    assert str(caught.value) == (
        "twice: kernel twice_float32 of some.cu was refused by the GPU "
        "(cudaErrorLaunchOutOfResources: too many resources requested for launch) with grid (4,), "
        "block (256,) and 1,024 bytes of shared memory"
    )


@pytest.fixture
def gradlab_sync(fake_cuda, monkeypatch):
    """``GRADLAB_SYNC=1``, with a driver whose launches do nothing."""
    monkeypatch.setenv("GRADLAB_SYNC", "1")
    monkeypatch.setattr(fake_cuda, "launch", lambda *_: None)
    before = cuda.use_driver(fake_cuda)
    devices.forget_cuda()
    yield fake_cuda
    cuda.use_driver(before)
    devices.forget_cuda()


def test_sync_waits_after_every_launch_and_every_op(gradlab_sync, twice):
    x = gl.ones(3, device="cuda:1")
    gradlab_sync.waits = 0
    apply(twice, (x,))
    assert gradlab_sync.waits == 2
    x.exp()
    assert gradlab_sync.waits == 3


def test_sync_names_the_op_and_the_kernel_that_failed(gradlab_sync, failing, twice):
    x = gl.ones(3, device="cuda")
    failing("synchronize", fake.CUDARuntimeError(700))
    with pytest.raises(LaunchError) as caught:
        apply(twice, (x,))
    assert str(caught.value) == (
        f"twice: kernel twice_float32 of some.cu failed ({ILLEGAL}) with grid (4,), block (256,) "
        "and 1,024 bytes of shared memory; this process can no longer use the GPU"
    )
    with pytest.raises(LaunchError) as caught:
        x.tanh()
    assert str(caught.value) == (
        f"tanh: a kernel of CuPy failed ({ILLEGAL}); this process can no longer use the GPU"
    )


def test_other_exceptions_pass_as_they_are(failing, twice, x):
    failing("launch", RuntimeError("something else"))
    with pytest.raises(RuntimeError, match=r"^something else$"):
        apply(twice, (x,))
    failing("launch", DeviceError("twice: on the wrong device"))
    with pytest.raises(DeviceError, match=r"^twice: on the wrong device$"):
        apply(twice, (x,))


def test_a_kernel_may_be_launched_outside_an_op(failing, x):
    failing("launch", fake.OutOfMemoryError(64, 0))
    with pytest.raises(OutOfMemoryError, match=r"^out of memory on cuda:0: 64 bytes asked for"):
        launches(x._array)


# ----------------------------------------------------------------- kernels that do not compile


def test_a_kernel_that_does_not_compile(failing, twice, x):
    text = "some.cu (float32) does not compile for sm_90a: some.cu(7): error: no y"
    failing("launch", compiler.KernelCompileError(text))
    with pytest.raises(CompileError) as caught:
        apply(twice, (x,))
    assert str(caught.value) == f"twice: {text}"


def test_a_compiler_that_is_not_installed(failing, twice, x):
    failing("launch", ImportError("NVRTC is not installed; pip install it"))
    with pytest.raises(MissingDependencyError, match=r"^NVRTC is not installed; pip install it$"):
        apply(twice, (x,))


# ------------------------------------------------------------------- refused before a launch


def test_unsupported_dtypes_never_reach_a_kernel(fake_cuda):
    x = gl.tensor([1j, 2.0], device="cuda")
    for call in (lambda: x.softmax(0), lambda: x.max(), lambda: x % 2, lambda: x & 1):
        with pytest.raises(GradlabError) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert fake_cuda.launches == []


def test_mixed_devices_never_reach_a_kernel(fake_cuda):
    fake_cuda.launches.clear()
    for other in ("cpu", "cuda:1"):
        x, y = gl.ones(2, 2, device="cuda"), gl.ones(2, 2, device=other)
        for call in (lambda: x @ y, lambda: gl.cat([x, y]), lambda: x.copy_(y) @ y):  # noqa: B023
            with pytest.raises(DeviceError, match=re.escape(f"on {y.device}")):
                call()
    assert not [each for each in fake_cuda.launches if each[0] == "matmul.cu"]


def test_a_launch_is_made_on_the_device_of_the_tensor(fake_cuda, monkeypatch, twice):
    seen = []
    monkeypatch.setattr(fake_cuda, "launch", lambda *_: seen.append(fake_cuda.current_device()))
    for index in (1, 0, 1):
        apply(twice, (gl.ones(3, device=f"cuda:{index}"),))
    assert seen == [1, 0, 1]


def test_statistics(fake_cuda, monkeypatch, twice):
    monkeypatch.setattr(fake_cuda, "launch", lambda *_: None)
    x = gl.tensor([1.0, 0.0], device="cuda")
    gl.cuda.reset_statistics()
    assert gl.cuda.statistics() == gl.cuda.Statistics(0, 0, 0, 0)
    apply(twice, (x,))
    gl.ones(3).to("cuda")
    assert gl.cuda.statistics() == gl.cuda.Statistics(launches=1, copies_to_device=1)
    x[0].item()
    gl.synchronize("cuda")
    assert gl.cuda.statistics() == (1, 1, 1, 2)
    # What waits inside CuPy is seen by the stand-in alone.
    for use in (lambda: x[x > 0], lambda: float(x._array[0]), lambda: bool(x._array[0]),
                lambda: x._array.get(), lambda: x.nonzero(),
                lambda: fake.Namespace(np).asnumpy(x._array)):  # fmt: skip
        gl.cuda.reset_statistics()
        use()
        assert gl.cuda.statistics().synchronizations > 0
