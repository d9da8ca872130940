"""The tests of this folder run the real CuPy where there is no GPU: `make cupy`.

Elsewhere each of their modules is skipped, by `install.required`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cupy_standin import install
from gradlab.backends.cuda import CupyDriver
from gradlab.training import runstate, trainer


@pytest.fixture(scope="session")
def cupy_over_nothing() -> Any:
    """CuPy over the stand-in driver, for as long as the process lives."""
    return install.install()


@pytest.fixture
def standin(cupy_over_nothing: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The driver under CuPy, with one GPU; ``standin.set_devices(2)`` makes it two.

    Each launch of a gradlab kernel is watched: all memory that it is given lies on the current
    device. CuPy watches over its own kernels.
    """
    launch = CupyDriver.launch

    def watched(self: Any, source: str, symbol: str, defines: Any, *rest: Any) -> None:
        current = self.current_device()
        for place in set(_places(cupy_over_nothing, rest[2])):
            assert place == current, f"{symbol}: memory of GPU {place} on GPU {current}"
        launch(self, source, symbol, defines, *rest)

    monkeypatch.setattr(CupyDriver, "launch", watched)
    # What no kernel computed is not finite.
    for module in (runstate, trainer):
        monkeypatch.setattr(module, "require_finite", lambda run: None)
    cupy_over_nothing.set_devices(1)
    cupy_over_nothing.asked_in_vain()
    yield cupy_over_nothing
    cupy_over_nothing.set_devices(1)
    assert cupy_over_nothing.asked_in_vain() == [], "functions of CUDA to add to driver.cpp"


def _places(standin: Any, arguments: Any) -> Iterator[int]:
    """The GPUs in whose memory the arguments of a kernel point, those within structs too."""
    for each in arguments:
        if isinstance(each, np.ndarray):  # a struct
            words = np.frombuffer(each.tobytes()[: each.nbytes // 8 * 8], np.uint64)
            yield from (place for word in words if (place := standin.device_of(int(word))) >= 0)
        elif hasattr(each, "device") and each.size:
            yield each.device.id
