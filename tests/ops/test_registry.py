"""Every op of the registry, on all of its own samples."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import gradlab.ops
from gradlab.ops.core import REGISTRY, Op
from gradlab.testing import CheckError, check_sample

for _module in pkgutil.iter_modules(gradlab.ops.__path__):
    importlib.import_module(f"gradlab.ops.{_module.name}")

# Ops without a public function of their own, and where they are tested instead.
INTERNAL = {
    "scatter_view": "a write through a view: tests/test_inplace.py",
    "copy": "copy_, fill_, zero_ and x[...] = v: tests/test_inplace.py",
    "write_index": "x[mask] = v: tests/test_inplace.py",
    "survivors": "part of the gradient of write_index: tests/test_inplace.py",
    "scatter_survivors": "part of the gradient of scatter: tests/test_inplace.py",
    "spread": "the gradient of slice, index, gather and take, whose second order runs it",
    "add_part": "the sum of such gradients: tests/test_parts.py",
    "class_targets": "part of the second gradient of cross_entropy",
    "ties": "the gradient of max and min, whose second order runs it",
    "singular_sum": "the gradient of svdvals, whose second order runs it",
    "singular_part": "the second gradient of svdvals",
    "singular_change": "the second gradient of svdvals",
    "binomial_quantile": "draws of counts: tests/test_distributions.py",
    "cofactor": "the gradient of det, whose second order runs it",
    "eigh": "its vectors come with either sign: tests/ops/test_linalg.py",
    "svd": "its vectors come with either sign: tests/ops/test_linalg.py",
    "svd_full": "svd(full_matrices=True): tests/ops/test_linalg.py",
    "qr_complete": "qr(mode='complete'): tests/ops/test_linalg.py",
    "transfer": "copies between devices: tests/test_devices.py",
}

FUSED = {op.fused.name for op in REGISTRY.values() if op.fused is not None}


def is_internal(op: Op) -> bool:
    # A fused backward pass is compared with the plain gradients of the op it belongs to; an
    # optimizer's update is compared with PyTorch's in tests/optim.
    return op.name in INTERNAL or op.name in FUSED or bool(op.mutates)


PUBLIC = [op for op in REGISTRY.values() if not is_internal(op)]


@pytest.mark.parametrize("op", PUBLIC, ids=lambda op: op.name)
def test_op(op):
    assert op.samples is not None, "give the op samples, or list it as internal with the reason"
    failures = []
    count = 0
    for sample in op.samples():
        count += 1
        try:
            check_sample(op, sample)
        except CheckError as error:
            failures.append(str(error))
    assert failures == []
    assert count > 0


def test_internal_ops_are_internal():
    assert set(INTERNAL) <= set(REGISTRY), "listed as internal, but no op"
    assert [name for name in INTERNAL if REGISTRY[name].samples is not None] == []


@pytest.mark.parametrize("op", REGISTRY.values(), ids=lambda op: op.name)
def test_declaration(op):
    named = set(op.inputs) | {"*"}
    assert set(op.gradients) <= named, "a gradient of something that is no input"
    assert op.dtype in ("promote", "float", "bool", "own")
    assert set(op.kinds) <= set("biufcV")
    assert not (op.view and op.dtype != "own"), "a cast would make a copy of the view"


@pytest.mark.parametrize("op", PUBLIC, ids=lambda op: op.name)
def test_gradient_or_reason(op):
    assert op.gradients or op.why_not, "say why there is no gradient: why_not="
