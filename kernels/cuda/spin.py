"""Keeping a GPU busy for a given time, see spin.cu."""

from __future__ import annotations

from typing import Any

from gradlab.kernels.cuda.driver import Driver, Variant

SOURCE = "spin.cu"


def variants() -> list[Variant]:
    """Everything that can be launched."""
    return [Variant(SOURCE)]


def spin(driver: Driver, elapsed: Any, seconds: float) -> None:
    """Queue a kernel that takes ``seconds``.

    It writes how many nanoseconds it did take into ``elapsed``, an array of one int64. ``driver``
    is one that counts no launches, since this is part of no computation.
    """
    driver.launch(SOURCE, "spin", (), (1,), (1,), (elapsed, round(seconds * 1e9)), 0)
