"""Data sets, the loader that gives them in batches, and real data to train on."""

from gradlab.arguments import guard_namespace
from gradlab.data.collate import default_collate
from gradlab.data.dataset import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from gradlab.data.digits import Digits, load_digits
from gradlab.data.download import DATA_HUB, DATA_URL, download, extract
from gradlab.data.fashion_mnist import FashionMNIST
from gradlab.data.idx import read_idx, write_idx
from gradlab.data.loader import DataLoader
from gradlab.data.preprocessing import TableDataset, TablePreprocessor
from gradlab.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from gradlab.data.synthetic import make_house_prices
from gradlab.data.tabular import CSVDataset, from_dataframe, read_csv

__all__ = [
    "DATA_HUB",
    "DATA_URL",
    "BatchSampler",
    "CSVDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TableDataset",
    "TablePreprocessor",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "download",
    "extract",
    "from_dataframe",
    "load_digits",
    "make_house_prices",
    "random_split",
    "read_csv",
    "read_idx",
    "write_idx",
]

guard_namespace(globals())
