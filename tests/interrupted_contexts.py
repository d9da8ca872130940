"""``python interrupted_contexts.py SECONDS``: Ctrl-C at random moments of the contexts of gradlab.

Prints a line of JSON: how many interrupts there were, and by context how many left a state behind.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time

import gradlab as gl
from gradlab import formatting
from gradlab.training.module import evaluation

model = gl.nn.Sequential(gl.nn.Linear(2, 2), gl.nn.Dropout(), gl.nn.Linear(2, 1))
model[1].eval()
options = formatting.get_printoptions()
x = gl.ones(2, requires_grad=True)
y = gl.ones(2)
optimizer = gl.optim.SGD(model.parameters(), lr=0.1)


class Line(gl.training.Module):
    def __init__(self):
        super().__init__()
        self.net = gl.nn.Linear(2, 1)

    def loss(self, y_hat, y):
        return (y_hat - y).square().mean()


trainer = gl.training.Trainer(1, enable_progress_bar=False)
line, batches = Line(), [(gl.ones(1, 2), gl.ones(1, 1))]


def state():
    modes = gl.is_grad_enabled(), gl.is_inference_mode_enabled()
    modules = [each.training for each in (*model.modules(), *line.modules())]
    return *modes, modules, formatting.get_printoptions(), trainer.is_running, trainer.phase


def put_back():
    gl.autograd.modes.mode.grad, gl.autograd.modes.mode.inference = True, False
    model.train()
    model[1].eval()
    line.train()
    formatting.set_printoptions(profile="default")
    trainer.reset()


def no_grad():
    with gl.no_grad(), gl.enable_grad(), gl.no_grad():
        pass


def inference_mode():
    with gl.inference_mode():
        pass


def evaluated():
    with evaluation(model):
        pass


def printed():
    with gl.printoptions(precision=2):
        pass


@gl.no_grad()
def decorated():
    pass


@gl.inference_mode()
def generator():
    yield 1
    yield 2


def generated():
    for _ in generator():
        pass


def written():
    y.add_(1.0).mul_(0.5)


def stepped():
    (x * 2).sum().backward()
    optimizer.step()


def validated():
    trainer.validate(line, batches)


WORK = [
    no_grad,
    inference_mode,
    evaluated,
    printed,
    decorated,
    generated,
    written,
    stepped,
    validated,
]


def main(seconds):
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    before, end = state(), time.monotonic() + seconds
    interrupts, left = 0, {work.__name__: 0 for work in WORK}
    moments = random.Random(0)
    while time.monotonic() < end:
        work = WORK[interrupts % len(WORK)]
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(5e-6, 150e-6))
            while time.monotonic() < end:
                work()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupts += 1
        if state() != before:
            left[work.__name__] += 1
            put_back()
    assert (gl.zeros(1).log() + 1).item() == -float("inf")
    sys.stdout.write(json.dumps({"interrupts": interrupts, "left": left}) + "\n")


main(float(sys.argv[1]))
