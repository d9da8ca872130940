"""The race: every rung on the same data, the wrong ones found out."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from gradlab.kernels import ladder, racing
from gradlab.kernels.cuda import driver
from gradlab.kernels.numba_cuda.launch import missing

import gradlab as gl
from gradlab.errors import DeviceError

ladder.load_all()
PROBLEMS = {
    "matmul": {"m": 20, "n": 17, "k": 33},
    "softmax": {"rows": 3, "columns": 70},
    "cross_entropy": {"rows": 5, "columns": 70},
    "reduction": {"rows": 3, "columns": 70, "axis": 0},
}


@pytest.mark.parametrize("family", PROBLEMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_every_rung_is_right_on_the_emulator(emulator, family, dtype, capsys):
    result = gl.kernels.race(family, dtype=dtype, **PROBLEMS[family])
    assert result.ok
    rungs = [row.rung for row in result.rows]
    assert rungs == ladder.names(family, result.function)
    ran = {row.rung for row in result.rows if row.ok}
    assert ladder.OWN in ran
    if dtype == "float32" and not missing() and family != "cross_entropy":
        assert ran == set(rungs)
    assert capsys.readouterr().out == f"{result}\n"


@pytest.mark.parametrize("operation", ["sum", "max", "mean", "prod", "min"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_reductions(fake_cuda, operation, axis):
    result = gl.kernels.race(
        "reduction", rows=4, columns=9, axis=axis, operation=operation, quiet=True
    )
    assert result.ok
    assert result.function == operation


def test_the_table_of_the_emulator_has_no_times_and_says_why(fake_cuda):
    result = gl.kernels.race("softmax", rows=2, columns=5, quiet=True)
    lines = str(result).splitlines()
    assert lines[0] == "softmax, rows=2, columns=5, dtype=float32, on emulator"
    assert lines[1].split() == ["rung", "check", "error"]
    assert lines[-1] == "No times: the emulator runs kernels on the CPU."
    assert all(row.seconds is None and row.rate is None for row in result.rows)


def test_the_race_in_the_readme(fake_cuda):
    if missing():
        pytest.skip(missing())
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(matmul, .*?)```", readme, re.DOTALL)
    run = [line.split()[:2] for line in shown.splitlines()]
    found = str(gl.kernels.race("matmul", m=96, n=80, k=64, quiet=True)).splitlines()
    assert [line.split()[:2] for line in found[:-1]] == run
    assert found[0] == shown.splitlines()[0]
    # A digit of an error may differ with the BLAS of the machine.
    errors = [
        [float(line.split()[2]) for line in lines[2:6]] for lines in (found, shown.splitlines())
    ]
    np.testing.assert_allclose(*errors, rtol=0.3)


def test_to_dict_is_json(fake_cuda):
    result = gl.kernels.race("matmul", **PROBLEMS["matmul"], quiet=True)
    found = json.loads(json.dumps(result.to_dict()))
    assert found["problem"] == {"m": 20, "n": 17, "k": 33, "dtype": "float32"}
    assert [row["rung"] for row in found["rows"]] == ladder.names("matmul", "matmul")
    assert found["untimed"]
    assert found["ceiling"] is None


# ------------------------------------------------------------------------------ planted faults


def _half(x, *, axis):
    y = _right(x)
    y[:1] = math.nan
    return y


def _right(x, **_):
    y = np.exp(x.values - x.values.max(1, keepdims=True))
    return type(x)(y / y.sum(1, keepdims=True), x.device_index)


def _off(x, *, axis):
    y = _right(x)
    y[0, 0] += 1e-3
    return y


def _narrow(x, *, axis):
    return _right(x).astype(np.float16)


def _fails(x, *, axis):
    raise RuntimeError("the kernel is broken\nin more than one line")


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        (_half, ""),
        (_off, ""),
        (_narrow, "ValueError: expected float32 (3, 70), got float16 (3, 70)"),
        (_fails, "RuntimeError: the kernel is broken"),
    ],
)
def test_a_wrong_rung_is_found_out(fake_cuda, monkeypatch, fault, note):
    rungs = ladder.RUNGS["softmax"]["softmax"]
    monkeypatch.setitem(rungs, "cupy", rungs["cupy"]._replace(run=fault))
    result = gl.kernels.race("softmax", rows=3, columns=70, quiet=True)
    row = next(row for row in result.rows if row.rung == "cupy")
    assert not row.ok
    assert row.note == note
    assert not result.ok
    assert "WRONG" in str(result)
    assert all(other.ok for other in result.rows if other.rung not in ("cupy", *ladder.READABLE))


def test_a_result_left_unwritten_is_nan(fake_cuda, monkeypatch):
    """The memory of an earlier result is NaN by the time a rung gets it again."""
    memory = fake_cuda.xp.asarray(np.zeros((3, 70), np.float32))
    rungs = ladder.RUNGS["softmax"]["softmax"]
    writes = [True]

    def run(x, *, axis):
        if writes.pop() if writes else False:
            memory.values[...] = _right(x).values
        return memory

    monkeypatch.setitem(rungs, "cupy", rungs["cupy"]._replace(run=run))
    result = gl.kernels.race("softmax", rows=3, columns=70, quiet=True)
    row = next(row for row in result.rows if row.rung == "cupy")
    assert math.isnan(row.error)
    assert not row.ok


def test_what_a_rung_does_not_compute_is_left_out(fake_cuda):
    result = gl.kernels.race("matmul", m=2, n=2, k=2, dtype="float16", quiet=True)
    row = result.rows[0]
    assert (row.rung, row.ok, row.error) == ("numba_naive", False, None)
    assert "float16" in row.note or "not installed" in row.note
    assert result.ok
    assert "left out" in str(result)


# ---------------------------------------------------------------------------------------- times


class Clock:
    """Times by the name of what ran: the copy first, the ceiling's matmul, then the rungs."""

    def __init__(self, seconds):
        self.seconds = list(seconds)

    def __call__(self, function, repeats):
        function()
        found = self.seconds[0]
        if repeats > 1:  # the first of two measurements only finds out how often to repeat
            self.seconds.pop(0)
        return [found] * repeats


@pytest.fixture
def gpu(fake_cuda, monkeypatch):
    """A driver that says it can time, with the times of a list."""

    def use(*seconds):
        monkeypatch.setattr(fake_cuda, "timed", Clock(seconds))
        monkeypatch.setattr(driver.current(), "untimed", "")
        monkeypatch.setattr(racing, "_peak_matmul", lambda *_: 4e12)

    return use


def test_times_rates_shares_and_ratios(gpu, capsys):
    rungs = ladder.names("softmax", "softmax")
    gpu(2 * (1 << 27) / 1e12, *(4e-8 / 2**i for i in range(len(rungs))))
    result = gl.kernels.race("softmax", rows=10, columns=250, dtype="float64")
    assert result.unit == "GB/s"
    assert result.ceiling.copy_bandwidth == pytest.approx(1e12)
    ran = [row for row in result.rows if row.ok]
    assert ran[0].seconds == 4e-8
    assert ran[0].rate == pytest.approx(1000)  # 2·10·250·8 bytes in 40 ns
    assert ran[0].share == pytest.approx(1)
    assert ran[1].share == pytest.approx(2)
    assert ran[-1].ratio == 1
    assert ran[0].ratio == pytest.approx(ran[-1].seconds / ran[0].seconds)
    lines = str(result).splitlines()
    assert lines[1] == "ceiling: copy 1000 GB/s"
    assert lines[2].split() == ["rung", "check", "error", "time", "rate", "of", "ceiling",
                                "×", "library"]  # fmt: skip
    assert "40 ns" in str(result)
    assert "1000 GB/s" in str(result)
    assert "No times" not in str(result)
    assert "times faster than the library" in capsys.readouterr().out


def test_a_wrong_rung_has_no_time(gpu, monkeypatch):
    rungs = ladder.names("softmax", "softmax")
    gpu(1e-3, *[4e-8] * len(rungs))
    function = ladder.RUNGS["softmax"]["softmax"]
    wrong = function["gradlab"]._replace(run=lambda x, **_: x)
    monkeypatch.setitem(function, "gradlab", wrong)
    result = gl.kernels.race("softmax", rows=10, columns=250, dtype="float64", quiet=True)
    seconds = {row.rung: row.seconds for row in result.rows}
    assert seconds["gradlab"] is None
    assert seconds["cupy"] == 4e-8


@pytest.mark.parametrize(
    ("sizes", "unit"),
    [({"m": 50, "n": 50, "k": 50}, "TFLOP/s"), ({"m": 1, "n": 60, "k": 60}, "GB/s")],
)
def test_the_unit_is_that_of_the_limit(gpu, sizes, unit):
    gpu(2 * (1 << 27) / 1e12, *[1e-3] * 4)  # 4 TFLOP/s and 1 TB/s: 4 operations per byte
    result = gl.kernels.race("matmul", **sizes, dtype="float64", quiet=True)
    assert result.unit == unit
    row = result.rows[-1]
    flops, size = 2 * math.prod(sizes.values()), result.rows[-1].rate
    if unit == "TFLOP/s":
        assert size == pytest.approx(flops / 1e-3 / 1e12)
        assert row.share == pytest.approx(flops / 1e-3 / 4e12)


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("conv", {}, "a family among matmul, softmax, cross_entropy, reduction, got 'conv'"),
        ("matmul", {"rows": 3}, "sizes of matmul among m, n, k, got rows"),
        ("matmul", {"m": -3}, "m to be an integer of 1 or more, got -3"),
        ("softmax", {"columns": "a"}, "columns to be an integer of 1 or more, got 'a'"),
        ("matmul", {"dtype": "int32"}, "float16, bfloat16, float32, float64, got 'int32'"),
        ("matmul", {"dtype": "float33"}, "float16, bfloat16, float32, float64, got 'float33'"),
        ("reduction", {"operation": "median"}, "operation to be one of .*max.*, got 'median'"),
        ("reduction", {"axis": 2}, "axis to be None, 0, 1 or negative, got 2"),
    ],
)
def test_messages(family, options, message):
    with pytest.raises(ValueError, match=f"^kernels.race: expected .*{message}"):
        gl.kernels.race(family, **options)


def test_the_module_lists_what_it_offers():
    assert dir(gl.kernels) == sorted(gl.kernels.__all__)


@pytest.mark.skipif(gl.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_gives_the_probes_reason():
    with pytest.raises(DeviceError, match=r"^device 'cuda' is not available: .*; "):
        gl.kernels.race("softmax", rows=2, columns=2)
