"""What holds for every test: one thread per process, no display, repeatable random cases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

# Each pytest-xdist worker would otherwise start one BLAS thread per core, and they would fight
# over them. Read when NumPy or PyTorch is first imported, so it stands before everything else.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import pytest

# A failure in CI must come back at the desk: the same examples every time, and no time limit per
# example, which a busy machine would break. Look further with --hypothesis-profile=explore.
hypothesis.settings.register_profile(
    "gradlab", deadline=None, derandomize=True, max_examples=50, print_blob=True
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile("gradlab")


@pytest.fixture
def fake_cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``device="cuda"`` works, on two devices made of host memory; gives their driver."""
    from cuda_emulator import build
    from fake_cuda import FakeDriver, special_modules
    from gradlab import devices
    from gradlab.backends.cuda import use_driver

    if why := build.available(build.MODE):  # most ops have kernels, which need a compiler
        pytest.skip(why)
    for name, module in special_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    driver = FakeDriver()
    modules = _note_modules(driver)
    before = use_driver(driver)
    devices.forget_cuda()
    yield driver
    use_driver(before)
    devices.forget_cuda()
    unlisted = modules - _listed_modules()
    if request.node.get_closest_marker("unlisted"):
        return
    assert not unlisted, f"launched, but not among its family's variants(): {sorted(unlisted)}"


def _note_modules(driver: Any) -> set[tuple[str, Any]]:
    """The modules that a driver launches kernels of."""
    modules = set()
    launch = driver.launch

    def noting(source: str, symbol: str, defines: Any, *rest: Any) -> None:
        modules.add((source, defines))
        launch(source, symbol, defines, *rest)

    driver.launch = noting
    return modules


@cache
def _listed_modules() -> frozenset[tuple[str, Any]]:
    """The modules that tests/kernels/test_compilation.py compiles: the sources' variants."""
    from gradlab.kernels.cuda import resources

    return frozenset((each.source, each.defines) for each in resources.variants())


@pytest.fixture(params=["forwards", "backwards"])
def emulator(request: pytest.FixtureRequest, fake_cuda: Any) -> Any:
    """``device="cuda"`` works and runs gradlab's CUDA kernels on the CPU; gives the driver.

    A test that takes it runs twice: with the threads of each block taking their turns from the
    first to the last and from the last to the first, so that a missing barrier shows.
    """
    fake_cuda.order = int(request.param == "backwards")
    return fake_cuda


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--resources",
        action="store_true",
        help="print what each CUDA kernel takes: registers, shared memory, stack, spills",
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--resources"):
        return
    from gradlab.kernels.cuda import resources

    found = [
        resources.Resources(*kernel)
        for report in terminalreporter.stats.get("passed", [])
        for name, kernels in report.user_properties
        if name == "kernels"
        for kernel in kernels
    ]
    if found:
        terminalreporter.section("CUDA kernels")
        terminalreporter.write_line(resources.table([resources.Report("", "", 0.0, found, [])]))
