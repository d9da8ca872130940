"""Running sums and products on CUDA, on the emulator."""

from __future__ import annotations

import pytest

from gradlab.ops import reduction as ops
from gradlab.testing import check_op


@pytest.mark.parametrize("op", [ops.CUMSUM, ops.CUMPROD], ids=lambda op: op.name)
def test_samples_on_cuda(emulator, op):
    check_op(op, devices=["cuda"])
    assert emulator.launches
