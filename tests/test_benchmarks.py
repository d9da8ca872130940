"""The benchmarks run, and their tables say what was measured. No time is asserted here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the benchmarks are a package of the checkout, not of the wheel

from benchmarks import host, measure, race, table, vectorization  # noqa: E402
from benchmarks.case import TITLES, Case, Target  # noqa: E402
from benchmarks.suites import all_cases, notes  # noqa: E402
from gradlab import devices  # noqa: E402
from gradlab.backends.cuda import use_driver  # noqa: E402

MACHINE = {
    "processor": "Some (R) CPU", "cores": 2, "threads": 2,
    "python": "3.11.7", "numpy": "2.4.0", "blas": "openblas 0.3", "torch": "2.13.0",
}  # fmt: skip
QUICK = [case for case in all_cases() if type(case).round is Case.round]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_gradlab_computes_what_numpy_computes(case, monkeypatch):
    monkeypatch.setattr(notes.Clothes, "pictures_of", (512, 256))
    present = [peer for peer in case.peers() if peer not in ("pytorch", "jax")]
    case.agree(present, steps=2)


def test_names_are_unique_and_methods_are_known():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.title for case in cases}) == len(cases)
    for case in cases:
        assert next(iter(case.peers())) == "gradlab"
        assert set(case.peers()) <= set(TITLES)
        if case.target is not None and case.target.unit != "seconds":
            assert case.target.against in TITLES


class Counting(Case):
    name = "counting"
    title = "counting"

    def __init__(self, target=None, other=7):
        self.target = target
        self.against = "numpy"
        self.other = other

    def gradlab(self):
        return lambda: 7.0

    def numpy(self):
        return lambda: self.other


def test_a_race_times_every_peer_in_every_sweep():
    (result,) = race.race([Counting()], rounds=race.SWEEPS, seconds=1e-5, tell=lambda title: None)
    assert list(result.seconds) == ["gradlab", "numpy"]
    low, median, high = result.seconds["numpy"]
    assert 0 < low <= median <= high < 0.1
    assert result.met is None


def test_peers_that_compute_something_else_are_refused():
    with pytest.raises(
        AssertionError, match="counting: NumPy computes something else than gradlab"
    ):
        race.race([Counting(other=8)], rounds=1, seconds=1e-5, tell=lambda title: None)


def test_turns_alternate():
    order = []

    def round_of(name):
        return lambda: order.append(name) or 1.0

    measure.take_turns({name: round_of(name) for name in "ABC"}, 2, rest=0.0)
    assert order == list("ABCCBA")


def test_batches_fill_the_time_asked_for():
    calls = []
    run = measure.batches(lambda: calls.append(1), 1e-3)
    calls.clear()
    seconds = run()
    assert 0 < seconds * len(calls) < 1
    assert len(calls) > 100


def of(target, rounds):
    return race.result(Counting(target), rounds)


# Of 21 rounds the fastest three turns of each count: 2.0, 2.1 and 2.2; 0.7, 0.75 and 0.8.
ROUNDS = [
    {"gradlab": 2.1e-6, "numpy": 3.0e-6},
    {"gradlab": 2.2e-6, "numpy": 0.7e-6},
    {"gradlab": 2.0e-6, "numpy": 0.8e-6},
    {"gradlab": 9.0e-6, "numpy": 0.75e-6},
    *[{"gradlab": 9.0e-6, "numpy": 3.0e-6}] * 17,
]


@pytest.mark.parametrize(
    ("target", "figure", "limit", "met"),
    [
        (None, "2.8× NumPy", "", ""),
        (Target(2.8, against="numpy"), "2.8× NumPy", "≤ 2.8×", "yes"),
        (Target(2.7, against="numpy"), "2.8× NumPy", "≤ 2.7×", "NO"),
        (Target(1e-6, unit="over", against="numpy"), "+1.35 µs over NumPy", "≤ 1.0 µs", "NO"),
        (Target(0.25, unit="seconds"), "2.10 µs", "≤ 0.25 s", "yes"),
        (Target(0.6, against="pytorch"), "", "≤ 0.6×", "not measured"),
    ],
)
def test_figures(target, figure, limit, met):
    result = of(target, ROUNDS)
    assert (table.figure(result), table.limit(result), table.met(result)) == (figure, limit, met)


def test_the_fastest_tenth_counts():
    result = of(None, ROUNDS)
    assert result.seconds["gradlab"] == (2.0e-6, 2.1e-6, 2.2e-6)
    assert result.seconds["numpy"] == (0.7e-6, 0.75e-6, 0.8e-6)
    assert result.ratio("numpy") == pytest.approx(2.8)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ns"), (3.21e-7, "321 ns"), (9.996e-7, "1.00 µs"), (1.5e-6, "1.50 µs"),
        (12.34e-3, "12.3 ms"), (0.2504, "250 ms"), (2.0, "2.00 s"),
    ],
)  # fmt: skip
def test_times(seconds, text):
    assert table.time(seconds) == text


def test_noise_is_told():
    steady = [{"gradlab": 1.0, "numpy": 1.0}, {"gradlab": 9.0, "numpy": 9.0}] * 10
    jumping = [{"gradlab": 1.0, "numpy": 1.0}, *[{"gradlab": 1.0, "numpy": 1.3}] * 19]
    assert table.warning([of(None, steady)]) == ""
    assert table.warning([of(None, steady), of(None, jumping)]).endswith("again: counting")


def test_results_come_back_from_their_file(tmp_path):
    results = [of(Target(3.5, against="numpy"), ROUNDS), of(None, ROUNDS)]
    path = race.save(results, MACHINE, "2026-01-31", tmp_path)
    assert path.name == "some-r-cpu-2-of-2-cores.json"
    found, machine, date = race.load(path)
    assert (machine, date) == (MACHINE, "2026-01-31")
    assert table.rows(found) == table.rows(results)
    assert found[0].seconds["numpy"] == pytest.approx(results[0].seconds["numpy"], rel=1e-2)
    assert json.loads(path.read_text())["cases"][0]["met"] is True
    assert table.newest(tmp_path) == path


def test_plain_table_lines_up():
    lines = table.plain(table.rows([of(Target(3.5, against="numpy"), ROUNDS)])).splitlines()
    assert lines[0].split() == ["case", "gradlab", "NumPy", "ratio", "target", "met?"]
    assert lines[2].split() == [
        "counting", "2.10", "µs", "750", "ns", "2.8×", "NumPy", "≤", "3.5×", "yes",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1


README = f"# Title\n{table.START}\nold\n{table.END}\nafter\n"


def test_readme_is_rewritten_between_its_markers(tmp_path):
    results = race.save([of(None, ROUNDS)], MACHINE, "2026-01-31", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    for _ in range(2):
        table.main([str(results), "--into", str(readme)])
    title, start, head, rule, row, _, note, end, after = readme.read_text().splitlines()
    assert (title, start, end, after) == ("# Title", table.START, table.END, "after")
    assert head == "| case | gradlab | NumPy | ratio | target | met? |"
    assert rule == "| --- | --: | --: | --: | --: | --: |"
    assert row == "| counting | 2.10 µs | 750 ns | 2.8× NumPy |  |  |"
    assert "on 2026-01-31: Some (R) CPU, 2 cores, 2 threads each; Python 3.11.7, NumPy" in note


def test_the_readme_shows_the_newest_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.rewrite(text, table.readme_table(table.newest())) == text


def test_the_readme_compares_no_step_with_a_slowed_pytorch():
    results, _, _ = race.load(table.newest())
    slowed = {case.name for case in all_cases() if case.slows_pytorch}
    assert {"linear_regression", "mlp", "notes_mlp"} <= slowed
    shown = {result.name: result for result in table.fair(results)}
    for result in results:
        if result.name not in slowed:
            assert shown[result.name] == result
            continue
        assert "pytorch" in result.seconds  # the file keeps what was measured
        row = table.rows([shown[result.name]])[1]
        assert row == [result.title, table.time(result.seconds["gradlab"].median), *row[2:]]
        assert "PyTorch" not in " ".join(row)
        assert row[-3:] == ["", "", ""]


@pytest.mark.parametrize("text", ["", table.START, f"{table.END}\n{table.START}"])
def test_readme_without_markers_is_left_alone(text, tmp_path):
    results = race.save([of(None, ROUNDS)], MACHINE, "2026-01-31", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(SystemExit, match=r"README\.md: expected a line <!-- bench:start --> and"):
        table.main([str(results), "--into", str(readme)])
    assert readme.read_text() == text


def test_no_results_yet(tmp_path):
    with pytest.raises(SystemExit, match="run make bench"):
        table.newest(tmp_path)


def test_host_time_of_cuda_calls(monkeypatch, capsys):
    monkeypatch.setattr(host, "seconds", lambda call: 1e-6)
    devices.forget_cuda()
    before = use_driver(None)
    try:
        host.main()
    finally:
        use_driver(before)
        devices.forget_cuda()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-4:] == ["1.0", "µs", "1", "launches"]


# ------------------------------------------------------------- the loop against the whole vector

LIBRARIES = {library.name: library for library in vectorization.LIBRARIES}


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "PyTorch"])
def test_loop_and_vector_give_the_same_sum(name):
    library = LIBRARIES[name]
    if why := library.missing():
        pytest.skip(why)
    found = [
        [round(float(value), 5) for value in case.step()()]
        for case in vectorization.cases([LIBRARIES["Python lists"], library], (5,))
    ]
    assert len(found[0]) == 5
    assert all(each == found[0] for each in found)


def test_vectorization_draws_every_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "figure.svg"
    absent = replace(LIBRARIES["PyTorch"], missing=lambda: "PyTorch is not installed")
    peers = [absent if each.name == "PyTorch" else each for each in vectorization.LIBRARIES]
    monkeypatch.setattr(vectorization, "LIBRARIES", peers)
    vectorization.main(
        ["--plot", str(path), "--rounds", "1", "--seconds", "0", "--sizes", "2", "10", "20000"]
    )
    out = capsys.readouterr().out
    head, *rows = [line for line in out.splitlines() if line and not line.startswith("without")]
    assert head.split() == ["2", "10", "20,000"]
    of_numpy = [row.split() for row in rows if row.startswith("NumPy")]
    assert [len(row) for row in of_numpy] == [2 + 2 * 2, 2 + 3 * 2]  # no loop over 20,000
    assert "NumPy, element by element" in path.read_text()
    assert "without PyTorch: PyTorch is not installed" in out
    if LIBRARIES["gradlab, cuda"].missing():
        assert "without gradlab, cuda: device 'cuda' is not available" in out


def test_loops_end_where_they_would_take_seconds():
    found = vectorization.cases(vectorization.LIBRARIES)
    assert {case.size for case in found} == set(vectorization.SIZES)
    loops = {case.size for case in found if case.kind == "loop"}
    assert max(loops) == vectorization.LONGEST_LOOP
