"""What is said about bad input: the operation, what was expected, what came, what to do."""

import copy
import math
import re

import numpy as np
import pytest

import gradlab as gl
from gradlab import errors
from gradlab.optim import SGD, Adagrad, Adam, Optimizer, RMSprop, lr_scheduler as lr


def leaf(*shape):
    return gl.zeros(shape, requires_grad=True)


def optimizer(groups=1, kind=SGD, **options):
    return kind([{"params": [leaf(2)]} for _ in range(groups)], **{"lr": 0.1, **options})


def read_only():
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    return gl.from_numpy(array).requires_grad_()


class Model:
    """Anything with parameters."""

    def parameters(self):
        return [leaf(2)]


def twice():
    p = leaf(3, 2)
    return [p, p]


def in_two_groups():
    p = leaf(3)
    return [{"params": [p]}, {"params": [p]}]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: SGD(leaf(2)), errors.DTypeError,
            "SGD: expected a list of parameters or of groups, got one tensor; put it into a list",
        ),
        (
            lambda: SGD({"params": [leaf(2)]}), errors.DTypeError,
            "SGD: expected a list of parameters or of groups, got dict; put it into a list",
        ),
        (
            lambda: Adam(Model()), errors.DTypeError,
            "Adam: expected a list of parameters or of groups, got Model; pass "
            "model.parameters()",
        ),
        (
            lambda: SGD({leaf(2), leaf(3)}), errors.DTypeError,
            "SGD: expected a list of parameters or of groups, got set; put them into a list, "
            "which has an order",
        ),
        (
            lambda: SGD(None), errors.DTypeError,
            "SGD: expected a list of parameters or of groups, got None",
        ),
        (
            lambda: SGD([]), errors.OptionError,
            "SGD: expected at least one parameter, got none; is the model's parameters() an "
            "iterator that was used before?",
        ),
        (
            lambda: SGD([{"params": [leaf(2)]}, leaf(2)]), errors.OptionError,
            'SGD: expected groups of the form {"params": [...]}, got Tensor',
        ),
        (
            lambda: SGD([{"lr": 0.1, "weights": [leaf(2)]}]), errors.OptionError,
            'SGD: expected groups of the form {"params": [...]}, got the keys lr, weights',
        ),
        (
            lambda: SGD([{"params": [leaf(2)], "learning_rate": 0.1}]), errors.OptionError,
            "SGD: expected group options among dampening, lr, maximize, momentum, nesterov, "
            "weight_decay, got learning_rate",
        ),
        (
            lambda: SGD([{"params": Model()}]), errors.DTypeError,
            "SGD: expected a list of parameters, got Model; pass model.parameters()",
        ),
        (
            lambda: SGD([np.zeros(2)]), errors.DTypeError,
            "SGD: expected tensors, got ndarray",
        ),
        (
            lambda: SGD([Model()]), errors.DTypeError,
            "SGD: expected tensors, got Model; pass model.parameters()",
        ),
        (
            lambda: SGD([leaf(2) * 2]), errors.GradientError,
            "SGD: expected leaf tensors, got a result of <MulBackward0>; pass the tensors it was "
            "computed from",
        ),
        (
            lambda: SGD([read_only()]), errors.OptionError,
            "SGD: expected tensors that may be written to, got one of shape (3,) in read-only "
            "memory; pass a clone() of it",
        ),
        (
            lambda: SGD(twice()), errors.OptionError,
            "SGD: expected each parameter once, got one of shape (3, 2) again",
        ),
        (
            lambda: SGD(in_two_groups()), errors.OptionError,
            "SGD: expected each parameter once, got one of shape (3,) again",
        ),
        (
            lambda: SGD([leaf(2)], lr=-1), errors.OptionError,
            "SGD: expected lr of 0 or more, got -1",
        ),
        (
            lambda: SGD([leaf(2)], lr=float("nan")), errors.OptionError,
            "SGD: expected lr of 0 or more, got nan",
        ),
        (
            lambda: SGD([leaf(2)], lr="0.1"), errors.OptionError,
            "SGD: expected lr of 0 or more, got '0.1'",
        ),
        (
            lambda: SGD([{"params": [leaf(2)], "momentum": -0.9}]), errors.OptionError,
            "SGD: expected momentum of 0 or more, got -0.9",
        ),
        (
            lambda: Adam([leaf(2)], weight_decay=-1e-3), errors.OptionError,
            "Adam: expected weight_decay of 0 or more, got -0.001",
        ),
        (
            lambda: Adam([leaf(2)], eps=-1), errors.OptionError,
            "Adam: expected eps of 0 or more, got -1",
        ),
        (
            lambda: RMSprop([leaf(2)], alpha=-1), errors.OptionError,
            "RMSprop: expected alpha of 0 or more, got -1",
        ),
        (
            lambda: Adagrad([leaf(2)], lr_decay=-1), errors.OptionError,
            "Adagrad: expected lr_decay of 0 or more, got -1",
        ),
        (
            lambda: Adagrad([leaf(2)], initial_accumulator_value=-1), errors.OptionError,
            "Adagrad: expected initial_accumulator_value of 0 or more, got -1",
        ),
        (
            lambda: gl.optim.Adadelta([leaf(2)], rho=1.1), errors.OptionError,
            "Adadelta: expected rho in [0, 1], got 1.1",
        ),
        (
            lambda: Adam([leaf(2)], betas=(0.9, 1.0)), errors.OptionError,
            "Adam: expected two betas in [0, 1), got (0.9, 1.0)",
        ),
        (
            lambda: Adam([leaf(2)], betas=0.9), errors.OptionError,
            "Adam: expected two betas in [0, 1), got 0.9",
        ),
        (
            lambda: SGD([leaf(2)], nesterov=True), errors.OptionError,
            "SGD: expected momentum above 0 and dampening 0 with nesterov, got momentum 0.0 and "
            "dampening 0.0",
        ),
        (
            lambda: SGD([leaf(2)], momentum=0.9, dampening=0.1, nesterov=True), errors.OptionError,
            "SGD: expected momentum above 0 and dampening 0 with nesterov, got momentum 0.9 and "
            "dampening 0.1",
        ),
    ],
)  # fmt: skip
def test_making_an_optimizer(make, kind, text):
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        make()


def test_a_refused_group_is_not_added():
    made = optimizer()
    with pytest.raises(errors.OptionError):
        made.add_param_group({"params": [leaf(2)], "lr": -1})
    assert len(made.param_groups) == 1


# ----------------------------------------------------------------------------------------- step


def test_a_gradient_of_another_shape():
    p, q = leaf(3), leaf(3)
    p.grad, q.grad = gl.ones(3), gl.ones(1)  # the second would broadcast
    text = "SGD.step: expected a gradient of shape (3,), as its parameter, got (1,)"
    with pytest.raises(errors.ShapeError, match=f"^{re.escape(text)}$"):
        SGD([p, q], lr=0.1).step()
    assert p.tolist() == [0, 0, 0]


def test_a_gradient_that_is_no_tensor():
    p = leaf(3)
    p.grad = np.ones(3)
    text = "Adam.step: expected tensors as gradients, got ndarray"
    with pytest.raises(errors.DTypeError, match=f"^{text}$"):
        Adam([p]).step()


def test_a_parameter_whose_shape_changed():
    p = leaf(3)
    made = SGD([p], lr=0.1, momentum=0.9)
    p.grad = gl.ones(3)
    made.step()
    p.data, p.grad = gl.zeros(4), gl.ones(4)
    text = (
        "SGD.step: expected a parameter of shape (3,), as its momentum_buffer, got one whose shape "
        "is (4,) now; make a new optimizer after changing the shape of a parameter"
    )
    with pytest.raises(errors.StateError, match=f"^{re.escape(text)}$"):
        made.step()


def test_a_subclass_without_an_update():
    p = leaf(2)
    p.grad = gl.ones(2)
    with pytest.raises(NotImplementedError):
        Optimizer([p], {"lr": 0.1}).step()


def test_errors_of_a_subclass_pass_through():
    class Broken(Optimizer):
        def _update(self, group, params, grads):
            raise ValueError("mine")

    p = leaf(2)
    p.grad = gl.ones(2)
    with pytest.raises(ValueError, match=r"^mine$"):
        Broken([p], {"lr": 0.1}).step()


# -------------------------------------------------------------------------------------- loading


def adam_state():
    made = Adam([leaf(2), leaf(3)])
    for p in made.param_groups[0]["params"]:
        p.grad = gl.ones(*p.shape)
    made.step()
    return copy.deepcopy(made.state_dict())


def without_groups(state):
    return {"state": state["state"]}


def other_group_sizes(state):
    state["param_groups"][0]["params"] = [0]
    return state


def unknown_number(state):
    state["state"][7] = state["state"].pop(0)
    return state


def of_sgd(state):
    state["state"][0] = {"momentum_buffer": gl.zeros(2)}
    return state


def other_shape(state):
    state["state"][1]["exp_avg"] = np.zeros((3, 1))
    return state


def text_for_array(state):
    state["state"][1]["exp_avg"] = "zeros"
    return state


def text_for_step(state):
    state["state"][1]["step"] = "many"
    return state


def bad_option(state):
    state["param_groups"][0]["betas"] = [2, 3]
    return state


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (lambda state: 3, errors.StateError,
         "Adam.load_state_dict: expected the keys 'state' and 'param_groups', got int"),
        (lambda state: {}, errors.StateError,
         "Adam.load_state_dict: expected the keys 'state' and 'param_groups', got none"),
        (without_groups, errors.StateError,
         "Adam.load_state_dict: expected the keys 'state' and 'param_groups', got 'state'"),
        (other_group_sizes, errors.StateError,
         "Adam.load_state_dict: expected groups of [2] parameters, got [1]"),
        (unknown_number, errors.StateError,
         "Adam.load_state_dict: expected parameter numbers among 0, 1, got 7"),
        (of_sgd, errors.StateError,
         "Adam.load_state_dict: expected the state of this optimizer (exp_avg, exp_avg_sq, "
         "max_exp_avg_sq, step), got momentum_buffer"),
        (other_shape, errors.StateError,
         "Adam.load_state_dict: expected exp_avg of shape (3,), got (3, 1)"),
        (text_for_array, errors.StateError,
         "Adam.load_state_dict: expected an array as exp_avg, got str"),
        (text_for_step, errors.StateError,
         "Adam.load_state_dict: expected a number as step, got str"),
        (bad_option, errors.OptionError, "Adam: expected two betas in [0, 1), got (2, 3)"),
    ],
)  # fmt: skip
def test_loading_a_state_that_does_not_fit_changes_nothing(spoil, kind, text):
    made = Adam([leaf(2), leaf(3)], lr=0.5)
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        made.load_state_dict(spoil(adam_state()))
    assert made.state_dict() == Adam([leaf(2), leaf(3)], lr=0.5).state_dict()


# ------------------------------------------------------------------------------------ schedules


def of_another():
    mine = optimizer()
    return lr.SequentialLR(mine, [lr.StepLR(optimizer(), 1)], [])


def by_metric():
    mine = optimizer()
    return lr.SequentialLR(mine, [lr.ReduceLROnPlateau(mine)], [])


def three_with(milestones):
    mine = optimizer()
    return lr.SequentialLR(mine, [lr.StepLR(mine, 1) for _ in range(3)], milestones)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: lr.StepLR(leaf(2), 1), errors.DTypeError,
         "StepLR: expected an optimizer, got Tensor"),
        (lambda: lr.LambdaLR([leaf(2)], abs), errors.DTypeError,
         "LambdaLR: expected an optimizer, got list"),
        (lambda: lr.ReduceLROnPlateau(None), errors.DTypeError,
         "ReduceLROnPlateau: expected an optimizer, got None"),
        (lambda: lr.OneCycleLR(None, 1.0, 2), errors.DTypeError,
         "OneCycleLR: expected an optimizer, got None"),
        (lambda: lr.SequentialLR(None, [], []), errors.DTypeError,
         "SequentialLR: expected an optimizer, got None"),
        (lambda: lr.ExponentialLR(optimizer(), 0.9, last_epoch=3), errors.OptionError,
         "ExponentialLR: expected groups with an initial_lr to go on from epoch 3, got group 0 "
         "without; load the optimizer's state first, or start with last_epoch=-1"),
        (lambda: lr.LambdaLR(optimizer(2), [abs]), errors.OptionError,
         "LambdaLR: expected 2 functions, one per group, got 1"),
        (lambda: lr.LambdaLR(optimizer(), [0.5]), errors.OptionError,
         "LambdaLR: expected functions, got float"),
        (lambda: lr.StepLR(optimizer(), 0), errors.OptionError,
         "StepLR: expected step_size of 1 or more, got 0"),
        (lambda: lr.StepLR(optimizer(), "3"), errors.OptionError,
         "StepLR: expected step_size of 1 or more, got '3'"),
        (lambda: lr.ConstantLR(optimizer(), 1.5), errors.OptionError,
         "ConstantLR: expected a factor in [0, 1], got 1.5"),
        (lambda: lr.ConstantLR(optimizer(), total_iters=-1), errors.OptionError,
         "ConstantLR: expected total_iters of 0 or more, got -1"),
        (lambda: lr.LinearLR(optimizer(), 0.0), errors.OptionError,
         "LinearLR: expected start_factor in (0, 1] and end_factor in [0, 1], got 0.0 and 1.0"),
        (lambda: lr.LinearLR(optimizer(), total_iters=-1), errors.OptionError,
         "LinearLR: expected total_iters of 0 or more, got -1"),
        (lambda: lr.PolynomialLR(optimizer(), 0), errors.OptionError,
         "PolynomialLR: expected total_iters of 1 or more, got 0"),
        (lambda: lr.CosineAnnealingLR(optimizer(), 0), errors.OptionError,
         "CosineAnnealingLR: expected T_max of 1 or more, got 0"),
        (lambda: lr.CosineAnnealingWarmRestarts(optimizer(), 0), errors.OptionError,
         "CosineAnnealingWarmRestarts: expected T_0 of 1 or more, got 0"),
        (lambda: lr.CosineAnnealingWarmRestarts(optimizer(), 1, T_mult=0), errors.OptionError,
         "CosineAnnealingWarmRestarts: expected T_mult of 1 or more, got 0"),
        (lambda: lr.CosineAnnealingWarmRestarts(optimizer(), 1).step(-2), errors.OptionError,
         "CosineAnnealingWarmRestarts.step: expected epoch of 0 or more, got -2"),
        (lambda: lr.WarmupCosineLR(optimizer(), 5, 5), errors.OptionError,
         "WarmupCosineLR: expected 0 <= warmup < total, got 5 and 5"),
        (lambda: lr.OneCycleLR(optimizer(), 1.0), errors.OptionError,
         "OneCycleLR: expected total_steps, or epochs and steps_per_epoch, got neither"),
        (lambda: lr.OneCycleLR(optimizer(), 1.0, 0), errors.OptionError,
         "OneCycleLR: expected total_steps of 1 or more, got 0"),
        (lambda: lr.OneCycleLR(optimizer(), 1.0, epochs=0, steps_per_epoch=3), errors.OptionError,
         "OneCycleLR: expected epochs of 1 or more, got 0"),
        (lambda: lr.OneCycleLR(optimizer(), 1.0, 9, pct_start=2), errors.OptionError,
         "OneCycleLR: expected pct_start in [0, 1], got 2"),
        (lambda: lr.OneCycleLR(optimizer(), 1.0, 9, anneal_strategy="sin"), errors.OptionError,
         "OneCycleLR: expected anneal_strategy 'cos' or 'linear', got 'sin'"),
        (lambda: lr.OneCycleLR(optimizer(kind=Adagrad), 1.0, 9), errors.OptionError,
         "OneCycleLR: expected an optimizer with momentum or betas, got Adagrad; pass "
         "cycle_momentum=False"),
        (lambda: lr.OneCycleLR(optimizer(2), [1.0], 9), errors.OptionError,
         "OneCycleLR: expected 2 values of max_lr, one per group, got 1"),
        (lambda: lr.SequentialLR(optimizer(), [], []), errors.OptionError,
         "SequentialLR: expected at least one scheduler, got none"),
        (lambda: three_with([1]), errors.OptionError,
         "SequentialLR: expected 2 milestones for 3 schedulers, got 1"),
        (lambda: three_with([4, 2]), errors.OptionError,
         "SequentialLR: expected milestones that ascend, got [4, 2]"),
        (of_another, errors.OptionError,
         "SequentialLR: expected schedulers of this optimizer, got a StepLR of another"),
        (by_metric, errors.OptionError,
         "SequentialLR: expected schedulers that step without a metric, got ReduceLROnPlateau"),
        (lambda: lr.ReduceLROnPlateau(optimizer(), mode="low"), errors.OptionError,
         "ReduceLROnPlateau: expected mode 'min' or 'max' and threshold_mode 'rel' or 'abs', got "
         "'low' and 'rel'"),
        (lambda: lr.ReduceLROnPlateau(optimizer(), factor=1.0), errors.OptionError,
         "ReduceLROnPlateau: expected a factor in [0, 1), got 1.0"),
        (lambda: lr.ReduceLROnPlateau(optimizer(), patience=-1), errors.OptionError,
         "ReduceLROnPlateau: expected patience of 0 or more, got -1"),
        (lambda: lr.ReduceLROnPlateau(optimizer(2), min_lr=[0.1]), errors.OptionError,
         "ReduceLROnPlateau: expected 2 values of min_lr, one per group, got 1"),
        (lambda: lr.ReduceLROnPlateau(optimizer()).step(), errors.OptionError,
         "ReduceLROnPlateau.step: expected the metric of the epoch, got none"),
    ],
)  # fmt: skip
def test_making_a_schedule(make, kind, text):
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        make()


def test_one_cycle_over_the_end_changes_nothing():
    mine = optimizer(momentum=0.9)
    schedule = lr.OneCycleLR(mine, 1.0, total_steps=3)
    for _ in range(3):
        schedule.step()
    before = schedule.get_last_lr()
    text = (
        "OneCycleLR.step: expected at most total_steps=3 steps, got step 4; the schedule counts "
        "batches, so total_steps is epochs times batches"
    )
    for _ in range(2):
        with pytest.raises(errors.OptionError, match=f"^{re.escape(text)}$"):
            schedule.step()
    assert schedule.get_last_lr() == before


@pytest.mark.parametrize("make", [lambda o: lr.StepLR(o, 3), lr.ReduceLROnPlateau])
def test_a_group_added_after_the_schedule_was_made(make):
    mine = optimizer()
    schedule = make(mine)
    mine.add_param_group({"params": [leaf(2)]})
    text = (
        f"{type(schedule).__name__}.step: expected 1 parameter groups, as when the schedule was "
        "made, got 2; add groups before making it"
    )
    arguments = (1.0,) if isinstance(schedule, lr.ReduceLROnPlateau) else ()
    with pytest.raises(errors.StateError, match=f"^{re.escape(text)}$"):
        schedule.step(*arguments)


def sequential():
    mine = optimizer()
    return lr.SequentialLR(mine, [lr.StepLR(mine, 1), lr.StepLR(mine, 2)], [3])


@pytest.mark.parametrize(
    ("schedule", "state", "text"),
    [
        (lambda: lr.StepLR(optimizer(), 1), lambda: 3,
         "StepLR.load_state_dict: expected a state dict, got int"),
        (lambda: lr.StepLR(optimizer(), 1),
         lambda: lr.ExponentialLR(optimizer(), 0.9).state_dict(),
         "StepLR.load_state_dict: expected the state of a StepLR, got one without step_size"),
        (lambda: lr.StepLR(optimizer(), 1), lambda: lr.StepLR(optimizer(2), 1).state_dict(),
         "StepLR.load_state_dict: expected the rates of 1 groups, got 2"),
        (lambda: lr.MultiStepLR(optimizer(), [1, 2]),
         lambda: {**lr.MultiStepLR(optimizer(), [1]).state_dict(), "milestones": 5},
         "MultiStepLR.load_state_dict: expected milestones such as [1, 2], got 5"),
        (sequential, lambda: {**sequential().state_dict(), "schedulers": []},
         "SequentialLR.load_state_dict: expected the states of 2 schedulers, got 0"),
    ],
)  # fmt: skip
def test_loading_a_state_into_a_schedule(schedule, state, text):
    made = schedule()
    before = made.state_dict()
    with pytest.raises(errors.StateError, match=f"^{re.escape(text)}$"):
        made.load_state_dict(state())
    assert made.state_dict() == before


def test_a_base_class_without_a_rate():
    with pytest.raises(NotImplementedError):
        lr.LRScheduler(optimizer())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"state": 3}, "state to be a dict, got 3"),
        ({"param_groups": 3}, "param_groups to be a list, got 3"),
        ({"param_groups": [3]}, "param_groups[0] to be a dict, got 3"),
        ({"param_groups": [{"params": 3}]}, "params to be a list, got 3"),
        ({"param_groups": [{"params": [0, 0]}]}, "expected groups of [1] parameters, got [2]"),
        ({"param_groups": [{"params": [0], "lr": "x"}]}, "lr to be a number, got 'x'"),
        ({"param_groups": [{"params": [0], "lr": True}]}, "lr to be a number, got True"),
        ({"param_groups": [{"params": [0], "amsgrad": 1}]}, "amsgrad to be True or False, got 1"),
        ({"param_groups": [{"params": [0], "initial_lr": []}]}, "initial_lr to be a number"),
        ({"state": {0: 3}}, "the state of a parameter: expected a dict, got 3"),
        ({"state": {0: {"\x1b": 1}}}, r"got \x1b"),
        ({"state": {0: {"step": 1.5}}}, "expected a number as step, got float"),
        ({"state": {0: {"step": -1}}}, "expected a number as step, got int"),
        ({"state": {0: {"step": math.inf}}}, "expected a number as step, got float"),
        ({"state": {0: {"step": "3"}}}, "expected a number as step, got str"),
    ],
)
def test_states_from_elsewhere_that_an_optimizer_refuses(change, text):
    w = gl.ones(2, requires_grad=True)
    made = gl.optim.Adam([w])
    w.sum().backward()
    made.step()
    before = repr(made.state_dict())
    with pytest.raises(errors.GradlabError) as raised:
        made.load_state_dict({**made.state_dict(), **change})
    assert text in str(raised.value)
    assert str(raised.value).isprintable()
    assert repr(made.state_dict()) == before


def test_a_parameter_number_twice():
    made = gl.optim.SGD([gl.ones(1), gl.ones(1)], lr=0.1)
    state = {"state": {}, "param_groups": [{"params": [0, 0]}]}
    with pytest.raises(errors.StateError, match="each parameter number once, got one again"):
        made.load_state_dict(state)


@pytest.mark.parametrize(
    ("schedule", "change", "text"),
    [
        (lambda o: lr.StepLR(o, 3), {"step_size": 0}, "step_size such as 3, got 0"),
        (lambda o: lr.StepLR(o, 3), {"step_size": "3"}, "step_size such as 3, got '3'"),
        (lambda o: lr.StepLR(o, 3), {"last_epoch": math.nan}, "last_epoch to be a finite number"),
        (lambda o: lr.StepLR(o, 3), {"_last_lr": 0.1}, "_last_lr to be a list, got 0.1"),
        (lambda o: lr.StepLR(o, 3), {"_last_lr": ["x"]}, "_last_lr[0] to be a finite number"),
        (lambda o: lr.StepLR(o, 3), {"base_lrs": [0.1, 0.2]}, "base_lrs to be a list of 1"),
        (lambda o: lr.StepLR(o, 3), {"factors": None}, "factors to be a list, got None"),
        (lambda o: lr.MultiStepLR(o, [1]), {"milestones": ["x"]}, "milestones such as [1]"),
        (lambda o: lr.PolynomialLR(o, 5), {"total_iters": 0}, "give no rate for epoch 0"),
        (lambda o: lr.CosineAnnealingLR(o, 5), {"T_max": 0}, "T_max such as 5, got 0"),
        (lambda o: lr.CyclicLR(o, 0.1, 1.0), {"mode": "up"}, "mode such as 'triangular', got 'up'"),
        (lambda o: lr.CyclicLR(o, 0.1, 1.0), {"max_lrs": []}, "max_lrs such as [1.0], got a list"),
        (lr.ReduceLROnPlateau, {"mode": "most"}, "mode such as 'min', got 'most'"),
        (lr.ReduceLROnPlateau, {"best": None}, "best such as inf, got None"),
        (sequential, {"milestones": [1, 2]}, "expected 1 milestones for 2 schedulers, got 2"),
        (sequential, {"schedulers": 3}, "schedulers to be a list, got 3"),
        (sequential, {"schedulers": [{}, 3]}, "schedulers[1] to be a dict, got 3"),
    ],
)
def test_states_from_elsewhere_that_a_schedule_refuses(schedule, change, text):
    made = schedule() if schedule is sequential else schedule(optimizer())
    before = made.state_dict()
    with pytest.raises(errors.StateError) as raised:
        made.load_state_dict({**before, **change})
    assert text in str(raised.value)
    assert made.state_dict() == before
