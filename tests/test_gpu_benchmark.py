"""`python -m benchmarks.gpu` on the emulator: its sections, its checks, its file, its tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import gradlab as gl

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the benchmarks are a package of the checkout, not of the wheel

from gradlab.kernels import ladder  # noqa: E402
from gradlab.kernels.cuda import resources  # noqa: E402
from gradlab.kernels.cuda.driver import Properties  # noqa: E402

from benchmarks import table as cpu_table  # noqa: E402
from benchmarks.gpu import (  # noqa: E402
    __main__ as program,
    cases,
    checks,
    judges,
    programs,
    rungs,
    sections,
    table,
    variants,
    verify,
)
from benchmarks.gpu.machine import Machine, is_fatal  # noqa: E402
from benchmarks.gpu.sections import SECTIONS, Section  # noqa: E402
from benchmarks.gpu.verify import Limit  # noqa: E402


@pytest.fixture
def machine(fake_cuda):
    return Machine(dry=True, seed=5)


def run(name, machine, **options):
    lines = []
    sections.run(SECTIONS[name], machine, lines.append, seconds=60, **options)
    return [line for line in lines if "title" in line]


@pytest.mark.parametrize("name", [name for name in SECTIONS if SECTIONS[name].part == "time"])
def test_a_section_runs_and_checks_what_it_would_time(name, machine):
    for record in run(name, machine):
        assert "failed" not in record, record
        assert not record.get("failures"), record
        assert record["took"] >= 0
        if name != "ceilings":
            assert "gradlab" in record["checked"], record
        json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("name", ["compilation", "sanitizer"])
def test_the_other_sections_run(name, machine):
    for record in run(name, machine):
        assert "failed" not in record, record
        json.dumps(record)


# ------------------------------------------------------------------------- every variant, forced


@pytest.mark.parametrize("source", variants.SOURCES)
def test_a_variant_of_each_source_is_right(source, machine):
    (variant,) = [each for each in variants.wanted(machine) if each.source == source]
    found = variants.force(machine, variant)
    assert found["failures"] == []
    assert found["checks"] > 0


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0)])
def test_every_variant_is_launched(fake_cuda, monkeypatch, capability):
    """All that the families list for a GPU, and nothing is left for it to be wrong in."""
    properties = Properties("GPU", capability, 132, 227 << 10, 60 << 20)
    monkeypatch.setattr(fake_cuda, "properties", lambda: properties)
    seen = set()
    monkeypatch.setattr(
        fake_cuda, "launch", lambda source, symbol, defines, *_: seen.add((source, defines))
    )
    machine = Machine(dry=True)
    machine.dry = False
    wanted = variants.wanted(machine)
    machine.dry = True
    listed = {
        (each.source, each.defines) for each in resources.variants()
        if each.capability <= capability
        and (each.source != "matmul_wgmma.cu" or capability == (9, 0))
    }  # fmt: skip
    for variant in wanted:
        found = variants.force(machine, variant, judge=False)
        assert found["failures"] == [], variant
    assert seen == {(each.source, each.defines) for each in wanted} == listed
    wgmma = [each for each in wanted if each.source == "matmul_wgmma.cu"]
    assert len(wgmma) == (36 if capability == (9, 0) else 0)


def test_a_kernel_that_writes_nothing_is_found_out(machine, fake_cuda, monkeypatch):
    monkeypatch.setattr(fake_cuda, "launch", lambda *_: None)
    for variant in variants.wanted(machine):
        assert variants.force(machine, variant)["failed_checks"] > 0, variant


def test_a_variant_that_is_not_launched_is_a_failure(machine, monkeypatch):
    (variant,) = [each for each in variants.wanted(machine) if each.source == "softmax.cu"]
    monkeypatch.setitem(variants.SOURCES, "softmax.cu", lambda *_: iter(()))
    assert variants.force(machine, variant)["failures"] == ["it was not launched"]
    monkeypatch.delitem(variants.SOURCES, "softmax.cu")  # a source that nobody has a way for
    assert variants.force(machine, variant)["failures"] == ["it was not launched"]


def test_inputs_are_new_for_each_variant_and_each_run(machine):
    some = variants.wanted(machine)[:2]
    labs = [variants.Lab(machine, each, run, True) for each in some for run in (1, 2)]
    assert len({lab.normal(3).tobytes() for lab in labs}) == 4
    (case, *_) = cases.matmul(machine)
    sets = [machine.host(case.inputs(machine, number)[0]).tobytes() for number in (0, 1, 0)]
    assert sets[0] == sets[2] != sets[1]
    machine.seed += 1
    assert machine.host(case.inputs(machine, 0)[0]).tobytes() != sets[0]


# --------------------------------------------------------------------------------- what is right


def wrong(got, exact, **limit):
    """What `compare` says on the host, and of the same on the device's way."""
    machine = SimpleNamespace(dry=True, host=np.asarray)
    return verify.compare(machine, np.asarray(got), np.asarray(exact), Limit(**limit)).wrong


def test_rounding_is_right_and_what_is_beyond_it_is_not():
    exact = np.random.default_rng(0).standard_normal(10_000)
    for dtype in ("float32", "float64", "float16", ml_dtypes.bfloat16):
        assert wrong(exact.astype(dtype), exact) == ""
    single = exact.astype("float32")
    assert "of 10000 elements" in wrong(single * np.float32(1 + 2e-5), exact)
    assert wrong(exact.astype("float16").astype("float32"), exact)  # of fewer bits than it has
    assert wrong(exact.astype(ml_dtypes.bfloat16).astype("float16"), exact)


def test_one_wrong_element_in_a_million_is_found():
    exact = np.random.default_rng(0).standard_normal(1_000_000)
    for value in (np.nan, np.inf, -np.inf, 0.0, exact[7] + 0.01):
        got = exact.astype("float32")
        got[7] = value
        assert "1 of 1000000 elements" in wrong(got, exact)


def test_the_limit_of_a_sum_grows_with_the_root_of_its_terms_and_tf32_is_beyond_it():
    random = np.random.default_rng(0)
    for k in (64, 4096):
        a, b = random.standard_normal((2, 64, k)).astype("float32")
        exact = a.astype("float64") @ b.T.astype("float64")
        limit = {"terms": k, "scale": k**0.5}
        assert wrong(a @ b.T, exact, **limit) == ""
        rounded = [(x.view("u4") & 0xFFFFE000).view("float32") for x in (a, b)]
        assert wrong(rounded[0] @ rounded[1].T, exact, **limit)


def test_a_reference_that_is_none_is_refused():
    for exact in ([np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0]):
        assert "the reference is no reference" in wrong(np.float32(exact), exact)
    assert wrong(np.float32([1.0]), [[1.0]]) == "expected shape (1, 1), got (1,)"


def test_integers_are_equal_and_a_bool_is_0_or_1():
    assert wrong(np.int64([1, 2**53 + 1]), np.int64([1, 2**53 + 1])) == ""
    assert wrong(np.int64([1, 2**53 + 1]), np.int64([1, 2**53])) == "1 of 2 elements are wrong"
    assert wrong(np.array([True, False]), np.array([True, False])) == ""
    assert wrong(np.uint8([255, 0]).view(bool), np.array([True, False]))


def test_norms_are_compared_where_elements_may_differ():
    exact = np.ones(100)
    got = np.float32(exact)
    got[3] = 1.01
    assert wrong(got, exact, norm=2e-3) == ""
    assert "relative error 0.001 > 0.0005" in wrong(got, exact, norm=5e-4)
    got[4] = np.nan
    assert wrong(got, exact, norm=2e-3)


class Device:
    """A machine whose device computes by NumPy, or, ``broken``, gives memory as it was."""

    dry = False

    def __init__(self, broken=False):
        names = ("abs", "asarray", "ascontiguousarray", "exp", "matmul", "sum")
        computed = {name: getattr(np, name) for name in names}
        if broken:
            computed |= {name: lambda x, *_: np.zeros_like(x) for name in ("abs", "exp", "matmul")}
        self.driver = SimpleNamespace(to_device=lambda x, _: x)
        self.xp = SimpleNamespace(**computed)

    def host(self, x):
        return np.asarray(x)


def test_large_results_are_compared_on_the_device_that_is_itself_compared_first(monkeypatch):
    monkeypatch.setattr(verify, "ON_HOST", 1000)
    exact = np.random.default_rng(0).standard_normal(100_000)
    assert verify.compare(Device(), np.float32(exact), exact, Limit()) == ("", pytest.approx(
        2.5e-8, rel=0.2))  # fmt: skip
    bad = np.float32(exact)
    bad[-1] = np.nan
    assert "1 of 100000" in verify.compare(Device(), bad, exact, Limit()).wrong
    # A device that computes nothing agrees with everything.
    said = verify.compare(Device(broken=True), bad, exact, Limit()).wrong
    assert said.startswith("the reference itself is wrong: CuPy's float64 does not agree")


def test_memory_is_poisoned(machine):
    with verify.poisoned(machine):
        for dtype in ("float16", "float32", "float64"):
            assert np.isnan(machine.host(machine.xp.empty((2, 3), dtype))).all()
        assert int(machine.xp.empty((), "int64")) == -1
    assert machine.xp.empty(0, "float32").size == 0


@pytest.mark.parametrize("name", ["rand", "randn", "dropout"])
def test_random_numbers_are_judged(machine, name):
    n = judges.PARTS * 1000
    random = np.random.default_rng(0)
    x = random.standard_normal(n).astype("float32")
    good = {
        "rand": random.random(n), "randn": random.standard_normal(n),
        "dropout": np.where(random.random(n) < 0.5, 0, 2 * x),
    }[name].astype("float32")  # fmt: skip

    def judge(values, peer="cupy"):
        y = machine.driver.to_device(values.astype("float32"), 0)
        if name == "dropout":
            return judges.judge_dropout(machine, peer, y, (machine.driver.to_device(x, 0),))
        return judges.judge_draws(name, machine, peer, y, ())

    assert judge(good) == ""
    for fault in (
        lambda y: np.where(np.arange(n) == 5, np.nan, y),
        lambda y: np.where(np.arange(n) == 5, 9.0, y),
        lambda y: np.concatenate([y[: n // 2], y[: n // 2]]),
        lambda y: np.concatenate([np.zeros(1000), y[1000:]]),
        np.zeros_like,
    ):
        assert judge(fault(good)) != "", fault
    gl.rand(3)  # some call
    assert judge(good, "gradlab").startswith("not the host's")


# ----------------------------------------------------------------------- no time without a check


@pytest.fixture
def clock(monkeypatch):
    """Times, for whoever is given to the clock."""
    for name in ("seconds", "wall"):
        monkeypatch.setattr(Machine, name, lambda _, peers, budget: {p: [1e-3] for p in peers})


def first_case(machine):
    return next(iter(cases.softmax(machine)))


def test_a_right_case_is_timed(machine, clock):
    record = sections._time_case(machine, first_case(machine))
    assert record["seconds"] == {"gradlab": 1e-3, "cupy": 1e-3}
    assert record["checked"]["gradlab"] < 1e-6
    assert record["failures"] == []


@pytest.mark.parametrize("fault", ["off", "nan", "nothing", "later"])
def test_a_wrong_case_has_no_time(machine, clock, fault):
    case = first_case(machine)
    calls = []

    def broken(x):
        calls.append(x)
        y = case.peers["gradlab"](x)
        if fault == "off":
            return y * 1.001
        if fault == "nan":
            return gl.where(y >= y.max(), gl.tensor(float("nan"), device="cuda"), y)
        if fault == "nothing":  # memory as it was given
            return gl.asarray(machine.xp.empty(y.shape, "float32"), device="cuda")
        return y * 2 if len(calls) > 2 else y

    wrong = replace(case, peers={**case.peers, "gradlab": broken})
    record = sections._time_case(machine, wrong)
    assert record["seconds"] == record["checked"] == {}
    assert record["failures"][0].startswith("wrong: ")
    found = results(record)
    assert table.wrong(found)
    assert "WRONG" in table.rows(found)[1]
    assert table.met(record, record["targets"][0]) is None
    assert "share" not in record


def test_a_wrong_peer_is_not_timed(machine, clock):
    case = first_case(machine)
    record = sections._time_case(
        machine, replace(case, peers={**case.peers, "cupy": lambda x: x * 0.5})
    )
    assert record["seconds"] == {"gradlab": 1e-3}
    assert record["peers_left_out"]["cupy"].startswith("wrong: ")
    assert record["failures"] == []


@pytest.mark.parametrize("name", ["training", "optimizers", "overhead"])
def test_steps_and_calls_that_are_wrong_have_no_time(machine, clock, monkeypatch, name, fake_cuda):
    assert all(r["wall_seconds"]["gradlab"] == 1e-3 for r in run(name, machine))
    monkeypatch.setattr(fake_cuda, "launch", lambda *_: None)
    if name == "overhead":  # CuPy adds by itself
        monkeypatch.setattr(gl.Tensor, "__add__", lambda x, y: x - y)
    for record in run(name, machine):
        assert record.get("wall_seconds", {}) == record.get("checked", {}) == {}, record
        assert record.get("failures") or record.get("failed")


def test_a_wrong_product_is_no_ceiling(machine, clock, monkeypatch):
    monkeypatch.setattr(machine, "seconds", lambda peers, _: {name: [1e-3] for name in peers})
    right = sections._peak_matmul(machine, "float32")
    assert right["flops_per_second"] > 0
    monkeypatch.setattr(sections, "compare", lambda *_: verify.Verdict("all of it"))
    for found in (sections._peak_matmul(machine, "float32"), sections._copy(machine)):
        assert found["failures"][0].endswith(": all of it")
        assert not found.get("flops_per_second")
        assert not found.get("bytes_per_second")


REACHED = """
from benchmarks.gpu import sections
from benchmarks.gpu.machine import Machine
from gradlab.ops.core import REGISTRY

machine = Machine(dry=True)
for _, work in sections.operations(machine):
    assert not (found := work())["failures"], found
for op in REGISTRY.values():
    if not any(key[0].type == "cuda" for key in op.table):
        print(op.name)
"""


def test_every_op_that_there_is_runs_on_the_device():
    """By its samples, by the gradient of another one, or in a program."""
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    command = [sys.executable, "-c", REACHED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADLAB_QUIET": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # A move between devices asks no dispatcher; a program of its own makes some.
    assert "transfer" in done.stdout.split()
    missing = set(done.stdout.split()) - {"transfer"}
    assert not missing, f"no sample and no program of benchmarks.gpu.programs runs {missing}"


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_gives_what_it_gives_on_the_cpu(name, machine):
    with verify.poisoned(machine):
        found = checks.check_program(name, 3000)
    assert found["failures"] == []
    assert found["checks"] > 0 or name == "functions_of_numbers"


def test_a_program_that_goes_wrong_on_the_device_is_found(machine, monkeypatch):
    right = programs.PROGRAMS["moves"]

    def wrong(device, many):
        x, *rest = right(device, many)
        return [x if device.type == "cpu" else x * 1.001, *rest]

    monkeypatch.setitem(programs.PROGRAMS, "moves", wrong)
    (failure,) = checks.check_program("moves", 9)["failures"]
    assert failure.startswith("result 0: assert_close: 12 of 12 elements differ")


def test_integers_are_compared_digit_by_digit(machine):
    large = gl.tensor([2**53 + 1, -(2**63)], device="cuda")
    checks._compare("x", large, large.cpu())
    with pytest.raises(AssertionError, match="1 of 2 elements differs"):
        checks._compare("x", large - gl.tensor([1, 0], device="cuda"), large.cpu())
    with pytest.raises(AssertionError, match="1 of 1 elements differs"):
        checks._compare("x", gl.tensor([1 + 2j], device="cuda"), gl.tensor([1 + 1j]))


@pytest.mark.parametrize("rung", rungs.rungs(), ids=rungs.title)
def test_every_rung_is_right(rung, machine):
    found = rungs.check(machine, rung)
    if why := found.get("left_out_because"):
        pytest.skip(why)
    assert found["failures"] == []
    assert found["checks"] > 0


def test_every_rung_has_its_turn(machine):
    known = {
        (family, function, name)
        for family, functions in ladder.RUNGS.items()
        for function, each in functions.items()
        for name in each
    }
    alone = {
        (family, function, ladder.OWN)
        for family, functions in ladder.RUNGS.items()
        for function, each in functions.items()
        if list(each) == [ladder.OWN]  # its modules are forced, and its op has samples
    }
    assert {(r.family, r.function, r.name) for r in rungs.rungs()} == known - alone
    assert any(title == "softmax by cupy" for title, _ in sections.kernels(machine))


def test_a_rung_that_is_wrong_is_found(machine):
    (rung,) = [each for each in rungs.rungs() if rungs.title(each) == "max by cupy"]
    wrong = rung._replace(run=lambda x, **options: rung.run(x, **options) * 1.05)
    assert len(rungs.check(machine, wrong)["failures"]) == 18
    refusing = rung._replace(refuses=lambda *_, **__: "not today")
    assert rungs.check(machine, refusing)["failures"] == ["it took no call: not today"]


def test_operations_are_checked_on_the_device(machine):
    ops = {op.name: op for op in checks.sampled()}
    assert len(ops) > 60
    for name in ("tanh", "softmax", "sum", "cat", "where"):
        found = checks.check(ops[name], few=True)
        assert found["samples"] > 0
        assert found["failures"] == []


def test_a_wrong_op_is_found(machine, monkeypatch):
    (op,) = [op for op in checks.sampled() if op.name == "tanh"]
    monkeypatch.setattr(
        checks.testing, "_check_device", lambda *_: checks.testing.assert_close(1, 2)
    )
    found = checks.check(op, few=True)
    assert found["failed_samples"] == found["samples"]
    assert "float32 and gradients: assert_close: 1 of 1 elements differs" in found["failures"][0]


def test_the_subset_for_the_sanitizer_runs(fake_cuda):
    assert checks.subset(["float32"], [(5, 7, 3)], dry=True) == []
    assert {source for source, _ in fake_cuda.launches} == set(variants.SOURCES)


# ------------------------------------------------------------------------------- the processes


PLANTED = """
import json, os, sys, time
name, first = sys.argv[1], int(sys.argv[sys.argv.index("--first") + 1])
out = open(sys.argv[sys.argv.index("--out") + 1], "a")
if name == "importing" and first == 0: time.sleep(1.5)
out.write(json.dumps({"ready": True}) + "\\n"); out.flush()
index, shards = map(int, sys.argv[sys.argv.index("--shard") + 1].split("/"))
def write(**line):
    out.write(json.dumps(line) + "\\n"); out.flush()
for number in range(first, 4):
    if number % shards != index: continue
    write(begin=f"piece {number}", number=number)
    if name == "dying" and number == 1:
        print("cudaErrorIllegalAddress", file=sys.stderr); sys.stderr.flush(); os._exit(9)
    there = lambda: [f for f in os.listdir(os.path.dirname(out.name)) if f.endswith("jsonl")]
    while name == "meeting" and len(there()) < shards:
        time.sleep(0.01)
    if name == "hanging" and number == 2:
        time.sleep(60)
    write(title=f"piece {number}", value=number, took=0.0)
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED)
    monkeypatch.setattr(program, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(program, "GRACE", 0.0)


def test_a_section_goes_on_behind_the_piece_that_took_its_process_down(planted):
    found = program.run_section(Section("dying", None, 30), 30, dry=True)
    assert [r["value"] for r in found["records"]] == [0, 2, 3]
    (crash,) = found["crashes"]
    assert crash == {"during": "piece 1", "exit_code": 9, "said": ["cudaErrorIllegalAddress"]}


def test_a_section_that_hangs_is_ended_and_keeps_what_it_had(planted):
    found = program.run_section(Section("hanging", None, 2), 2, dry=True)
    assert [r["value"] for r in found["records"]] == [0, 1]
    assert found["crashes"][0]["during"] == "piece 2"
    assert found["crashes"][0]["exit_code"] == "killed: out of time"


def test_a_section_goes_on_behind_a_piece_that_hangs(planted):
    found = program.run_section(Section("hanging", None, 30, patience=2), 30, dry=True)
    assert [r["value"] for r in found["records"]] == [0, 1, 3]
    (crash,) = found["crashes"]
    assert (crash["during"], crash["exit_code"]) == ("piece 2", "killed: it hung")


def test_what_a_process_imports_is_waited_for(planted, monkeypatch):
    found = program.run_section(Section("importing", None, 30, patience=1), 30, dry=True)
    assert [r["value"] for r in found["records"]] == [0, 1, 2, 3]
    assert found["crashes"] == []
    monkeypatch.setattr(program, "STARTING", 0.3)  # but not for ever
    found = program.run_section(Section("importing", None, 30, patience=9), 30, dry=True)
    assert found["crashes"][0]["exit_code"] == "killed: it hung"


@pytest.mark.parametrize(
    ("said", "fatal"),
    [
        ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", True),
        ("cudaErrorLaunchFailure: unspecified launch failure", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("sum: a kernel launched earlier has failed; this one can no longer use the GPU", True),
        ("CUDA_ERROR_INVALID_VALUE: invalid argument", False),
        ("cudaErrorMemoryAllocation: out of memory", False),
    ],
)
def test_which_errors_end_a_process(said, fatal):
    assert is_fatal(RuntimeError(said)) is fatal


def test_shards_share_the_pieces(planted):
    found = program.run_section(Section("plain", None, 30, shards=3), 30, dry=True)
    assert [(r["number"], r["value"]) for r in found["records"]] == [(i, i) for i in range(4)]
    assert found["crashes"] == []


def test_shards_run_at_the_same_time(planted):
    found = program.run_section(Section("meeting", None, 60, shards=3), 60, dry=True)
    assert [r["value"] for r in found["records"]] == [0, 1, 2, 3]


def test_what_there_is_no_time_for_is_counted(machine):
    lines = []
    sections.run(SECTIONS["ceilings"], machine, lines.append, seconds=-1.0)
    assert lines == [{"left_out": 6, "number": 0}]


def test_an_error_that_ends_the_use_of_the_gpu_ends_the_process(machine):
    def broken():
        raise RuntimeError("k failed; this process can no longer use the GPU")

    def wrong():
        raise ValueError("first line\nsecond")

    lines = []
    section = Section("x", lambda _: [("a", wrong), ("b", broken), ("c", dict)], 9)
    with pytest.raises(RuntimeError, match="no longer"):
        sections.run(section, machine, lines.append, 9)
    assert [line.get("failed", "")[:22] for line in lines if "title" in line] == [
        "ValueError: first line", "RuntimeError: k failed",
    ]  # fmt: skip


def test_a_whole_run_in_processes_of_its_own(tmp_path, capsys):
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    out = tmp_path / "results"
    assert program.main(["--dry-run", "--time", "ceilings", "--out", str(out), "--seed", "3"]) == 0
    found = json.loads((out / "gpu-emulator.json").read_text())
    assert (found["kind"], found["dry_run"], found["seed"]) == ("gpu", True, 3)
    assert found["machine"]["gpu"] == "emulator"
    assert list(found["sections"]) == ["ceilings"]
    assert [r["title"] for r in found["sections"]["ceilings"]["records"]][:2] == [
        "copy", "matmul float32",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "ceilings" in said
    assert f"written to {out / 'gpu-emulator.json'}" in said
    assert table.newest(out) is None  # a dry run is no measurement


def test_sections_are_chosen_by_name():
    assert program.parse([]).sections == ["compilation", "kernels", "operations"]
    assert program.parse(["--time", "softmax"]).sections == ["ceilings", "softmax"]
    assert program.parse(["--time", "training", "overhead"]).sections == ["training", "overhead"]
    assert program.parse(["--check", "kernels", "--time", "overhead"]).sections == [
        "kernels", "overhead",
    ]  # fmt: skip
    assert program.parse(["--sanitize"]).sections == ["sanitizer"]
    assert set(program.parse(["--check", "--time", "--sanitize"]).sections) == set(SECTIONS)
    assert program.parse([]).seed != program.parse([]).seed


def test_a_section_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["--dry-run", "--time", "kernels"])
    assert "--time: expected names among ceilings, matmul, " in capsys.readouterr().err


def test_nothing_is_timed_where_the_check_failed(monkeypatch, tmp_path, capsys):
    ran = []

    def run_section(section, *_):
        ran.append(section.name)
        bad = [{"title": "softmax.cu", "number": 0, "failures": ["x: NaN"]}]
        records = bad if section.name == "kernels" else []
        return {"seconds": 1.0, "records": records, "left_out": 0, "crashes": []}

    monkeypatch.setattr(program, "run_section", run_section)
    machine = {"gpu": "GPU", "python": "3", "nvrtc": "13.0"}
    monkeypatch.setattr(program, "describe", lambda _: machine)
    out = tmp_path / "found.json"
    given = ["--dry-run", "--check", "--time", "--out", str(out)]
    assert program.main(given) == 1
    assert ran == ["compilation", "kernels", "operations"]
    assert (
        "matmul         left out: what was checked before is not right" in capsys.readouterr().out
    )
    assert json.loads(out.read_text())["left_out"][0] == "ceilings"


@pytest.mark.skipif(gl.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_why():
    with pytest.raises(SystemExit, match=r"^benchmarks.gpu: device 'cuda' is not available: "):
        program.describe(dry=False)
    assert program.bring(Path("nowhere")).endswith("; not used")


@pytest.mark.parametrize("part", sections.PARTS)
def test_the_sections_of_a_part_fit_into_one_call(part):
    seconds = sum(each.seconds for each in SECTIONS.values() if each.part == part)
    assert 0 < seconds <= program.LIMIT - 60  # imports, and asking for the machine
    assert program.LIMIT + program.GRACE < 10 * 60


def test_where_the_results_go(tmp_path):
    machine = {"gpu": "NVIDIA H200"}

    def named(out, *sections, dry=False):
        return program.out_file(out, machine, sections, dry)

    assert named(None, "matmul") == program.RESULTS / "gpu-nvidia-h200.json"
    assert named(tmp_path, "kernels") == tmp_path / "gpu-nvidia-h200-check.json"
    assert named(tmp_path, "kernels", "softmax") == tmp_path / "gpu-nvidia-h200.json"
    assert named(tmp_path, "sanitizer") == tmp_path / "gpu-nvidia-h200-sanitize.json"
    assert named(tmp_path / "x.json", "kernels") == tmp_path / "x.json"
    assert named(None, "kernels", dry=True) is None


# ---------------------------------------------------------------------------------- the tables


def case(**changes):
    return {
        "title": "t", "family_case": "softmax, 8 × 8", "dtype": "float32", "flops": 0.0,
        "bytes": 4e9, "ceiling": "copy", "headline": True, "failures": [], "took": 1.0,
        "checked": {"gradlab": 1e-8, "pytorch": 1e-8, "cupy": 1e-8, "cublas": 0.0},
        "seconds": {"gradlab": 1e-3, "pytorch": 1.1e-3, "cupy": 3e-3},
        "targets": [{"share": 0.9, "faster_than": None, "text": "≥ 90% of the ceiling"},
                    {"share": None, "faster_than": ["cupy", 4.0], "text": "≥ 4.00× cupy"}],
        **changes,
    }  # fmt: skip


def results(*records):
    done = {"seconds": 1.0, "left_out": 0, "crashes": []}
    ceilings = [
        {"title": "copy", "bytes_per_second": 4.2e12, "took": 1.0},
        {"title": "matmul bfloat16", "flops_per_second": 8e14, "took": 1.0},
    ]
    found = {
        "kind": "gpu", "dry_run": False, "date": "2026-01-31",
        "machine": {"gpu": "NVIDIA H200", "python": "3.12.3", "cupy-cuda13x": "14.2.0",
                    "torch": "2.11.0"},
        "sections": {"ceilings": {**done, "records": ceilings},
                     "softmax": {**done, "records": list(records)}},
    }  # fmt: skip
    table.add_shares(found)
    return found


def test_shares_ratios_and_targets():
    common = {"dtype": "bfloat16", "ceiling": "matmul", "targets": []}
    seconds = {"gradlab": 1e-3, "cublas": 9e-4}
    product = case(flops=7.2e11, bytes=1e9, seconds=seconds, **common)
    skinny = case(flops=1e9, bytes=2.1e9, seconds=seconds, **common)
    head, first, second, third = table.rows(results(case(), product, skinny))
    assert head[:5] == ["case", "dtype", "gradlab", "rate", "of ceiling"]
    assert first == [
        "softmax, 8 × 8", "float32", "1.00 ms", "4000 GB/s", "95%", "", "3.00×", "1.10×", "",
        "≥ 90% of the ceiling; ≥ 4.00× cupy", "yes; NO",
    ]  # fmt: skip
    assert second[3:6] == ["720 TFLOP/s", "90%", "0.90×"]
    assert third[4] == "50%"  # limited by memory, not by arithmetic


def test_what_failed_is_listed_and_fails_the_run():
    assert not table.wrong(results(case()))
    bad = results(case(failures=["ShapeError: no"], seconds={}, checked={}))
    assert table.wrong(bad)
    assert "softmax, t: ShapeError: no" in table.text(bad)
    assert "failed" in table.rows(bad)[1]
    crashed = results()
    crashed["sections"]["softmax"]["crashes"] = [{"during": "x", "exit_code": 9, "said": ["bang"]}]
    assert table.wrong(crashed)
    assert "softmax: died during x (9): bang" in table.text(crashed)
    unclean = results({"title": "memcheck", "clean": False, "said": ["Invalid write"], "took": 1.0})
    assert table.wrong(unclean)
    assert "memcheck: Invalid write" in table.text(unclean)


def test_what_could_not_be_run_is_said_and_is_no_success_by_itself():
    absent = {"title": "memcheck", "left_out_because": "compute-sanitizer is not on the PATH"}
    nothing = results(absent, {**absent, "title": "racecheck"})
    said = "softmax: 2 of 2 left out: compute-sanitizer is not on the PATH"
    assert table.text(nothing).splitlines()[-1] == said
    line = table.section_line("softmax", nothing["sections"]["softmax"])
    assert line.endswith("0 done, 2 need what is not here")
    assert table.wrong(nothing)
    assert not table.wrong({**nothing, "dry_run": True})
    assert not table.wrong(results(case(), absent))  # a rung without Numba, among others


def test_what_was_not_checked_meets_no_target():
    record = case()
    target = record["targets"][0]
    assert table.met(results(record) and record, target) is True
    for changes in ({"checked": {}}, {"checked": None}, {"failures": ["wrong: x"]}):
        unchecked = case(**changes)
        results(unchecked)
        assert table.met(unchecked, target) is None
        assert "share" not in unchecked
        assert table.rows(results(unchecked))[1][2] in ("not checked", "WRONG")
    peer = case(checked={"gradlab": 0.0, "pytorch": 0.0})
    results(peer)
    assert "cupy" not in peer["faster_than"]
    assert table.met(peer, peer["targets"][1]) is None
    step = {"title": "step", "wall_seconds": {"gradlab": 1e-3}, "took": 1.0}
    assert len(table.wall_rows(results(step))) == 1
    assert len(table.wall_rows(results({**step, "checked": {"gradlab": 0.0}}))) == 2


def test_what_is_printed_is_short_and_what_failed_comes_last():
    many = [case(title=f"t{i}", headline=i < 3) for i in range(300)]
    bad = [case(title=f"bad {i}", failures=["wrong: " + "x" * 500], headline=False)
           for i in range(300)]  # fmt: skip
    text = table.text(results(*many, *bad))
    assert len(text) < 12_000
    lines = text.splitlines()
    assert lines[-1].startswith("and ")
    assert lines[-1].endswith(" more problems in the file")
    assert lines[-2].startswith("softmax, bad ")
    assert sum(" more rows in the file" in line for line in lines) == 1
    good = table.text(results(*many))
    assert len(good) < 12_000
    assert table.text(results(case(failures=["wrong: y"]))).endswith("softmax, t: wrong: y")


def test_the_readme_says_that_nothing_is_measured_until_something_is(tmp_path):
    text = table.readme_table(None)
    assert text.count(table.NOT_YET) > 10
    for line in ("| matmul 8192×8192×8192 | bfloat16 | ≥ 0.90× cuBLAS |", "| cross_entropy, 8192"):
        assert line in text
    path = tmp_path / "gpu-nvidia-h200.json"
    path.write_text(json.dumps(results(case(), case(headline=False))))
    assert table.newest(tmp_path) == path
    measured = table.readme_table(path)
    assert table.NOT_YET not in measured
    assert measured.count("softmax, 8 × 8") == 1
    assert (
        "Measured by `python -m benchmarks.gpu --time` on 2026-01-31: NVIDIA H200, Python 3.12.3, "
        "CuPy 14.2.0, PyTorch 2.11.0. Ceilings measured in the same run: copy 4200 GB/s, "
        "bfloat16 800 TFLOP/s."
    ) in measured
    path.write_text(json.dumps({**results(case()), "dry_run": True}))
    with pytest.raises(ValueError, match="is a dry run: it has no times"):
        table.readme_table(path)


def test_the_table_goes_between_its_markers(tmp_path, monkeypatch):
    path = tmp_path / "gpu-x.json"
    path.write_text(json.dumps(results(case())))
    readme = tmp_path / "README.md"
    readme.write_text(f"a\n{table.START}\nold\n{table.END}\nb\n")
    table.main([str(path), "--into", str(readme)])
    text = readme.read_text()
    assert text.startswith(f"a\n{table.START}\n| case |")
    assert text.endswith(f"{table.END}\nb\n")
    readme.write_text("nothing")
    with pytest.raises(SystemExit, match=r"README\.md: expected a line <!-- gpu:start --> and"):
        table.main([str(path), "--into", str(readme)])


def test_the_readme_holds_the_table_of_the_newest_results():
    expected = table.readme_table(table.newest())
    assert table.rewrite((ROOT / "README.md").read_text(encoding="utf-8"), expected) == (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")


def test_a_gpus_results_are_not_taken_for_those_of_a_processor(tmp_path):
    (tmp_path / "gpu-x.json").write_text("{}")
    with pytest.raises(SystemExit, match="no results yet"):
        cpu_table.newest(tmp_path)


def test_every_family_has_headlines_with_targets():
    assert {line[3] for line in table.planned()} == {table.NOT_YET}
    assert set(cases.FAMILIES) == {"matmul", "softmax", "reduction", "normalization", "random"}
