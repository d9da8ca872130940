"""Schedules where PyTorch gives nothing to compare with; the rates are in tests/parity."""

import json
import math

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import OptionError
from gradlab.optim import lr_scheduler as lr


def optimizer(rate=1.0, **options):
    return gl.optim.SGD([gl.ones(1, requires_grad=True)], lr=rate, **options)


def rates(schedule, epochs):
    found = []
    for _ in range(epochs):
        found += schedule.get_last_lr()
        schedule.step()
    return found


def test_warm_up_and_cosine():
    found = rates(lr.WarmupCosineLR(optimizer(), warmup=4, total=12, eta_min=0.1), 15)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[8] == pytest.approx(0.55)
    assert found[12:] == [0.1, 0.1, 0.1]
    assert rates(lr.WarmupCosineLR(optimizer(), warmup=0, total=2), 3) == [1.0, 0.5, 0.0]


def test_a_warm_up_of_no_epochs_is_over_at_once():
    assert rates(lr.LinearLR(optimizer(), total_iters=0), 2) == [1, 1]
    assert rates(lr.ConstantLR(optimizer(), total_iters=0), 2) == [1, 1]


def test_a_sequence_of_sequences():
    o = optimizer()
    inner = lr.SequentialLR(o, [lr.ConstantLR(o, 0.5), lr.StepLR(o, 1, gamma=0.5)], [2])
    outer = lr.SequentialLR(o, [inner, lr.ExponentialLR(o, 0.5)], [4])
    assert rates(outer, 7) == [0.5, 0.5, 1, 0.5, 1, 0.5, 0.25]


def test_one_cycle_within_a_sequence_moves_the_momentum():
    o = optimizer(momentum=0.5)
    cycle = lr.OneCycleLR(o, max_lr=2.0, total_steps=10)
    schedule = lr.SequentialLR(o, [lr.ConstantLR(o, 1.0), cycle], [3])
    alone_optimizer = optimizer(momentum=0.5)
    alone = lr.OneCycleLR(alone_optimizer, max_lr=2.0, total_steps=10)
    for _ in range(3):
        schedule.step()
    for _ in range(9):
        assert o.param_groups[0]["lr"] == alone_optimizer.param_groups[0]["lr"]
        assert o.param_groups[0]["momentum"] == alone_optimizer.param_groups[0]["momentum"]
        schedule.step()
        alone.step()


def test_a_rate_changed_by_hand_lasts_until_the_sequence_goes_on():
    o = optimizer()
    schedule = lr.SequentialLR(o, [lr.ConstantLR(o, 1.0), lr.ConstantLR(o, 1.0)], [3])
    o.param_groups[0]["lr"] = 0.5
    assert rates(schedule, 5) == [0.5, 0.5, 0.5, 1, 1]


def test_rates_are_plain_numbers():
    o = optimizer()
    schedule = lr.LambdaLR(o, lambda epoch: np.float32(0.5))
    assert type(o.param_groups[0]["lr"]) is float
    multi = lr.MultiStepLR(o, np.array([2, 4]), gamma=np.float64(0.5))
    for each in (schedule, multi, lr.ReduceLROnPlateau(o)):
        assert json.loads(json.dumps(each.state_dict())) == each.state_dict()


def test_a_metric_may_be_a_tensor():
    o = optimizer()
    schedule = lr.ReduceLROnPlateau(o, patience=0)
    schedule.step(gl.tensor(1.0))
    schedule.step(gl.tensor([1.0]))
    assert o.param_groups[0]["lr"] == pytest.approx(0.1)


def test_states_go_through_files(tmp_path):
    o = optimizer()
    schedule = lr.ReduceLROnPlateau(o, patience=0)
    assert schedule.best == math.inf
    gl.save(schedule.state_dict(), tmp_path / "state.safetensors")
    schedule.load_state_dict(gl.load(tmp_path / "state.safetensors"))
    assert schedule.best == math.inf
    cosine = lr.CosineAnnealingLR(o, T_max=5)
    cosine.load_state_dict(json.loads(json.dumps(cosine.state_dict())))
    assert cosine.last_epoch == 0


def test_options_are_part_of_the_state():
    saved = lr.StepLR(optimizer(), 3, gamma=0.5).state_dict()
    schedule = lr.StepLR(optimizer(), 7)
    schedule.load_state_dict(saved)
    assert rates(schedule, 5) == [1, 1, 1, 0.5, 0.5]


def test_many_epochs_of_restarts_take_no_time():
    schedule = lr.CosineAnnealingWarmRestarts(optimizer(), T_0=2)
    schedule.step(10**12 + 1)
    assert schedule.get_last_lr() == [pytest.approx(0.5)]


def test_reprs_are_one_line():
    optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=0.8)
    scheduler = lr.StepLR(optimizer, step_size=1, gamma=0.5)
    assert repr(scheduler) == "StepLR(step_size=1, gamma=0.5; epoch 0, lr=0.8)"
    optimizer.step()
    scheduler.step()
    assert repr(scheduler) == "StepLR(step_size=1, gamma=0.5; epoch 1, lr=0.4)"
    optimizer.add_param_group({"params": [gl.tensor([1.0])], "lr": 0.1})
    by_function = lr.LambdaLR(optimizer, lambda epoch: 1)
    assert repr(by_function) == "LambdaLR(epoch 0, lr=[0.8, 0.1])"
    both = lr.SequentialLR(optimizer, [lr.ExponentialLR(optimizer, 0.5), by_function], [2])
    assert repr(both) == (
        "SequentialLR([ExponentialLR, LambdaLR], milestones=[2]; epoch 0, lr=[0.8, 0.1])"
    )
    plateau = repr(lr.ReduceLROnPlateau(optimizer))
    assert plateau.startswith("ReduceLROnPlateau(mode='min', factor=0.1, patience=10, ")
    assert "\n" not in plateau


def test_a_schedule_that_says_no_rates():
    optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=0.8)

    class Nothing(lr.LRScheduler):
        pass

    class Wrong(lr.LRScheduler):
        def get_lr(self):
            return [0.1, 0.2]

    with pytest.raises(NotImplementedError, match="Nothing: expected a method get_lr, got none"):
        Nothing(optimizer)
    with pytest.raises(OptionError, match=r"Wrong\.get_lr: expected 1 rates, one per group, got 2"):
        Wrong(optimizer)
    assert lr.StepLR(optimizer, 1).get_lr() == [0.8]


def test_a_schedule_of_rates_within_a_sequence_and_from_a_file(tmp_path):
    class Halving(lr.LRScheduler):
        def get_lr(self):
            return [rate / 2**self.last_epoch for rate in self.base_lrs]

    def sequence():
        optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=0.8)
        parts = [lr.ConstantLR(optimizer, 0.5, 2), Halving(optimizer)]
        return lr.SequentialLR(optimizer, parts, [2])

    def rates(scheduler, steps):
        seen = []
        for _ in range(steps):
            seen += scheduler.get_last_lr()
            scheduler.step()
        return seen

    assert rates(sequence(), 5) == [0.4, 0.4, 0.8, 0.4, 0.2]
    first = sequence()
    rates(first, 3)
    gl.save(first.state_dict(), tmp_path / "schedule")
    again = sequence()
    again.load_state_dict(gl.load(tmp_path / "schedule"))
    assert rates(again, 2) == [0.4, 0.2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "up"}, "CyclicLR: expected mode one of .*, got 'up'"),
        ({"scale_mode": "up"}, "CyclicLR: expected scale_mode one of .*, got 'up'"),
        ({"step_size_up": 0}, "CyclicLR: expected step_size_up of 1 or more, got 0"),
        ({}, "CyclicLR: expected an optimizer with momentum or betas, got Adagrad; pass cycle_mo"),
    ],
)
def test_cycles_refuse(options, text):
    optimizer = gl.optim.Adagrad([gl.tensor([1.0])], lr=0.8)
    with pytest.raises(OptionError, match=text):
        lr.CyclicLR(optimizer, 0.1, 1.0, **options)


def test_a_chain_refuses_what_does_not_go_together():
    first, second = (gl.optim.SGD([gl.tensor([1.0])], lr=0.8) for _ in range(2))
    with pytest.raises(OptionError, match="ChainedScheduler: expected at least one scheduler"):
        lr.ChainedScheduler([])
    with pytest.raises(OptionError, match="schedulers of one optimizer, got a StepLR of another"):
        lr.ChainedScheduler([lr.StepLR(first, 1), lr.StepLR(second, 1)])
    with pytest.raises(OptionError, match="schedulers that step without a metric, got ReduceLR"):
        lr.ChainedScheduler([lr.ReduceLROnPlateau(first)])
    chain = lr.ChainedScheduler([lr.StepLR(first, 1), lr.ExponentialLR(first, 0.5)])
    assert repr(chain) == "ChainedScheduler([StepLR, ExponentialLR]; epoch 0, lr=0.8)"
    with pytest.raises(gl.errors.StateError, match="expected the states of 2 schedulers, got 0"):
        chain.load_state_dict({**chain.state_dict(), "schedulers": []})
