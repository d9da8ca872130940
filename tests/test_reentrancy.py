"""Ops that run while another op runs: in signal handlers, finalizers, debuggers and threads."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from operator import call
from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab.autograd.modes import mode
from gradlab.ops.core import Op, apply
from gradlab.testing import assert_close


class Probe:
    """Runs ``inner`` once, from within the array code of an op."""

    def __init__(self, inner: Callable[[], Any]) -> None:
        self.inner, self.results = inner, []

    def op(self) -> Op:
        def forward(xp: Any, x: Any) -> Any:
            self.results.append(self.inner())
            return x + 1

        return Op("probe", forward, gradients={"x": lambda gy: gy}, register=False)


def weights() -> gl.Tensor:
    return gl.tensor([2.0, 3.0], requires_grad=True)


def step() -> tuple[Any, ...]:
    w = weights()
    optimizer = gl.optim.SGD([w], lr=0.1, momentum=0.9)
    (w * w).sum().backward()
    optimizer.step()
    return (w.detach(),)


def in_place() -> tuple[Any, ...]:
    x = gl.ones(3)
    x += 1
    x.clamp_(0.0, 1.5)
    x[0] = 7.0
    x.copy_(x * 2)
    return (x,)


def recorded() -> tuple[Any, ...]:
    w = weights()
    y = w * 2
    y[0] = 5.0
    y.exp_()
    y.sum().backward()
    return (w.grad,)


INNER = {
    "arithmetic": lambda: (gl.ones(3) + gl.ones(3), gl.zeros(2).log()),
    "written in place": in_place,
    "written and recorded": recorded,
    "training step": step,
    "random numbers": lambda: (gl.rand(3, generator=gl.Generator().manual_seed(1)),),
    "printing": lambda: (gl.tensor(float(len(repr(gl.ones(3, requires_grad=True))))),),
    "ufunc": lambda: (np.exp(gl.ones(2)), np.ones(2) / gl.ones(2)),
    "sorting": lambda: tuple(gl.sort(gl.tensor([2.0, 1.0]))),
    "linear algebra": lambda: (gl.linalg.solve(gl.eye(2), gl.ones(2)),),
}


@pytest.mark.parametrize("name", INNER)
def test_within_an_op(name):
    inner = INNER[name]
    expected = inner()
    probe = Probe(inner)
    x = gl.tensor([1.0], requires_grad=True)
    y = apply(probe.op(), (x,))
    assert y.item() == 2.0
    for found, wanted in zip(probe.results[0], expected, strict=True):
        assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    y.backward()
    assert x.grad.item() == 1.0
    assert mode.quietly is not call
    assert (gl.zeros(1).log() + 1).item() == -np.inf  # the quiet context is there again


def test_within_an_op_within_an_op():
    inner = Probe(lambda: gl.ones(2).sum())
    outer = Probe(lambda: apply(inner.op(), (gl.ones(1),)))
    assert apply(outer.op(), (gl.zeros(1),)).item() == 1.0
    assert outer.results[0].item() == 2.0
    assert inner.results[0].item() == 2.0


def test_errors_within_an_op_are_those_of_outside():
    def inner() -> None:
        with pytest.raises(gl.errors.ShapeError, match="add: expected shapes that broadcast"):
            gl.ones(2) + gl.ones(3)
        with pytest.raises(gl.errors.LinAlgError):
            gl.linalg.inv(gl.zeros(2, 2))

    apply(Probe(inner).op(), (gl.ones(1),))
    inner()


def test_a_failure_is_not_taken_for_an_op_within_an_op():
    calls = []

    def forward(xp: Any, x: Any) -> Any:
        calls.append(1)
        raise RuntimeError("no such luck")

    op = Op("failing", forward, register=False)
    with pytest.raises(RuntimeError, match="no such luck"):
        apply(op, (gl.ones(1),))
    assert len(calls) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_signal_handler():
    seen = []

    def handler(number: int, frame: Any) -> None:
        seen.append((gl.ones(3) * 2).sum().item())

    before = signal.signal(signal.SIGALRM, handler)
    # A handler runs between two instructions of Python: within forwards written in Python too.
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        x = gl.ones(40, 30, requires_grad=True)
        for _ in range(300):
            loss = gl.softmax(x, 1).logsumexp(0).sum() + gl.nn.functional.layer_norm(x, (30,)).sum()
            loss.backward()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) > 5
    assert set(seen) == {6.0}


def test_finalizer(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    totals = []

    class Owner:
        def __init__(self) -> None:
            self.values = gl.ones(3)

        def __del__(self) -> None:
            totals.append(self.values.sum().item())

    def collect() -> None:
        owner = Owner()
        owner.itself = owner  # for the collector, which runs at any allocation
        del owner
        gc.collect()

    apply(Probe(collect).op(), (gl.ones(1),))
    assert totals == [3.0]
    assert unraisable == []


def test_weakref_callback():
    totals = []
    held = [gl.ones(2)]
    reference = weakref.ref(held[0], lambda _: totals.append(gl.ones(4).sum().item()))
    apply(Probe(held.clear).op(), (gl.ones(1),))
    assert totals == [4.0]
    assert reference() is None


def test_tracing():
    # What a debugger does that shows values while the array code of an op is stepped through.
    seen = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.endswith("softmax.py"):
            seen.append((gl.ones(2) + 1).sum().item())
        return trace

    x = gl.ones(3, 4)
    sys.settrace(trace)
    try:
        y = gl.softmax(x, 1)
    finally:
        sys.settrace(None)
    assert y.sum().item() == 3.0
    assert set(seen) == {4.0}


def test_threads():
    failures = []

    def work(seed: int) -> None:
        try:
            for _ in range(50):
                probe = Probe(lambda: (gl.full((4,), float(seed)) * 2).sum().item())
                apply(probe.op(), (gl.ones(1),))
                assert probe.results == [8.0 * seed]
        except BaseException as error:  # reported by the thread that asks
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_on_cuda(fake_cuda):
    probe = Probe(lambda: gl.ones(3, device="cuda").add_(1).sum().item())
    assert apply(probe.op(), (gl.ones(2, device="cuda"),)).tolist() == [2.0, 2.0]
    assert probe.results == [6.0]
