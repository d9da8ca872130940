"""Cross-entropy on CUDA: the op's own array code is what its kernels are held against."""

from __future__ import annotations

import pytest

from gradlab.ops.loss import CROSS_ENTROPY, SOFT_CROSS_ENTROPY
from gradlab.testing import check_op


@pytest.mark.parametrize("op", [CROSS_ENTROPY, SOFT_CROSS_ENTROPY])
def test_samples(emulator, op):
    assert check_op(op, devices=["cuda"]) > 5
