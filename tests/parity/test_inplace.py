"""In-place writes on random programs: values, gradients and refusals as in PyTorch."""

from __future__ import annotations

import random

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import GradientError
from gradlab.testing import gradcheck

torch = pytest.importorskip("torch")

SHAPE = (4, 6)


class Program:
    """A random sequence of views and writes, the same for both libraries."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.steps = [self.step() for _ in range(self.random.randint(3, 9))]
        self.start = np.random.default_rng(seed).uniform(0.5, 1.5, (3, *SHAPE))

    def step(self):
        choose = self.random.choice
        kind = choose(["view", "view", "write", "write", "write", "value", "use", "buffer"])
        number = self.random.randint(0, 7)
        index = choose(
            [
                (1,),
                (slice(1, 3),),
                (slice(None, None, 2),),
                (slice(None), slice(2, 5)),
                (slice(None), 3),
                (Ellipsis, slice(None, None, 3)),
                (-1, slice(1, None)),
            ]
        )
        how = choose(["add_", "mul_", "sub_", "div_", "set", "copy_", "zero_", "fill", "mask",
                      "clamp", "own", "exp_"])  # fmt: skip
        shape = choose(["slice", "slice", "T", "reshape", "unsqueeze"])
        return kind, number, index, how, shape

    def run(self, library, tensor):
        """Run the steps; returns the leaves and the scalar at the end."""
        leaves = [tensor(values) for values in self.start]
        tensors = [leaf * 1 for leaf in leaves[:2]]
        used = []
        for kind, number, index, how, shape in self.steps:
            x = tensors[number % len(tensors)]
            if kind == "view":
                tensors.append(self.view(x, index, shape))
            elif kind == "write":
                self.write(library, x, leaves[2], index, how)
            elif kind == "value":
                tensors.append(x * 1.5 + 0.25)
            elif kind == "buffer":
                buffer = library.zeros(SHAPE, dtype=library.float64)
                tensors.append(buffer)
            else:
                used.append((x + x * 0.5).sum())
        return leaves, sum([x.sum() for x in tensors] + used)

    @staticmethod
    def view(x, index, shape):
        if shape == "T" and x.ndim == 2:
            return x.T
        if shape == "unsqueeze" and x.ndim < 3:
            return x.unsqueeze(0)
        if shape == "reshape" and x.is_contiguous():
            return x.reshape(-1)
        if x.ndim == 2 and x.shape == SHAPE:
            return x[index]
        return x[1:] if x.ndim and x.shape[0] > 1 else x

    @staticmethod
    def write(library, x, v, index, how):
        value = v.sum() * 0.1
        if how in ("add_", "mul_", "sub_", "div_"):
            getattr(x, how)(value)
        elif how == "set" and x.shape == SHAPE:
            x[index] = v[index] * 2
        elif how == "copy_" and x.shape == SHAPE:
            x.copy_(v)
        elif how == "zero_":
            x.zero_()
        elif how == "fill":
            x[...] = 0.75
        elif how == "mask" and x.ndim:
            x[x > 1] = 0.5
        elif how == "clamp":
            x.clamp_(max=1.25)
        elif how == "own":
            x *= x.clone()
        elif how == "exp_":
            x.mul_(0.1)
            x.exp_()


@pytest.mark.parametrize("seed", range(300))
def test_programs(seed):
    program = Program(seed)
    ours = run(program, gl, lambda v: gl.tensor(v, requires_grad=True), GradientError)
    theirs = run(program, torch, lambda v: torch.tensor(v, requires_grad=True), RuntimeError)
    if theirs is None:
        # PyTorch refuses x.exp_().mul_(2), whose first result is overwritten; gradlab keeps it.
        assert gradcheck(lambda *leaves: as_function(program, leaves), list(program.start))
        return
    assert ours is not None, "gradlab refuses what PyTorch computes"
    (value, gradients), (their_value, their_gradients) = ours, theirs
    np.testing.assert_allclose(value, their_value, rtol=1e-12)
    for one, other in zip(gradients, their_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def as_function(program, leaves):
    given = iter(leaves)
    return program.run(gl, lambda _: next(given))[1]


def run(program, library, tensor, error):
    try:
        leaves, total = program.run(library, tensor)
        total.backward()
    except error:
        return None
    return float(total.detach()), [
        np.zeros(SHAPE) if x.grad is None else x.grad.numpy() for x in leaves
    ]


def test_the_programs_are_not_empty():
    results = [
        run(Program(seed), gl, lambda v: gl.tensor(v, requires_grad=True), GradientError)
        for seed in range(60)
    ]
    assert sum(result is not None for result in results) > 30


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: x.sigmoid().mul_(y),
        lambda x, y: (x * y, x.zero_())[0],
        lambda x, y: (x[0] * y, x[1].zero_())[0],
        lambda x, y: (x.log(), x.detach().add_(1))[0],
    ],
)
def test_writes_that_both_refuse(program):
    values = np.random.default_rng(0).uniform(0.5, 1.5, (2, *SHAPE))
    for make, error in ((gl.tensor, GradientError), (torch.tensor, RuntimeError)):
        x, y = (make(v, requires_grad=True) for v in values)
        total = program(x * 1, y).sum()
        with pytest.raises(error, match=r"changed in place|modified by an inplace operation"):
            total.backward()


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: x.mul_(y),
        lambda x, y: x.div_(y),
        lambda x, y: x.add_(y, alpha=3),
        lambda x, y: x.pow_(2),
        lambda x, y: x.copy_(y[0]),
        lambda x, y: x.transpose(0, 1).mul_(y.transpose(0, 1)),
    ],
)
def test_single_writes(program):
    values = np.random.default_rng(0).uniform(0.5, 1.5, (2, *SHAPE))
    results = []
    for make in (gl.tensor, torch.tensor):
        x, y = (make(v, requires_grad=True) for v in values)
        z = x * 1
        returned = program(z, y)
        (z * z.detach().sum() + returned.sum()).sum().backward()
        results.append([None if t.grad is None else t.grad.numpy() for t in (x, y)])
    for one, other in zip(*results, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-10)
