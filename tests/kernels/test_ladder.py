"""Which rung a call takes: by name, by policy, by measurement."""

from __future__ import annotations

import doctest
import importlib
import threading
import warnings

import numpy as np
import pytest
from gradlab.kernels import ladder

import gradlab as gl


@pytest.fixture(autouse=True)
def _fresh():
    ladder._warn_once.cache_clear()
    yield
    assert ladder._state.plain, "a test left a choice behind"


@pytest.fixture
def family(monkeypatch, fake_cuda):
    """A family of three rungs whose functions say which of them ran; `twice` is gradlab's alone."""
    functions = {}
    monkeypatch.setitem(ladder.RUNGS, "test", functions)
    for name in ("gradlab", "cublas", "numba_tiled"):

        def run(x, *, name=name, **_):
            return name

        ladder.rung("test", name, "once", accepts=lambda x, **_: x.ndim == 2)(run)
    ladder.rung("test", function="twice")(lambda x: "gradlab")
    return functions


def arrays(driver, *shape):
    return driver.xp.asarray(np.ones(shape, np.float32))


def test_gradlabs_own_by_default(family, fake_cuda):
    x = arrays(fake_cuda, 2, 2)
    assert ladder._state.plain
    assert ladder.run("test", "once", x) == "gradlab"
    assert ladder.accepts("test", "once", x)
    assert not ladder.accepts("test", "once", arrays(fake_cuda, 2))


def test_use_nests_and_ends(family, fake_cuda):
    x = arrays(fake_cuda, 2, 2)
    with gl.kernels.use(test="cublas"):
        assert not ladder._state.plain
        assert ladder.run("test", "once", x) == "cublas"
        with gl.kernels.use(test="numba_tiled"):
            assert ladder.run("test", "once", x) == "numba_tiled"
        with gl.kernels.use(matmul="cublas"):
            assert ladder.run("test", "once", x) == "cublas"
        with gl.kernels.use(test="gradlab"):
            assert ladder.run("test", "once", x) == "gradlab"
        assert ladder.run("test", "once", x) == "cublas"
    assert ladder._state.plain


def test_use_ends_with_an_exception_and_may_be_entered_twice(family, fake_cuda):
    x = arrays(fake_cuda, 2, 2)
    chosen = gl.kernels.use(test="cublas")
    with pytest.raises(KeyError), chosen, chosen:
        raise KeyError
    assert ladder.run("test", "once", x) == "gradlab"


def test_use_is_of_one_thread(family, fake_cuda):
    found = []
    with gl.kernels.use(test="cublas"):
        x = arrays(fake_cuda, 2, 2)
        thread = threading.Thread(target=lambda: found.append(ladder.run("test", "once", x)))
        thread.start()
        thread.join()
    assert found == ["gradlab"]


def test_what_a_rung_cannot_compute_falls_back_with_one_warning(family, fake_cuda):
    vector = arrays(fake_cuda, 3)
    with gl.kernels.use(test="cublas"):
        with pytest.warns(UserWarning, match=r"^kernels.use: 'cublas' cannot compute this once: it "
                          r"does not take float32 \(3,\); gradlab's own kernel does$"):  # fmt: skip
            assert ladder.run("test", "once", vector) == "gradlab"
        assert not ladder.accepts("test", "once", vector)  # gradlab's own neither
        with pytest.warns(UserWarning, match="cannot compute this twice: it has no such function"):
            assert ladder.accepts("test", "twice", vector)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ladder.run("test", "twice", vector) == "gradlab"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"matmull": "cublas"}, "a family among cross_entropy, matmul, reduction, softmax, got"),
        ({"matmul": "cupy"}, "one of 'numba_naive', 'numba_tiled', 'gradlab', 'cublas', got"),
        ({"softmax": "cublas"}, "one of 'numba_naive', 'numba_tiled', 'gradlab', 'cupy', got"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused_with_what_does(choice, expected):
    with pytest.raises(ValueError, match=rf"^kernels.use: expected .*{expected}"):
        gl.kernels.use(**choice)


# --------------------------------------------------------------------------------------- policy


def test_policy_as_a_function_and_as_a_block(family, fake_cuda):
    x = arrays(fake_cuda, 2, 2)
    with gl.kernels.policy("library"):
        assert ladder.run("test", "once", x) == "cublas"
        assert ladder.run("test", "twice", x) == "gradlab"
        assert not ladder.accepts("test", "once", arrays(fake_cuda, 2))  # and no warning
        with gl.kernels.policy("gradlab"):
            assert ladder.run("test", "once", x) == "gradlab"
        with gl.kernels.use(test="numba_tiled"):
            assert ladder.run("test", "once", x) == "numba_tiled"
    assert ladder._state.plain

    found = []
    gl.kernels.policy("library")
    try:
        thread = threading.Thread(target=lambda: found.append(ladder.run("test", "once", x)))
        thread.start()
        thread.join()
        assert found == ["cublas"]
    finally:
        assert repr(gl.kernels.policy("gradlab")) == "policy('gradlab')"
    assert ladder.run("test", "once", x) == "gradlab"


def test_an_unknown_policy():
    with pytest.raises(ValueError, match=r"^kernels.policy: expected 'gradlab' or 'library'"):
        gl.kernels.policy("quickest")


# -------------------------------------------------------------------------------- with real ops


@pytest.mark.parametrize("name", ["ladder", "racing"])
def test_examples(name):
    module = importlib.import_module(f"gradlab.kernels.{name}")
    failed, count = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (failed, count > 1) == (0, True)


def test_tensors_take_the_library(emulator):
    x = gl.tensor(np.random.default_rng(0).standard_normal((4, 5)), device="cuda")
    expected = (x @ x.mT).softmax(0).sum(0).numpy(force=True)
    emulator.launches.clear()
    with gl.kernels.policy("library"):
        found = (x @ x.mT).softmax(0).sum(0).numpy(force=True)
    assert emulator.launches == []
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_linear_on_the_library(fake_cuda):
    layer = gl.nn.Linear(4, 3).to("cuda")
    x = gl.tensor(np.random.default_rng(0).standard_normal((5, 4)), device="cuda", dtype="float32")
    expected = layer(x).numpy(force=True)
    for name in ("cublas", "numba_tiled"):
        if ladder.RUNGS["matmul"]["matmul"][name].refuses(x._array, x._array.T):
            continue  # Numba is not installed
        with gl.kernels.use(matmul=name):
            np.testing.assert_allclose(layer(x).numpy(force=True), expected, rtol=1e-5, atol=1e-6)
