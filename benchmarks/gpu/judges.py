"""What is wrong with random numbers, which have no exact result to be compared with.

gradlab's are a function of seed, call and position, and the same on every device: their beginning
is compared with what the host draws. All of them, and those of other libraries, have to be as a
sample of their distribution is: range, mean and variance, part by part, and no part another's copy.
"""

from __future__ import annotations

import math
from typing import Any

import gradlab as gl
from benchmarks.gpu.verify import Limit, compare
from gradlab.ops.random import Generator, default_generator

BEGINNING = 1 << 20  # numbers that the host draws as well
PARTS = 64
SIGMAS = 6.0  # a right sample is beyond them once in 500 million
MEAN_AND_VARIANCE = {"rand": (0.5, 1 / 12), "randn": (0.0, 1.0)}
FOURTH = {"rand": 1 / 80, "randn": 3.0}  # the fourth central moment


def judge_draws(name: str, machine: Any, peer: str, x: Any, arrays: Any) -> str:
    """What is wrong with uniforms from [0, 1) (``rand``) or standard normals (``randn``)."""
    if peer == "gradlab":
        count = min(BEGINNING, x.size)
        host = getattr(gl, name)(count, generator=_the_last_call())
        verdict = compare(machine, x[:count], host.numpy(), Limit(slack=2.0))
        if verdict.wrong:
            return f"not the host's numbers: {verdict.wrong}"
    if x.size < PARTS * 1000:
        return ""
    xp = machine.xp
    low, high = (0.0, 1.0) if name == "rand" else (-8.0, 8.0)
    inside = int(((x >= low) & (x < high)).sum())  # NaN is not
    if inside != x.size:
        return f"{x.size - inside} of {x.size} numbers are not in [{low:g}, {high:g})"
    mean, variance = MEAN_AND_VARIANCE[name]
    return _judge_sample(machine, x.astype("float64") - mean, variance, FOURTH[name], xp)


def judge_dropout(machine: Any, peer: str, y: Any, arrays: Any) -> str:
    """What is wrong with a dropout of one half: what is kept, how much, and which."""
    (x,) = arrays
    kept = int(((y == 0) | (y == x * 2)).sum())  # NaN is neither
    if kept != x.size:
        return f"{x.size - kept} of {x.size} values are neither 0 nor doubled"
    if peer == "gradlab":
        count = min(BEGINNING, x.size)
        beginning = gl.tensor(machine.host(x[:count]))
        host = gl.dropout(beginning, 0.5, generator=_the_last_call()).numpy().astype("float64")
        verdict = compare(machine, y[:count], host, Limit())
        if verdict.wrong:
            return f"not the host's mask: {verdict.wrong}"
    if x.size < PARTS * 1000:
        return ""
    return _judge_sample(machine, (y == 0).astype("float64") - 0.5, 0.25, 0.0625, machine.xp)


def _judge_sample(machine: Any, x: Any, variance: float, fourth: float, xp: Any) -> str:
    """Mean and variance of each part of centred numbers, and of products of one half's and the
    other's."""
    size = x.size // PARTS
    parts = x[: size * PARTS].reshape(PARTS, size)
    half = parts[: PARTS // 2] * parts[PARTS // 2 :]
    for what, values, expected, spread in (
        ("mean", parts.mean(axis=1), 0.0, math.sqrt(variance / size)),
        ("variance", (parts * parts).mean(axis=1), variance,
         math.sqrt((fourth - variance**2) / size) + 1e-12),
        ("correlation", half.mean(axis=1), 0.0, variance / math.sqrt(size)),
    ):  # fmt: skip
        off = float(abs(machine.host(values) - expected).max()) / spread
        if not off <= SIGMAS:
            return f"the {what} of a part is {off:.1f} standard deviations off"
    return ""


def _the_last_call() -> Generator:
    """The generator as it stood before the last call."""
    state = default_generator.get_state()
    return Generator().set_state({**state, "calls": state["calls"] - 1})
