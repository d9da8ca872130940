"""Tables of numbers as data sets: CSV files and pandas DataFrames.

pandas reads and converts. This file adds what a table needs to become tensors (which columns are
features, which are targets) and finds the line of the file for whatever does not fit.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from gradlab import dtypes
from gradlab.data.preprocessing import (
    Names,
    Options,
    Table,
    TableDataset,
    TablePreprocessor,
    check_names,
    find_pandas,
    frame_table,
)
from gradlab.data.unpacking import RefusedError, unzipped
from gradlab.errors import DataError, OptionError, message, printable
from gradlab.paths import as_path, open_file


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
    one_hot: make columns of 0 and 1 of a column of text, as `TablePreprocessor` does.
    standardize: shift and scale columns of numbers to mean 0 and standard deviation 1, as
        `TablePreprocessor` does.
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
        one_hot: bool = False,
        standardize: bool = False,
        sep: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        options = Options(target, columns, dtype, missing, one_hot, standardize)
        preprocessor = TablePreprocessor.of(options.checked("read_csv"))
        self._file = _File("read_csv", path, sep, encoding)
        made = preprocessor.fit_table(self._file.table())
        super().__init__(
            *made.tensors,
            feature_names=made.feature_names,
            target_names=made.target_names,
            preprocessor=preprocessor,
        )

    def transform(self, df: Any) -> TableDataset:
        """A data set of new rows, of a DataFrame or of a file like this one.

        The steps are those that made this one: see `TablePreprocessor.transform`.
        """
        is_file = isinstance(df, str | os.PathLike)
        table = self._file.like(df).table() if is_file else frame_table("transform", df, empty=True)
        return self.preprocessor.transform_table(table)  # type: ignore[union-attr]


def read_csv(
    path: str | os.PathLike[str],
    target: Names = None,
    columns: Sequence[str] | None = None,
    dtype: Any = dtypes.float32,
    missing: str | float = "error",
    *,
    one_hot: bool = False,
    standardize: bool = False,
    sep: str = ",",
    encoding: str = "utf-8",
) -> CSVDataset:
    """Read a CSV file of numbers as a data set; parameters and errors of `CSVDataset`."""
    return CSVDataset(
        path, target, columns, dtype, missing,
        one_hot=one_hot, standardize=standardize, sep=sep, encoding=encoding,
    )  # fmt: skip


def from_dataframe(
    df: Any,
    target: Names = None,
    columns: Sequence[str] | None = None,
    dtype: Any = dtypes.float32,
    missing: str | float = "mean",
    *,
    one_hot: bool = True,
    standardize: bool = False,
) -> TableDataset:
    """Make a data set of the rows of a pandas DataFrame; parameters of `TablePreprocessor`.

    Missing numbers are replaced with the mean of their column, text and categories are encoded
    one-hot. The steps are remembered: ``data.transform(new)`` applies them to another frame, and
    ``data.preprocessor`` holds them, to be saved. ``missing="error", one_hot=False`` takes complete
    tables of numbers only.

    Raises `DataError`, with the column and the index of the row, for what can be neither a number
    nor a category.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({
    ...     "rooms": [None, 2, 4, None],
    ...     "roof": [None, None, "slate", None],
    ...     "price": [127500, 106000, 178100, 140000],
    ... })
    >>> data = from_dataframe(frame, target="price")
    >>> data.feature_names
    ['rooms', 'roof_slate', 'roof_nan']
    >>> data.features
    tensor([[3., 0., 1.],
            [2., 0., 1.],
            [4., 1., 0.],
            [3., 0., 1.]])
    >>> data.targets
    tensor([127500, 106000, 178100, 140000])
    >>> data.transform(pd.DataFrame({"rooms": [5], "roof": ["slate"]})).features
    tensor([[5., 1., 0.]])
    """
    options = Options(target, columns, dtype, missing, one_hot, standardize)
    preprocessor = TablePreprocessor.of(options.checked("from_dataframe"))
    return preprocessor.fit_table(frame_table("from_dataframe", df))


# ------------------------------------------------------------------------------ reading files


class _File:
    """A CSV file: pandas reads it, and the csv module finds the line of what does not fit."""

    def __init__(self, operation: str, path: Any, sep: Any, encoding: str) -> None:
        self.operation = operation
        if not isinstance(sep, str) or len(sep) != 1:
            raise OptionError(message(operation, expected="sep of one character", got=repr(sep)))
        self.path, self.sep = as_path(operation, path), sep
        self.name = printable(os.fspath(path))
        # The byte order mark that spreadsheets put first is no part of the first name.
        self.encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding

    def like(self, path: Any) -> _File:
        """Another file, written in the same way."""
        return _File("transform", path, self.sep, self.encoding)

    def table(self) -> Table:
        """The rows, with the lines they stand in."""
        return Table(self.read(), self.operation, self.name, self.place)

    def read(self) -> Any:
        """The DataFrame of all columns; raises for everything that is no table of equal rows."""
        pandas = find_pandas(self.operation)
        with self._explained():
            header = self._header()
        with self._explained(), warnings.catch_warnings():
            # A first row that is too long only warns, and loses its last fields.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            try:
                with self._open() as file:
                    frame = pandas.read_csv(
                        file, sep=self.sep, index_col=False, skipinitialspace=True,
                        low_memory=False,
                    )  # fmt: skip
            except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
                self._check_widths(header)
                raise DataError(
                    f"{self.operation}: {self.name}: {printable(error)}".strip()
                ) from None
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
        check_names(self.operation, self.name, names)
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

    def _open(self) -> TextIO:
        file = open_file(self.path)
        if self.path.suffix == ".gz":
            file = unzipped(file)
        try:
            return io.TextIOWrapper(file, encoding=self.encoding, newline="")
        except LookupError:  # no such encoding
            file.close()
            raise

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
        except RefusedError as error:
            raise DataError(f"{start}{error}") from None
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{start}cannot be read: {printable(reason)}") from None


def _are_values(names: list[str]) -> bool:
    """Whether a first line holds values: numbers, but not just years or column numbers."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    return len(set(numbers)) < len(numbers) or not all(number.is_integer() for number in numbers)
