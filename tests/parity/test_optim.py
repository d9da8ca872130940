"""Optimizers and schedules against PyTorch's: the same arithmetic, state and rates."""

import copy
import math
import warnings

import numpy as np
import pytest

import gradlab as gl
from gradlab.ops import update
from gradlab.optim import lr_scheduler as ours

torch = pytest.importorskip("torch")
theirs = torch.optim.lr_scheduler

STEPS = 20
SHAPES = {
    "scalar": (),
    "one": (1,),
    "empty": (0, 3),
    "vector": (7,),
    "matrix": (31, 33),
    "transposed": (13, 5),
    "sliced": (9, 4),
    "kept temporaries": (update.SMALL + 5,),
}
# float64 shows that the arithmetic is the same; float32 differs in roundings, because PyTorch fuses
# a multiplication and an addition into one operation where the processor has that.
TOLERANCES = {"float64": {"rtol": 1e-12, "atol": 1e-13}, "float32": {"rtol": 2e-6, "atol": 2e-6}}

SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    {"maximize": True},
]
ADAM = [
    {},
    {"betas": (0.5, 0.9), "eps": 1e-3},
    {"amsgrad": True},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "amsgrad": True, "maximize": True},
    {"betas": (0.0, 0.0)},
]
RMSPROP = [
    {},
    {"alpha": 0.5},
    {"momentum": 0.9},
    {"centered": True},
    {"momentum": 0.9, "centered": True, "weight_decay": 0.1, "maximize": True},
]
ADAGRAD = [
    {},
    {"lr_decay": 0.1},
    {"initial_accumulator_value": 0.5, "eps": 1e-3},
    {"lr_decay": 0.1, "weight_decay": 0.1, "maximize": True},
]
ADADELTA = [
    {},
    {"rho": 0.5, "eps": 1e-3},
    {"weight_decay": 0.1, "maximize": True},
]
ADAMAX = [
    {},
    {"betas": (0.5, 0.9), "eps": 1e-3},
    {"weight_decay": 0.1, "maximize": True},
]
CASES = [
    pytest.param(name, options, id=f"{name}-{'-'.join(options) or 'plain'}")
    for name, all_options in [
        ("SGD", SGD),
        ("Adam", ADAM),
        ("AdamW", ADAM),
        ("RMSprop", RMSPROP),
        ("Adagrad", ADAGRAD),
        ("Adadelta", ADADELTA),
        ("Adamax", ADAMAX),
    ]
    for options in all_options
]


def laid_out(values, kind):
    """The same values in another layout: a transposed or a strided view."""
    if kind == "transposed":
        return np.ascontiguousarray(values.T).T
    if kind == "sliced":
        return np.repeat(values, 2, axis=0)[::2]
    return values


def pair(values, kind=""):
    """A leaf of gradlab and one of PyTorch with these values."""
    mine = gl.from_numpy(laid_out(values.copy(), kind)).requires_grad_()
    return mine, torch.from_numpy(values.copy()).requires_grad_()


def set_gradients(pairs, rng, kinds=None):
    for at, (mine, other) in enumerate(pairs):
        g = np.asarray(rng.standard_normal(mine.shape), mine.dtype)
        mine.grad = gl.from_numpy(laid_out(g.copy(), kinds[at] if kinds else ""))
        other.grad = torch.from_numpy(g)


def assert_alike(pairs, **tolerance):
    for mine, other in pairs:
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), **tolerance)


def run(pairs, mine, other, rng, steps=STEPS, kinds=None):
    for _ in range(steps):
        set_gradients(pairs, rng, kinds)
        mine.step()
        other.step()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_twenty_steps(name, options, dtype):
    rng = np.random.default_rng(0)
    pairs = [
        pair(np.asarray(rng.standard_normal(shape), dtype), kind) for kind, shape in SHAPES.items()
    ]
    mine = getattr(gl.optim, name)([p for p, _ in pairs], lr=0.01, **options)
    other = getattr(torch.optim, name)([p for _, p in pairs], lr=0.01, **options)
    run(pairs, mine, other, rng, kinds=list(SHAPES))
    assert_alike(pairs, **TOLERANCES[dtype])


@pytest.mark.parametrize("shape", [(update.PIECE + 7,), (3, update.PIECE // 2), (update.PIECE, 2)])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_larger_than_a_piece(name, shape):
    rng = np.random.default_rng(0)
    pairs = [pair(rng.standard_normal(shape, dtype=np.float32))]
    options = {"lr": 0.01, "weight_decay": 0.1, "maximize": True}
    options |= {"momentum": 0.9, "nesterov": True} if name == "SGD" else {"amsgrad": True}
    mine = getattr(gl.optim, name)([p for p, _ in pairs], **options)
    other = getattr(torch.optim, name)([p for _, p in pairs], **options)
    run(pairs, mine, other, rng, steps=3)
    assert_alike(pairs, **TOLERANCES["float32"])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_defaults(name):
    p = gl.ones(2, requires_grad=True)
    mine = getattr(gl.optim, name)([p]).defaults
    other = getattr(torch.optim, name)([torch.ones(2, requires_grad=True)]).defaults
    assert mine == {key: other[key] for key in mine}


def two_groups(name, module, params):
    special = {"lr": 0.05, "weight_decay": 0.2}
    if name == "SGD":
        special |= {"momentum": 0.5, "nesterov": True}
    if name in ("Adam", "AdamW"):
        special |= {"betas": (0.5, 0.6), "amsgrad": True}
    if name == "RMSprop":
        special |= {"alpha": 0.5, "centered": True, "momentum": 0.3}
    first, second, third = params
    groups = [{"params": [first]}, {"params": [second, third], **special}]
    return getattr(module, name)(groups, lr=0.01)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_groups_with_options_of_their_own(name):
    rng = np.random.default_rng(0)
    pairs = [pair(rng.standard_normal(shape)) for shape in [(3,), (4, 5), (2,)]]
    mine = two_groups(name, gl.optim, [p for p, _ in pairs])
    other = two_groups(name, torch.optim, [p for _, p in pairs])
    run(pairs, mine, other, rng)
    assert_alike(pairs, **TOLERANCES["float64"])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_parameters_without_a_gradient_stay_and_count_no_step(name):
    rng = np.random.default_rng(0)
    pairs = [pair(rng.standard_normal(3)) for _ in range(3)]
    options = {"lr": 0.1, "weight_decay": 0.1}
    options |= {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    mine = getattr(gl.optim, name)([p for p, _ in pairs], **options)
    other = getattr(torch.optim, name)([p for _, p in pairs], **options)
    for step in range(STEPS):
        set_gradients(pairs, rng)
        for at, both in enumerate(pairs):
            if (step + at) % 3 == 0:
                for p in both:
                    p.grad = None
        mine.step()
        other.step()
    assert_alike(pairs, **TOLERANCES["float64"])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_loads_a_state_of_pytorch_given_as_arrays(name):
    """Ten steps in PyTorch, then ten more from its state in both."""
    rng = np.random.default_rng(0)
    pairs = [pair(rng.standard_normal(shape)) for shape in [(3,), (4, 5), ()]]
    other = two_groups(name, torch.optim, [p for _, p in pairs])
    for _ in range(10):
        set_gradients(pairs, rng)
        other.step()
    state = copy.deepcopy(other.state_dict())
    state["state"] = {
        number: {entry: value.numpy() for entry, value in entries.items() if value is not None}
        for number, entries in state["state"].items()
    }
    mine = two_groups(name, gl.optim, [p for p, _ in pairs])
    mine.load_state_dict(state)
    with gl.no_grad():
        for p, q in pairs:
            p[...] = gl.from_numpy(q.detach().numpy())
    run(pairs, mine, other, rng, steps=10)
    assert_alike(pairs, **TOLERANCES["float64"])
    # Its own tensors load as well as arrays.
    mine.load_state_dict(other.state_dict())
    for number, entries in mine.state_dict()["state"].items():
        for entry, value in entries.items():
            expected = other.state_dict()["state"][number][entry]
            assert np.array_equal(np.asarray(value), expected.numpy())


def test_trains_a_network_alike():
    """Real gradients, those of two layers, rather than random ones."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 5)), rng.standard_normal((16, 1))
    pairs = [pair(rng.standard_normal(shape) / 2) for shape in [(5, 8), (8,), (8, 1), (1,)]]
    mine = gl.optim.Adam([p for p, _ in pairs], lr=0.05)
    other = torch.optim.Adam([p for _, p in pairs], lr=0.05)
    for library, side, optimizer in [(gl, 0, mine), (torch, 1, other)]:
        w1, b1, w2, b2 = (both[side] for both in pairs)
        inputs, targets = library.from_numpy(x), library.from_numpy(y)
        for _ in range(STEPS):
            optimizer.zero_grad()
            error = library.tanh(inputs @ w1 + b1) @ w2 + b2 - targets
            (error * error).mean().backward()
            optimizer.step()
    assert_alike(pairs, rtol=1e-9)


# ------------------------------------------------------------------------------------ schedules

EPOCHS = 50
TWO_GROUPS = (0.3, 0.02)

SCHEDULES = {
    "lambda": lambda m, o: m.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda per group": lambda m, o: m.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "step": lambda m, o: m.StepLR(o, step_size=7, gamma=0.5),
    "step 1": lambda m, o: m.StepLR(o, step_size=1),
    "multistep": lambda m, o: m.MultiStepLR(o, milestones=[30, 5, 12, 12], gamma=0.3),
    "exponential": lambda m, o: m.ExponentialLR(o, gamma=0.93),
    "constant": lambda m, o: m.ConstantLR(o),
    "constant 10": lambda m, o: m.ConstantLR(o, factor=0.1, total_iters=10),
    "linear": lambda m, o: m.LinearLR(o),
    "linear down": lambda m, o: m.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=30),
    "polynomial": lambda m, o: m.PolynomialLR(o, total_iters=40, power=1.7),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, T_max=50),
    "cosine waves": lambda m, o: m.CosineAnnealingLR(o, T_max=9, eta_min=0.01),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=8),
    "longer restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.001),
    "one cycle": lambda m, o: m.OneCycleLR(o, max_lr=1.0, total_steps=51),
    "one cycle, epochs": lambda m, o: m.OneCycleLR(
        o, [1.0, 0.5], epochs=6, steps_per_epoch=9, pct_start=0.41, anneal_strategy="linear"
    ),
    "one cycle, three phases": lambda m, o: m.OneCycleLR(
        o, 0.7, total_steps=51, three_phase=True, base_momentum=0.5, max_momentum=[0.9, 0.8],
        div_factor=3, final_div_factor=7,
    ),
    "one cycle, no momentum": lambda m, o: m.OneCycleLR(
        o, 1.0, total_steps=60, cycle_momentum=False, pct_start=0.0
    ),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 1 - 0.3 / epoch),
    "multiplicative per group": lambda m, o: m.MultiplicativeLR(
        o, [lambda e: 0.9, lambda e: 0.5 if e == 20 else 1.0]
    ),
    "cyclic": lambda m, o: m.CyclicLR(o, 0.1, [1.0, 0.4], step_size_up=7),
    "cyclic, halving": lambda m, o: m.CyclicLR(
        o, 0.1, 1.0, step_size_up=3, step_size_down=8, mode="triangular2",
        base_momentum=[0.5, 0.6], max_momentum=0.95,
    ),
    "cyclic, exponential": lambda m, o: m.CyclicLR(
        o, [0.1, 0.2], 1.0, step_size_up=4, mode="exp_range", gamma=0.97, scale_mode="iterations",
        cycle_momentum=False,
    ),
    "cyclic, own scale": lambda m, o: m.CyclicLR(
        o, 0.1, 1.0, step_size_up=4, scale_fn=lambda cycle: 1 / cycle
    ),
    "chained": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, 4), m.ExponentialLR(o, 0.9), m.StepLR(o, 10, 0.5)]
    ),
    "sequential": lambda m, o: m.SequentialLR(
        o,
        [
            m.LinearLR(o, start_factor=0.1, total_iters=5),
            m.CosineAnnealingLR(o, T_max=20),
            m.ExponentialLR(o, 0.9),
        ],
        milestones=[5, 25],
    ),
    "sequential of all": lambda m, o: m.SequentialLR(
        o,
        [
            m.ConstantLR(o, 0.5, 3),
            m.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
            m.StepLR(o, 2),
            m.MultiStepLR(o, [1, 3]),
            m.PolynomialLR(o, 5),
            m.CosineAnnealingLR(o, 4, eta_min=0.01),
            m.CosineAnnealingWarmRestarts(o, 6),
            m.LinearLR(o),
        ],
        milestones=[4, 9, 15, 20, 27, 34, 45],
    ),
}  # fmt: skip

METRICS = np.concatenate([np.linspace(3, 1, 12), np.ones(20), np.linspace(1, 2, 30)]).tolist()
PLATEAUS = {
    "plateau": {"patience": 3},
    "plateau at once": {"patience": 0, "factor": 0.9},
    "plateau max": {"mode": "max", "patience": 2, "threshold": 0.1},
    "plateau abs": {"threshold_mode": "abs", "threshold": 0.2, "patience": 2},
    "plateau max abs": {"mode": "max", "threshold_mode": "abs", "threshold": 0.01, "patience": 1},
    "plateau cooldown": {"patience": 2, "cooldown": 5, "min_lr": [1e-3, 1e-4]},
    "plateau eps": {"patience": 0, "eps": 0.01, "factor": 0.5},
}


def quiet_schedule(make, optimizer):
    """PyTorch warns about the way some of its schedules are combined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(theirs, optimizer)


def optimizers(rates=TWO_GROUPS, name="SGD", **options):
    """The same groups in gradlab and in PyTorch."""
    made = []
    for library in (gl, torch):
        groups = [{"params": [library.ones(1, requires_grad=True)], "lr": rate} for rate in rates]
        made.append(getattr(library.optim, name)(groups, **options))
    return made


def options_of(optimizer):
    return [
        [group["lr"], group.get("momentum", 0), *group.get("betas", ())]
        for group in optimizer.param_groups
    ]


def follow(mine, other, epochs, metrics=None):
    """Step both and compare what they set; 0 where the other is 0 but for rounding."""
    my_rates, other_rates = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in range(epochs):
            arguments = () if metrics is None else (metrics[epoch],)
            my_rates.append(options_of(mine.optimizer))
            other_rates.append(options_of(other.optimizer))
            mine.step(*arguments)
            other.step(*arguments)
            assert mine.get_last_lr() == [group["lr"] for group in mine.optimizer.param_groups]
    np.testing.assert_allclose(my_rates, other_rates, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", SCHEDULES)
def test_fifty_epochs(name):
    mine, other = optimizers(momentum=0.9)
    follow(SCHEDULES[name](ours, mine), quiet_schedule(SCHEDULES[name], other), EPOCHS)


@pytest.mark.parametrize("base", ["LRScheduler", "_LRScheduler"])
def test_a_schedule_written_for_pytorch(base):
    def made(library):
        class WarmUp(getattr(library, base)):
            def __init__(self, optimizer, epochs, last_epoch=-1):
                self.epochs = epochs
                super().__init__(optimizer, last_epoch)

            def get_lr(self):
                if self.last_epoch > 20:  # from the rates in use, as PyTorch's own do
                    return [group["lr"] * 0.9 for group in self.optimizer.param_groups]
                return [
                    rate * min(1, (self.last_epoch + 1) / self.epochs) for rate in self.base_lrs
                ]

        return WarmUp

    mine, other = optimizers()
    mine, other = made(ours)(mine, epochs=5), made(theirs)(other, epochs=5)
    follow(mine, other, EPOCHS)
    assert mine.last_epoch == other.last_epoch == EPOCHS


@pytest.mark.parametrize("name", PLATEAUS)
def test_fifty_epochs_of_a_metric(name):
    options = PLATEAUS[name]
    mine, other = optimizers()
    follow(
        ours.ReduceLROnPlateau(mine, **options),
        theirs.ReduceLROnPlateau(other, **options),
        EPOCHS,
        METRICS,
    )


def test_one_cycle_moves_the_first_beta():
    mine, other = optimizers(name="Adam")
    make = SCHEDULES["one cycle"]
    follow(make(ours, mine), make(theirs, other), EPOCHS)
    assert mine.param_groups[0]["betas"][0] != 0.9


@pytest.mark.parametrize("order", ["optimizer first", "schedule first", "made after loading"])
@pytest.mark.parametrize("stop", [1, 5, 23])
@pytest.mark.parametrize("name", [*SCHEDULES, *PLATEAUS])
def test_resumed_schedules_go_on_exactly(name, stop, order):
    def make(optimizer):
        if name in PLATEAUS:
            return ours.ReduceLROnPlateau(optimizer, **PLATEAUS[name])
        return SCHEDULES[name](ours, optimizer)

    def go(schedule, start, end):
        rates = []
        for epoch in range(start, end):
            schedule.step(*([METRICS[epoch]] if name in PLATEAUS else []))
            rates.append(options_of(schedule.optimizer))
        return rates

    optimizer, _ = optimizers(momentum=0.9)
    schedule = make(optimizer)
    go(schedule, 0, stop)
    states = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    expected = go(schedule, stop, EPOCHS)

    fresh, _ = optimizers(momentum=0.9)
    if order == "made after loading":
        fresh.load_state_dict(states[0])
        resumed = make(fresh)
        resumed.load_state_dict(states[1])
    else:
        resumed = make(fresh)
        loads = [
            lambda: fresh.load_state_dict(states[0]),
            lambda: resumed.load_state_dict(states[1]),
        ]
        for load in loads if order == "optimizer first" else reversed(loads):
            load()
    assert go(resumed, stop, EPOCHS) == expected


@pytest.mark.parametrize(
    "name", ["step", "exponential", "multistep", "constant", "linear", "polynomial", "cosine waves",
             "cosine", "lambda", "restarts"]
)  # fmt: skip
def test_a_rate_changed_by_hand(name):
    """What PyTorch's schedule does with it: most keep it as a factor, some set the rate anew."""
    mine, other = optimizers()
    schedules = SCHEDULES[name](ours, mine), quiet_schedule(SCHEDULES[name], other)
    follow(*schedules, 4)
    for optimizer in (mine, other):
        optimizer.param_groups[1]["lr"] *= 0.5
    follow(*schedules, 3)


@pytest.mark.parametrize("pair_of", [("step", "exponential"), ("linear", "cosine waves"),
                                     ("constant", "multistep")])  # fmt: skip
def test_two_schedules_on_one_optimizer(pair_of):
    mine, other = optimizers()
    my_pair = [SCHEDULES[name](ours, mine) for name in pair_of]
    other_pair = [quiet_schedule(SCHEDULES[name], other) for name in pair_of]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(8):
            np.testing.assert_allclose(options_of(mine), options_of(other), rtol=1e-9)
            for schedule in [*my_pair, *other_pair]:
                schedule.step()


def test_a_plateau_beside_another_schedule():
    mine, other = optimizers()
    pairs = [
        (ours.StepLR(mine, 5), ours.ReduceLROnPlateau(mine, patience=2)),
        (theirs.StepLR(other, 5), theirs.ReduceLROnPlateau(other, patience=2)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in range(20):
            np.testing.assert_allclose(options_of(mine), options_of(other), rtol=1e-9)
            for stepped, waiting in pairs:
                stepped.step()
                waiting.step(METRICS[epoch + 8])


def test_restarts_within_an_epoch():
    mine, other = optimizers()
    make = SCHEDULES["longer restarts"]
    schedules = make(ours, mine), make(theirs, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for quarter in range(80):
            for schedule in schedules:
                schedule.step(quarter / 4)
            np.testing.assert_allclose(options_of(mine), options_of(other), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["step", "exponential", "linear", "cosine waves", "one cycle"])
def test_goes_on_from_last_epoch(name):
    """The other way to resume: initial rates in the groups and ``last_epoch``."""
    options = {"step": (ours.StepLR, theirs.StepLR, {"step_size": 7}),
               "exponential": (ours.ExponentialLR, theirs.ExponentialLR, {"gamma": 0.9}),
               "linear": (ours.LinearLR, theirs.LinearLR, {"total_iters": 20}),
               "cosine waves": (ours.CosineAnnealingLR, theirs.CosineAnnealingLR, {"T_max": 9}),
               "one cycle": (ours.OneCycleLR, theirs.OneCycleLR,
                             {"max_lr": 1.0, "total_steps": 60})}  # fmt: skip
    my_kind, other_kind, arguments = options[name]
    mine, other = optimizers(momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        follow(my_kind(mine, **arguments), other_kind(other, **arguments), 12)
        # Epochs 0 to 11 are over, and the groups have the rate of epoch 12.
        arguments["last_epoch"] = 11
        follow(my_kind(mine, **arguments), other_kind(other, **arguments), 20)


def test_nan_is_no_improvement():
    mine, other = optimizers()
    metrics = [1.0, math.nan, math.nan, 0.5, math.nan, math.nan, math.nan, 0.4]
    schedules = [m.ReduceLROnPlateau(o, patience=1) for m, o in [(ours, mine), (theirs, other)]]
    follow(*schedules, len(metrics), metrics)
