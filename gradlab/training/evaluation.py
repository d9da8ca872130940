"""Running a model without training it: validation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradlab.autograd import no_grad
from gradlab.ops.shape import concat
from gradlab.tensor import Tensor
from gradlab.training.datamodule import Batches
from gradlab.training.module import require_validation

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode and outside the graph, and afterwards as it was."""
    before = model.training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        model.train(before)


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
            result = trainer.model.validation_step(trainer.prepare_batch(batch))
            if isinstance(result, Tensor) and result.numel() == 1:
                trainer.log("val_loss", result)
            done += 1
    if not done:
        raise batches.empty()
    trainer.val_metrics.read()
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
