"""The names of ``torch.utils.data``; each is defined in `gradlab.data`.

>>> import gradlab as gl
>>> dataset = gl.utils.data.TensorDataset(gl.ones(10, 2), gl.zeros(10, 1))
>>> len(gl.utils.data.DataLoader(dataset, batch_size=4, shuffle=True))
3
"""

from gradlab.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)
from gradlab.utils.data import dataloader, dataset, sampler

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "dataloader",
    "dataset",
    "default_collate",
    "random_split",
    "sampler",
]
