"""Which rung a call takes: by name, by policy, by measurement."""

from __future__ import annotations

import doctest
import importlib
import json
import threading
import warnings

import numpy as np
import pytest
from gradlab.kernels import cache, fastest, ladder
from gradlab.kernels.cuda import driver

import gradlab as gl


@pytest.fixture(autouse=True)
def _fresh():
    ladder._warn_once.cache_clear()
    fastest.forget()
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
    with pytest.raises(ValueError, match=r"^kernels.policy: expected 'gradlab' or 'library' or"):
        gl.kernels.policy("quickest")


# -------------------------------------------------------------------------------------- fastest

KEY = "test.once(float32[4×4]C; )"


@pytest.fixture
def timed(monkeypatch, tmp_path, family, fake_cuda):
    """Seconds by rung, and the calls that were timed; the cache is in tmp_path."""
    monkeypatch.setenv("GRADLAB_CACHE_DIR", str(tmp_path))
    seconds = {"gradlab": 2.0, "cublas": 1.0}
    calls = []

    def measure(function, repeats):
        calls.append(function())
        return [seconds[calls[-1]]] * repeats

    monkeypatch.setattr(fake_cuda, "timed", measure)
    return seconds, calls


def test_the_fastest_is_measured_once_per_class_of_shapes(timed, fake_cuda):
    seconds, calls = timed
    with gl.kernels.policy("fastest"):
        assert ladder.run("test", "once", arrays(fake_cuda, 100, 65)) == "cublas"
        assert calls == ["gradlab", "cublas"]  # not the one that is only there to be read
        seconds["gradlab"] = 0.5
        assert ladder.run("test", "once", arrays(fake_cuda, 128, 128)) == "cublas"
        assert len(calls) == 2
        assert ladder.run("test", "once", arrays(fake_cuda, 129, 65)) == "gradlab"
        assert ladder.run("test", "once", arrays(fake_cuda, 65, 100).T) == "gradlab"
        assert ladder.run("test", "once", arrays(fake_cuda, 100, 65), flag=True) == "gradlab"
        assert len(calls) == 8
        assert ladder.run("test", "twice", arrays(fake_cuda, 2, 2)) == "gradlab"
        assert len(calls) == 8  # there is nothing to choose from


def test_the_fastest_is_remembered_on_disk(timed, fake_cuda, tmp_path):
    _, calls = timed
    x = arrays(fake_cuda, 4, 4)
    with gl.kernels.policy("fastest"):
        ladder.run("test", "once", x)
        fastest.forget()  # as a new process
        assert ladder.run("test", "once", x) == "cublas"
        assert len(calls) == 2
        (file,) = tmp_path.glob("fastest-*.choices")
        content = json.loads(cache.read(file))
        assert content == {
            "device": "emulator",
            "choices": {"test.once(float32[4×4]C; )": "cublas"},
        }


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"choices": 3}', json.dumps({"choices": {KEY: "gone"}})]
)  # fmt: skip
def test_a_damaged_file_is_measured_anew(timed, fake_cuda, tmp_path, damage):
    _, calls = timed
    x = arrays(fake_cuda, 4, 4)
    with gl.kernels.policy("fastest"):
        ladder.run("test", "once", x)
        (file,) = tmp_path.glob("*.choices")
        file.write_bytes(cache.sealed(file.name, damage.encode()))
        fastest.forget()
        assert ladder.run("test", "once", x) == "cublas"
    assert len(calls) == 4
    assert json.loads(cache.read(file))["choices"]


def test_what_other_processes_measured_stays(timed, fake_cuda, tmp_path):
    with gl.kernels.policy("fastest"):
        ladder.run("test", "once", arrays(fake_cuda, 4, 4))
        (file,) = tmp_path.glob("*.choices")
        content = json.loads(cache.read(file))
        content["choices"]["another"] = "gradlab"
        file.write_bytes(cache.sealed(file.name, json.dumps(content).encode()))
        ladder.run("test", "once", arrays(fake_cuda, 8, 8))
    assert len(json.loads(cache.read(file))["choices"]) == 3


def test_a_folder_that_cannot_be_written_is_said_once(timed, fake_cuda, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("GRADLAB_CACHE_DIR", str(file / "folder"))
    monkeypatch.setattr(cache, "private", lambda: tmp_path / "private")
    cache._warn_once.cache_clear()
    with gl.kernels.policy("fastest"):
        said = (
            r"^choices of kernels.policy\('fastest'\): they are kept in .*private instead:"
            r".*/folder cannot be written \(Not a directory\); GRADLAB_CACHE_DIR names another fol"
        )
        with pytest.warns(UserWarning, match=said):
            assert ladder.run("test", "once", arrays(fake_cuda, 4, 4)) == "cublas"
        assert ladder.run("test", "once", arrays(fake_cuda, 4, 4)) == "cublas"  # remembered


def test_the_file_is_of_one_device_and_one_version_of_the_kernels(fake_cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLAB_CACHE_DIR", str(tmp_path))
    first = fastest.entry()
    assert fastest.cache_folder() == tmp_path
    monkeypatch.setattr(fastest, "source_hash", lambda: "other")
    second = fastest.entry()
    properties = driver.current().properties()._replace(name="another GPU")
    monkeypatch.setattr(fake_cuda, "properties", lambda: properties)
    assert len({first, second, fastest.entry()}) == 3


@pytest.mark.parametrize(
    ("platform", "variables", "end"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/gradlab"),
        ("linux", {"HOME": "/h"}, "/h/.cache/gradlab"),
        (
            "linux",
            {"HOME": "/h", "XDG_CACHE_HOME": "", "GRADLAB_CACHE_DIR": ""},
            "/h/.cache/gradlab",
        ),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/gradlab"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/gradlab/Cache"),
    ],
)
def test_the_platforms_folder(monkeypatch, platform, variables, end):
    for name in ("GRADLAB_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fastest.sys, "platform", platform)
    assert fastest.cache_folder().as_posix() == end


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


def test_the_fastest_of_real_rungs(fake_cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLAB_CACHE_DIR", str(tmp_path))
    x = gl.tensor(np.eye(3, dtype="float32"), device="cuda", requires_grad=True)
    with gl.kernels.policy("fastest"):
        y = x @ x + 1
        y.sum().backward()
    np.testing.assert_array_equal(y.numpy(force=True), np.eye(3) + 1)
    assert x.grad.tolist() == [[2.0] * 3] * 3
    (file,) = tmp_path.glob("*.choices")
    choices = json.loads(cache.read(file))["choices"]
    assert "matmul.matmul(float32[4×4]C, float32[4×4]C; )" in choices
    assert set(choices.values()) <= {"gradlab", "cublas", "cupy"}


def test_linear_on_the_library(fake_cuda):
    layer = gl.nn.Linear(4, 3).to("cuda")
    x = gl.tensor(np.random.default_rng(0).standard_normal((5, 4)), device="cuda", dtype="float32")
    expected = layer(x).numpy(force=True)
    for name in ("cublas", "numba_tiled"):
        if ladder.RUNGS["matmul"]["matmul"][name].refuses(x._array, x._array.T):
            continue  # Numba is not installed
        with gl.kernels.use(matmul=name):
            np.testing.assert_allclose(layer(x).numpy(force=True), expected, rtol=1e-5, atol=1e-6)
