"""A run that tests kill: ``python killed.py FOLDER RESULT``; goes on from what it finds in FOLDER.

Writes the number of each step to its output, and at the end its parameters and history to RESULT.
"""

from __future__ import annotations

import sys
import time

from support import Classifier, make_model, val_loader

import gradlab as gl
from gradlab import optim, training
from gradlab.data import DataLoader, TensorDataset


class WithAdam(Classifier):
    def __init__(self):
        super().__init__(dropout=0.3)

    def configure_optimizers(self):
        optimizer = optim.Adam(self.parameters(), lr=0.01)
        warmup = optim.lr_scheduler.LinearLR(optimizer, total_iters=40)
        return {"optimizer": optimizer, "scheduler": warmup, "interval": "step"}


class Announce(training.Callback):
    def on_batch_end(self, trainer):
        sys.stdout.write(f"{trainer.step}\n")
        sys.stdout.flush()
        time.sleep(0.001)  # however fast the machine: the kill comes before the end


def data():
    gl.manual_seed(7)
    X = gl.randn(160, 6)
    return TensorDataset(X, X[:, :3].argmax(axis=1))


def main(folder, result):
    model = make_model(WithAdam)
    checkpoints = training.ModelCheckpoint(folder, every=3, keep=2, monitor="val_loss")
    trainer = training.Trainer(
        max_epochs=5,
        gradient_clip_val=1.0,
        seed=3,
        enable_progress_bar=False,
        callbacks=[Announce(), training.EarlyStopping(patience=50), checkpoints],
    )
    batches = DataLoader(data(), 8, shuffle=True, prefetch=3)
    history = trainer.fit(model, batches, val_loader(), resume="auto")
    gl.save({"model": model.state_dict(), "history": history.state_dict()}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
