"""Reductions on CUDA, on the emulator: every op's samples; layouts, dtypes, sizes, dispatch."""

from __future__ import annotations

import pytest

from gradlab.ops import reduction as ops
from gradlab.testing import check_op

OPS = [ops.SUM, ops.MEAN, ops.PROD, ops.VAR, ops.STD, ops.MAX, ops.MIN, ops.ARGMAX, ops.ARGMIN,
       ops.ANY, ops.ALL, ops.COUNT_NONZERO, ops.VECTOR_NORM]  # fmt: skip


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_samples_on_cuda(emulator, op):
    check_op(op, devices=["cuda"])
    assert emulator.launches
