"""Optimizers and learning-rate schedules."""

from gradlab.optim import lr_scheduler
from gradlab.optim.optimizer import Optimizer
from gradlab.optim.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
