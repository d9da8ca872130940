"""Optimizer updates and clipping, many tensors per launch, against the CPU's array code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import update as cuda

import gradlab as gl
from gradlab.nn.utils import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_

# Nothing, a scalar, around a vector of four, around a block's piece of 1024, several of them.
SHAPES = [(0, 3), (), (3,), (4,), (5, 1), (33, 31), (1024,), (1025,), (64, 50)]
DTYPES = ["float32", "float64", "float16", "bfloat16"]

OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    (gl.optim.SGD, {"lr": 0.1}),
    (gl.optim.SGD, {"lr": 0.1, "weight_decay": 0.01, "maximize": True}),
    (gl.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (gl.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (gl.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    (gl.optim.Adam, {"lr": 0.01}),
    (gl.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    (gl.optim.Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.3, 0.6)}),
    (gl.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    (gl.optim.AdamW, {"lr": 0.01, "weight_decay": 0.3, "maximize": True}),
    (gl.optim.RMSprop, {"lr": 0.01}),
    (gl.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    (gl.optim.RMSprop, {"lr": 0.01, "centered": True, "alpha": 0.4, "maximize": True}),
    (gl.optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    (gl.optim.Adagrad, {"lr": 0.1}),
    (gl.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True}),
]


def name_of(value: Any) -> str:
    return "-".join(value) if isinstance(value, dict) else value.__name__


def parameters(device: str, dtype: Any = "float32", shapes: Any = SHAPES) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        gl.tensor(rng.standard_normal(shape), dtype=dtype, device=device, requires_grad=True)
        for shape in shapes
    ]


def train(optimizer: Any, params: list[Any], steps: int = 3, dtype: Any = None) -> None:
    rng = np.random.default_rng(1)
    for step in range(steps):
        for i, p in enumerate(params):
            g = rng.standard_normal(p.shape)
            # Some parameters join later, so that the counts of steps differ.
            given = not (step == 0 and i % 3 == 1)
            p.grad = gl.tensor(g, dtype=dtype or p.dtype, device=p.device) if given else None
        optimizer.step()


def everything(optimizer: Any, params: list[Any]) -> list[np.ndarray]:
    states = [
        value
        for p in params
        for value in optimizer.state[p].values()
        if isinstance(value, gl.Tensor)
    ]
    return [x.numpy(force=True) for x in (*params, *states)]


@pytest.mark.parametrize(("optimizer", "options"), OPTIONS, ids=name_of)
def test_steps_are_the_hosts(emulator, optimizer, options):
    """Bit for bit: no product is fused with a sum, and a half is rounded once."""
    for dtype in DTYPES:
        made = []
        for device in ("cpu", "cuda"):
            params = parameters(device, dtype)
            stepped = optimizer(params, **options)
            train(stepped, params)
            made.append(everything(stepped, params))
        for here, there in zip(*made, strict=True):
            assert here.dtype == there.dtype
            np.testing.assert_array_equal(here, there)
    stem = {"AdamW": "adam"}.get(optimizer.__name__, optimizer.__name__.lower())
    wanted = [("update.cu", f"{stem}_{dtype}") for dtype in DTYPES for _ in range(3)]
    assert emulator.launches == wanted


@pytest.mark.sanitized
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_small_steps(emulator, optimizer):
    params = parameters("cuda", shapes=[(3,), (1029,), ()])
    options = {"momentum": 0.9} if optimizer in ("SGD", "RMSprop") else {}
    train(getattr(gl.optim, optimizer)(params, **options), params, steps=2)
    clip_grad_norm_(params, 1.0)
    clip_grad_value_(params, 0.1)


@pytest.mark.parametrize(
    ("count", "launches"), [(1, 1), (cuda.TENSORS, 1), (cuda.TENSORS + 1, 2), (120, 3)]
)
def test_launches_do_not_grow_with_parameters(emulator, count, launches):
    params = parameters("cuda", shapes=[(7, 3)] * count)
    optimizer = gl.optim.Adam(params)
    train(optimizer, params, steps=2)  # in the first only two of three take part
    emulator.launches.clear()
    copies, waits = emulator.copies_to_host, emulator.waits
    optimizer.step()
    assert len(emulator.launches) == launches
    clip_grad_norm_(params, 1.0)
    assert len(emulator.launches) == launches + (launches + 1) + launches
    assert (emulator.copies_to_host, emulator.waits) == (copies, waits)


def test_dtypes_are_launched_apart(emulator):
    params = parameters("cuda") + parameters("cuda", "float64") + parameters("cuda", "bfloat16")
    train(gl.optim.SGD(params), params, steps=1)
    assert sorted(symbol for _, symbol in emulator.launches) == [
        "sgd_bfloat16", "sgd_float32", "sgd_float64",
    ]  # fmt: skip


def test_parameters_of_other_layouts_are_updated_too(emulator):
    """A view with gaps goes the general way, its neighbours do not; gradients may lie anyhow."""
    made = []
    for device in ("cpu", "cuda"):
        rng = np.random.default_rng(2)
        whole = [gl.tensor(rng.standard_normal((6, 4)), device=device) for _ in range(3)]
        params = [whole[0].detach()[:, ::2], whole[1], whole[2].T]
        for p in params:
            p.requires_grad_()
        optimizer = gl.optim.Adam(params, amsgrad=True)
        for _ in range(3):
            for p in params:
                p.grad = gl.tensor(rng.standard_normal(p.shape[::-1]), device=device).T
            optimizer.step()
        made.append(everything(optimizer, params))
    for here, there in zip(*made, strict=True):
        np.testing.assert_array_equal(here, there)
    assert [symbol for _, symbol in emulator.launches] == ["adam_float64"] * 3


def test_memory_off_the_sixteen_bytes(emulator):
    """Slices of one vector of parameters: no access is wide, and nothing beside them changes."""
    made = []
    for device in ("cpu", "cuda"):
        whole = gl.tensor(np.linspace(-1, 1, 3000), dtype="float32", device=device)
        params = [whole[1:1100], whole[1101:1102], whole[1103:2999]]
        for p in params:
            p.requires_grad_()
        optimizer = gl.optim.Adam(params)
        train(optimizer, params)
        made.append(whole.numpy(force=True))
    np.testing.assert_array_equal(*made)


def test_nan_stays(emulator):
    for optimizer in (gl.optim.Adam, gl.optim.AdamW):
        p = gl.ones(4, device="cuda", requires_grad=True)
        p.grad = gl.tensor([1.0, float("nan"), float("inf"), 0.0], device="cuda")
        optimizer([p], lr=0.1, amsgrad=True).step()
        assert np.isnan(p.numpy(force=True)).tolist() == [False, True, True, False]


# ----------------------------------------------------------------------------------- clipping


def with_gradients(device: str, dtype: Any, scale: float = 1.0) -> list[Any]:
    params = parameters(device, dtype, [*SHAPES, (300, 100)])
    for p in params:
        p.grad = (p.detach() * scale).T if p.ndim == 2 else p.detach() * scale
        p.grad = p.grad.T
    return params


@pytest.mark.parametrize("order", [2, 1, math.inf, 3.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_clipped_as_on_the_host(emulator, dtype, order):
    made = []
    for device in ("cpu", "cuda"):
        params = with_gradients(device, dtype)
        total = clip_grad_norm_(params, 2.0, order)
        made.append((total, [p.grad.numpy(force=True) for p in params]))
    (here, host), (there, device) = made
    assert here.dtype == there.dtype
    rtol = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(there.numpy(force=True), here.numpy(), rtol)
    rtol = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    for one, other in zip(host, device, strict=True):
        np.testing.assert_allclose(one.astype("float64"), other.astype("float64"), rtol)
    symbols = [symbol for _, symbol in emulator.launches]
    kind = "float64" if dtype == "float64" else "float32"
    assert symbols == [f"norm_shares_{dtype}", f"norm_total_{kind}", f"clip_norm_{dtype}"]


def test_small_gradients_are_left(emulator):
    params = with_gradients("cuda", "float32", 1e-6)
    before = [p.grad.numpy(force=True) for p in params]
    clip_grad_norm_(params, 2.0)
    for p, was in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(force=True), was)


@pytest.mark.parametrize("order", [2, math.inf])
def test_nan_reaches_the_norm(emulator, order):
    params = with_gradients("cuda", "float32")
    params[5].grad[3, 7] = float("nan")
    assert math.isnan(float(clip_grad_norm_(params, 2.0, order)))
    assert np.isnan(params[4].grad.numpy(force=True)).all()


def test_a_norm_of_nothing_is_0(emulator):
    p = gl.zeros((0, 3), device="cuda", requires_grad=True)
    p.grad = gl.zeros((0, 3), device="cuda")
    assert float(clip_grad_norm_([p], 1.0)) == 0.0


def test_a_norm_of_another_dtype(emulator):
    params = with_gradients("cuda", "float32")
    clip_grads_with_norm_(params, 1.0, gl.tensor(2.0, dtype="float64", device="cuda"))
    expected = (params[6].detach() * np.float32(1 / (2 + 1e-6))).numpy(force=True)
    np.testing.assert_array_equal(params[6].grad.numpy(force=True), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_limited_as_on_the_host(emulator, dtype):
    made = []
    for device in ("cpu", "cuda"):
        params = with_gradients(device, dtype)
        params[3].grad[1] = float("nan")
        clip_grad_value_(params, 0.3)
        made.append([p.grad.numpy(force=True).astype("float64") for p in params])
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_bits_twice(emulator):
    totals = [
        clip_grad_norm_(with_gradients("cuda", "float32"), 1.0).numpy(force=True) for _ in range(2)
    ]
    assert totals[0] == totals[1]
