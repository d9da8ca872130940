"""Tables of numbers as data sets: CSV files and pandas DataFrames.

pandas reads and converts. This file adds what a table needs to become tensors (which columns are
features, which are targets) and finds the line of the file for whatever does not fit.
"""

from __future__ import annotations

import csv
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gradlab import dtypes
from gradlab.data.dataset import TensorDataset
from gradlab.errors import DataError, OptionError, message, missing_dependency
from gradlab.tensor import Tensor

Names = str | Sequence[str] | None


class TableDataset(TensorDataset):
    """Rows of a table as samples: ``(features,)``, or ``(features, target)``.

    Attributes
    ----------
    feature_names: the names of the columns of the features, shape (rows, features).
    target_names: the names of the target columns; empty where there is no target.
    """

    def __init__(
        self, *tensors: Any, feature_names: Sequence[str], target_names: Sequence[str] = ()
    ) -> None:
        super().__init__(*tensors)
        self.feature_names = list(feature_names)
        self.target_names = list(target_names)

    @property
    def features(self) -> Tensor:
        """All features, shape (rows, features)."""
        return self.tensors[0]

    @property
    def targets(self) -> Tensor | None:
        """All targets: (rows,) for one target column named by a string, else (rows, targets)."""
        return self.tensors[1] if len(self.tensors) > 1 else None

    def __repr__(self) -> str:
        target = f", target {', '.join(self.target_names)}" if self.target_names else ""
        return (
            f"{type(self).__name__}({len(self)} rows, {len(self.feature_names)} features{target})"
        )


class CSVDataset(TableDataset):
    """The rows of a CSV file as samples.

    The first line holds the names of the columns, every other line one row of numbers. A file that
    ends in ``.gz`` is decompressed.

    Parameters
    ----------
    path: the file.
    target: the column to predict, or a list of columns. One name gives targets of shape (rows,), a
        list (rows, targets). Whole numbers become int64, which is what class labels are; others
        become ``dtype``.
    columns: the columns to take as features, in this order; by default all but the target.
    dtype: of the features, and of targets that are not whole numbers.
    missing: what to do where a feature has no value: ``"error"``, ``"mean"`` (the mean of its
        column in this table), or a number to put there. A target without a value is always an
        error.
    sep: what stands between two fields.
    encoding: of the text in the file.

    Raises `DataError`, with the file, the line and the column, for text where a number belongs, a
    missing value, a line with too many or too few fields, and for a file that is empty or not text.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "houses.csv")
    >>> with open(path, "w") as file:
    ...     _ = file.write("rooms,area,price\\n3,70.5,200\\n4,95,310\\n")
    >>> houses = CSVDataset(path, target="price")
    >>> houses.feature_names, len(houses)
    (['rooms', 'area'], 2)
    >>> houses[0]
    (tensor([ 3.0000, 70.5000]), tensor(200))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: Names = None,
        columns: Sequence[str] | None = None,
        dtype: Any = dtypes.float32,
        missing: str | float = "error",
        *,
        sep: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        file = _File("read_csv", path, sep, encoding)
        frame = file.read()
        _fill(
            self, _Table(frame, "read_csv", file.name, file.place), target, columns, dtype, missing
        )


def read_csv(
    path: str | os.PathLike[str],
    target: Names = None,
    columns: Sequence[str] | None = None,
    dtype: Any = dtypes.float32,
    missing: str | float = "error",
    *,
    sep: str = ",",
    encoding: str = "utf-8",
) -> CSVDataset:
    """Read a CSV file of numbers as a data set; parameters and errors of `CSVDataset`."""
    return CSVDataset(path, target, columns, dtype, missing, sep=sep, encoding=encoding)


def from_dataframe(
    df: Any,
    target: Names = None,
    columns: Sequence[str] | None = None,
    dtype: Any = dtypes.float32,
    missing: str | float = "error",
) -> TableDataset:
    """Make a data set of the rows of a pandas DataFrame; parameters of `CSVDataset`.

    Raises `DataError`, with the column and the index of the row, for what is no number.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [1.0, 2.0], "label": [0, 1]})
    >>> data = from_dataframe(frame, target="label")
    >>> data.features, data.targets
    (tensor([[1.],
            [2.]]), tensor([0, 1]))
    """
    pandas = _pandas("from_dataframe")
    if not isinstance(df, pandas.DataFrame):
        raise OptionError(
            message("from_dataframe", expected="a pandas DataFrame", got=type(df).__name__)
        )
    frame = df.set_axis([str(name) for name in df.columns], axis="columns")
    if not len(frame.columns) or not len(frame):
        rows, width = frame.shape
        raise DataError(
            message(
                "from_dataframe",
                expected="a DataFrame with rows and columns",
                got=f"{rows} rows and {width} columns",
            )
        )
    _check_names("from_dataframe", "the DataFrame", list(frame.columns))
    made = TableDataset.__new__(TableDataset)
    table = _Table(frame, "from_dataframe", "the DataFrame", lambda row: f"row {df.index[row]!r}")
    _fill(made, table, target, columns, dtype, missing)
    return made


def _pandas(operation: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise missing_dependency("pandas", "data", operation) from None
    return pandas


# ------------------------------------------------------------------- from a frame to tensors


class _Table(NamedTuple):
    """A DataFrame, and how to speak of it: the operation, its source, the place of a row."""

    frame: Any
    operation: str
    source: str
    place: Callable[[int], str]

    def refuse(self, column: str, row: int, expected: str, got: str, hint: str) -> NoReturn:
        where = f"{self.source}, {self.place(row)}, column {column!r}"
        raise DataError(
            f"{self.operation}: {where}: expected {expected}, got {got}"
            + (f"; {hint}" * bool(hint))
        )


def _fill(
    dataset: TableDataset, table: _Table, target: Names, columns: Any, dtype: Any, missing: Any
) -> None:
    """Initialise a data set with the columns of a table."""
    wanted = dtypes.as_dtype(dtype)
    _check_missing(table.operation, missing)
    targets = [] if target is None else [target] if isinstance(target, str) else list(target)
    for name in targets:
        _require_column(table, "target", name)
    features = _feature_names(table, targets, columns)
    tensors = [_matrix(table, features, wanted, missing)]
    if targets:
        y = _targets(table, targets, wanted)
        tensors.append(y[:, 0] if isinstance(target, str) else y)
    TableDataset.__init__(dataset, *tensors, feature_names=features, target_names=targets)


def _check_missing(operation: str, missing: Any) -> None:
    number = isinstance(missing, int | float) and not isinstance(missing, bool)
    if missing not in ("error", "mean") and not (number and np.isfinite(missing)):
        raise OptionError(
            message(
                operation,
                expected="missing='error', 'mean' or a number",
                got=f"missing={missing!r}",
            )
        )


def _require_column(table: _Table, role: str, name: str) -> None:
    names = list(table.frame.columns)
    if name in names:
        return
    close = get_close_matches(str(name), names, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    one_field = len(names) == 1 and table.operation == "read_csv"
    raise DataError(
        message(
            table.operation,
            expected=f"a column of {table.source} as {role}",
            got=repr(name),
            hint=f"{meant}it has: {shown}" + "; for another separator, give sep=" * one_field,
        )
    )


def _feature_names(table: _Table, targets: list[str], columns: Any) -> list[str]:
    if isinstance(columns, str):
        columns = [columns]
    if columns is None:
        names = [name for name in table.frame.columns if name not in targets]
    else:
        names = list(columns)
        for name in names:
            _require_column(table, "feature", name)
    both = [name for name in names if name in targets]
    if both:
        raise OptionError(
            f"{table.operation}: expected columns without the target, got {both[0]!r} as both"
        )
    if not names:
        raise DataError(
            message(
                table.operation,
                expected=f"a feature column in {table.source}",
                got="none besides the target" if targets else "none",
            )
        )
    return names


def _matrix(table: _Table, names: list[str], dtype: Any, missing: Any) -> np.ndarray:
    matrix = np.empty((len(table.frame), len(names)), dtype)
    for j, name in enumerate(names):
        values = _numbers(table, name)
        gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(0, bool)
        if gaps.any():
            values[gaps] = _replacement(table, name, values, gaps, missing)
        matrix[:, j] = _cast(table, name, values, dtype)
    return matrix


def _replacement(
    table: _Table, name: str, values: np.ndarray, gaps: np.ndarray, missing: Any
) -> float:
    if missing == "error" or (missing == "mean" and gaps.all()):
        hint = "give missing='mean' or missing=<number>, or drop the row"
        if missing == "mean":
            hint = "the whole column is empty and has no mean; leave it out of columns"
        table.refuse(name, int(gaps.argmax()), "a number", "nothing", hint)
    return float(values[~gaps].mean()) if missing == "mean" else float(missing)


def _targets(table: _Table, names: list[str], dtype: Any) -> np.ndarray:
    found = {name: _numbers(table, name) for name in names}
    for name, values in found.items():
        gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(0, bool)
        if gaps.any():
            row = int(gaps.argmax())
            table.refuse(name, row, "a target", "nothing", "drop the rows without a target")
    whole = all(values.dtype.kind in "iub" for values in found.values())
    wanted = dtypes.int64 if whole else dtype
    return np.stack([_cast(table, name, values, wanted) for name, values in found.items()], axis=1)


def _numbers(table: _Table, name: str) -> np.ndarray:
    """A column as a new array of numbers or bools, missing values as NaN."""
    pandas = _pandas(table.operation)
    types = pandas.api.types
    column = table.frame[name]
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        pass
    elif _is_text(types, column):
        column = _parsed(table, name, column, pandas.to_numeric(column, errors="coerce"))
    else:
        raise DataError(
            message(
                table.operation,
                expected=f"numbers in column {name!r} of {table.source}",
                got=str(column.dtype),
                hint="convert it to numbers, or choose other columns",
            )
        )
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    kind = getattr(column.dtype, "numpy_dtype", column.dtype)  # Int64 and kin know their own
    return column.to_numpy(dtype=kind if isinstance(kind, np.dtype) else np.float64, copy=True)


def _is_text(types: Any, column: Any) -> bool:
    """Whether a column may hold text, as one of objects does where a single value is none."""
    if column.dtype == "category":  # pandas counts one of texts as text
        return False
    return bool(types.is_object_dtype(column) or types.is_string_dtype(column))


def _parsed(table: _Table, name: str, column: Any, numbers: Any) -> Any:
    """``numbers``, what pandas made of a column of text; refuses the first that is none."""
    text = (numbers.isna() & column.notna()).to_numpy()
    if text.any():
        row = int(text.argmax())
        hint = "mend it, or choose other columns"
        table.refuse(name, row, "a number", repr(column.iloc[row]), hint)
    return numbers


def _cast(table: _Table, name: str, values: np.ndarray, dtype: Any) -> np.ndarray:
    """The values in another dtype; refuses infinities and what the dtype cannot hold."""
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    bad = ~np.isfinite(cast) if dtypes.is_floating(dtype) else cast != values
    if bad.any():
        row = int(bad.argmax())
        value = values[row]
        if np.isfinite(value):
            hint = "choose another dtype"
            table.refuse(name, row, f"a number that fits {dtype.name}", str(value), hint)
        table.refuse(name, row, "a finite number", str(value), "mend it, or drop the row")
    return cast


# ------------------------------------------------------------------------------ reading files


class _File:
    """A CSV file: pandas reads it, and the csv module finds the line of what does not fit."""

    def __init__(self, operation: str, path: Any, sep: Any, encoding: str) -> None:
        self.operation = operation
        if not isinstance(path, str | os.PathLike):
            raise OptionError(message(operation, expected="a path", got=type(path).__name__))
        if not isinstance(sep, str) or len(sep) != 1:
            raise OptionError(message(operation, expected="sep of one character", got=repr(sep)))
        self.path, self.sep = Path(path), sep
        self.name = os.fspath(path)
        # The byte order mark that spreadsheets put first is no part of the first name.
        self.encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding

    def read(self) -> Any:
        """The DataFrame of all columns; raises for everything that is no table of equal rows."""
        pandas = _pandas(self.operation)
        with self._explained():
            header = self._header()
        with self._explained(), warnings.catch_warnings():
            # A first row that is too long only warns, and loses its last fields.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            try:
                frame = pandas.read_csv(
                    self.path, sep=self.sep, encoding=self.encoding, index_col=False,
                    skipinitialspace=True, low_memory=False,
                )  # fmt: skip
            except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
                self._check_widths(header)
                raise DataError(f"{self.operation}: {self.name}: {error}".strip()) from None
            if not len(frame):
                raise DataError(
                    f"{self.operation}: {self.name}: expected rows of numbers, "
                    "got the line of column names alone"
                )
            # A row that is too short ends in missing values.
            if frame.iloc[:, -1].isna().any():
                self._check_widths(header)
        frame.columns = header
        return frame

    def place(self, row: int) -> str:
        """``line 7`` for row 5: lines count from 1 and include the names and blank lines."""
        with self._explained():
            for i, (line, _) in enumerate(self._records()):
                if i == row + 1:
                    return f"line {line}"
        return f"row {row}"

    def _header(self) -> list[str]:
        first = next(self._records(), None)
        if first is None:
            raise DataError(
                f"{self.operation}: {self.name}: expected a line of column names and rows of "
                "numbers, got an empty file"
            )
        names = first[1]
        if _are_values(names):
            raise DataError(
                f"{self.operation}: {self.name}: expected column names in the first line, got "
                f"numbers ({', '.join(names[:3])}, …); add a line of names, or use "
                "pandas.read_csv(..., header=None) and from_dataframe"
            )
        names = [name.strip() for name in names]
        _check_names(self.operation, self.name, names)
        return names

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The records that are not blank, each with the number of its first line."""
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.sep, skipinitialspace=True)
            line = 1
            for fields in reader:
                if any(field.strip() for field in fields) or len(fields) > 1:
                    yield line, fields
                line = reader.line_num + 1

    def _open(self) -> Any:
        options: dict[str, Any] = {"mode": "rt", "encoding": self.encoding, "newline": ""}
        if self.path.suffix != ".gz":
            return self.path.open(**options)
        import gzip

        return gzip.open(self.path, **options)

    def _check_widths(self, header: list[str]) -> None:
        for line, fields in self._records():
            if len(fields) != len(header):
                count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
                raise DataError(
                    f"{self.operation}: {self.name}, line {line}: expected {len(header)} fields, "
                    f"as many as there are column names, got {count}"
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what goes wrong with a file into one line about it."""
        start = f"{self.operation}: {self.name}: "
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"{start}there is no such file") from None
        except UnicodeDecodeError as error:
            wanted = self.encoding.removesuffix("-sig")
            byte = error.object[error.start]
            raise DataError(
                f"{start}expected {wanted} text, got the byte 0x{byte:02x}; give its encoding, "
                "for example encoding='latin-1', or check that it is a CSV file"
            ) from None
        except LookupError as error:
            if isinstance(error, KeyError | IndexError):
                raise
            raise OptionError(f"{self.operation}: {error}") from None
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{start}cannot be read: {reason}") from None


def _are_values(names: list[str]) -> bool:
    """Whether a first line holds values: numbers, but not just years or column numbers."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    return len(set(numbers)) < len(numbers) or not all(number.is_integer() for number in numbers)


def _check_names(operation: str, source: str, names: list[str]) -> None:
    """Refuse columns without a name and names that are given twice."""
    for i, name in enumerate(names):
        if not name.strip():
            raise DataError(
                f"{operation}: {source}: expected a name for every column, got none for column "
                f"{i + 1}; if it holds row numbers, write the file with index=False"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{operation}: {source}: expected each column name once, got "
            f"{', '.join(map(repr, twice[:3]))} more than once; rename them"
        )
