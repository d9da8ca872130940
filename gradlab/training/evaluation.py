"""Running a model without training it: validation and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gradlab.ops.shape import concat
from gradlab.tensor import Tensor
from gradlab.training.datamodule import Batches, size_of_batch
from gradlab.training.module import evaluation, require_validation

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


def validate(trainer: Trainer, batches: Batches, stops: Callable[[], bool] | None = None) -> bool:
    """Run ``validation_step`` on all batches, noting what it logs and returns as metrics.

    Returns False where ``stops`` ended it before the last batch.
    """
    require_validation(trainer.model)
    done = 0
    with evaluation(trainer.model):
        for batch in batches:
            if stops is not None and stops():
                return False
            batch = trainer.prepare_batch(batch)
            trainer.batch_size = size_of_batch(batch)
            loss = trainer.model.validation_step(batch)
            if loss is not trainer.noted_loss:
                trainer.note_loss(loss)
            trainer.noted_loss = None
            done += 1
            trainer.val_batch_idx += 1
    if not done:
        raise batches.empty()
    return True


def predict(trainer: Trainer, batches: Batches) -> Any:
    """The predictions for all batches: one tensor, or a list where they are no tensors."""
    model = trainer.model
    with evaluation(model):
        found = [model.predict_step(trainer.prepare_batch(batch)) for batch in batches]
    if not found:
        raise batches.empty()
    if all(isinstance(each, Tensor) and each.ndim for each in found):
        return concat(found)
    return found
