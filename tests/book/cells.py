"""Runs the PyTorch cells of the book's pages, on gradlab or on PyTorch, as a notebook would.

A page is Markdown whose code blocks are marked for the frameworks they belong to. Each page runs
in a namespace of its own, in a folder of its own. The data sets it reads are small ones, made up.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import io
import os
import random
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.data import make_house_prices, write_idx
from notebook_cells import run_cell
from patched_classes import classes_as_they_were

BOOK = os.environ.get("GRADLAB_BOOK", "")
CHAPTERS = (
    "preliminaries",
    "linear-regression",
    "linear-classification",
    "multilayer-perceptrons",
    "builders-guide",
)
# Where a page asks for one of these, it gets gradlab's module of that name.
TORCH = (
    "torch", "torch.autograd", "torch.cuda", "torch.distributions",
    "torch.distributions.multinomial", "torch.linalg", "torch.nn", "torch.nn.functional",
    "torch.nn.init", "torch.optim", "torch.utils", "torch.utils.data",
)  # fmt: skip

_BLOCK = re.compile(r"^```\{\.python \.input[^}]*\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FOREIGN = re.compile(r"d2lbook|^tab\.", re.MULTILINE)  # what only the book's own builder runs


def pages() -> list[Path]:
    """The pages of the chapters that have cells for PyTorch."""
    found = (
        page
        for chapter in CHAPTERS
        for page in sorted(Path(BOOK, f"chapter_{chapter}").glob("*.md"))
    )
    return [page for page in found if cells(page)] if BOOK else []


def cells(page: Path) -> list[str]:
    """The source of the page's cells, those for other frameworks left out."""
    sources = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        tabs = re.search(r"^%%tab (.*)$", block, re.MULTILINE)
        names = {name.strip() for name in tabs[1].split(",")} if tabs else {"all"}
        if names & {"all", "pytorch"} and not _FOREIGN.search(block):
            sources.append(re.sub(r"^%.*\n", "", block, flags=re.MULTILINE))
    return sources


@dataclass
class Outcome:
    """What a cell printed, with the value of its last line; or why it failed."""

    printed: str
    error: Exception | None = None

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}" if self.error else self.printed


def run(page: Path, folder: Path, library: str, seed: int = 0) -> list[Outcome]:
    """Run the cells of a page, all of them: one that fails has an error as its outcome.

    ``library`` is ``"gradlab"``: gradlab and its d2l; ``"book"``: gradlab and the book's own
    package on top of it; ``"torch"``: PyTorch and the book's package.
    """
    (folder / "data").mkdir(exist_ok=True)
    (folder / "page").mkdir(exist_ok=True)
    # The book was written before text in a table had a dtype of its own.
    old_text = pd.option_context("future.infer_string", False)
    with _modules(library) as torch, contextlib.chdir(folder / "page"), old_text:
        make_house_prices(folder / "data", 500, 200)
        random.seed(seed)
        torch.manual_seed(seed)
        selected = types.SimpleNamespace(selected=lambda *names: "pytorch" in names)
        namespace = {"tab": selected, "__name__": "__main__"}
        return [_outcome(source, namespace) for source in cells(page)]


def _outcome(source: str, namespace: dict[str, Any]) -> Outcome:
    stream = io.StringIO()
    try:
        with contextlib.redirect_stdout(stream):
            run_cell(source, namespace)
    except Exception as error:
        return Outcome(stream.getvalue(), error)
    return Outcome(stream.getvalue())


# ------------------------------------------------------------------------------------- modules


@contextlib.contextmanager
def _modules(library: str) -> Iterator[Any]:
    """Within it, ``torch`` and ``d2l`` are those that ``library`` names; gives ``torch``."""
    hidden = {name: module for name, module in sys.modules.items() if _is_replaced(name)}
    if library != "torch":
        for name in hidden:
            del sys.modules[name]
        for name in TORCH:
            with contextlib.suppress(ModuleNotFoundError):  # the cell that imports it then fails
                sys.modules[name] = importlib.import_module(name.replace("torch", "gradlab", 1))
    torch = importlib.import_module("torch")
    _put("torchvision", datasets=_Datasets, transforms=_Transforms)
    _put("torchvision.transforms", **vars(_Transforms))
    d2l = importlib.import_module("gradlab.d2l") if library == "gradlab" else _book_package()
    if library == "torch":  # its workers are processes, and would take most of the time
        d2l.DataModule.__init__.__defaults__ = ("../data", 0)
    sys.modules["d2l.torch"] = d2l
    _put("d2l", torch=d2l)
    with classes_as_they_were(d2l):
        d2l.download = _downloaded  # type: ignore[attr-defined]
        try:
            yield torch
        finally:
            for name in [name for name in sys.modules if _is_replaced(name)]:
                if library != "torch" or name.partition(".")[0] != "torch":
                    del sys.modules[name]
            sys.modules.update(hidden)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")
            gc.collect()  # readers of the book's loaders, which end with the page


def _is_replaced(name: str) -> bool:
    return name.partition(".")[0] in ("torch", "torchvision", "d2l")


def _put(name: str, **members: Any) -> None:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(members)


def _book_package() -> types.ModuleType:
    """The book's package, a fresh copy, as pages change its classes."""
    spec = importlib.util.spec_from_file_location("d2l.torch", Path(BOOK, "d2l", "torch.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["d2l.torch"] = module  # it looks for itself while it is loaded
    spec.loader.exec_module(module)
    # It shows a picture at every point of a curve: most of the time, and nothing to compare.
    module.display = types.SimpleNamespace(  # type: ignore[attr-defined]
        display=lambda *_: None, clear_output=lambda **_: None
    )
    return module


# ---------------------------------------------------------------------------- data of the pages


def write_fashion_mnist(folder: Path, train: int = 600, test: int = 120) -> None:
    """Pictures of ten kinds with a label each, in the files that Fashion-MNIST comes in."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, size, seed in (("train", train, 0), ("t10k", test, 1)):
        pictures, labels = _pictures(size, seed)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)


def _pictures(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    kinds = np.random.default_rng(7).integers(0, 200, (10, 28, 28))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, size)
    noise = rng.integers(0, 56, (size, 28, 28))
    pictures = (kinds[labels] + noise).astype(np.uint8)
    labels[::10] = 0  # there has to be something to get wrong
    return pictures, labels.astype(np.uint8)


def _downloaded(url: str, folder: str | None = None, sha1_hash: str | None = None) -> str:
    """In place of ``d2l.download``: the file is there."""
    path = Path(folder or "../data", url.rpartition("/")[2])
    assert path.exists()
    return str(path)


class _Transforms:
    """The transforms of torchvision that the book composes."""

    class Compose(list):
        def __call__(self, image: Any) -> Any:
            for transform in self:
                image = transform(image)
            return image

    class Resize:
        def __init__(self, size: Any) -> None:
            self.height, self.width = (size, size) if isinstance(size, int) else size

        def __call__(self, image: np.ndarray) -> np.ndarray:
            rows = np.arange(self.height) * image.shape[0] // self.height
            return image[rows][:, np.arange(self.width) * image.shape[1] // self.width]

    class ToTensor:
        def __call__(self, image: np.ndarray) -> Any:
            return sys.modules["torch"].from_numpy(image[None].astype(np.float32) / 255)


class _Datasets:
    """The data set of torchvision that the book reads."""

    class FashionMNIST:
        def __init__(self, root: str, train: bool, transform: Any, download: bool) -> None:
            self.pictures, self.labels = _pictures(600 if train else 120, int(not train))
            self.transform = transform

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(self.pictures[index]), int(self.labels[index])
