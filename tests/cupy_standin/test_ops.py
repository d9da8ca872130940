"""No sample of any op, in any dtype, asks CuPy for what it lacks, or makes the host wait."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import gradlab as gl
import gradlab.ops
from cupy_standin import install, sweep
from gradlab.backends import cuda
from gradlab.ops.core import REGISTRY

install.required()

for _module in pkgutil.iter_modules(gradlab.ops.__path__):
    importlib.import_module(f"gradlab.ops.{_module.name}")

SAMPLED = [op for op in REGISTRY.values() if op.samples is not None]
# How many GPUs there are, which of them has the tensors, and which is the current one.
PLACES = {
    "alone": (1, 0, 0),
    "cuda:1 while 0 is current": (2, 1, 0),
    "cuda:0 while 1 is current": (2, 0, 1),
}
# The ops in which the host waits, in some sample: how large their results are depends on values.
# All but one wait inside CuPy, where gl.cuda.statistics() cannot see it.
WAITING = {"index", "nonzero", "unique", "bincount", "one_hot"}
COUNTED = {"one_hot"}


@pytest.mark.parametrize("op", SAMPLED, ids=lambda op: op.name)
def test_what_an_op_asks_of_cupy(op, standin):
    failures = []
    for name, (count, index, current) in PLACES.items():
        standin.set_devices(count)
        device = gl.device("cuda", index)
        with cuda.driver().device(current):
            failures += [f"{name}: {each}" for each in sweep.failures(op, device)]
    assert not failures, "\n".join(failures[:20])


@pytest.mark.parametrize("op", SAMPLED, ids=lambda op: op.name)
def test_who_waits(op, standin):
    gl.cuda.reset_statistics()
    counts, _ = standin.during(
        lambda: sweep.failures(op, gl.device("cuda"), only=("float32", "bfloat16", "int64"))
    )
    assert (counts["waits"] > 0) == (op.name in WAITING)
    assert counts["copies_to_host"] == counts["waits"]
    seen = counts["waits"] if op.name in COUNTED else 0
    assert gl.cuda.statistics().synchronizations == seen
