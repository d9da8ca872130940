"""Tables of numbers: what they become, and one clear line for each thing that is none."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab._environment import pip_install
from gradlab.data import CSVDataset, DataLoader, TableDataset, from_dataframe, read_csv
from gradlab.errors import DataError, DTypeError, MissingDependencyError, OptionError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the current folder, so that messages name it without a path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "t.csv") -> str:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def refusal(*args, **kwargs) -> str:
    with pytest.raises((DataError, OptionError)) as raised:
        read_csv(*args, **kwargs)
    text = str(raised.value)
    assert text.startswith("read_csv: ")
    assert "\n" not in text
    return text.removeprefix("read_csv: ")


HOUSES = "rooms,area,price\n3,70.5,200\n4,95,310\n2,48,150\n"


# ------------------------------------------------------------------------------------ reading


def test_features_and_target(write):
    data = read_csv(write(HOUSES), target="price")
    assert isinstance(data, CSVDataset)
    assert isinstance(data, TableDataset)
    assert (data.feature_names, data.target_names) == (["rooms", "area"], ["price"])
    assert data.features.tolist() == [[3, 70.5], [4, 95], [2, 48]]
    assert (data.features.dtype.name, data.targets.dtype.name) == ("float32", "int64")
    assert data.targets.tolist() == [200, 310, 150]
    assert repr(data) == "CSVDataset(3 rows, 2 features, target price)"
    batches = [(x.shape, y.tolist()) for x, y in DataLoader(data, 2)]
    assert batches == [((2, 2), [200, 310]), ((1, 2), [150])]


def test_features_alone(write):
    data = read_csv(write(HOUSES), columns=["price", "rooms"], dtype="float64")
    assert (data.feature_names, data.targets) == (["price", "rooms"], None)
    assert (data.features.tolist()[0], data.features.dtype.name) == ([200, 3], "float64")
    assert [each.tolist() for each in data[0]] == [[200, 3]]
    assert repr(data) == "CSVDataset(3 rows, 2 features)"


def test_several_targets_make_a_matrix(write):
    data = read_csv(write(HOUSES), target=["price", "area"])
    assert (data.feature_names, data.targets.shape) == (["rooms"], (3, 2))
    assert data.targets.dtype.name == "float32"
    assert read_csv(write(HOUSES), target=["price"]).targets.tolist() == [[200], [310], [150]]


def test_target_that_is_not_whole_is_floating(write):
    assert read_csv(write(HOUSES), target="area").targets.dtype.name == "float32"


def test_forms_of_a_file(write):
    plain = read_csv(write(HOUSES)).features.tolist()
    forms = {
        "bom.csv": b"\xef\xbb\xbf" + HOUSES.encode(),
        "crlf.csv": HOUSES.replace("\n", "\r\n").encode(),
        "blank.csv": ("\n\n" + HOUSES.replace("\n", "\n\n")).encode(),
        "spaces.csv": HOUSES.replace(",", " , ").encode(),
        "no_newline.csv": HOUSES.strip().encode(),
        "trailing.csv": HOUSES.replace("\n", ",\n").replace("price,", "price").encode(),
        "quoted.csv": HOUSES.replace("rooms", '"rooms"').replace("95", '"95"').encode(),
        "t.csv.gz": gzip.compress(HOUSES.encode()),
    }
    for name, content in forms.items():
        data = read_csv(Path(write(content, name)))
        assert data.feature_names == ["rooms", "area", "price"], name
        assert data.features.tolist() == plain, name
    other = read_csv(write(HOUSES.replace(",", ";")), sep=";", target="price")
    assert other.features.tolist() == [row[:2] for row in plain]
    latin = read_csv(write("größe,x\n1,2\n".encode("latin-1")), encoding="latin-1")
    assert latin.feature_names == ["größe", "x"]
    assert read_csv(write("0,1\n5,6\n")).feature_names == ["0", "1"]


def test_bools_and_exponents_are_numbers(write):
    data = read_csv(write("a,b\nTrue,1e-3\nFalse,-2E2\n"))
    assert data.features.tolist() == [[1, pytest.approx(0.001)], [0, -200]]


# ------------------------------------------------------------------------------ missing values


def test_missing_values_are_replaced_on_request(write):
    path = write("a,b\n1,\n3,4\nNA,8\n")
    assert read_csv(path, missing="mean").features.tolist() == [[1, 6], [3, 4], [2, 8]]
    assert read_csv(path, missing=-1).features.tolist() == [[1, -1], [3, 4], [-1, 8]]


def test_missing_values_are_an_error_otherwise(write):
    path = write("a,b\n1,2\n\n3,\n")
    assert refusal(path) == (
        "t.csv, line 4, column 'b': expected a number, got nothing; "
        "give missing='mean' or missing=<number>, or drop the row"
    )
    for missing in ("error", "mean", 0):
        assert refusal(path, target="b", missing=missing) == (
            "t.csv, line 4, column 'b': expected a target, got nothing; "
            "drop the rows without a target"
        )
    assert refusal(write("a,b\n1,\n2,\n"), missing="mean") == (
        "t.csv, line 2, column 'b': expected a number, got nothing; "
        "the whole column is empty and has no mean; leave it out of columns"
    )
    for missing in ("median", None, float("nan"), True):
        assert refusal(path, missing=missing) == (
            f"expected missing='error', 'mean' or a number, got missing={missing!r}"
        )


# ------------------------------------------------------------------------------ what is no number


def test_text_is_named_by_line_and_column(write):
    assert refusal(write("a,b\n1,2\n3,?\n")) == (
        "t.csv, line 3, column 'b': expected a number, got '?'; mend it, or choose other columns"
    )
    # Blank lines, and fields that hold line breaks, count as the editor counts them.
    text = 'note,b\n"two\nlines",2\n\n"x",3\n"y",four\n'
    assert refusal(write(text), columns=["b"]).startswith("t.csv, line 6, column 'b'")
    assert refusal(write(text)).startswith("t.csv, line 2, column 'note'")
    assert "got 'four'" in refusal(write(text), columns=["b"])
    assert refusal(write("a,kind\n1,cat\n"), target="kind").startswith(
        "t.csv, line 2, column 'kind': expected a number, got 'cat'"
    )
    packed = write(gzip.compress(b"a\n1\nx\n"), "t.csv.gz")
    assert refusal(packed).startswith("t.csv.gz, line 3, column 'a'")


def test_text_in_columns_that_are_not_taken_does_no_harm(write):
    data = read_csv(write("name,a\nx,1\ny,2\n"), columns=["a"])
    assert data.features.tolist() == [[1], [2]]


def test_numbers_that_do_not_fit(write):
    assert refusal(write("a\n1\n1e300\n")) == (
        "t.csv, line 3, column 'a': expected a number that fits float32, got 1e+300; "
        "choose another dtype"
    )
    assert read_csv(write("a\n1e300\n"), dtype="float64").features.tolist() == [[1e300]]
    assert refusal(write("a\n1.5\n"), dtype="int64") == (
        "t.csv, line 2, column 'a': expected a number that fits int64, got 1.5; "
        "choose another dtype"
    )
    assert refusal(write("a\ninf\n")) == (
        "t.csv, line 2, column 'a': expected a finite number, got inf; mend it, or drop the row"
    )
    with pytest.raises(DTypeError):
        read_csv(write("a\n1\n"), dtype="text")


# -------------------------------------------------------------------------------------- columns


def test_columns_that_are_not_there(write):
    assert refusal(write(HOUSES), target="prize") == (
        "expected a column of t.csv as target, got 'prize'; "
        "did you mean 'price'? it has: rooms, area, price"
    )
    assert refusal(write(HOUSES), columns=["sauna"]) == (
        "expected a column of t.csv as feature, got 'sauna'; it has: rooms, area, price"
    )
    many = ",".join(f"c{i}" for i in range(30)) + "\n" + ",".join("1" * 30) + "\n"
    assert refusal(write(many), target="?").endswith("c18, c19, … (30 in all)")
    assert refusal(write(HOUSES.replace(",", ";")), target="price").endswith(
        "it has: rooms;area;price; for another separator, give sep="
    )
    assert refusal(write(HOUSES), target="price", columns=["price", "area"]) == (
        "expected columns without the target, got 'price' as both"
    )
    assert refusal(write("a\n1\n"), target="a") == (
        "expected a feature column in t.csv, got none besides the target"
    )
    assert refusal(write("a\n1\n"), columns=[]) == "expected a feature column in t.csv, got none"


def test_names_of_columns(write):
    assert refusal(write("a,b,a\n1,2,3\n")) == (
        "t.csv: expected each column name once, got 'a' more than once; rename them"
    )
    assert refusal(write(",a\n0,2\n")) == (
        "t.csv: expected a name for every column, got none for column 1; "
        "if it holds row numbers, write the file with index=False"
    )
    assert refusal(write("5.1,3.5,2\n4.9,3.0,1\n")) == (
        "t.csv: expected column names in the first line, got numbers (5.1, 3.5, 2, …); "
        "add a line of names, or use pandas.read_csv(..., header=None) and from_dataframe"
    )


# ---------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("text", ["", "\n\n", "   \n"])
def test_empty_file(write, text):
    assert refusal(write(text)) == (
        "t.csv: expected a line of column names and rows of numbers, got an empty file"
    )


def test_file_of_names_alone(write):
    assert refusal(write("a,b\n\n")) == (
        "t.csv: expected rows of numbers, got the line of column names alone"
    )


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("a,b\n1,2\n\n3\n", 4, "1 field"),
        ("a,b\n1,2,3\n4,5,6\n", 2, "3 fields"),
        ("a,b\n1,2\n3,4,5\n", 3, "3 fields"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"missing": "mean"}, {"columns": ["a"]}])
def test_ragged_rows(write, text, line, got, options):
    assert refusal(write(text), **options) == (
        f"t.csv, line {line}: expected 2 fields, as many as there are column names, got {got}"
    )


def test_files_that_are_no_text(write):
    latin = write("größe\n1\n".encode("latin-1"))
    assert refusal(latin) == (
        "t.csv: expected utf-8 text, got the byte 0xf6; give its encoding, "
        "for example encoding='latin-1', or check that it is a CSV file"
    )
    # Beyond the first line, which is read apart.
    late = write(b"name,a\nx,1\n" * 3 + "ö,2\n".encode("latin-1"))
    assert refusal(late).startswith("t.csv: expected utf-8 text, got the byte 0xf6")
    assert refusal(write(HOUSES), encoding="utf-9") == "unknown encoding: utf-9"
    assert refusal(write(b"no gzip", "t.csv.gz")).startswith("t.csv.gz: cannot be read: ")
    cut = gzip.compress(HOUSES.encode() * 50)[:60]
    assert refusal(write(cut, "t.csv.gz")).startswith("t.csv.gz: cannot be read: ")
    assert refusal(write('a,b\n1,"2\n3,4\n')).startswith("t.csv: ")


def test_files_that_cannot_be_opened(write, tmp_path):
    assert refusal("nowhere.csv") == "nowhere.csv: there is no such file"
    (tmp_path / "folder").mkdir()
    assert refusal(str(tmp_path / "folder")).endswith("folder: cannot be read: Is a directory")
    assert refusal(3) == "expected a path, got int"
    assert refusal(write(HOUSES), sep=", ") == "expected sep of one character, got ', '"


# ----------------------------------------------------------------------------------- DataFrames


def test_dataframe():
    frame = pd.DataFrame({"x": [1.0, 2.0], "z": [True, False], "y": [1, 0]}, index=["i", "j"])
    before = frame.copy()
    data = from_dataframe(frame, target="y")
    assert type(data) is TableDataset
    assert (data.feature_names, data.target_names) == (["x", "z"], ["y"])
    assert data.features.tolist() == [[1, 1], [2, 0]]
    assert data.targets.tolist() == [1, 0]
    data.features[0, 0] = 9
    pd.testing.assert_frame_equal(frame, before)  # the data set has its own memory


def test_dataframe_of_other_number_types():
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "floats": pd.array([1.5, None, 2.5], dtype="Float32"),
            "text": ["1", "2.5", None],
            "mixed": [1, None, 2.0],
            "flags": pd.array([True, None, False], dtype="boolean"),
        }
    )
    frame["mixed"] = frame["mixed"].astype(object)
    expected = [[1, 1.5, 1, 1, 1], [-1, -1, 2.5, -1, -1], [3, 2.5, -1, 2, 0]]
    assert from_dataframe(frame, missing=-1, one_hot=False).features.tolist() == expected
    whole = pd.DataFrame({"x": [0.0, 1.0], "y": pd.array([4, 5], dtype="Int64")})
    assert from_dataframe(whole, target="y").targets.dtype.name == "int64"


def test_dataframe_with_names_that_are_numbers():
    data = from_dataframe(pd.DataFrame(np.eye(3)), target="2")
    assert data.feature_names == ["0", "1"]


@pytest.mark.parametrize(
    ("frame", "options", "text"),
    [
        ([1, 2], {}, "expected a pandas DataFrame, got list"),
        (
            pd.DataFrame({"a": []}),
            {},
            "expected a DataFrame with rows and columns, got 0 rows and 1 columns",
        ),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            {},
            "the DataFrame: expected each column name once, got 'a' more than once; rename them",
        ),
        (
            pd.DataFrame({"a": [1, 2], "b": [1, None]}, index=["i", "j"]),
            {"missing": "error"},
            "the DataFrame, row 'j', column 'b': expected a number, got nothing; "
            "give missing='mean' or missing=<number>, or drop the row",
        ),
        (
            pd.DataFrame({"a": ["1", "one"]}),
            {"one_hot": False},
            "the DataFrame, row 1, column 'a': expected a number, got 'one'; "
            "mend it, or choose other columns",
        ),
        (
            pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}),
            {},
            "expected numbers in column 'a' of the DataFrame, got datetime64[us]; "
            "convert it to numbers, or choose other columns",
        ),
        (
            pd.DataFrame({"a": pd.Categorical(["x"])}),
            {"one_hot": False},
            "expected numbers in column 'a' of the DataFrame, got category; "
            "convert it to numbers, or choose other columns",
        ),
        (
            pd.DataFrame({"a": [1]}),
            {"target": "b"},
            "expected a column of the DataFrame as target, got 'b'; it has: a",
        ),
    ],
)
def test_dataframe_refuses(frame, options, text):
    with pytest.raises((DataError, OptionError)) as raised:
        from_dataframe(frame, **options)
    assert str(raised.value).removeprefix("from_dataframe: ") == text


def test_text_of_a_file_becomes_categories_on_request(write):
    path = write("rooms,roof,price\n3,tile,200\n,NA,310\n")
    assert refusal(path).startswith("t.csv, line 2, column 'roof'")
    data = read_csv(path, target="price", missing="mean", one_hot=True)
    assert data.feature_names == ["rooms", "roof_tile", "roof_nan"]
    assert data.features.tolist() == [[3, 1, 0], [3, 0, 1]]
    scaled = read_csv(write(HOUSES), target="price", standardize=True)
    np.testing.assert_allclose(scaled.features.numpy().mean(axis=0), 0, atol=1e-6)


def test_the_steps_of_a_file_apply_to_another(write):
    data = read_csv(write("a;b\n1;2\n3;\n", "old.csv"), missing="mean", sep=";")
    new = data.transform(write("a;b\n;5\n", "new.csv"))
    assert new.features.tolist() == [[2, 5]]
    frame = pd.DataFrame({"a": [4], "b": [None]})
    assert data.transform(frame).features.tolist() == [[4, 2]]
    roofs = read_csv(write("roof\ntile\n", "roofs.csv"), one_hot=True)
    for other in (pd.DataFrame({"roof": ["slate"]}), write("roof\nslate\n", "other.csv")):
        with pytest.warns(UserWarning, match="1 in 'roof'") as told:
            roofs.transform(other)
        assert told[0].filename == __file__  # and not where gradlab found it out
    with pytest.raises(DataError) as raised:
        data.transform(write("a;b\n1;2\n\n3;x\n", "bad.csv"))
    assert str(raised.value) == (
        "transform: bad.csv, line 4, column 'b': expected a number, got 'x'; "
        "mend it, or choose other columns"
    )


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError) as raised:
        read_csv("t.csv")
    assert str(raised.value) == (
        "read_csv needs the package pandas, which is not installed; "
        f"run: {pip_install('data', 'pandas')}"
    )
