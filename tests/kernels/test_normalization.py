"""Layer norm and RMS norm by rows: every way to take a row, against the array code in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import normalization as cuda

import gradlab as gl
from gradlab.autograd import grad
from gradlab.ops import normalization as N
from gradlab.testing import check_op

FLOATS = ["float16", "bfloat16", "float32", "float64"]
RTOL = {"float16": 4e-3, "bfloat16": 3.2e-2, "float32": 2e-5, "float64": 1e-12}

# (rows, columns) and who takes such rows of float32: a few lanes or all of a warp, a block, and
# from where on a row is streamed; the last forward is not the last backward.
SHAPES = [
    ((1, 1), "lanes"), ((3, 4), "lanes"), ((70, 7), "lanes"), ((9, 33), "warp"),
    ((5, 128), "lanes"), ((11, 132), "warp"), ((2, 257), "block"), ((10, 512), "warp"),
    ((3, 516), "block"), ((2, 1025), "block"),
]  # fmt: skip
LONG = [((9, 4097), "block", "streamed"), ((2, 8196), "block", "streamed"),
        ((1, 8193), "streamed", "streamed"), ((1, 16_388), "streamed", "streamed")]  # fmt: skip


def numbers(shape: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) + 0.5


def norm(kind: str, x: Any, *parameters: Any) -> Any:
    function = N.layer_norm if kind == "layer" else N.rms_norm
    return function(x, x.shape[-1], *parameters, eps=1e-5)


def both(kind: str, shape: Any, dtype: str, count: int, seed: int = 0) -> list[list[np.ndarray]]:
    """Result and gradients of float64 on the CPU, and of ``dtype`` through the kernels."""
    parameters = [numbers(shape[-1], seed + i) for i in range(1, 1 + count)]
    given = [numbers(shape, seed), *parameters, numbers(shape, 9)]
    given = [np.asarray(each).astype(gl.tensor(0, dtype=dtype).dtype) for each in given]
    found = []
    for device, wanted in (("cpu", "float64"), ("cuda", dtype)):
        *inputs, gy = [gl.tensor(each.astype("float64"), dtype=wanted, device=device)
                       for each in given]  # fmt: skip
        for each in inputs:
            each.requires_grad_()
        y = norm(kind, *inputs)
        results = [y.detach(), *grad(y, inputs, gy)]
        assert all(each.dtype.name == wanted for each in results)
        found.append([each.numpy(force=True).astype("float64") for each in results])
    return found


def compare(found: list[list[np.ndarray]], dtype: str) -> None:
    for expected, actual in zip(*found, strict=True):
        scale = np.max(np.abs(expected), initial=1.0)
        np.testing.assert_allclose(actual, expected, rtol=RTOL[dtype], atol=RTOL[dtype] * scale)


def stems(emulator: Any) -> list[str]:
    return [symbol.rsplit("_", 1)[0] for _, symbol in emulator.launches]


@pytest.mark.parametrize(("shape", "taken"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_rows_of_float32(emulator, kind, shape, taken):
    compare(both(kind, shape, "float32", 2 if kind == "layer" else 1), "float32")
    assert stems(emulator) == [f"forward_{taken}", f"backward_{taken}", "column_sums"]


@pytest.mark.parametrize(("shape", "forward", "backward"), LONG, ids=str)
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_long_rows(emulator, kind, shape, forward, backward):
    compare(both(kind, shape, "float32", 2 if kind == "layer" else 1), "float32")
    columns = ["column_shares"] if backward == "streamed" else []
    assert stems(emulator) == [
        f"forward_{forward}", f"backward_{backward}", *columns, "column_sums",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(emulator, dtype):
    for shape in ((5, 8), (3, 33), (3, 300), (2, 264), (3, 1032), (2, 4099)):
        for kind in ("layer", "rms"):
            compare(both(kind, shape, dtype, 2 if kind == "layer" else 1), dtype)


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_small_rows(emulator, dtype):
    """Every kernel once."""
    for shape in ((9, 8), (5, 256), (33, 516), (9, 7), (3, 100), (2, 1001)):
        compare(both("layer", shape, dtype, 2), dtype)
    compare(both("layer", (1, 8193), dtype, 2), dtype)


def test_many_rows_per_block(emulator):
    """More rows than blocks take in one turn, and a last turn that is not full."""
    for shape in ((601, 6), (601, 8), (301, 130), (301, 200), (45, 516), (45, 257)):
        compare(both("layer", shape, "float32", 2), "float32")


def test_what_is_asked_for(emulator):
    """Each gradient alone is the same as among the others, and nothing else is computed."""
    for shape in ((7, 12), (5, 300), (3, 700), (2, 4097)):
        every = both("layer", shape, "float32", 2)[1][1:]
        inputs = [numbers(shape, 0), numbers(shape[-1], 1), numbers(shape[-1], 2)]
        gy = gl.tensor(numbers(shape, 9), dtype="float32", device="cuda")
        for i, expected in enumerate(every):
            given = [gl.tensor(each, dtype="float32", device="cuda") for each in inputs]
            given[i].requires_grad_()
            emulator.launches.clear()
            (found,) = grad(norm("layer", *given), given[i], gy)
            np.testing.assert_array_equal(found.numpy(force=True), expected)
            assert ("column_sums" in stems(emulator)) == (i > 0)
        compare(both("layer", shape, "float32", 0), "float32")
        compare(both("layer", shape, "float32", 1), "float32")


def test_bias_alone(emulator):
    x, bias = numbers((5, 12), 0), numbers(12, 1)
    made = [
        N.layer_norm(gl.tensor(x, device=device), 12, None, gl.tensor(bias, device=device))
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(made[1].numpy(force=True), made[0].numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 40), (3, 900), (2, 16_390), (2, 16_388)])
def test_large_offsets_keep_precision(emulator, shape):
    """No E[x²] - E[x]²: values near 10,000 with deviations of 1 keep their variance."""
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype("float32")
    wide = x.astype("float64")
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    y = N.layer_norm(gl.tensor(x, device="cuda"), shape[1])
    np.testing.assert_allclose(y.numpy(force=True), expected, atol=3e-3)


def test_layouts_and_axes(emulator):
    x, weight, gy = numbers((6, 4, 5), 0), numbers((4, 5), 1), numbers((3, 4, 5), 2)
    made = []
    for device in ("cpu", "cuda"):
        whole = gl.tensor(x, device=device, requires_grad=True)
        w = gl.tensor(weight, device=device, requires_grad=True)
        y = N.layer_norm(whole[::2], (4, 5), w)
        incoming = gl.tensor(gy.transpose(2, 1, 0).copy(), device=device).permute(2, 1, 0)
        found = [y.detach(), *grad(y, [whole, w], incoming)]
        made.append([each.numpy(force=True) for each in found])
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_nothing_to_normalize(emulator):
    x = gl.zeros((0, 3), device="cuda", requires_grad=True)
    weight = gl.ones(3, device="cuda", requires_grad=True)
    y = N.layer_norm(x, 3, weight)
    gx, gweight = grad(y.sum(), [x, weight])
    assert y.shape == gx.shape == (0, 3)
    assert gweight.tolist() == [0.0, 0.0, 0.0]


def test_mixed_dtypes_go_the_general_way(emulator):
    x = gl.ones((3, 4), dtype="float16", device="cuda")
    weight = gl.ones(4, dtype="float32", device="cuda")
    assert N.layer_norm(x, 4, weight).dtype == gl.float32
    assert "normalization.cu" not in [source for source, _ in emulator.launches]


def test_one_tensor_as_row_and_weight(emulator):
    made = []
    for device in ("cpu", "cuda"):
        x = gl.tensor(numbers(12, 0), device=device, requires_grad=True)
        y = N.layer_norm(x, 12, x)
        made.append([y.detach().numpy(force=True), grad(y.sum(), x)[0].numpy(force=True)])
    np.testing.assert_allclose(made[1], made[0], rtol=1e-9)


def test_the_same_bits_twice(emulator):
    first, second = (both("layer", (300, 40), "float32", 2)[1] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("op", [N.LAYER_NORM, N.RMS_NORM])
def test_samples(emulator, op):
    assert check_op(op, devices=["cuda"]) > 5


def test_second_gradients(emulator):
    x = gl.tensor(numbers((3, 5), 0), device="cuda")
    assert gl.testing.gradcheck(lambda x: N.layer_norm(x, 5), x, order=2, rtol=1e-5)


def test_more_rows_than_a_grid_has_blocks(emulator):
    xp = emulator.xp
    x = xp.broadcast_to(xp.zeros((1, 1), np.float32), (1 << 31, 1))
    assert not cuda.accepts(x, 1.0, count=1)
    assert cuda.accepts(x[: 1 << 30], 1.0, count=1)
