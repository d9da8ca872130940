"""The cases, a file per subject. A case belongs to the suite whose ``CASES`` lists it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.case import Case


def all_cases(pattern: str = "") -> list[Case]:
    """The cases of all suites whose suite or name contains ``pattern``, in the table's order."""
    found: list[Case] = []
    for suite in ORDER:
        module = import_module(f"{__name__}.{suite}")
        found += [case for case in module.CASES if pattern in f"{suite} {case.name}"]
    return found


ORDER = (
    "training_step", "training", "notes", "dispatch", "importing", "vectors", "optimizers", "data",
)  # fmt: skip
assert set(ORDER) == {found.name for found in iter_modules(__path__)}, "give the suite its place"
