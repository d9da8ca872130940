"""Timer, Accumulator, and the devices of the machine by the names of the notes."""

from __future__ import annotations

import time

import numpy as np
import pytest

import gradlab as gl
from gradlab import training
from gradlab.errors import DeviceError, OptionError, ShapeError
from gradlab.training import Accumulator, Timer


def test_a_timer_runs_from_the_start_and_keeps_its_times():
    timer = Timer()
    time.sleep(0.02)
    first = timer.stop()
    timer.start()
    second = timer.stop()
    assert timer.times == [first, second]
    assert first >= 0.02 > second >= 0
    assert timer.sum() == first + second
    assert timer.avg() == (first + second) / 2
    assert timer.cumsum() == [first, first + second]
    assert repr(timer).startswith("Timer(2 times, 0.0")


def test_a_timer_without_times():
    timer = Timer()
    assert (timer.sum(), timer.cumsum()) == (0, [])
    with pytest.raises(OptionError) as caught:
        timer.avg()
    assert str(caught.value) == (
        "Timer.avg: expected at least one time, got none; call stop() first"
    )


def test_a_timer_waits_for_the_device_it_is_given_and_for_no_other(fake_cuda):
    for device, waits in ((None, 0), ("cpu", 0), ("cuda", 2)):
        before = fake_cuda.waits
        Timer(device=device).stop()
        assert fake_cuda.waits - before == waits
    with pytest.raises(DeviceError, match="'cuda:7' does not exist"):
        Timer(device="cuda:7")


def test_an_accumulator_adds_numbers_and_tensors():
    sums = Accumulator(3)
    sums.add(1, gl.tensor(0.5, requires_grad=True), True)
    sums.add(2.5, gl.tensor([[2]]), gl.tensor(True))
    assert (sums[0], sums[1], sums[2], sums[-1]) == (3.5, 2.5, 2.0, 2.0)
    assert sums.data == [3.5, 2.5, 2.0]
    assert all(type(each) is float for each in sums.data)
    assert list(sums) == sums.data
    assert repr(sums) == "Accumulator([3.5, 2.5, 2.0])"
    sums.reset()
    assert sums.data == [0, 0, 0]
    sums.add(1, 2, 3)
    assert sums.data == [1, 2, 3]


def test_an_accumulator_reads_a_device_only_when_asked(fake_cuda):
    sums = Accumulator(2)
    before = fake_cuda.copies_to_host
    for i in range(10):
        sums.add(gl.tensor(float(i), device="cuda"), gl.tensor([1], device="cuda:1"))
    assert fake_cuda.copies_to_host == before
    assert (sums[0], sums[1]) == (45, 10)
    assert fake_cuda.copies_to_host == before + 2  # one per device
    sums.add(gl.tensor(1.0, device="cuda"), 1)
    sums.reset()
    assert sums.data == [0, 0]
    total = gl.tensor(1.0, device="cuda")
    for _ in range(3):
        sums.add(total, 0)
        total += 1
    assert sums.data == [6, 0]


def test_an_accumulator_keeps_few_values_on_a_device(fake_cuda, monkeypatch):
    monkeypatch.setattr("gradlab.training.meters._UNREAD", 4)
    sums, one = Accumulator(1), gl.tensor(1.0, device="cuda")
    before = fake_cuda.copies_to_host
    for _ in range(12):
        sums.add(one)
    assert fake_cuda.copies_to_host == before + 2
    assert sums[0] == 12


def test_what_an_accumulator_refuses():
    with pytest.raises(OptionError, match="Accumulator: expected an integer n of 0 or more, got -"):
        Accumulator(-1)
    sums = Accumulator(2)
    with pytest.raises(OptionError) as caught:
        sums.add(1)
    assert str(caught.value) == "Accumulator.add: expected 2 values, one for each sum, got 1"
    with pytest.raises(ShapeError) as caught:
        sums.add(1, gl.ones(3))
    assert str(caught.value) == (
        "Accumulator.add: expected a number or a tensor of one element, got shape (3,); "
        "take its .sum() or .mean() first"
    )


# ------------------------------------------------------------------------------------ devices


def test_the_devices_of_a_machine_with_two_gpus(fake_cuda):
    first, second = gl.device("cuda:0"), gl.device("cuda:1")
    assert training.cpu() is gl.device("cpu")
    assert (training.gpu(), training.gpu(1)) == (first, second)
    assert training.num_gpus() == 2
    assert [training.try_gpu(i) for i in range(3)] == [first, second, training.cpu()]
    assert training.try_all_gpus() == [first, second]


def test_the_devices_of_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr("gradlab.training.gpus.device_count", lambda: 0)
    assert training.num_gpus() == 0
    assert training.gpu(3) is gl.device("cuda:3")  # a name, no promise
    assert training.try_gpu() is training.cpu()
    assert training.try_all_gpus() == [training.cpu()]


@pytest.mark.parametrize(
    ("value", "got"),
    [("high", "'high'"), (None, "None"),
     (np.ones(2), "shape (2,); take its .sum() or .mean() first")]
)  # fmt: skip
def test_an_accumulator_takes_numbers(value, got):
    sums = Accumulator(1)
    with pytest.raises(ShapeError) as caught:
        sums.add(value)
    expected = "Accumulator.add: expected a number or a tensor of one element"
    assert str(caught.value) == f"{expected}, got {got}"
    sums.add(np.ones(1))
    assert sums[0] == 1
