"""What a run has measured: `Metrics` gathers values while it goes on, `History` keeps the table."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

from gradlab.errors import OptionError, missing_dependency, printable
from gradlab.fields import COUNT, DICT, NUMBER, TEXT, Each, check_fields
from gradlab.ops.fetch import fetch

Row = dict[str, float]

# What says of a row where in the run it is; all else are metrics.
PLACE = ("epoch", "step")

# What the states of both hold.
HISTORY = {"epochs": [DICT], "steps": [DICT]}
METRICS = {
    "sums": Each((NUMBER, NUMBER)), "row_sums": Each((NUMBER, NUMBER)), "row_at": COUNT,
    "row_end": NUMBER, "latest": [TEXT],
}  # fmt: skip


class History:
    """The course of a run, as two tables: lists of rows, a row being a dict.

    ``epochs`` has a row for each epoch: ``epoch`` and ``step`` (optimizer updates so far), both
    counted from 1, the means of what was logged in training, and what the validation gave.
    ``steps`` has a row every few steps, with the means over these.

    >>> history = History()
    >>> history.epochs.append({"epoch": 1, "step": 40, "train_loss": 0.7, "val_acc": 0.8})
    >>> history.epochs.append({"epoch": 2, "step": 80, "train_loss": 0.4, "val_acc": 0.9})
    >>> history["val_acc"]
    [0.8, 0.9]
    >>> history.best("train_loss")
    {'epoch': 2, 'step': 80, 'train_loss': 0.4, 'val_acc': 0.9}
    """

    def __init__(self) -> None:
        self.epochs: list[Row] = []
        self.steps: list[Row] = []

    def __getitem__(self, name: str) -> list[float]:
        """The values of one metric, epoch by epoch."""
        self._check(name)
        return [row[name] for row in self.epochs if name in row]

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        last = ", ".join(f"{printable(name)}={value:.4g}" for name, value in self.last().items())
        return f"History({len(self.epochs)} epochs{'; last: ' if last else ''}{last})"

    @property
    def names(self) -> list[str]:
        """The metrics that were measured."""
        rows = [*self.epochs, *self.steps]
        return sorted({name for row in rows for name in row} - set(PLACE))

    def last(self) -> Row:
        """The row of the latest epoch; empty before the first."""
        return dict(self.epochs[-1]) if self.epochs else {}

    def best(self, name: str, mode: str = "min") -> Row:
        """The row of the epoch in which metric ``name`` was smallest (``mode="max"``: largest)."""
        self._check(name)
        if mode not in ("min", "max"):
            raise OptionError(f"History.best: expected mode 'min' or 'max', got {mode!r}")
        rows = [row for row in self.epochs if not math.isnan(row.get(name, math.nan))]
        if not rows:
            raise OptionError(f"History.best: {name!r} was not measured in any epoch")
        choose = min if mode == "min" else max
        return dict(choose(rows, key=lambda row: row[name]))

    def to_dataframe(self, table: str = "epochs") -> Any:
        """The table ``"epochs"`` or ``"steps"`` as a pandas DataFrame."""
        try:
            import pandas as pd
        except ImportError:
            raise missing_dependency("pandas", "data", "History.to_dataframe") from None
        if table not in ("epochs", "steps"):
            raise OptionError(f"History.to_dataframe: expected 'epochs' or 'steps', got {table!r}")
        return pd.DataFrame(getattr(self, table))

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Draw the curves with `gradlab.viz.plot_history`, into the file ``path`` if given."""
        from gradlab.viz import plot_history

        return plot_history(self, path)

    def state_dict(self) -> dict[str, Any]:
        """Both tables."""
        return {"epochs": self.epochs, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from tables that `state_dict` gave."""
        check_fields("History.load_state_dict", state, HISTORY)
        self.epochs, self.steps = list(state["epochs"]), list(state["steps"])

    def _check(self, name: str) -> None:
        if name not in self.names:
            known = ", ".join(self.names) or "none yet"
            raise OptionError(f"History: there is no metric {name!r}; there are: {known}")


# A value noted for a batch: its name, the value, its weight in a mean, the number of the batch from
# 1, and whether it replaces the earlier values. A plain tuple: one is made at every step.
Entry = tuple[str, Any, float, int, bool]

# By name: the sum of value × weight, and the sum of the weights.
Sums = dict[str, list[float]]


class Metrics:
    """Values by name, noted batch by batch and averaged, weighted, when they are read.

    Values on another device than the CPU stay there until `read`, which fetches all in one
    transfer per dtype: noting them never waits for the device.

    Parameters
    ----------
    window: after so many batches, their means make a row; None for no rows.
    """

    def __init__(self, window: int | None = None) -> None:
        self.window = window
        self.unread: list[Entry] = []
        self._sums: Sums = {}  # of the rows that are complete
        self._row_sums: Sums = {}
        self._row_at = 0  # the batch of its last entry
        self._row_end = math.inf if window is None else 0.0  # the last batch that belongs to it
        self._rows: list[tuple[int, Row]] = []
        self._latest: set[str] = set()  # the names whose last value counts, not their mean

    def add(self, name: str, value: Any, weight: float, batch: int, last: bool = False) -> None:
        """Note a value of a batch: a number, or a tensor of one element without history."""
        self.unread.append((name, value, weight, batch, last))

    def take_back(self, name: str, batch: int) -> None:
        """Forget what was noted under a name for the latest batch, if it was this one."""
        start = len(self.unread)
        while start and self.unread[start - 1][3] == batch:
            start -= 1
        self.unread[start:] = [entry for entry in self.unread[start:] if entry[0] != name]

    def read(self) -> list[Entry]:
        """Add what was noted since the last call to the means, and return it, in numbers."""
        noted, self.unread = self.unread, []
        _fetch(noted)
        sums, row_end = self._row_sums, self._row_end
        for name, value, weight, batch, last in noted:
            if batch > row_end:
                self._end_row()
                row_end = -(-batch // self.window) * self.window  # type: ignore[operator]
            self._row_at = batch
            found = sums.get(name)
            if found is None or last:
                sums[name] = [value * weight, weight]
                if last:
                    self._latest.add(name)
            else:
                found[0] += value * weight
                found[1] += weight
        self._row_end = row_end
        return noted

    def take_rows(self, end_row: bool = False) -> list[tuple[int, Row]]:
        """The rows that were completed since the last call, each with the number of its last batch;
        with ``end_row`` also the one begun."""
        if end_row:
            self._end_row()
        rows, self._rows = self._rows, []
        return rows

    def row_begun(self) -> list[tuple[int, Row]]:
        """The row that further batches would complete, with the number of its last batch; or none.

        It stays open: a run that is resumed completes it.
        """
        shown = self._row_sums and self.window is not None
        return [(self._row_at, _means(self._row_sums))] if shown else []

    def _end_row(self) -> None:
        if not self._row_sums:
            return
        if self.window is not None:
            self._rows.append((self._row_at, _means(self._row_sums)))
        _merge(self._sums, self._row_sums, self._latest)
        self._row_sums.clear()

    def means(self) -> Row:
        """The means of all that was read, by name."""
        if not self._row_sums:
            return _means(self._sums)
        merged = {name: list(sums) for name, sums in self._sums.items()}
        _merge(merged, self._row_sums, self._latest)
        return _means(merged)

    def state_dict(self) -> dict[str, Any]:
        """What was read so far."""
        return {
            "sums": self._sums,
            "row_sums": self._row_sums,
            "row_at": self._row_at,
            "row_end": self._row_end,
            "latest": sorted(self._latest),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_fields("Metrics.load_state_dict", state, METRICS)
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
        self._row_sums = {name: list(sums) for name, sums in state["row_sums"].items()}
        self._row_at, self._row_end = state["row_at"], state["row_end"]
        self._latest = set(state["latest"])


def _merge(sums: Sums, more: Sums, latest: set[str]) -> None:
    for name, (total, weight) in more.items():
        found = sums.get(name)
        if found is None or name in latest:
            sums[name] = [total, weight]
        else:
            found[0] += total
            found[1] += weight


def _means(sums: Sums) -> Row:
    return {name: total / weight if weight else math.nan for name, (total, weight) in sums.items()}


def _fetch(noted: list[Entry]) -> None:
    """Replace what is no float among noted values by the number it holds, in place."""
    places = [i for i, entry in enumerate(noted) if entry[1].__class__ is not float]
    for i, value in zip(places, fetch(noted[i][1] for i in places), strict=True):
        noted[i] = (noted[i][0], float(value), *noted[i][2:])
