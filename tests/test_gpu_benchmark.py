"""`python -m benchmarks.gpu` on the emulator: its sections, its file, its tables. No times."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import gradlab as gl

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the benchmarks are a package of the checkout, not of the wheel

from benchmarks import table as cpu_table  # noqa: E402
from benchmarks.gpu import __main__ as program, cases, checks, sections, table  # noqa: E402
from benchmarks.gpu.machine import Machine, is_fatal  # noqa: E402
from benchmarks.gpu.sections import SECTIONS, Section  # noqa: E402


@pytest.fixture
def machine(fake_cuda):
    return Machine(dry=True)


def run(name, machine, **options):
    lines = []
    sections.run(SECTIONS[name], machine, lines.append, seconds=60, **options)
    return [line for line in lines if "title" in line]


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in ("operations",)])
def test_a_section_runs(name, machine):
    for record in run(name, machine):
        assert "failed" not in record, record
        assert not record.get("failures"), record
        assert record["took"] >= 0
        if record.get("error") is not None:
            assert record["error"] < 1e-2, record
        json.dumps(record)


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
    checks.subset(["float32"], [(5, 7, 3)])
    assert {source for source, _ in fake_cuda.launches} >= {"random.cu"}


# ------------------------------------------------------------------------------- the processes


PLANTED = """
import json, os, sys, time
name, first = sys.argv[1], int(sys.argv[sys.argv.index("--first") + 1])
out = open(sys.argv[sys.argv.index("--out") + 1], "a")
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
    out = tmp_path / "results" / "gpu-emulator.json"
    assert program.main(["--dry-run", "-k", "ceil", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["kind"], found["dry_run"], found["machine"]["gpu"]) == ("gpu", True, "emulator")
    assert list(found["sections"]) == ["ceilings"]
    assert [r["title"] for r in found["sections"]["ceilings"]["records"]][:2] == [
        "copy", "matmul float32",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "ceilings" in said
    assert f"written to {out}" in said
    assert table.newest(tmp_path / "results") is None  # a dry run is no measurement


def test_a_section_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["--dry-run", "-k", "race"])
    assert "-k: expected a part of one of ceilings, compilation, " in capsys.readouterr().err


@pytest.mark.skipif(gl.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_why():
    with pytest.raises(SystemExit, match=r"^benchmarks.gpu: device 'cuda' is not available: "):
        program.describe(dry=False)


def test_sections_fit_into_the_time_of_a_run():
    assert sum(section.seconds for section in SECTIONS.values()) <= program.LIMIT + 30
    assert program.LIMIT + program.GRACE <= 8 * 60


def test_file_names():
    assert program.file_name({"gpu": "NVIDIA H200"}) == "gpu-nvidia-h200.json"


# ---------------------------------------------------------------------------------- the tables


def case(**changes):
    return {
        "title": "t", "family_case": "softmax, 8 × 8", "dtype": "float32", "flops": 0.0,
        "bytes": 4e9, "ceiling": "copy", "headline": True, "failures": [], "took": 1.0,
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
    bad = results(case(failures=["ShapeError: no"], seconds={"pytorch": 1.0}))
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
        "Measured by `make gpu` on 2026-01-31: NVIDIA H200, Python 3.12.3, CuPy 14.2.0, PyTorch "
        "2.11.0. Ceilings measured in the same run: copy 4200 GB/s, bfloat16 800 TFLOP/s."
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
