"""Training: `Module`, `DataModule` and `Trainer`, callbacks, history and checkpoints."""

from gradlab.arguments import guard_namespace
from gradlab.training.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from gradlab.training.checkpoint import read_checkpoint
from gradlab.training.classifier import Classifier, accuracy
from gradlab.training.datamodule import DataModule
from gradlab.training.folder import list_checkpoints
from gradlab.training.gpus import cpu, gpu, num_gpus, try_all_gpus, try_gpu
from gradlab.training.history import History
from gradlab.training.hyperparameters import HyperParameters, add_to_class
from gradlab.training.meters import Accumulator, Timer
from gradlab.training.module import Module
from gradlab.training.progress import ProgressBar
from gradlab.training.trainer import Trainer

__all__ = [
    "Accumulator",
    "Callback",
    "Classifier",
    "DataModule",
    "EarlyStopping",
    "History",
    "HyperParameters",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "Module",
    "ProgressBar",
    "Timer",
    "Trainer",
    "accuracy",
    "add_to_class",
    "cpu",
    "gpu",
    "list_checkpoints",
    "num_gpus",
    "read_checkpoint",
    "try_all_gpus",
    "try_gpu",
]

# The methods have no doors: the Trainer compares its own with a subclass's, to see what was
# replaced, and save_hyperparameters reads the frame that calls it.
guard_namespace(globals(), methods=False)
