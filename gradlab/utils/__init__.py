"""`gradlab.utils.data`, where PyTorch has it: the data sets and loaders of `gradlab.data`."""

from gradlab.utils import data

__all__ = ["data"]
