"""Optimizers and learning-rate schedules."""

from gradlab.arguments import guard_namespace
from gradlab.optim import lr_scheduler
from gradlab.optim.optimizer import Optimizer
from gradlab.optim.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
]

guard_namespace(globals())
