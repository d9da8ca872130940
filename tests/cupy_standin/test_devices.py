"""Two GPUs: data lands on its tensor's, whichever is the current one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import device_programs
import fake_cuda
import gradlab as gl
from cupy_standin import install

install.required()


@pytest.mark.parametrize("index", [1, 0])
@pytest.mark.parametrize("name", device_programs.PROGRAMS)
def test_programs_stay_on_their_device(name, index, standin):
    standin.set_devices(2)
    device_programs.run(name, gl.device("cuda", index), current=1 - index)


# ------------------------------------------------------- the stand-in for CuPy that computes, too

# On arrays of GPU 1 (`x`, indices `i` and `i2`, masks `m` and `m2`) and one of GPU 0 (`other`),
# while 0 is the current one.
EXPRESSIONS = """
    x.copy() | x.T.copy() | x.flatten() | x.astype("f4") | x.astype("f4", copy=False) |
    x.astype("f8") | x[0] | x[0, 0] | x[:, None] | x[i] | x[m] | x[[0, 2]] | x[np.array([0])] |
    x.reshape(-1) | x.T.reshape(-1) | x.ravel() | x.T.ravel() | x.T | x.transpose(1, 0) |
    x.swapaxes(0, 1) | x.squeeze() | x.diagonal() | x.view("i4") | x.real | x.conj() | x.get() |
    x.tolist() | x[0, 0].item() | bool(x[0, 0]) | int(x[0, 0]) | float(x[0, 0]) | len(x) |
    x.flags.c_contiguous | copy.deepcopy(x) | x.sum() | x.max() | x.any() | x.argsort() |
    x.take(i) | x.clip(0, 1) | x.repeat(2) | x + x | x + 1 | -x | x == x | x @ x | x + other |
    xp.asarray(x) | xp.asarray(x, dtype="f8") | xp.array(x) | xp.array(x, dtype="f8") |
    xp.asnumpy(x) | xp.ascontiguousarray(x) | xp.ascontiguousarray(x.T) | xp.copy(x) |
    xp.zeros_like(x) | xp.empty_like(x) | xp.full_like(x, 2) | xp.zeros(3) | xp.arange(3) |
    xp.full(2, 1.0) | xp.eye(3) | xp.asarray([1.0]) | xp.asarray(np.ones(3)) |
    xp.broadcast_to(x, (2, 3, 3)) | xp.expand_dims(x, 0) | xp.moveaxis(x, 0, 1) | xp.flip(x, 0) |
    xp.swapaxes(x, 0, 1) | xp.squeeze(x) | xp.split(x, 3) | xp.may_share_memory(x, x) |
    xp.exp(x) | xp.add(x, x) | xp.where(m2, x, x) | xp.isfinite(x) | xp.sum(x) | xp.cumsum(x) |
    xp.argmax(x) | xp.sort(x) | xp.argsort(x) | xp.take(x, i, axis=0) |
    xp.take_along_axis(x, i2, 1) | xp.concatenate([x, x]) | xp.stack([x, x]) | xp.tile(x, 2) |
    xp.roll(x, 1) | xp.tril(x) | xp.einsum("ij->i", x) | xp.bincount(i) | xp.nonzero(x) |
    write(x, 0, 1.0) | write(x, slice(None), x) | write(x, i, 1.0) | write(x, m, 1.0) |
    write(x, m, x[0]) | write(x, 0, other[0]) | add_to(x) | x.fill(1) | xp.copyto(x, 1.0) |
    xp.copyto(x, x) | xp.copyto(x, other) | xp.exp(x, out=x) | xp.add.at(x, i, 1.0)
"""


@pytest.mark.parametrize("expression", [each.strip() for each in EXPRESSIONS.split("|")])
def test_the_stand_in_that_computes_takes_no_array_where_cupy_does_not(expression, standin):
    import cupy

    on_cupy = _outcome(expression, cupy, cupy.cuda.Device)
    on_fake = _outcome(expression, fake_cuda.Namespace(np), fake_cuda.Device)
    # It may be stricter, and refuse what CuPy takes from another GPU than the current one.
    assert on_fake in (on_cupy, "ValueError")
    if on_cupy == "GPU 1":  # views, which need no GPU
        assert on_fake == on_cupy


def _outcome(expression: str, xp: Any, device: Any) -> str:
    """Where the result lies, or which error there is."""
    with device(1):
        names = {"x": xp.ones((3, 3), "f4"), "i": xp.asarray([0, 2]),
                 "i2": xp.zeros((3, 3), "i8"), "m": xp.asarray([True, False, True]),
                 "m2": xp.ones((3, 3), bool)}  # fmt: skip
    with device(0):
        names |= {"xp": xp, "np": np, "copy": copy, "write": _write, "add_to": _add_to,
                  "other": xp.ones((3, 3), "f4")}  # fmt: skip
        try:
            found = eval(expression, names)
        except Exception as error:
            return type(error).__name__
    while isinstance(found, list | tuple) and found:
        found = found[0]
    index = getattr(getattr(found, "device", None), "id", None)
    return "on the host" if index is None else f"GPU {index}"


def _write(x: Any, index: Any, value: Any) -> None:
    x[index] = value


def _add_to(x: Any) -> None:
    x += 1
