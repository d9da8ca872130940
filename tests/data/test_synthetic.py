"""Made-up house prices: the form of the real tables, and prices that can be predicted."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from gradlab.data import from_dataframe, make_house_prices
from gradlab.errors import MissingDependencyError, OptionError


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """Both tables as they are read from their files."""
    folder = tmp_path_factory.mktemp("houses") / "new"
    made = make_house_prices(folder)
    read = [pd.read_csv(folder / f"kaggle_house_pred_{part}.csv") for part in ("train", "test")]
    return [*read, *made]


def test_the_form_of_the_real_tables(houses):
    train, test = houses[:2]
    assert (train.shape, test.shape) == ((1460, 81), (1459, 80))
    assert list(train.columns[:4]) == ["Id", "MSSubClass", "MSZoning", "LotFrontage"]
    assert list(train.columns[-2:]) == ["SaleCondition", "SalePrice"]
    assert list(test.columns) == list(train.columns[:-1])
    both = pd.concat((train.drop(columns=["Id", "SalePrice"]), test.drop(columns="Id")))
    assert len(both.select_dtypes("number").columns) == 36
    assert pd.get_dummies(both, dummy_na=True).shape == (2919, 330)
    missing = train.isna().mean()
    assert set(missing[missing > 0.4].index) == {
        "Alley", "MasVnrType", "FireplaceQu", "PoolQC", "Fence", "MiscFeature",
    }  # fmt: skip
    assert (train["GarageYrBlt"].isna() == (train["GarageCars"] == 0)).all()


def test_houses_to_train_on_have_every_category(houses):
    train, test = houses[:2]
    data = from_dataframe(train.drop(columns="Id"), target="SalePrice", standardize=True)
    assert data.features.shape == (1460, 330)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = data.transform(test.drop(columns="Id"))
    assert (new.features.shape, new.targets, new.unseen) == ((1459, 330), None, {})


def test_prices_follow_from_the_houses(houses):
    train = houses[0]
    assert 0.3 < np.log(train["SalePrice"]).std() < 0.5
    assert 150_000 < train["SalePrice"].mean() < 220_000
    data = from_dataframe(
        train, target="SalePrice", dtype="float64", standardize=True,
        columns=["OverallQual", "OverallCond", "GrLivArea", "TotalBsmtSF", "YearBuilt",
                 "GarageCars", "Fireplaces", "Neighborhood"],
    )  # fmt: skip
    x = np.c_[data.features.numpy(), np.ones(len(data))]
    y = np.log(data.targets.numpy())
    weights = np.linalg.lstsq(x[:1000], y[:1000], rcond=None)[0]
    error = x[1000:] @ weights - y[1000:]
    assert 0.1 < np.sqrt((error**2).mean()) < 0.16


def test_the_seed_decides(houses):
    again = make_house_prices()
    for made, other in zip(again, houses[2:], strict=True):
        pd.testing.assert_frame_equal(made, other)
    assert not make_house_prices(seed=1)[0].equals(again[0])
    # A change of what a seed gives would change the pages that show it.
    assert again[0]["SalePrice"].iloc[:4].tolist() == [64600, 112000, 65500, 185500]


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"needs the package scipy.*scipy>="):
        make_house_prices()


def test_small_tables():
    train, test = make_house_prices(num_train=1, num_test=1)
    assert (train.shape, test.shape) == ((1, 81), (1, 80))
    for options, name in (({"num_train": 0}, "num_train"), ({"num_test": 1.5}, "num_test")):
        with pytest.raises(OptionError, match=f"expected an integer {name} of 1 or more"):
            make_house_prices(**options)
