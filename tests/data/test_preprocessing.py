"""Tables as pandas would encode them, and the steps applied to tables that come later."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import gradlab as gl
from gradlab.data import DataLoader, TableDataset, TablePreprocessor, from_dataframe
from gradlab.errors import DataError, OptionError, StateError
from refusals import refusal


def tiny() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rooms": [None, 2, 4, None],
            "roof": [None, None, "slate", None],
            "price": [127500, 106000, 178100, 140000],
        }
    )


# ----------------------------------------------------------------------------- as pandas does it


def test_house_tiny():
    data = from_dataframe(tiny(), target="price")
    assert data.feature_names == ["rooms", "roof_slate", "roof_nan"]
    assert data.features.tolist() == [[3, 0, 1], [2, 0, 1], [4, 1, 0], [3, 0, 1]]
    assert data.targets.tolist() == [127500, 106000, 178100, 140000]
    assert [x.shape for x in next(iter(DataLoader(data, 3)))] == [(3, 3), (3,)]


def test_several_targets_and_chosen_columns():
    frame = tiny().fillna({"rooms": 1})
    data = from_dataframe(frame, target=["price", "rooms"], columns=["roof"])
    assert data.feature_names == ["roof_slate", "roof_nan"]
    assert data.targets.shape == (4, 2)


_NUMBERS = st.floats(-1e6, 1e6, allow_nan=False) | st.none()
_LETTERS = ["a", "ab", "", "ö", "1", "nan"]
_TEXT = st.sampled_from(_LETTERS) | st.none()
_COLUMNS = {
    "float": lambda values: pd.array([np.nan if v is None else v for v in values], dtype=float),
    "int": lambda values: np.array([int(v or 0) for v in values]),
    "bool": lambda values: np.array([bool(v) for v in values]),
    "Int64": lambda values: pd.array([None if v is None else int(v) for v in values], "Int64"),
    "boolean": lambda values: pd.array([None if v is None else v > 0 for v in values], "boolean"),
    "str": lambda texts: pd.array(texts, dtype="str"),
    "string": lambda texts: pd.array(texts, dtype="string"),
    "object": lambda texts: np.array(texts, dtype=object),
    "category": lambda texts: pd.Categorical(texts, categories=["b", *_LETTERS, "c"]),
    "numbers": lambda values: pd.Categorical([None if v is None else v > 0 for v in values]),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from(list(_COLUMNS)), min_size=1, max_size=6))
    columns = {}
    for i, kind in enumerate(kinds):
        of = _TEXT if kind in ("str", "string", "object", "category") else _NUMBERS
        values = draw(st.lists(of, min_size=rows, max_size=rows))
        if of is _NUMBERS and values[0] is None:
            values[0] = 1.0  # a column without values has no mean
        columns[f"{kind}{i}"] = _COLUMNS[kind](values)
    return pd.DataFrame(columns)


def encoded(frame: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """What the notes do in steps."""
    dummies = pd.get_dummies(frame, dummy_na=True)
    values = pd.DataFrame(dummies.to_numpy(dtype=float, na_value=np.nan))
    return list(dummies.columns), values.fillna(values.mean()).to_numpy()


@given(frames())
def test_features_are_those_of_get_dummies(frame):
    names, values = encoded(frame)
    data = from_dataframe(frame, dtype="float64")
    assert data.feature_names == names
    np.testing.assert_array_equal(data.features.numpy(), values)


@given(frames(), st.data())
def test_new_rows_are_encoded_as_the_rows_learned(frame, data):
    learned = from_dataframe(frame, dtype="float64", standardize=True)
    rows = data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=10))
    again = learned.transform(frame.iloc[rows])
    np.testing.assert_array_equal(again.features.numpy(), learned.features.numpy()[rows])
    assert again.feature_names == learned.feature_names


@given(frames())
def test_the_steps_survive_their_file(tmp_path_factory, frame):
    learned = from_dataframe(frame, dtype="float64", standardize=True)
    path = tmp_path_factory.getbasetemp() / "steps.safetensors"
    gl.save(learned.preprocessor.state_dict(), path)
    steps = TablePreprocessor()
    steps.load_state_dict(gl.load(path))
    assert steps.feature_names == learned.feature_names
    again = steps.transform(frame).features.numpy()
    np.testing.assert_array_equal(again, learned.features.numpy())


def test_standardized_as_the_notes_do():
    frame = tiny().drop(columns="roof").assign(flag=[True, False, True, True], same=0.1)
    expected = frame.apply(lambda x: (x - x.mean()) / x.std()).fillna(0)
    expected["same"] = 0.0
    got = from_dataframe(frame, standardize=True, dtype="float64").features.numpy()
    np.testing.assert_allclose(got, expected.to_numpy(), rtol=1e-12, atol=1e-12)
    tiny_ones = pd.DataFrame({"x": [0.0, 1e-308]})  # whose deviation is 0 in float64
    assert from_dataframe(tiny_ones, standardize=True).features.tolist() == [[0], [0]]


# --------------------------------------------------------------------------------------- new rows


def test_unseen_categories_are_none_and_counted():
    data = from_dataframe(tiny(), target="price")
    new = pd.DataFrame({"rooms": [1, None, 2], "roof": ["tile", "slate", "thatch"]})
    with pytest.warns(UserWarning, match="none of the categories learned") as told:
        made = data.transform(new)
    assert [str(each.message) for each in told] == [
        "transform: 2 values are none of the categories learned and count as none of them: "
        "2 in 'roof'"
    ]
    assert told[0].filename == __file__
    assert made.unseen == {"roof": 2}
    assert data.unseen == {}
    assert made.features.tolist() == [[1, 0, 0], [3, 1, 0], [2, 0, 0]]
    assert (made.targets, made.target_names) == (None, [])


def test_new_rows_with_a_target_in_any_order_of_columns():
    data = from_dataframe(tiny(), target="price")
    made = data.transform(tiny()[["price", "roof", "rooms"]].iloc[:2])
    assert made.features.tolist() == data.features.tolist()[:2]
    assert made.targets.tolist() == [127500, 106000]
    assert made.transform(tiny()).features.tolist() == data.features.tolist()


def test_targets_keep_their_dtype():
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0.5, 1.0]})
    data = from_dataframe(frame, target="y")
    assert data.transform(pd.DataFrame({"x": [1.0], "y": [3]})).targets.dtype.name == "float32"
    labels = from_dataframe(frame.assign(y=[0, 1]), target="y")
    assert labels.transform(pd.DataFrame({"x": [1], "y": [1.0]})).targets.dtype.name == "int64"
    assert refusal(labels.transform, frame) == (
        "transform: the DataFrame, row 0, column 'y': expected a number that fits int64, got 0.5; "
        "choose another dtype"
    )


def test_frames_without_rows():
    data = from_dataframe(tiny(), target="price")
    made = data.transform(pd.DataFrame({"rooms": [], "roof": []}))
    assert (len(made), made.features.shape) == (0, (0, 3))


def test_a_column_that_lost_its_values_is_missing_throughout():
    data = from_dataframe(tiny(), target="price")
    made = data.transform(pd.DataFrame({"rooms": [None, None], "roof": [np.nan, np.nan]}))
    assert made.features.tolist() == [[3, 0, 1], [3, 0, 1]]


def test_columns_that_do_not_fit():
    data = from_dataframe(tiny(), columns=["rooms", "roof"])  # price is known, and not used
    assert data.transform(tiny()).features.tolist() == data.features.tolist()
    text = refusal(data.transform, tiny().rename(columns={"rooms": "room"}))
    assert text == (
        "transform: expected the 2 columns the steps were learned from, got none named 'rooms' and "
        "'room' besides; rename or add what is missing"
    )
    assert refusal(data.transform, tiny().assign(room=1)) == (
        "transform: expected the 2 columns the steps were learned from, got 'room' besides; "
        "drop what is not needed: df.drop(columns=['room'])"
    )
    assert refusal(data.transform, tiny()[["rooms"]]) == (
        "transform: expected the 2 columns the steps were learned from, got none named 'roof'; "
        "rename or add what is missing"
    )
    two = from_dataframe(tiny().fillna({"rooms": 0}), target=["price", "rooms"])
    assert refusal(two.transform, tiny()[["roof", "price"]]) == (
        "transform: expected all targets, 'price', 'rooms', or none, got 'price' alone"
    )
    assert refusal(data.transform, tiny().assign(rooms="many")) == (
        "transform: the DataFrame, row 0, column 'rooms': expected a number, got 'many'; "
        "mend it, or choose other columns"
    )
    assert refusal(data.transform, [1]) == "transform: expected a pandas DataFrame, got list"


def test_missing_targets_are_refused():
    data = from_dataframe(tiny(), target="price")
    assert refusal(data.transform, tiny().assign(price=[1, None, 3, 4])) == (
        "transform: the DataFrame, row 1, column 'price': expected a target, got nothing; "
        "drop the rows without a target"
    )


# ---------------------------------------------------------------------------------------- options


def test_columns_and_rows_without_text_for_a_name():
    frame = pd.DataFrame([[1, 2.0], [3, np.inf]], index=[7, 7])
    assert refusal(from_dataframe, frame, target=0) == (
        "from_dataframe: the DataFrame, row 7, column '1': expected a finite number, got inf; "
        "mend it, or drop the row"
    )
    data = from_dataframe(frame[:1], target=0, columns=1, missing=np.float32(2))
    assert (data.feature_names, data.features.tolist()) == (["1"], [[2]])
    assert data.targets.tolist() == [1]


def test_strict_tables():
    whole = pd.DataFrame({"x": [1, 2], "kind": ["a", "b"]})
    data = from_dataframe(whole, missing="error")
    assert data.feature_names == ["x", "kind_a", "kind_b"]
    assert refusal(data.transform, pd.DataFrame({"x": [1], "kind": [None]})) == (
        "transform: the DataFrame, row 0, column 'kind': expected a category, got nothing; "
        "give missing='mean', which makes a column for it, or drop the row"
    )
    assert refusal(data.transform, pd.DataFrame({"x": [None], "kind": ["a"]})) == (
        "transform: the DataFrame, row 0, column 'x': expected a number, got nothing; "
        "give missing='mean' or missing=<number>, or drop the row"
    )


def test_a_number_for_what_is_missing():
    data = from_dataframe(tiny(), target="price", missing=-1)
    assert data.features.tolist()[0] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("frame", "options", "text"),
    [
        (
            {"a": [None, None]},
            {"columns": ["a"], "one_hot": False},
            "the DataFrame, row 0, column 'a': expected a number, got nothing; "
            "the whole column is empty and has no mean; leave it out of columns",
        ),
        (
            {"a": [[1], [2]]},
            {},
            "expected numbers, text or categories in column 'a' of the DataFrame, got unhashable "
            "type: 'list'; convert them, or choose other columns",
        ),
        (
            {"a": [1.0, np.inf]},
            {},
            "the DataFrame, row 1, column 'a': expected a finite number, got inf; "
            "mend it, or drop the row",
        ),
        (
            {"a": [1]},
            {"standardize": True, "dtype": "int64"},
            "expected a floating dtype with standardize=True, got int64",
        ),
        ({"a": [1]}, {"standardize": "no"}, "expected standardize one of True, False, got 'no'"),
        ({"a": [1]}, {"missing": "median"}, "expected missing='error', 'mean' or a number, got "
         "missing='median'"),
        ({"a": [1]}, {"missing": np.zeros(2)}, "expected missing='error', 'mean' or a number, got "
         "missing=array([0., 0.])"),
        ({"a": [1]}, {"columns": ["a", "a"]}, "expected each name in columns once, got 'a' again"),
        ({"a": [1]}, {"target": ["a", "a"]}, "expected each name in target once, got 'a' again"),
        ({"a": [1]}, {"target": 3}, "expected a column of the DataFrame as target, got '3'; "
         "it has: a"),
        (
            {"a": [1, 2], "y": ["no", "yes"]},
            {"target": "y"},
            "the DataFrame, row 0, column 'y': expected a number, got 'no'; mend it, or number the "
            "classes, as df[...].astype('category').cat.codes does",
        ),
        (
            {"a": [1e308, -1.7e308]},
            {"standardize": True},
            "the DataFrame, row 1, column 'a': expected numbers that float64 can average, got "
            "-1.7e+308; the mean or deviation of the column overflows; scale it down",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(frame, options, text):
    assert refusal(from_dataframe, pd.DataFrame(frame), **options) == f"from_dataframe: {text}"


def test_states_that_do_not_fit():
    steps = TablePreprocessor(target="price")
    assert repr(steps) == "TablePreprocessor(not fitted)"
    with pytest.raises(StateError):
        steps.load_state_dict({"target": None})
    damaged = TablePreprocessor().fit(tiny()).state_dict() | {"numbers": [1]}
    assert refusal(steps.load_state_dict, damaged).startswith(
        "TablePreprocessor.load_state_dict: expected a dict that TablePreprocessor.state_dict gave"
    )
    assert steps.options.target == "price"
    for call in (lambda: steps.transform(tiny()), steps.state_dict, lambda: steps.feature_names):
        assert "call fit(df) or load_state_dict(state) first" in refusal(call)
    assert repr(steps.fit(tiny())) == "TablePreprocessor(2 columns to 3 features)"
    assert steps.fit_transform(tiny()).preprocessor is steps
    with pytest.raises(DataError):
        steps.fit(tiny().drop(columns="price"))
    with pytest.raises(OptionError):
        TableDataset(np.zeros((2, 1)), feature_names=["x"]).transform(tiny())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"used": ["rooms", "roof", "x"]}, "whose columns are not those it has learned"),
        ({"used": [1]}, "used[0] to be a string, got 1"),
        ({"whole": "no"}, "whole to be True or False, got 'no'"),
        ({"numbers": {"rooms": (0.0, 1.0)}}, "numbers['rooms'] to be a list of 3"),
        ({"numbers": {"rooms": (0.0, 1.0, "x")}}, "numbers['rooms'][2] to be a number, got 'x'"),
        ({"numbers": {"rooms": (0.0, 1.0, 0.0)}}, "the mean 1.0 and the deviation 0.0 of 'rooms'"),
        ({"numbers": {"rooms": (math.inf, 1.0, 1.0)}}, "one that fills 'rooms' with inf"),
        ({"categories": {"roof": (["a", "a"], "nan")}}, "a category of 'roof' twice"),
        ({"categories": {"roof": ([["a"]], "nan")}}, "or with what is no category"),
        ({"categories": {"roof": (["a"], 3)}}, "categories['roof'][1] to be a string, got 3"),
        ({"dtype": None}, "dtype to be a string, got None"),
        ({"\x1b": 1, "ignored": "x"}, "ignored to be a list, got 'x'"),
    ],
)
def test_fields_of_a_state_that_are_refused(change, text):
    frame = pd.DataFrame({"rooms": [1.0, 2.0], "roof": ["a", None]})
    steps = TablePreprocessor(standardize=True).fit(frame)
    before = steps.state_dict()
    assert text in refusal(steps.load_state_dict, {**before, **change})
    assert steps.state_dict() == before


def test_names_of_columns_do_not_reach_the_terminal_raw():
    frame = pd.DataFrame({"a\x1b[2J": [1, 2], "y\n": [0, 1]})
    assert refusal(from_dataframe, frame, target="z").isprintable()
    assert r"a\x1b[2J" in refusal(from_dataframe, frame, target="z")
    assert repr(from_dataframe(frame, target="y\n")).isprintable()
    data = from_dataframe(frame, target="y\n")
    assert refusal(data.transform, pd.DataFrame({"b\x07": [1]})).isprintable()
