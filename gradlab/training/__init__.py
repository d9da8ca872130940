"""Training: `Module`, `DataModule` and `Trainer`, callbacks, history and checkpoints."""

from gradlab.training.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from gradlab.training.checkpoint import list_checkpoints, read_checkpoint
from gradlab.training.datamodule import DataModule
from gradlab.training.history import History
from gradlab.training.module import Module
from gradlab.training.progress import ProgressBar
from gradlab.training.trainer import Trainer

__all__ = [
    "Callback",
    "DataModule",
    "EarlyStopping",
    "History",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "Module",
    "ProgressBar",
    "Trainer",
    "list_checkpoints",
    "read_checkpoint",
]
