"""Tables made up for examples and tests, where the real ones would need a download."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from gradlab.data.preprocessing import find_pandas
from gradlab.dtypes import float64
from gradlab.errors import missing_dependency
from gradlab.ops.random import Generator, rand
from gradlab.paths import as_path, replacing
from gradlab.tensor import require_integer

_NAME = "make_house_prices"

# All columns of the real table, in its order.
_COLUMNS = """
    Id MSSubClass MSZoning LotFrontage LotArea Street Alley LotShape LandContour Utilities LotConfig
    LandSlope Neighborhood Condition1 Condition2 BldgType HouseStyle OverallQual OverallCond
    YearBuilt YearRemodAdd RoofStyle RoofMatl Exterior1st Exterior2nd MasVnrType MasVnrArea
    ExterQual ExterCond Foundation BsmtQual BsmtCond BsmtExposure BsmtFinType1 BsmtFinSF1
    BsmtFinType2 BsmtFinSF2 BsmtUnfSF TotalBsmtSF Heating HeatingQC CentralAir Electrical 1stFlrSF
    2ndFlrSF LowQualFinSF GrLivArea BsmtFullBath BsmtHalfBath FullBath HalfBath BedroomAbvGr
    KitchenAbvGr KitchenQual TotRmsAbvGrd Functional Fireplaces FireplaceQu GarageType GarageYrBlt
    GarageFinish GarageCars GarageArea GarageQual GarageCond PavedDrive WoodDeckSF OpenPorchSF
    EnclosedPorch 3SsnPorch ScreenPorch PoolArea PoolQC Fence MiscFeature MiscVal MoSold YrSold
    SaleType SaleCondition SalePrice
"""

# The categories of each column with their frequencies in percent, from cheap to dear houses.
_CATEGORIES = {
    "MSZoning": "C (all) 1|RM 15|RH 1|RL 79|FV 4",
    "Street": "Grvl 1|Pave 99",
    "Alley": "Grvl 55|Pave 45",
    "LotShape": "Reg 63|IR1 33|IR2 3|IR3 1",
    "LandContour": "Bnk 4|Lvl 90|Low 2|HLS 4",
    "Utilities": "NoSeWa 0.1|AllPub 99.9",
    "LotConfig": "Inside 72|Corner 18|FR2 3|FR3 0.5|CulDSac 6.5",
    "LandSlope": "Gtl 95|Mod 4|Sev 1",
    "Neighborhood": "MeadowV 1|IDOTRR 3|BrDale 1|BrkSide 4|OldTown 8|Edwards 7|Sawyer 5|Blueste 1|"
    "SWISU 2|NPkVill 1|NAmes 15|Mitchel 4|SawyerW 4|NWAmes 5|Gilbert 6|Blmngtn 1|CollgCr 10|"
    "Crawfor 3|ClearCr 2|Somerst 6|Veenker 1|Timber 3|StoneBr 2|NridgHt 4|NoRidge 3",
    "Condition1": "Artery 3|Feedr 6|RRAe 1|Norm 86|RRNe 0.2|RRAn 2|RRNn 0.4|PosN 1|PosA 0.5",
    "Condition2": "Artery 0.2|Feedr 0.5|RRNn 0.2|RRAn 0.1|RRAe 0.1|Norm 98.7|PosN 0.1|PosA 0.1",
    "BldgType": "Duplex 4|2fmCon 2|Twnhs 3|TwnhsE 8|1Fam 83",
    "HouseStyle": "1.5Unf 1|SFoyer 3|1.5Fin 11|SLvl 4|1Story 50|2.5Unf 1|2Story 29.5|2.5Fin 0.5",
    "RoofStyle": "Gambrel 1|Gable 78|Mansard 0.5|Hip 19|Flat 1|Shed 0.5",
    "RoofMatl": "Roll 0.1|ClyTile 0.1|CompShg 98.5|Metal 0.1|Tar&Grv 0.7|Membran 0.1|WdShake 0.2|"
    "WdShngl 0.2",
    "Exterior1st": "AsphShn 0.1|CBlock 0.1|BrkComm 0.3|AsbShng 1.5|WdShing 2|Wd Sdng 14|MetalSd 15|"
    "Stucco 2|HdBoard 15|Plywood 7|BrkFace 3|VinylSd 35|CemntBd 4|ImStucc 0.1|Stone 0.2",
    "Exterior2nd": "AsphShn 0.2|CBlock 0.1|Brk Cmn 0.5|AsbShng 1.4|Wd Shng 3|Wd Sdng 13|MetalSd 15|"
    "Stucco 2|HdBoard 14|Plywood 9|BrkFace 2|VinylSd 35|CmentBd 4|ImStucc 0.5|Stone 0.2|Other 0.1",
    "MasVnrType": "None 60|BrkCmn 1|BrkFace 30|Stone 9",
    "ExterQual": "Fa 1|TA 62|Gd 33|Ex 4",
    "ExterCond": "Po 0.1|Fa 2|TA 87.4|Gd 10|Ex 0.5",
    "Foundation": "Slab 1.5|BrkTil 10|CBlock 43|Stone 0.3|Wood 0.2|PConc 45",
    "BsmtQual": "Fa 2|TA 45|Gd 43|Ex 10",
    "BsmtCond": "Po 0.2|Fa 3.8|TA 92|Gd 4",
    "BsmtExposure": "No 67|Mn 8|Av 15|Gd 10",
    "BsmtFinType1": "Unf 30|LwQ 5|Rec 10|BLQ 10|ALQ 15|GLQ 30",
    "BsmtFinType2": "Unf 88|LwQ 3|Rec 4|BLQ 2|ALQ 2|GLQ 1",
    "Heating": "Floor 0.1|Wall 0.3|Grav 0.5|OthW 0.1|GasW 1|GasA 98",
    "HeatingQC": "Po 0.1|Fa 3.4|TA 29|Gd 16.5|Ex 51",
    "CentralAir": "N 7|Y 93",
    "Electrical": "Mix 0.1|FuseP 0.3|FuseF 2|FuseA 6|SBrkr 91.6",
    "KitchenQual": "Fa 3|TA 50|Gd 40|Ex 7",
    "Functional": "Sev 0.1|Maj2 0.4|Maj1 1|Mod 1|Min1 2|Min2 2.5|Typ 93",
    "FireplaceQu": "Po 3|Fa 4|TA 41|Gd 49|Ex 3",
    "GarageType": "CarPort 0.6|Detchd 28|2Types 0.4|Basment 1.5|Attchd 63|BuiltIn 6.5",
    "GarageFinish": "Unf 44|RFn 30|Fin 26",
    "GarageQual": "Po 0.2|Fa 3.4|TA 95|Gd 1.1|Ex 0.3",
    "GarageCond": "Po 0.5|Fa 2.5|TA 96|Gd 0.8|Ex 0.2",
    "PavedDrive": "N 6|P 2|Y 92",
    "PoolQC": "Fa 30|Gd 35|Ex 35",
    "Fence": "MnWw 4|GdWo 19|MnPrv 56|GdPrv 21",
    "MiscFeature": "Othr 4|Shed 90|Gar2 4|TenC 2",
    "SaleType": "ConLD 0.6|ConLw 0.3|Oth 0.2|COD 3|WD 87|CWD 0.2|ConLI 0.3|New 8.2|Con 0.2",
    "SaleCondition": "AdjLand 0.3|Abnorml 7|Family 1.5|Alloca 1|Normal 82|Partial 8.2",
}

# Of these the better houses have the better ones.
_GRADED = (
    "MSZoning", "Neighborhood", "ExterQual", "Foundation", "BsmtQual", "BsmtFinType1", "HeatingQC",
    "CentralAir", "KitchenQual", "FireplaceQu", "GarageFinish",
)  # fmt: skip


class _Gap(NamedTuple):
    """Columns without values in the same houses, how often, and the columns that are 0 there."""

    share: float
    missing: list[str]
    zero: list[str]


_GAPS = (
    _Gap(0.17, ["LotFrontage"], []),
    _Gap(0.93, ["Alley"], []),
    _Gap(0.006, ["MasVnrType", "MasVnrArea"], []),
    _Gap(
        0.026,
        ["BsmtQual", "BsmtCond", "BsmtExposure", "BsmtFinType1", "BsmtFinType2"],
        ["BsmtFinSF1", "BsmtFinSF2", "BsmtUnfSF", "TotalBsmtSF", "BsmtFullBath", "BsmtHalfBath"],
    ),
    _Gap(0.0007, ["Electrical"], []),
    _Gap(0.47, ["FireplaceQu"], ["Fireplaces"]),
    _Gap(
        0.055,
        ["GarageType", "GarageYrBlt", "GarageFinish", "GarageQual", "GarageCond"],
        ["GarageCars", "GarageArea"],
    ),
    _Gap(0.995, ["PoolQC"], ["PoolArea"]),
    _Gap(0.81, ["Fence"], []),
    _Gap(0.96, ["MiscFeature"], ["MiscVal"]),
)


def make_house_prices(
    folder: str | os.PathLike[str] | None = None,
    num_train: int = 1460,
    num_test: int = 1459,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Made-up houses and their prices, in two tables of the form of the Ames housing data [1]_.

    The columns, their categories and how often they are missing are those of the tables in the
    Kaggle competition "House Prices"; the rows are drawn at random. The logarithm of a price is
    a linear function of quality, area, age, garage and neighbourhood, plus noise of standard
    deviation 0.12, so that a good linear model has a log-RMSE a little above that.

    Parameters
    ----------
    folder: where to write the tables as CSV files, ``kaggle_house_pred_train.csv`` and
        ``kaggle_house_pred_test.csv``, with ``NA`` for what is missing; None writes none.
    num_train, num_test: how many houses; the defaults are those of the competition. From 500 on,
        the houses to train on have each category.
    seed: decides the houses.

    Returns
    -------
    train: DataFrame (num_train, 81), with the column ``SalePrice``.
    test: DataFrame (num_test, 80), without it.

    Raises `OptionError` for numbers of houses below 1 and `MissingDependencyError` where pandas or
    SciPy is not installed.

    >>> train, test = make_house_prices(num_train=50, num_test=20)
    >>> train.shape, test.shape
    ((50, 81), (20, 80))
    >>> int(train["SalePrice"].min()) > 30_000
    True

    .. [1] De Cock, "Ames, Iowa: Alternative to the Boston Housing Data as an End of Semester
       Regression Project", Journal of Statistics Education 19(3), 2011
    """
    pandas = find_pandas(_NAME)
    if find_spec("scipy") is None:
        raise missing_dependency("scipy", "", _NAME)
    require_integer(_NAME, "num_train", num_train)
    require_integer(_NAME, "num_test", num_test)
    target = None if folder is None else as_path(_NAME, folder, "a folder")
    frame = _houses(pandas, num_train + num_test, seed, num_train)
    train = frame[:num_train]
    test = frame[num_train:].drop(columns="SalePrice").reset_index(drop=True)
    if target is not None:
        for part, table in (("train", train), ("test", test)):
            with replacing(target / f"kaggle_house_pred_{part}.csv", _NAME) as temporary:
                table.to_csv(temporary, index=False, na_rep="NA")
    return train, test


def _houses(pandas: Any, count: int, seed: int, num_train: int) -> Any:
    draw = _Draw(count, seed)
    columns = {**_numbers(draw), **_categories(draw)}
    frame = pandas.DataFrame({name: columns[name] for name in _COLUMNS.split()[:-1]})
    for gap in _GAPS:
        rows = draw.uniform() < gap.share
        frame.loc[rows, gap.missing] = np.nan
        frame.loc[rows, gap.zero] = 0
    if num_train >= 500:
        _cover(frame, num_train)
    return frame.assign(SalePrice=_prices(frame, draw.normal()))


class _Draw:
    """Random columns, more or less in step with how good a house is altogether."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = Generator(seed)
        self.worth = self.normal()

    def uniform(self) -> np.ndarray:
        """Uniforms between 0 and 1, both left out."""
        return rand(self.count, generator=self.generator, dtype=float64).numpy() + 2.0**-54

    def normal(self, weight: float = 0.0) -> np.ndarray:
        """Standard normals whose correlation with the worth of a house is ``weight``."""
        from scipy.special import ndtri

        own = ndtri(self.uniform())
        return weight * self.worth + np.sqrt(1 - weight**2) * own if weight else own

    def chance(self, share: float) -> np.ndarray:
        return self.uniform() < share

    def whole(self, low: int, high: int) -> np.ndarray:
        return low + np.floor(self.uniform() * (high + 1 - low))


def _numbers(draw: _Draw) -> dict[str, np.ndarray]:
    """The columns of numbers, as plausible together as examples need."""
    living = np.exp(7.27 + 0.33 * draw.normal(0.6)).round()
    second = np.where(draw.chance(0.43), (0.45 * living).round(), 0)
    low_quality = np.where(draw.chance(0.02), (0.1 * living).round(), 0)
    first = living - second - low_quality
    basement = (first * (0.75 + 0.4 * draw.uniform())).round()
    finished = np.where(draw.chance(0.68), (basement * draw.uniform()).round(), 0)
    finished_2 = np.where(draw.chance(0.12), ((basement - finished) * 0.4).round(), 0)
    built = np.clip((1971 + 30 * draw.normal(0.6)).round(), 1872, 2010)
    sold = np.maximum(draw.whole(2006, 2010), built)
    rebuilt = np.maximum(built + ((sold - built) * draw.uniform() ** 3).round(), 1950)
    cars = np.clip((1.77 + 0.75 * draw.normal(0.6)).round(), 1, 4)
    bedrooms = np.clip((2.9 + 0.8 * draw.normal(0.3)).round(), 0, 8)

    def sometimes(share: float, typical: float) -> np.ndarray:
        return np.where(draw.chance(share), (typical * np.exp(0.5 * draw.normal())).round(), 0)

    whole = {
        "Id": np.arange(1, draw.count + 1),
        "MSSubClass": np.array([20, 60, 50, 120, 30, 160, 70, 80, 90, 190, 85, 75, 45, 180, 40])[
            np.floor(15 * draw.uniform() ** 2.5).astype(int)
        ],
        "LotArea": np.exp(9.1 + 0.5 * draw.normal(0.3)).round(),
        "OverallQual": np.clip((6.1 + 1.4 * draw.normal(0.85)).round(), 1, 10),
        "OverallCond": np.clip((5.6 + 1.1 * draw.normal()).round(), 1, 9),
        "YearBuilt": built,
        "YearRemodAdd": rebuilt,
        "BsmtFinSF1": finished,
        "BsmtFinSF2": finished_2,
        "BsmtUnfSF": basement - finished - finished_2,
        "TotalBsmtSF": basement,
        "1stFlrSF": first,
        "2ndFlrSF": second,
        "LowQualFinSF": low_quality,
        "GrLivArea": living,
        "BsmtFullBath": draw.chance(0.42),
        "BsmtHalfBath": draw.chance(0.06),
        "FullBath": np.clip((1.57 + 0.55 * draw.normal(0.6)).round(), 0, 4),
        "HalfBath": draw.chance(0.38),
        "BedroomAbvGr": bedrooms,
        "KitchenAbvGr": 1 + draw.chance(0.045),
        "TotRmsAbvGrd": bedrooms + draw.whole(2, 5),
        "Fireplaces": 1 + draw.chance(0.15),
        "GarageCars": cars,
        "GarageArea": (cars * (200 + 100 * draw.uniform())).round(),
        "WoodDeckSF": sometimes(0.48, 170),
        "OpenPorchSF": sometimes(0.55, 70),
        "EnclosedPorch": sometimes(0.14, 140),
        "3SsnPorch": sometimes(0.016, 190),
        "ScreenPorch": sometimes(0.08, 180),
        "PoolArea": sometimes(1.0, 550),
        "MiscVal": sometimes(1.0, 600),
        "MoSold": draw.whole(1, 12),
        "YrSold": sold,
    }
    floating = {
        "LotFrontage": np.clip((70 + 22 * draw.normal(0.3)).round(), 21, 313),
        "MasVnrArea": sometimes(0.4, 220),
        "GarageYrBlt": np.maximum(built, 1900),
    }
    return {name: values.astype(np.int64) for name, values in whole.items()} | floating


def _categories(draw: _Draw) -> dict[str, np.ndarray]:
    from scipy.special import ndtr

    columns = {}
    for name in _CATEGORIES:
        names, shares = _levels(name)
        place = ndtr(draw.normal(0.75)) if name in _GRADED else draw.uniform()
        codes = np.searchsorted(np.cumsum(shares), place * np.sum(shares))
        columns[name] = np.array(names, dtype=object)[np.minimum(codes, len(names) - 1)]
    return columns


def _levels(name: str) -> tuple[list[str], list[float]]:
    """The categories of a column and their shares."""
    pairs = [text.rsplit(" ", 1) for text in _CATEGORIES[name].split("|")]
    return [category for category, _ in pairs], [float(share) for _, share in pairs]


def _cover(frame: Any, num_train: int) -> None:
    """Give each category that no house to train on has to one of those with the commonest."""
    for name in _CATEGORIES:
        values = frame[name].iloc[:num_train]
        absent = [level for level in _levels(name)[0] if not (values == level).any()]
        commonest = np.flatnonzero(values == values.mode()[0])
        # Never to all of them, or the commonest would be absent.
        for row, level in zip(commonest[:-1], absent, strict=False):
            frame.loc[row, name] = level


def _prices(frame: Any, noise: np.ndarray) -> np.ndarray:
    """Prices in dollars, rounded to hundreds; their logarithm is linear in what they depend on."""
    rank = frame["Neighborhood"].map({name: i for i, name in enumerate(_levels("Neighborhood")[0])})
    logs = (
        12.02
        + 0.10 * (frame["OverallQual"] - 6.1)
        + 0.04 * (frame["OverallCond"] - 5.6)
        + 0.45 * (np.log(frame["GrLivArea"]) - 7.27)
        + 0.00012 * (frame["TotalBsmtSF"] - 1050)
        + 0.0022 * (frame["YearBuilt"] - 1971)
        + 0.05 * (frame["GarageCars"] - 1.75)
        + 0.03 * (frame["Fireplaces"] - 0.6)
        + 0.010 * (rank - 12)
        + 0.12 * noise
    )
    prices = np.exp(logs.to_numpy(dtype=np.float64)) / 100
    return prices.round().astype(np.int64) * 100
