"""What a dict must hold: each kind, each form, and the place and the value in the message."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.errors import CheckpointError, StateError
from gradlab.fields import (
    ANYTHING,
    COUNT,
    DICT,
    FILE_NAME,
    FINITE,
    FLAG,
    INTEGER,
    NOTHING,
    NUMBER,
    TEXT,
    Each,
    Maybe,
    Only,
    array_of,
    check_fields,
    one_of,
)


def refusal(given, form) -> str:
    with pytest.raises(StateError) as raised:
        check_fields("resume", given, form)
    return str(raised.value).removeprefix("resume: expected ")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (FLAG, [True, False], [0, 1, "True", None]),
        (INTEGER, [0, -(2**63), 2**64 - 1], [True, 1.0, "1", 2**64, -(2**63) - 1, 10**5000]),
        (COUNT, [0, 2**63 - 1], [-1, 2**63, True, 0.0]),
        (NUMBER, [0, 0.5, math.nan, 10**400], [True, "0", None, 1j]),
        (FINITE, [0, -0.5], [math.inf, math.nan, True]),
        (TEXT, ["", "x"], [b"x", None, 1]),
        (NOTHING, [None], [0, ""]),
        (DICT, [{}], [[], None]),
        (FILE_NAME, ["a", "a.b"], ["", ".", "..", "a/b", "/a", "a\\b", "C:a", "a\0", None]),
        (ANYTHING, [None, object()], []),
        (one_of("a", "b"), ["a"], ["c", None, ["a"]]),
        (array_of("uint8", None, 2), [np.zeros((0, 2), np.uint8)],
         [np.zeros((1, 2)), np.zeros((1, 3), np.uint8), np.zeros(2, np.uint8), [[1, 2]], None]),
        (Maybe(FLAG), [None, True], [0]),
        (Each(COUNT), [{}, {"a": 1}], [{"a": -1}, {1: 1}, [], None]),
        (Only({"a": COUNT}), [{"a": 1}], [{}, {"a": 1, "b": 2}, {"a": 1, 2: 3}]),
        ({"a": COUNT}, [{"a": 1}, {"a": 1, 2: 3}], [{}, {"a": None}, None]),
        ([COUNT], [[], [1], (1, 2)], [1, "x", [-1], {}]),
        ((COUNT, TEXT), [[1, "x"], (1, "x")], [[1], [1, "x", 2], ["x", 1], "1x"]),
    ],
)  # fmt: skip
def test_kinds_and_forms(kind, good, bad):
    for value in good:
        check_fields("resume", value, kind)
    for value in bad:
        assert refusal(value, kind).isprintable()


@pytest.mark.parametrize(
    ("given", "form", "text"),
    [
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [COUNT]}},
         "a['b'][1] to be an integer of 0 or more, got 'x'"),
        ({"a": {}}, {"a": {"b": COUNT}}, "a to be a dict with 'b', got one without 'b'"),
        ({"a": 1, "\x1b": 2}, Only({"a": COUNT}), "a dict of other keys, got the key '\\x1b'"),
        ({"\x1b": 2}, Each(TEXT), "\\x1b to be a string, got 2"),
        ({"a": np.zeros((2, 3))}, {"a": array_of("uint32", 625)},
         "a to be an array of uint32 of shape (625), got an array of float64 of shape (2, 3)"),
        ({"a": "x" * 99}, {"a": COUNT}, f"a to be an integer of 0 or more, got '{'x' * 56}..."),
        ({"a": 10**5000}, {"a": COUNT}, "a to be an integer of 0 or more, got a huge integer"),
        ({"a": [1, 2]}, {"a": (COUNT,)}, "a to be a list of 1, got a list of 2"),
        (None, {"a": COUNT}, "a dict, got None"),
    ],
)  # fmt: skip
def test_messages(given, form, text):
    assert refusal(given, form) == text


def test_the_error_is_the_callers():
    with pytest.raises(CheckpointError):
        check_fields("resume", 3, DICT, CheckpointError)
