"""The loaders that a ``fit_epoch`` of the user's goes through.

The Trainer's own loop does all that a run needs between two batches. A loop written in its place
only goes through ``train_dataloader`` and ``val_dataloader``; so these do it, while they are gone
through, and callbacks, checkpoints, limits and Ctrl-C work as ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradlab.errors import OptionError
from gradlab.training.datamodule import Batches, size_of_batch

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


class Watched:
    """The batches of a run; everything else is asked of the loader they come from."""

    def __init__(self, trainer: Trainer, batches: Batches) -> None:
        self._trainer, self._batches = trainer, batches

    def __len__(self) -> int:
        size = self._batches.size
        if size is None:
            raise TypeError(f"{type(self._batches.loader).__name__} does not know its length")
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches.loader, name)


class WatchedTraining(Watched):
    """The training batches; each is done when the loop asks for the next."""

    def __iter__(self) -> Iterator[Any]:
        run = self._trainer
        if run.is_left or run.only_validates:
            return
        if run.phase != "training":
            raise OptionError(
                "Trainer.fit_epoch: expected the training batches before the validation batches, "
                "got them after; go through train_dataloader first"
            )
        run.end_batch()  # of an earlier pass that was left by `break`
        for batch in self._batches:
            run.begin_batch(batch)
            yield batch
            run.end_batch()
            if time.monotonic() >= run.stopping.next_look and run.look_around():
                run.is_left = True
                return
        if not run.batch:
            raise self._batches.empty()


class WatchedValidation(Watched):
    """The validation batches; none where validation is not due, or the run is to end."""

    def __iter__(self) -> Iterator[Any]:
        run = self._trainer
        if run.is_left:
            return
        run.end_training()
        if not run.begin_validation():
            return
        before = done = run.val_batch_idx
        for batch in self._batches:
            if run.interrupted:
                run.is_left = True
                return
            done += 1
            run.batch_size = size_of_batch(batch)
            yield batch
            run.noted_loss = None
            run.val_batch_idx = done
        if done == before:
            raise self._batches.empty()
        run.end_validation()
