"""Every sample of an op in every dtype through the real CuPy, compared with the CPU in all but the
values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import gradlab as gl
from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.backends import cuda
from gradlab.errors import GradlabError
from gradlab.ops.core import Op
from gradlab.tensor import Tensor
from gradlab.testing import _Call, _differentiable, _in_range

# What differs because kernels compute nothing, and every value read from the GPU is 0.

# How large the result is depends on the values: only its dtype and its axes are compared.
SIZE_BY_VALUES = {"index", "nonzero", "unique", "bincount", "one_hot"}

# Gradients, hence floating: the CPU adds integers as well, CuPy's atomics do not.
FLOATING_ONLY = {"embedding_add"}


class Expected(NamedTuple):
    """A call of an op in a dtype, and what it gives on the CPU: tensors, or an error.

    ``differentiable`` are the numbers of the inputs that have gradients.
    """

    call: _Call
    dtype: Any
    differentiable: list[int]
    results: list[tuple[Any, tuple[int, ...]]]
    error: Exception | None = None


def calls(op: Op) -> list[Expected]:
    return _calls(op.name, op)


@lru_cache(maxsize=8)
def _calls(_: str, op: Op) -> list[Expected]:
    return list(_run_on_cpu(op))


def _run_on_cpu(op: Op) -> Iterator[Expected]:
    for sample in op.samples() if op.samples is not None else ():
        call = _Call(op, sample)
        places = _differentiable(call) if op.gradients and not sample.large else []
        one = sample.large or not call.arrays  # without arrays there is no dtype to choose
        for dtype in [dtypes.float32] if one else dtypes.ALL:
            if op.name in FLOATING_ONLY and not dtypes.is_floating(dtype):
                continue
            try:
                with gl.no_grad():
                    results = call.run(_inputs(call, dtype, "cpu"))
            except GradlabError as error:
                yield Expected(call, dtype, [], [], error)
            else:
                kinds = [(y.dtype, y.shape) for y in results]
                yield Expected(call, dtype, places if dtypes.is_floating(dtype) else [], kinds)


def _inputs(call: _Call, dtype: Any, device: Any) -> list[Tensor]:
    arrays = [_in_range(array, dtype) for array in call.arrays]
    return [gl.tensor(array, dtype=dtype, device=device) for array in arrays]


def failures(op: Op, device: gl.Device, only: Sequence[str] = ()) -> list[str]:
    """What goes wrong with an op on a GPU, a line for each sample and dtype, or ``only`` some."""
    found = []
    for expected in calls(op):
        if only and expected.dtype.name not in only:
            continue
        try:
            _check(op, expected, device)
        except Exception as error:
            name, dtype = expected.call.sample.name, expected.dtype.name
            found.append(f"{name}, {dtype}: {type(error).__name__}: {error}")
    return found


def _check(op: Op, expected: Expected, device: gl.Device) -> None:
    call, dtype = expected.call, expected.dtype
    current = cuda.driver().current_device()
    try:
        with gl.no_grad():
            results = call.run(_inputs(call, dtype, device), device)
    except GradlabError as error:
        if type(error) is not type(expected.error):
            raise
        return
    finally:
        assert cuda.driver().current_device() == current, "another device is current afterwards"
    if expected.error is not None:
        raise AssertionError(f"the CPU refuses it ({expected.error})")
    for y, (wanted, shape) in zip(results, expected.results, strict=True):
        assert y.dtype == wanted, f"expected {wanted.name}, got {y.dtype.name}"
        if op.name in SIZE_BY_VALUES:
            assert y.ndim == len(shape), f"expected {len(shape)} axes, got {y.shape}"
        else:
            assert y.shape == shape, f"expected {shape}, got {y.shape}"
        check_place(y, device)
    if expected.differentiable:
        _check_gradients(expected, device)


def _check_gradients(expected: Expected, device: gl.Device) -> None:
    """Gradients by the quick way, by the differentiable one, and the gradients of those."""
    inputs = _inputs(expected.call, expected.dtype, device)
    for i in expected.differentiable:
        inputs[i].requires_grad_()
    leaves = [x for x in inputs if x.requires_grad]
    results = expected.call.run(inputs, device)
    results = [y for y in results if y.requires_grad and dtypes.is_floating(y.dtype)]
    starts = [gl.ones_like(y) for y in results]
    options = {"retain_graph": True, "materialize_grads": True}
    quick = grad(results, leaves, starts, **options)
    plain = grad(results, leaves, starts, create_graph=True, **options)
    recorded = [each for each in plain if each.requires_grad]
    second = grad(recorded, leaves, list(map(gl.ones_like, recorded)), **options)
    for gradients in (quick, plain, second):
        for x, gx in zip(leaves, gradients, strict=False):  # second may be empty
            assert (gx.dtype, gx.shape) == (x.dtype, x.shape), f"a gradient is {gx.dtype.name}"
            check_place(gx, device)


def check_place(y: Tensor, device: gl.Device) -> None:
    assert y.device is device, f"it is on {y.device}, expected {device}"
    index = y._array.device.id
    assert index == device.index, f"it says {device}, its memory is on GPU {index}"
