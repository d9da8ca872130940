"""Gradients of the parts of a tensor: put together in one array, at the cost of one pass."""

from __future__ import annotations

import time

import numpy as np
import pytest

import gradlab as gl

rng = np.random.default_rng(0)


def total(pieces):
    return gl.stack([(piece * piece).sum() for piece in pieces]).sum()


# Programs that read a matrix row by row, column by column or block by block.
READS = {
    "unbind": lambda x: total(x.unbind()),
    "unbind columns": lambda x: total(x.T.unbind(1)),
    "iteration": lambda x: total(x),
    "rows": lambda x: total([x[i] for i in range(len(x))]),
    "slices": lambda x: total([x[i : i + 1] for i in range(len(x))]),
    "elements": lambda x: total([x[i, 0] for i in range(len(x))]),
    "split": lambda x: total(x.split(1)),
    "split by sizes": lambda x: total(x.split([1] * len(x))),
    "chunk": lambda x: total(x.chunk(len(x))),
    "tensor_split": lambda x: total(x.tensor_split(len(x))),
    "vsplit": lambda x: total(x.vsplit(len(x))),
    "narrow": lambda x: total([x.narrow(0, i, 1) for i in range(len(x))]),
    "index_select": lambda x: total([x.index_select(0, gl.tensor([i])) for i in range(len(x))]),
    "gather": lambda x: total([x.gather(0, gl.tensor([[i]])) for i in range(len(x))]),
    "integer tensor": lambda x: total([x[gl.tensor([i])] for i in range(len(x))]),
    "rows of a transpose": lambda x: total([x.T[i] for i in range(len(x))]),
    "rows of a reshape": lambda x: total([x.view(len(x), 2, -1)[i] for i in range(len(x))]),
    "elements of rows": lambda x: total([x[i][0] for i in range(len(x))]),
    "diagonals": lambda x: total([x.diagonal(-i) for i in range(len(x))]),
}


def written(x):
    y = gl.zeros(*x.shape, dtype=x.dtype)
    for i in range(len(x)):
        y[i] = x[i] * 2
    return (y * y).sum()


def recurrence(x):
    y = gl.zeros(*x.shape, dtype=x.dtype)
    y[0] = x[0]
    for i in range(1, len(x)):
        y[i] = y[i - 1] * 0.5 + x[i]
    return (y * y).sum()


def added_to(x):
    y = x * 1
    for i in range(len(x)):
        y[i] += x[i]
    return (y * y).sum()


def scaled(x):
    y = x * 1
    for row in y:
        row.mul_(3)
    return (y * y).sum()


WRITES = {"rows": written, "recurrence": recurrence, "added to": added_to, "scaled": scaled}
PROGRAMS = {**READS, **{f"writing: {name}": each for name, each in WRITES.items()}}


def seconds(program, rows):
    x = gl.ones(rows, 2048, requires_grad=True)
    best = float("inf")
    for _ in range(3):
        loss = program(x)
        start = time.process_time()
        loss.backward()
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("name", PROGRAMS)
def test_backward_is_linear(name):
    # With zeros of the whole for each row, a row of 1000 costs many times what one of 20 does.
    small, large = (seconds(PROGRAMS[name], rows) / rows for rows in (20, 1000))
    assert large < 4 * small


def test_second_backward_is_linear():
    def second(rows):
        x = gl.ones(rows, 2048, requires_grad=True)
        best = float("inf")
        for _ in range(3):
            (gx,) = gl.autograd.grad(total(x), x, create_graph=True)
            start = time.process_time()
            (gx * gx).sum().backward()
            best = min(best, time.process_time() - start)
        return best / rows

    assert second(1000) < 4 * second(20)


def test_stack_of_many_is_linear():
    def per_tensor(count):
        xs = [gl.ones(2, requires_grad=True) for _ in range(count)]
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            gl.cat(xs).sum().backward()
            best = min(best, time.process_time() - start)
        return best / count

    assert per_tensor(16000) < 4 * per_tensor(500)


# ------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["unbind", "split", "index_select", "integer tensor", "diagonals"])
def test_values(emulator, name, device):
    values = rng.standard_normal((5, 5)).astype(np.float32)
    x = gl.tensor(values, device=device, requires_grad=True)

    def read(x):
        if name in ("index_select", "integer tensor"):
            each = [gl.tensor([i], device=device) for i in range(len(x))]
            if name == "index_select":
                return total([x.index_select(0, i) for i in each])
            return total([x[i] for i in each])
        return READS[name](x)

    read(x).backward()
    expected = 2 * (np.tril(values) if name == "diagonals" else values)
    np.testing.assert_array_equal(x.grad.cpu().numpy(), expected)


def test_overlapping_parts_add_up():
    x = gl.arange(5.0, requires_grad=True)
    windows = [x[i : i + 3] for i in range(3)]
    gl.stack(windows).sum().backward()
    assert x.grad.tolist() == [1, 2, 3, 2, 1]


def test_parts_and_the_whole_add_up():
    x = gl.ones(3, 2, requires_grad=True)
    y = x * 1  # not a leaf, whose gradients do not wait
    (y.sum() + y[0].sum() + (y * 2).sum() + y[0, 1] + y.T[1].sum()).backward()
    assert x.grad.tolist() == [[4, 6], [3, 4], [3, 4]]


def test_a_single_part_keeps_its_bits():
    x = gl.zeros(3, requires_grad=True)
    x[1].backward(gl.tensor(-0.0))
    assert np.signbit(x.grad.numpy()).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_add_up_in_float32(dtype):
    x = gl.zeros(2, 3, dtype=dtype, requires_grad=True)
    y = x * 1
    # In steps of the dtype 2048 + 1 is 2048, for ever.
    gl.stack([y[0] * 2048] + [y[0] for _ in range(512)]).sum().backward()
    assert x.grad.dtype.name == dtype
    assert x.grad.tolist() == [[2560] * 3, [0] * 3]


def test_gather_of_a_number():
    x = gl.tensor(3.0, requires_grad=True)
    gl.gather(x, 0, gl.tensor(0)).backward()
    assert x.grad.item() == 1


def test_parts_of_several_kinds_recorded():
    values = rng.standard_normal((4, 4))
    x = gl.tensor(values, requires_grad=True)
    i = gl.tensor([2, 2, 0])
    y = (x[0] ** 3).sum() + (x[i] ** 3).sum() + (x.gather(1, gl.tensor([[1], [0]])) ** 3).sum()
    y = y + (x.diagonal() ** 3).sum() + (x.take(i) ** 3).sum() + (x**3).sum()
    (gx,) = gl.autograd.grad(y, x, create_graph=True)
    gx.sum().backward()
    counts = np.ones((4, 4))
    counts[0] += 2
    counts[2] += 2
    counts[0, 1] += 1
    counts[1, 0] += 1
    counts += np.eye(4)
    counts[0, [0, 2]] += [1, 2]
    np.testing.assert_allclose(gx.detach().numpy(), 3 * counts * values**2)
    np.testing.assert_allclose(x.grad.numpy(), 6 * counts * values)


# -------------------------------------------------- gradients that somebody holds stay as they were


def test_hooks_and_captured_gradients_are_not_overwritten():
    x = gl.ones(3, 2, requires_grad=True)
    y = x * 1
    seen = []
    y.register_hook(seen.append)
    y.retain_grad()
    z = y * 1
    z[0] = 5.0
    z[1] *= 2
    z.retain_grad()
    loss = (z * z).sum() + y[2].sum()
    loss.backward(retain_graph=True)
    expected = [[0, 0], [8, 8], [3, 3]]
    assert seen[0].tolist() == y.grad.tolist() == x.grad.tolist() == expected
    assert z.grad.tolist() == [[10, 10], [4, 4], [2, 2]]
    (gy, gx) = gl.autograd.grad(loss, (y, x))
    assert gy.tolist() == gx.tolist() == seen[1].tolist() == expected


def test_a_gradient_given_to_backward_is_not_overwritten():
    x = gl.ones(3, 2, requires_grad=True)
    y = x * 1
    y[0] = 5.0
    given = gl.ones(3, 2)
    y.backward(given, retain_graph=True)
    y.backward(given)
    assert given.tolist() == [[1, 1]] * 3
    assert x.grad.tolist() == [[0, 0], [2, 2], [2, 2]]


def test_backward_twice():
    x = gl.ones(3, 2, requires_grad=True)
    loss = total(x) + written(x) + recurrence(x)
    loss.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)


def test_a_write_through_a_reshaped_view():
    x = gl.arange(6.0, requires_grad=True)
    y = x.reshape(3, 2) * 1
    y.reshape(-1)[0:2] = 7.0
    weights = gl.arange(6.0).reshape(2, 3).T  # the gradient comes in the other order of memory
    ((y * weights) + (y * weights)).sum().backward()
    assert x.grad.tolist() == [0, 0, 2, 8, 4, 10]


# --------------------------------------------------------------------- rows added at places


@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((5, 3), (np.array([4, 0, 4, -1]),)),
        ((5, 3), np.array([[4, 0], [4, -5]])),
        ((5, 3), (np.array([4, 0, 4]), np.array([2, -1, 2]))),
        ((5, 3), (np.array([[4], [0]]), np.array([2, -1, 2]))),
        ((2, 5, 3), (slice(None), np.array([4, 0, 4, -1]))),
        ((2, 3, 5), (slice(None), slice(None), np.array([[4, 0], [4, -1]]))),
        ((2, 5, 3), (np.array([1, 1, 0], np.uint8), np.array([4, -1, 2], np.int32))),
        ((2, 5, 3), (0, np.array([4, 0, 4]))),
        ((5, 3), (np.array([True, False, True, False, True]),)),
        ((5, 0), (np.array([1, 1]),)),
        ((5, 3), (np.array([], np.int64),)),
    ],
)
def test_every_index_adds_up(shape, index):
    x = gl.zeros(*shape, dtype=gl.float64, requires_grad=True)
    weights = rng.standard_normal(x.detach().numpy()[index].shape)
    (x[index] * gl.tensor(weights)).sum().backward()
    expected = np.zeros(shape)
    np.add.at(expected, index, weights)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_rows_are_added_as_fast_as_they_are_read():
    # Whole rows at a time, NumPy takes 20 times as long as PyTorch.
    x, places = gl.rand(500, 600), gl.tensor(rng.integers(0, 500, 500))
    source = gl.rand(500, 600)

    def seconds(call):
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            call()
            best = min(best, time.process_time() - start)
        return best

    flat = gl.tensor(rng.integers(0, 300_000, 300_000))
    one_by_one = seconds(
        lambda: np.add.at(x.numpy().reshape(-1), flat.numpy(), source.numpy().ravel())
    )
    assert seconds(lambda: x.index_add(0, places, source)) < 4 * one_by_one


def test_blocks_keep_their_bits():
    blocks = [gl.tensor([[-0.0]]), gl.tensor([[-0.0, 1.0]]), gl.tensor([2.0])]
    y = gl.block_diag(*blocks)
    assert y.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]]
    assert np.signbit(y.numpy()).tolist()[1] == [False, True, False, False]
