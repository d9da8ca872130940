"""Damaged copies of what is whole: bytes changed at random, and the fields of JSON with them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 625, 2**31, 2**63, 2**64, 2**70, -(2**63), 0.5, -0.0, 1e308,
    math.inf, math.nan, "", "x", "\0", "\x1b[2J", "../../x", "/etc/passwd", "\ud800", "nan",
    "training", [], [1], [[]], ["x", "x"], [1] * 70, {}, {"x": 1}, {"$tensor": "none"},
    {"$tensor": 3}, {"$array": "none"}, {"$tuple": 1}, {"$dict": [1]}, {"$dict": [[[], 1]]},
    {"$float": "x"}, {"$complex": [1]}, {"$complex": ["x", "y"]}, {"type": "SGD"},
]  # fmt: skip


def changed_bytes(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies with a few bytes flipped, cut out, put in, doubled or overwritten."""
    draw = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            # Where headers are, half the time.
            at = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 600))
            size = draw.choice((1, 1, 2, 8, 100))
            how = draw.randrange(6)
            if how == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                data[at : at + size] = bytes(draw.randrange(256) for _ in range(size))
            elif how == 2:
                del data[at : at + size]
            elif how == 3:
                data[at:at] = data[at : at + size]
            elif how == 4:
                data[at : at + size] = draw.choice((b"\0", b"\xff", b"9", b"{", b"[", b"-")) * size
            else:
                del data[at:]
            if not data:
                break
        yield bytes(data)


def changed_values(whole: Any, count: int, seed: int) -> Iterator[Any]:
    """Copies of nested dicts and lists with one or two entries taken out, renamed or replaced."""
    draw = random.Random(seed)
    for _ in range(count):
        made = copy.deepcopy(whole)
        for _ in range(draw.choice((1, 1, 2))):
            _change(made, draw)
        yield made


def _change(value: Any, draw: random.Random) -> None:
    places = list(_places(value))
    if not places:
        return
    holder, key = draw.choice(places)
    how = draw.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[draw.choice(("x", "\0", "", "$tensor", "\x1b]0;x\x07"))] = holder.pop(key)
    elif how == 2:
        other, its = draw.choice(places)
        holder[key] = copy.deepcopy(other[its])
    else:
        holder[key] = copy.deepcopy(draw.choice(HOSTILE))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of every dict and list, as (holder, key)."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(entries):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)
