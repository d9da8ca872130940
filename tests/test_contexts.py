"""Contexts put back what they changed, whatever ends their block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gradlab as gl
from gradlab.contexts import Restoring
from gradlab.training.module import evaluation

SCRIPT = Path(__file__).with_name("interrupted_contexts.py")


class Setting(Restoring):
    """Sets ``value``."""

    value = 0

    def __init__(self, to):
        self.to = to

    def _change(self, before):
        before.append(Setting.value)
        Setting.value = self.to
        return self

    def _restored(self, before):
        try:
            yield
        finally:
            if before:
                Setting.value = before[0]


def test_as_a_with_statement():
    with Setting(1) as outer:
        assert (outer.to, Setting.value) == (1, 1)
        with Setting(2), outer:
            assert Setting.value == 1
            with outer:
                assert Setting.value == 1
        assert Setting.value == 1
    assert Setting.value == 0
    with pytest.raises(KeyError), outer:
        raise KeyError
    assert Setting.value == 0


def test_in_other_ways():
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(Setting(1)).to == 1
        stack.enter_context(Setting(2))
        assert Setting.value == 2
    assert Setting.value == 0
    by_hand = Setting(3)
    by_hand.__enter__()
    with by_hand:
        assert Setting.value == 3
    assert Setting.value == 3
    by_hand.__exit__(None, None, None)
    assert Setting.value == 0

    @Setting(4)
    def read(depth):
        return read(depth - 1) if depth else Setting.value

    assert (read(2), Setting.value) == (4, 0)


def test_entered_for_good():
    """What is only entered stays, although nothing holds the context."""
    Setting(5).__enter__()
    assert Setting.value == 5
    Setting.value = 0


def test_one_that_fails_to_enter():
    class Failing(Setting):
        def _change(self, before):
            super()._change(before)
            raise KeyError

    with pytest.raises(KeyError), Failing(1):
        raise AssertionError("entered")
    assert Setting.value == 0
    with pytest.raises(gl.errors.OptionError), gl.printoptions(precision=1, edgeitems=-1):
        raise AssertionError("entered")


def test_one_object_in_several_threads():
    mode = gl.no_grad()
    wrong = []

    def work():
        for _ in range(2000):
            with mode:
                if gl.is_grad_enabled():
                    wrong.append("inside")
            if not gl.is_grad_enabled():
                wrong.append("outside")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_each_module_is_put_back_into_its_mode():
    model = gl.nn.Sequential(gl.nn.Linear(2, 2), gl.nn.Dropout())
    model[1].eval()
    with gl.inference_mode():
        with evaluation(model):
            assert not any(each.training for each in model.modules())
            assert not gl.is_grad_enabled()
        assert gl.is_inference_mode_enabled()
    assert [each.training for each in model.modules()] == [True, True, False]
    assert gl.is_grad_enabled()


@pytest.mark.skipif(os.name != "posix", reason="interval timers")
def test_ctrl_c_at_any_moment():
    """Thousands of them, at random moments."""
    run = [sys.executable, SCRIPT, "2"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert found["interrupts"] > 500
    assert found["left"] == dict.fromkeys(found["left"], 0)
    assert done.stderr == ""  # nor was a Ctrl-C lost in a finalizer
