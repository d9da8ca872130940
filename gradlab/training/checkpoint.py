"""Checkpoints: files from which a run goes on exactly where it was.

A checkpoint is two files of one name: ``NAME.safetensors`` holds every tensor, ``NAME.json``
everything else (loop position, optimizer scalars, schedules, place in the data, random state,
callbacks, history, versions) and the digests of both. The tensors are written first; the
checkpoint exists from the moment its JSON takes its name, which the file system does in one step.
A process killed at any moment therefore leaves the checkpoints before it whole.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

from gradlab._environment import DISTRIBUTION
from gradlab.errors import CheckpointError, FileError, MissingFileError, printable
from gradlab.fields import (
    ANYTHING,
    COUNT,
    DICT,
    FILE_NAME,
    FINITE,
    FLAG,
    INTEGER,
    TEXT,
    Each,
    Maybe,
    Only,
    array_of,
    check_fields,
    one_of,
)
from gradlab.ops.random import get_rng_state, set_rng_state
from gradlab.paths import as_path, open_file, replacing
from gradlab.serialization import (
    UnfitError,
    explained,
    from_json,
    pack,
    read_arrays,
    to_json,
    unpack,
    write_arrays,
)
from gradlab.training.folder import OPERATION, SAFE, list_checkpoints
from gradlab.training.history import HISTORY, METRICS

FORMAT = 1


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what `Trainer.state_dict` returned to ``path`` and to the file of tensors beside it."""
    structure, arrays = pack(state)
    tensors = path.with_suffix(".safetensors")
    # On its own, the file of tensors is a dict of them: gradlab.load reads it.
    own = {name: {"$tensor": name} for name in arrays}
    digest = write_arrays(tensors, own, arrays, OPERATION, SAFE)
    document = {
        "gradlab checkpoint": FORMAT,
        "tensors": {"file": tensors.name, "sha256": digest},
        "state": structure,
    }
    text = to_json(OPERATION, {**document, "sha256": _digest(document)})
    try:
        with replacing(path, OPERATION, SAFE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except FileError:  # a disk that is full is not to be fuller for nothing
        if not path.exists():
            tensors.unlink(missing_ok=True)
        raise


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def find_checkpoint(path: str | Path) -> Path:
    """The JSON file that ``path`` means: itself, the one beside a file of tensors, or the latest
    of a folder."""
    path = as_path("resume", path)
    with explained("resume", path):
        return _find(path)


def _find(path: Path) -> Path:
    if path.is_dir():
        found = list_checkpoints(path)
        if not found:
            raise CheckpointError(f"resume: there is no checkpoint in the folder {printable(path)}")
        return found[-1]
    document = path.with_suffix(".json") if path.suffix == ".safetensors" else path
    if not document.exists() and path.exists():
        raise CheckpointError(
            f"resume: {printable(path)} is no checkpoint without {printable(document.name)} "
            "beside it"
        )
    if not document.exists():
        raise CheckpointError(f"resume: there is no checkpoint {printable(path)}")
    return document


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and verify a checkpoint: the state that `Trainer.state_dict` had returned.

    ``path`` is its JSON file, its file of tensors, or a folder, of which the latest is taken. The
    tensors are on the CPU; ``["model"]`` is the model's state dict. Raises `CheckpointError` with
    the name of the file that is missing, truncated or altered.
    """
    path = find_checkpoint(path)
    document = _read_document(path)
    start = f"resume: {printable(path)}"
    if document.get("gradlab checkpoint") != FORMAT:
        raise CheckpointError(
            f"{start} has the format version {document.get('gradlab checkpoint')!r}, and "
            f"this gradlab reads {FORMAT!r}"
        )
    check_fields(start, document, _DOCUMENT, CheckpointError)
    tensors = path.parent / document["tensors"]["file"]
    try:
        content = read_arrays(tensors)
    except MissingFileError:
        raise CheckpointError(
            f"resume: {printable(tensors)}, which holds the tensors of {printable(path)}, is "
            "missing"
        ) from None
    if content.digest != document["tensors"]["sha256"]:
        raise CheckpointError(
            f"resume: {printable(tensors)} is not the file that was written with "
            f"{printable(path.name)} (another SHA-256); nothing was loaded"
        )
    with explained("resume", path):
        state: dict[str, Any] = unpack(document["state"], content.arrays)
    check_fields(start, state, _STATE, CheckpointError)
    _check_random_state(start, state["random"])
    return state


_DOCUMENT = {"tensors": {"file": FILE_NAME, "sha256": TEXT}, "state": DICT}

_STATE = {
    "position": Only(
        {"epoch": COUNT, "batch": COUNT, "step": COUNT, "phase": one_of("training", "validating")}
    ),
    "batches_done": {"train": COUNT, "val": COUNT},
    "seconds": FINITE,
    "told_to_stop": FLAG,
    "model": DICT,
    "optimizers": [{"type": TEXT}],
    "schedulers": [{"type": TEXT}],
    "data": ANYTHING,
    "random": {
        "gradlab": {"seed": INTEGER, "calls": COUNT},
        "python": {
            "version": COUNT, "words": array_of("uint32", None), "gauss": Maybe(FINITE),
        },
        "numpy": DICT,
    },
    "metrics": METRICS,
    "history": HISTORY,
    "curves": {
        "board": Maybe(DICT), "plotted": [TEXT], "undrawn": Each(array_of("float64", None, 2)),
    },
    "callbacks": Each(ANYTHING),
}  # fmt: skip


def _read_document(path: Path) -> dict[str, Any]:
    with explained("resume", path), open_file(path) as file:
        content = file.read()
    try:
        document = from_json(content)
        digest = document.pop("sha256")
        intact = _digest(document) == digest
    except (UnfitError, KeyError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(
            f"resume: {printable(path)} is truncated or is no checkpoint; nothing was loaded"
            f"{_instead(path)}"
        ) from None
    if not intact:
        raise CheckpointError(
            f"resume: {printable(path)} was altered since it was written (its SHA-256 does not "
            f"match); nothing was loaded{_instead(path)}"
        )
    return cast("dict[str, Any]", document)


def _instead(path: Path) -> str:
    found: list[Path] = []
    with suppress(CheckpointError):  # a folder that may be read from, not listed
        found = list_checkpoints(path.parent)
    earlier = found[: found.index(path)] if path in found else []
    return f"; the checkpoint before it is {printable(earlier[-1])}" if earlier else ""


# ------------------------------------------------------------------------------ random state


def random_state() -> dict[str, Any]:
    """The states of gradlab's, Python's and NumPy's global random generators."""
    version, words, gauss = random.getstate()
    return {
        "gradlab": get_rng_state(),
        "python": {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - the users' own, as it is
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global random generators into a state that `random_state` returned."""
    set_rng_state(state["gradlab"])
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(state["numpy"])  # noqa: NPY002


def _check_random_state(start: str, state: dict[str, Any]) -> None:
    """Refuse what `set_random_state` cannot set, before anything has changed."""
    try:
        python, words = state["python"], state["python"]["words"].tolist()
        random.Random().setstate((python["version"], tuple(words), python["gauss"]))
        # NumPy reads beyond its memory where the place among the words is too large.
        if not 0 <= state["numpy"]["state"].get("pos", 0) <= 624:
            raise ValueError
        generator = type(np.random.get_bit_generator())()  # type: ignore[attr-defined]
        np.random.RandomState(generator).set_state(state["numpy"])
    except (AttributeError, LookupError, ArithmeticError, TypeError, ValueError):
        raise CheckpointError(
            f"{start} is damaged or was altered: it holds no state of a random generator of this "
            "Python or NumPy; nothing was loaded"
        ) from None


@cache
def versions() -> dict[str, str]:
    """What wrote a checkpoint, for whoever has to find out why it does not load."""
    try:
        own = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "unknown"
    return {"gradlab": own, "numpy": np.__version__, "python": platform.python_version()}
