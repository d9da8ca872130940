"""The book's own cells run on gradlab: with `gradlab.d2l`, and with the book's own package.

They are read from a checkout of the book, "Dive into Deep Learning", that the environment variable
GRADLAB_BOOK names; without it these tests are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from book import cells

pytestmark = [
    pytest.mark.skipif(not cells.BOOK, reason="GRADLAB_BOOK names no checkout of the book"),
    # The book's code is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

PAGES = cells.pages()

# Cells that cannot run: (page, where, cell) and why.
EXPECTED: dict[tuple[str, str, int], str] = {
    ("use-gpu", "without a GPU", 7): "device 'cuda' is not available",  # X.cuda(1)
    ("use-gpu", "without a GPU", 8): "name 'Z' is not defined",
    ("use-gpu", "without a GPU", 9): "name 'Z' is not defined",
}


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setenv("GRADLAB_DATA", str(tmp_path))


def name(page: Path) -> str:
    return page.stem


def check(page: Path, folder: Path, library: str, where: str) -> None:
    wrong = []
    for i, outcome in enumerate(cells.run(page, folder, library)):
        expected = EXPECTED.get((page.stem, where, i))
        if expected is None and outcome.error is not None:
            wrong.append(f"cell {i}: {outcome}")
        if expected is not None and expected not in str(outcome):
            wrong.append(f"cell {i}: expected {expected!r}, got {outcome}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ["gradlab", "book"])
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_cell_runs(page: Path, library: str, tmp_path: Path) -> None:
    check(page, tmp_path, library, "without a GPU")


@pytest.mark.parametrize("library", ["gradlab", "book"])
@pytest.mark.parametrize("page", [page for page in PAGES if "gpu" in page.stem], ids=name)
def test_every_cell_runs_on_two_gpus(page, library, tmp_path, fake_cuda) -> None:
    check(page, tmp_path, library, "on two GPUs")


# Cells that print something else than on PyTorch, by page and number, and why.
DIFFERENT = {
    ("image-classification-dataset", 7): "a time",
    ("linear-regression", 2): "a time",
    ("linear-regression", 3): "a time",
    ("lookup-api", 1): "gradlab has other distributions",
    ("lookup-api", 2): "gradlab has help of its own",
    ("read-write", 7): "a state dict settles the shapes of lazy layers",
}
# What is written otherwise: shapes are tuples, dtypes are NumPy's.
OTHERWISE = (
    (r"torch\.Size\(\[(\d+)\]\)", r"(\1,)"),
    (r"torch\.Size\(\[([^]]*)\]\)", r"(\1)"),
    (r"torch\.((?:float|int|uint)\d+)", r"\1"),
    (r"<class 'torch\.", "<class 'gradlab.tensor."),
    (r"<class 'gradlab\.tensor\.nn\.", "<class 'gradlab.nn."),
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_cells_print_what_they_print_on_pytorch(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    first, second = (cells.run(page, tmp_path, "torch", seed) for seed in (0, 1))
    for library in ("gradlab", "book"):
        ours, wrong = cells.run(page, tmp_path, library), []
        for i, (a, b, c) in enumerate(zip(first, second, ours, strict=True)):
            if a.error or a.printed != b.printed or (page.stem, i) in DIFFERENT:
                continue  # it fails there too, or what it prints is left to chance
            if library == "gradlab" and not a.printed:
                continue  # `fit` and others return what the book's package does not
            expected = a.printed
            for theirs, ours_is in OTHERWISE:
                expected = re.sub(theirs, ours_is, expected)
            if c.printed != expected:
                wrong.append(f"cell {i} with {library}: expected\n{expected}got\n{c}")
        assert not wrong, "\n".join(wrong)
