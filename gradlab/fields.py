"""What a dict must hold that may have been read from a file, said once and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

from gradlab.errors import GradlabError, StateError, printable


class Kind(NamedTuple):
    """What a value has to be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64


FLAG = Kind("True or False", lambda value: isinstance(value, bool))
INTEGER = Kind("an integer of 64 bits", _is_integer)
COUNT = Kind("an integer of 0 or more", lambda value: _is_integer(value) and 0 <= value < 2**63)
NUMBER = Kind(
    "a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)
)
NOTHING = Kind("None", lambda value: value is None)
FINITE = Kind("a finite number", lambda value: NUMBER.holds(value) and abs(value) < math.inf)
TEXT = Kind("a string", lambda value: isinstance(value, str))
DICT = Kind("a dict", lambda value: isinstance(value, Mapping))
ANYTHING = Kind("anything", lambda value: True)


def array_of(dtype: str, *shape: int | None) -> Kind:
    """An array of a dtype and a shape, None for any size."""

    def holds(value: Any) -> bool:
        sizes = getattr(value, "shape", None)
        return (
            str(getattr(value, "dtype", "")) == dtype
            and isinstance(sizes, tuple)
            and len(sizes) == len(shape)
            and all(size in (None, own) for size, own in zip(shape, sizes, strict=True))
        )

    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return Kind(f"an array of {dtype} of shape ({sizes})", holds)


def one_of(*values: Any) -> Kind:
    """One of a few values."""
    listed = ", ".join(map(repr, values))
    return Kind(f"one of {listed}", lambda value: isinstance(value, str) and value in values)


def is_name(text: Any) -> bool:
    """Whether text names a file of a folder, and nothing outside of it."""
    return (
        isinstance(text, str)
        and text not in ("", "..")
        and "\0" not in text
        and PureWindowsPath(text).name == text  # which knows both separators, and drives
    )


FILE_NAME = Kind("the name of a file, without a folder", is_name)


class Maybe(NamedTuple):
    """None, or what ``form`` says."""

    form: Any


class Each(NamedTuple):
    """A dict from strings to values that are all of one form."""

    form: Any


class Only(NamedTuple):
    """A dict with these keys and no others."""

    fields: Mapping[str, Any]


def check_fields(
    operation: str, given: Any, form: Any, error: type[GradlabError] = StateError
) -> None:
    """Raise ``error``, which names the place, where ``given`` is not of a form.

    A form is a `Kind`; a dict of forms by key, for a dict with at least these keys; a list of one
    form, for a list of such; a tuple of forms, for a list or tuple of that length; `Maybe`,
    `Each` or `Only`.

    >>> form = {"epoch": COUNT, "rows": [Each(NUMBER)]}
    >>> check_fields("resume", {"epoch": 3, "rows": [{"loss": 0.5}]}, form)
    >>> check_fields("resume", {"epoch": 3, "rows": [{"loss": "?"}]}, form)
    Traceback (most recent call last):
    gradlab.errors.StateError: resume: expected rows[0]['loss'] to be a number, got '?'
    """

    _Check(operation, error).value(given, form, "")


class _Check(NamedTuple):
    operation: str
    error: type[GradlabError]

    def value(self, value: Any, form: Any, place: str) -> None:
        if isinstance(form, Maybe):
            if value is not None:
                self.value(value, form.form, place)
        elif isinstance(form, Kind):
            if not form.holds(value):
                raise self.refusal(place, form.words, shown(value))
        elif isinstance(form, list | tuple) and not isinstance(form, Each | Only):
            self.items(value, form, place)
        else:
            self.entries(value, form, place)

    def items(self, value: Any, form: list[Any] | tuple[Any, ...], place: str) -> None:
        if not isinstance(value, list | tuple):
            raise self.refusal(place, "a list", shown(value))
        forms = form if isinstance(form, tuple) else form * len(value)
        if len(forms) != len(value):
            raise self.refusal(place, f"a list of {len(forms)}", shown(value))
        for i, (each, its) in enumerate(zip(value, forms, strict=True)):
            self.value(each, its, f"{place}[{i}]")

    def entries(self, value: Any, form: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise self.refusal(place, "a dict", shown(value))
        if isinstance(form, Each):
            fields: Mapping[Any, Any] = dict.fromkeys(value, form.form)
        else:
            fields = form.fields if isinstance(form, Only) else form
        known = fields if isinstance(form, Only) else value
        for key in value:
            if key not in known or not (isinstance(key, str) or fields is form):
                raise self.refusal(place, "a dict of other keys", f"the key {key!r}")
        for key, its in fields.items():
            if key not in value:
                raise self.refusal(place, f"a dict with {key!r}", f"one without {key!r}")
            self.value(value[key], its, f"{place}[{key!r}]" if place else printable(key))

    def refusal(self, place: str, words: str, got: str) -> GradlabError:
        what = f"{place} to be {words}" if place else words
        return self.error(f"{self.operation}: expected {what}, got {got}")


def shown(value: Any) -> str:
    """A value in a message: a short one as it is, else its type."""
    if value is None or isinstance(value, bool | int | float | str):
        if isinstance(value, int) and value.bit_length() > 200:
            return "a huge integer"  # Python may refuse to write it
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"an array of {value.dtype} of shape {shape}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
