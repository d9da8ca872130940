"""Tables as tensors: numbers made complete, categories made numbers, and the steps remembered.

pandas converts. `TablePreprocessor` learns from one table what to put where a number is missing,
how to standardize, and which categories there are, and does the same to every other table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gradlab import dtypes
from gradlab.arguments import warn
from gradlab.data.dataset import TensorDataset
from gradlab.errors import (
    DataError,
    OptionError,
    StateError,
    message,
    missing_dependency,
    printable,
)
from gradlab.fields import ANYTHING, FLAG, NUMBER, TEXT, Each, Maybe, check_fields
from gradlab.tensor import Tensor, require_option

Names = str | Sequence[str] | None


class TableDataset(TensorDataset):
    """Rows of a table as samples: ``(features,)``, or ``(features, target)``.

    Attributes
    ----------
    feature_names: the names of the columns of the features, shape (rows, features).
    target_names: the names of the target columns; empty where there is no target.
    preprocessor: the `TablePreprocessor` that made the tensors, or None.
    unseen: for each column with values that are none of the categories learned, how many there are.
    """

    preprocessor: TablePreprocessor | None
    unseen: dict[str, int]

    def __init__(
        self,
        *tensors: Any,
        feature_names: Sequence[str],
        target_names: Sequence[str] = (),
        preprocessor: TablePreprocessor | None = None,
    ) -> None:
        super().__init__(*tensors)
        self.feature_names = list(feature_names)
        self.target_names = list(target_names)
        self.preprocessor = preprocessor
        self.unseen = {}

    @property
    def features(self) -> Tensor:
        """All features, shape (rows, features)."""
        return self.tensors[0]

    @property
    def targets(self) -> Tensor | None:
        """All targets: (rows,) for one target column named by a string, else (rows, targets)."""
        return self.tensors[1] if len(self.tensors) > 1 else None

    def transform(self, df: Any) -> TableDataset:
        """A data set of new rows, made by the steps that made this one.

        See `TablePreprocessor.transform`, which this is.
        """
        if self.preprocessor is None:
            raise OptionError(
                f"{type(self).__name__}.transform: expected a data set that from_dataframe or "
                "read_csv made, got one made of tensors"
            )
        return self.preprocessor.transform_table(frame_table("transform", df, empty=True))

    def __repr__(self) -> str:
        names = printable(", ".join(self.target_names))
        target = f", target {names}" if names else ""
        return (
            f"{type(self).__name__}({len(self)} rows, {len(self.feature_names)} features{target})"
        )


class TablePreprocessor:
    """The steps from a pandas DataFrame to tensors, learned from one frame and applied to others.

    - A number that is missing is replaced, by default with the mean of its column.
    - Text, and columns of pandas' category dtype, are encoded one-hot: a column of 0 and 1 for
      each category, and one for rows without any. Columns, their order (numbers first) and names
      are those of ``pandas.get_dummies(df, dummy_na=True)``. Columns of bools count as numbers.
    - With ``standardize``, each column of numbers is shifted and scaled to mean 0 and standard
      deviation 1; a number that was replaced with the mean becomes 0.

    Means, deviations and categories are those of the frame given to `fit`, for every frame that
    is transformed later.

    Parameters
    ----------
    target: the column to predict, or a list of columns. One name gives targets of shape (rows,), a
        list (rows, targets). Whole numbers become int64, which is what class labels are; others
        become ``dtype``. A target is never changed otherwise.
    columns: the columns to take as features; by default all but the target.
    dtype: of the features, and of targets that are not whole numbers.
    missing: what to do where a number is missing: ``"mean"``, a number to put there, or
        ``"error"``, which also refuses missing categories (and makes no columns for them).
    one_hot: encode text and categories; otherwise text must be numbers, and is read as such.
    standardize: ``(x - mean) / std`` for columns of numbers, with the deviation as pandas takes it,
        divided by n - 1. A column of one value only is shifted alone.

    `state_dict` holds all that was learned, so that a model in production does to its inputs what
    training did: ``gradlab.save`` writes it.

    >>> import pandas as pd
    >>> houses = pd.DataFrame({"rooms": [None, 2, 4], "roof": ["slate", None, "slate"]})
    >>> steps = TablePreprocessor().fit(houses)
    >>> steps.feature_names
    ['rooms', 'roof_slate', 'roof_nan']
    >>> steps.transform(houses).features
    tensor([[3., 1., 0.],
            [2., 0., 1.],
            [4., 1., 0.]])
    >>> again = TablePreprocessor()
    >>> again.load_state_dict(steps.state_dict())
    >>> again.transform(pd.DataFrame({"rooms": [None], "roof": ["slate"]})).features
    tensor([[3., 1., 0.]])
    """

    def __init__(
        self,
        target: Names = None,
        columns: Sequence[str] | None = None,
        dtype: Any = dtypes.float32,
        missing: str | float = "mean",
        *,
        one_hot: bool = True,
        standardize: bool = False,
    ) -> None:
        options = Options(target, columns, dtype, missing, one_hot, standardize)
        self.options = options.checked("TablePreprocessor")
        self._steps: _Steps | None = None

    @classmethod
    def of(cls, options: Options) -> TablePreprocessor:
        """One with options that are checked already."""
        made = cls()
        made.options = options
        return made

    @property
    def feature_names(self) -> list[str]:
        """The names of the features, in their order."""
        return list(self._learned("feature_names").feature_names)

    def __repr__(self) -> str:
        if self._steps is None:
            return f"{type(self).__name__}(not fitted)"
        width, made = len(self._steps.columns), len(self._steps.feature_names)
        return f"{type(self).__name__}({width} columns to {made} features)"

    # ------------------------------------------------------------------------ fit and transform

    def fit(self, df: Any) -> TablePreprocessor:
        """Learn the steps from a DataFrame, forgetting those learned before; returns itself.

        Raises `DataError`, with the column and the index of the row, for what can be neither a
        number nor a category.
        """
        self.fit_table(frame_table("TablePreprocessor.fit", df))
        return self

    def fit_transform(self, df: Any) -> TableDataset:
        """Learn the steps from a DataFrame and return its rows as a data set."""
        return self.fit_table(frame_table("TablePreprocessor.fit_transform", df))

    def transform(self, df: Any) -> TableDataset:
        """Return the rows of a DataFrame as a data set, by the steps learned from another.

        The frame has the columns of the one that was learned from; with the target it gives samples
        ``(features, target)``, without it ``(features,)``. A category that was not there is none:
        its row has 0 in all columns of the categories. The ``unseen`` of the data set counts such
        values for each column, and one warning tells of them.

        Raises `DataError` for a column that is missing or was not there before, and for what is no
        number in a column of numbers.
        """
        self._learned("transform")
        return self.transform_table(frame_table("transform", df, empty=True))

    def transform_table(self, table: Table) -> TableDataset:
        """`transform`, on behalf of whatever reads tables."""
        steps = self._learned("transform")
        self._check_columns(table, steps)
        made = self._make(table, steps, {name: _finite(table, name) for name in steps.numbers})
        if made.unseen:
            warn(_unseen_text(table, made.unseen))
        return made

    def fit_table(self, table: Table) -> TableDataset:
        """`fit_transform`, on behalf of whatever reads tables."""
        options = self.options
        for name in options.targets:
            _require_column(table, "target", name)
        names = _feature_names(table, options.targets, options.columns)
        categories = [name for name in names if options.one_hot and _is_category(table, name)]
        arrays = {name: _finite(table, name) for name in names if name not in categories}
        steps = _Steps(
            columns=names,
            whole=_are_whole(table, options.targets),
            ignored=[name for name in table.frame.columns if name not in names],
            numbers={name: _learn(table, name, arrays[name], options) for name in arrays},
            categories={name: _categories(table, name, options) for name in categories},
        )
        made = self._make(table, steps, arrays)
        self._steps = steps
        return made

    def _make(self, table: Table, steps: _Steps, arrays: dict[str, np.ndarray]) -> TableDataset:
        dtype = self.options.dtype
        matrix = np.zeros((len(table.frame), len(steps.feature_names)), dtype)
        for j, (name, column) in enumerate(steps.numbers.items()):
            values = _completed(table, name, arrays[name], column, self.options.standardize)
            matrix[:, j] = _cast(table, name, values, dtype)
        start, unseen = len(steps.numbers), {}
        for name, categories in steps.categories.items():
            codes = _codes(table, name, categories)
            known = np.flatnonzero(codes >= 0)
            matrix[known, start + codes[known]] = 1
            start += len(categories.feature_names(name))
            if len(known) < len(codes):
                unseen[name] = len(codes) - len(known)
        tensors = [matrix]
        there = [name for name in self.options.targets if name in table.frame.columns]
        if there:
            y = _targets(table, there, dtypes.int64 if steps.whole else dtype)
            tensors.append(y[:, 0] if isinstance(self.options.target, str) else y)
        made = TableDataset(
            *tensors, feature_names=steps.feature_names, target_names=there, preprocessor=self
        )
        made.unseen = unseen
        return made

    def _check_columns(self, table: Table, steps: _Steps) -> None:
        names = list(table.frame.columns)
        missing = [name for name in steps.columns if name not in names]
        known = {*steps.columns, *steps.ignored}
        extra = [name for name in names if name not in known]
        there = [name for name in self.options.targets if name in names]
        if missing or extra:
            got = [f"none named {_listed(missing)}"] * bool(missing)
            got += [f"{_listed(extra)} besides"] * bool(extra)
            hint = f"drop what is not needed: df.drop(columns={extra[:3]!r})"
            hint = "rename or add what is missing" if missing else hint
            expected = f"the {len(steps.columns)} columns the steps were learned from"
            raise DataError(
                message(table.operation, expected=expected, got=" and ".join(got), hint=hint)
            )
        if there and len(there) < len(self.options.targets):
            expected = f"all targets, {_listed(self.options.targets)}, or none"
            raise DataError(
                message(table.operation, expected=expected, got=f"{_listed(there)} alone")
            )

    def _learned(self, operation: str) -> _Steps:
        if self._steps is None:
            raise StateError(
                f"TablePreprocessor.{operation}: expected steps to apply, got none; call fit(df) "
                "or load_state_dict(state) first"
            )
        return self._steps

    # ------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """The options and all that was learned: numbers, text, and lists and dicts of them."""
        steps = self._learned("state_dict")
        options = self.options
        return {
            **options._asdict(),
            "dtype": options.dtype.name,
            "used": list(steps.columns),
            "whole": steps.whole,
            "ignored": list(steps.ignored),
            "numbers": {name: list(column) for name, column in steps.numbers.items()},
            "categories": {name: list(each) for name, each in steps.categories.items()},
        }

    def load_state_dict(self, state: Any) -> None:
        """Take over the options and steps of another, from its `state_dict`.

        Raises `StateError` for a dict that is none.
        """
        operation = "TablePreprocessor.load_state_dict"
        expected = "a dict that TablePreprocessor.state_dict gave"
        keys = (*Options._fields, "used", "whole", "ignored", "numbers", "categories")
        missing = [key for key in keys if not isinstance(state, Mapping) or key not in state]
        if missing:
            raise StateError(
                message(operation, expected=expected, got=f"one without {_listed(missing)}")
            )
        check_fields(f"{operation}: expected {expected}", state, _STATE)
        options = Options(**{key: state[key] for key in Options._fields}).checked(operation)
        steps = _Steps(
            columns=list(state["used"]),
            whole=state["whole"],
            ignored=list(state["ignored"]),
            numbers={name: _Column(*each) for name, each in state["numbers"].items()},
            categories={name: _Categories(*each) for name, each in state["categories"].items()},
        )
        problem = _problem(steps, options)
        if problem:
            raise StateError(message(operation, expected=expected, got=problem))
        self._steps, self.options = steps, options


# ---------------------------------------------------------------- options and what is learned


class Options(NamedTuple):
    """How a table becomes tensors, as a user says it."""

    target: Names
    columns: Sequence[str] | None
    dtype: Any
    missing: str | float
    one_hot: bool
    standardize: bool

    @property
    def targets(self) -> list[str]:
        """The names of the targets, none to several."""
        if self.target is None:
            return []
        return [self.target] if isinstance(self.target, str) else list(self.target)

    def checked(self, operation: str) -> Options:
        """The options with a dtype and a list of columns; refuses what they may not be."""
        dtype = dtypes.as_dtype(self.dtype)
        columns = [self.columns] if isinstance(self.columns, str) else self.columns
        columns = _as_text(operation, "columns", columns)
        target = _as_text(operation, "target", self.target)
        _check_missing(operation, self.missing)
        for option in ("one_hot", "standardize"):  # "no" would be true
            require_option(operation, option, getattr(self, option), (True, False))
        if self.standardize and not dtypes.is_floating(dtype):
            raise OptionError(
                message(
                    operation, expected="a floating dtype with standardize=True", got=dtype.name
                )
            )
        missing = self.missing if isinstance(self.missing, str) else float(self.missing)
        return self._replace(target=target, columns=columns, dtype=dtype, missing=missing)


def _as_text(operation: str, option: str, names: Any) -> Any:
    """Names of columns as text, since those of tables are taken so; refuses one given twice."""
    if names is None or isinstance(names, str):
        return names
    if not isinstance(names, Iterable):  # the number of a column that has no other name
        return str(names) if option == "target" else [str(names)]
    found = [str(name) for name in names]
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise OptionError(
            message(
                operation, expected=f"each name in {option} once", got=f"{_listed(twice)} again"
            )
        )
    return found


class _Column(NamedTuple):
    """What was learned of a column of numbers."""

    fill: float  # in place of what is missing
    mean: float  # these two where the column is standardized
    std: float


class _Categories(NamedTuple):
    """What was learned of a column of categories."""

    levels: list[Any]
    missing: str | None  # the end of the name of the column for rows without any; None for none

    def feature_names(self, name: str) -> list[str]:
        ends = self.levels if self.missing is None else [*self.levels, self.missing]
        return [f"{name}_{end}" for end in ends]


@dataclass
class _Steps:
    """What was learned from a table."""

    columns: list[str]  # that are features
    whole: bool  # whether the targets are whole numbers
    ignored: list[str]  # that are not
    numbers: dict[str, _Column]
    categories: dict[str, _Categories]

    @cached_property
    def feature_names(self) -> list[str]:
        ends = [each.feature_names(name) for name, each in self.categories.items()]
        return [*self.numbers, *chain.from_iterable(ends)]


_STATE = {
    "dtype": TEXT, "one_hot": FLAG, "standardize": FLAG, "missing": ANYTHING,
    "target": ANYTHING, "columns": Maybe([TEXT]), "used": [TEXT], "whole": FLAG, "ignored": [TEXT],
    "numbers": Each((NUMBER, NUMBER, NUMBER)), "categories": Each(([ANYTHING], Maybe(TEXT))),
}  # fmt: skip


def _problem(steps: _Steps, options: Options) -> str:
    """What no table can have taught, in words; empty for steps that can be applied."""
    if sorted([*steps.numbers, *steps.categories]) != sorted(steps.columns):
        return "one whose columns are not those it has learned"
    for name, column in steps.numbers.items():
        if options.standardize and not (math.isfinite(column.mean) and 0 < column.std < math.inf):
            return f"one with the mean {column.mean} and the deviation {column.std} of {name!r}"
        if math.isinf(column.fill):
            return f"one that fills {name!r} with {column.fill}"
    for name, each in steps.categories.items():
        try:
            distinct = len(set(each.levels)) == len(each.levels)
        except TypeError:  # a list, which has no hash
            distinct = False
        if not distinct:
            return f"one with a category of {name!r} twice, or with what is no category"
    return ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


# ------------------------------------------------------------------------------------- tables


class Table(NamedTuple):
    """A DataFrame, and how to speak of it: the operation, its source, the place of a row."""

    frame: Any
    operation: str
    source: str
    place: Callable[[int], str]

    def refuse(self, column: str, row: int, expected: str, got: str, hint: str) -> NoReturn:
        where = f"{self.source}, {self.place(row)}, column {column!r}"
        raise DataError(f"{self.operation}: {where}: expected {expected}, got {got}; {hint}")


def frame_table(operation: str, df: Any, empty: bool = False) -> Table:
    """A DataFrame from a user as a table; refuses what is none, or has nothing to learn from."""
    pandas = find_pandas(operation)
    if not isinstance(df, pandas.DataFrame):
        raise OptionError(message(operation, expected="a pandas DataFrame", got=type(df).__name__))
    frame = df.set_axis([str(name) for name in df.columns], axis="columns")
    if not len(frame.columns) or not (len(frame) or empty):
        rows, width = frame.shape
        raise DataError(
            message(
                operation,
                expected="a DataFrame with rows and columns",
                got=f"{rows} rows and {width} columns",
            )
        )
    check_names(operation, "the DataFrame", list(frame.columns))

    def place(row: int) -> str:
        (label,) = df.index[row : row + 1].tolist()  # 3, where an index gives np.int64(3)
        return f"row {label!r}"

    return Table(frame, operation, "the DataFrame", place)


def check_names(operation: str, source: str, names: list[str]) -> None:
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


def find_pandas(operation: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise missing_dependency("pandas", "data", operation) from None
    return pandas


def _check_missing(operation: str, missing: Any) -> None:
    number = isinstance(missing, Real) and not isinstance(missing, bool)
    known = isinstance(missing, str) and missing in ("error", "mean")
    if not known and not (number and math.isfinite(missing)):
        raise OptionError(
            message(
                operation,
                expected="missing='error', 'mean' or a number",
                got=f"missing={missing!r}",
            )
        )


def _require_column(table: Table, role: str, name: str) -> None:
    names = list(table.frame.columns)
    if name in names:
        return
    close = get_close_matches(str(name), names, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    shown = printable(", ".join(names[:20])) + (
        f", … ({len(names)} in all)" if len(names) > 20 else ""
    )
    one_field = len(names) == 1 and table.operation == "read_csv"
    raise DataError(
        message(
            table.operation,
            expected=f"a column of {table.source} as {role}",
            got=repr(name),
            hint=f"{meant}it has: {shown}" + "; for another separator, give sep=" * one_field,
        )
    )


def _feature_names(table: Table, targets: list[str], columns: Sequence[str] | None) -> list[str]:
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


# ------------------------------------------------------------------------------------ numbers


def _numbers(table: Table, name: str, instead: str = "choose other columns") -> np.ndarray:
    """A column as a new array of numbers or bools, missing values as NaN."""
    pandas = find_pandas(table.operation)
    types = pandas.api.types
    column = table.frame[name]
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        pass
    elif _is_text(table, name):
        numbers = pandas.to_numeric(column, errors="coerce")
        column = _parsed(table, name, column, numbers, f"mend it, or {instead}")
    else:
        raise DataError(
            message(
                table.operation,
                expected=f"numbers in column {name!r} of {table.source}",
                got=str(column.dtype),
                hint=f"convert it to numbers, or {instead}",
            )
        )
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    kind = getattr(column.dtype, "numpy_dtype", column.dtype)  # Int64 and kin know their own
    return column.to_numpy(dtype=kind if isinstance(kind, np.dtype) else np.float64, copy=True)


def _is_text(table: Table, name: str) -> bool:
    """Whether a column may hold text, as one of objects does where a single value is none."""
    types, column = find_pandas(table.operation).api.types, table.frame[name]
    if column.dtype == "category":  # pandas counts one of texts as text
        return False
    return bool(types.is_object_dtype(column) or types.is_string_dtype(column))


def _parsed(table: Table, name: str, column: Any, numbers: Any, hint: str) -> Any:
    """``numbers``, what pandas made of a column of text; refuses the first that is none."""
    text = (numbers.isna() & column.notna()).to_numpy()
    if text.any():
        row = int(text.argmax())
        table.refuse(name, row, "a number", repr(column.iloc[row]), hint)
    return numbers


def _cast(table: Table, name: str, values: np.ndarray, dtype: Any) -> np.ndarray:
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


def _finite(table: Table, name: str) -> np.ndarray:
    """The numbers of a column; refuses infinities, which have no place in a mean."""
    values = _numbers(table, name)
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        hint = "mend it, or drop the row"
        table.refuse(name, row, "a finite number", str(values[row]), hint)
    return values


def _gaps(values: np.ndarray) -> np.ndarray:
    """Where values are missing."""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def _learn(table: Table, name: str, values: np.ndarray, options: Options) -> _Column:
    gaps = _gaps(values)
    needs_mean = options.missing == "mean" or options.standardize
    if gaps.all() and needs_mean:
        hint = "the whole column is empty and has no mean; leave it out of columns"
        table.refuse(name, 0, "a number", "nothing", hint)
    # pandas' own sums, so that the last digit is that of df.fillna(df.mean()).
    series = find_pandas(table.operation).Series(values.astype(np.float64, copy=False))
    with np.errstate(all="ignore"):
        mean, std = float(series.mean()), 1.0
        # Of equal values, rounding may leave a deviation that is not quite 0, to be divided by; of
        # very small ones it is 0.
        if options.standardize and np.ptp(series[~gaps]) > 0:
            std = float(series.std()) or 1.0
    if needs_mean and not (math.isfinite(mean) and math.isfinite(std)):
        row = int(series.abs().argmax())
        hint = "the mean or deviation of the column overflows; scale it down"
        table.refuse(name, row, "numbers that float64 can average", str(values[row]), hint)
    if options.missing == "error":
        return _Column(math.nan, mean, std)
    return _Column(mean if options.missing == "mean" else float(options.missing), mean, std)


def _completed(
    table: Table, name: str, values: np.ndarray, column: _Column, standardize: bool
) -> np.ndarray:
    """The values without gaps, and standardized if that is wanted."""
    gaps = _gaps(values)
    if gaps.any():
        if math.isnan(column.fill):
            hint = "give missing='mean' or missing=<number>, or drop the row"
            table.refuse(name, int(gaps.argmax()), "a number", "nothing", hint)
        values[gaps] = column.fill
    return (values - column.mean) / column.std if standardize else values


# --------------------------------------------------------------------------------- categories


def _is_category(table: Table, name: str) -> bool:
    """Whether pandas.get_dummies would encode the column."""
    return table.frame[name].dtype == "category" or _is_text(table, name)


def _categories(table: Table, name: str, options: Options) -> _Categories:
    pandas, column = find_pandas(table.operation), table.frame[name]
    try:
        known = column.cat if column.dtype == "category" else pandas.Categorical(column)
        levels = known.categories
        missing = str(levels.insert(len(levels), np.nan)[-1])  # "nan", or "<NA>" for some dtypes
        return _Categories(levels.tolist(), None if options.missing == "error" else missing)
    except TypeError as error:  # lists and the like, which have no hash
        raise _no_category(table, name, error) from None


def _no_category(table: Table, name: str, error: TypeError) -> DataError:
    return DataError(
        message(
            table.operation,
            expected=f"numbers, text or categories in column {name!r} of {table.source}",
            got=str(error),
            hint="convert them, or choose other columns",
        )
    )


def _codes(table: Table, name: str, categories: _Categories) -> np.ndarray:
    """The place of each value among the features of its column; -1 for an unseen category."""
    column = table.frame[name]
    levels = find_pandas(table.operation).Index(categories.levels, dtype=object)
    try:
        codes = levels.get_indexer(column.astype(object))
    except TypeError as error:
        raise _no_category(table, name, error) from None
    gaps = column.isna().to_numpy()
    if gaps.any():
        if categories.missing is None:
            hint = "give missing='mean', which makes a column for it, or drop the row"
            table.refuse(name, int(gaps.argmax()), "a category", "nothing", hint)
        codes[gaps] = len(levels)
    return np.asarray(codes)


def _unseen_text(table: Table, unseen: dict[str, int]) -> str:
    count = sum(unseen.values())
    columns = ", ".join(f"{number} in {name!r}" for name, number in unseen.items())
    values = "1 value is" if count == 1 else f"{count} values are"
    return (
        f"{table.operation}: {values} none of the categories learned and count{'s' * (count == 1)} "
        f"as none of them: {columns}"
    )


# ------------------------------------------------------------------------------------ targets


_TARGET_HINT = "number the classes, as df[...].astype('category').cat.codes does"


def _are_whole(table: Table, names: list[str]) -> bool:
    """Whether all targets are whole numbers, by their dtypes."""
    return all(_numbers(table, name, _TARGET_HINT).dtype.kind in "iub" for name in names)


def _targets(table: Table, names: list[str], dtype: Any) -> np.ndarray:
    found = {name: _numbers(table, name, _TARGET_HINT) for name in names}
    for name, values in found.items():
        gaps = _gaps(values)
        if gaps.any():
            row = int(gaps.argmax())
            table.refuse(name, row, "a target", "nothing", "drop the rows without a target")
    return np.stack([_cast(table, name, values, dtype) for name, values in found.items()], axis=1)
