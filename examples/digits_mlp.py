"""Train a multilayer perceptron on handwritten digits, and look at what it gets wrong.

Run it with `make demo`, or `python examples/digits_mlp.py --help` for its options. Ctrl-C ends the
training with a checkpoint; running it again continues from there, and once it is done shows the
result. For a new run, give another folder with --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gradlab as gl
from gradlab import nn, optim, viz
from gradlab.data import DataLoader, Digits
from gradlab.nn import functional as F
from gradlab.training import Module, Trainer


class DigitsMLP(Module):
    """Two hidden layers between the 64 pixels of an 8×8 picture and the 10 digits."""

    def __init__(self, hidden: int, lr: float, epochs: int) -> None:
        super().__init__()
        self.lr, self.epochs = lr, epochs
        self.net = nn.Sequential(
            nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(hidden, 10),
        )  # fmt: skip

    def loss(self, logits: gl.Tensor, labels: gl.Tensor) -> gl.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    def validation_step(self, batch: tuple[gl.Tensor, gl.Tensor]) -> gl.Tensor:
        images, labels = batch
        logits = self(images)
        self.log("val_accuracy", (logits.argmax(axis=1) == labels).float().mean())
        return self.loss(logits, labels)

    def configure_optimizers(self) -> tuple[optim.Optimizer, optim.lr_scheduler.LRScheduler]:
        optimizer = optim.AdamW(self.parameters(), lr=self.lr)
        return optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.epochs)


def draw(model: DigitsMLP, trainer: Trainer, test: Digits, folder: Path) -> None:
    """Write the learning curve and a sheet of the digits that the model takes for another."""
    logits = trainer.predict(model, DataLoader(test, batch_size=len(test)))
    viz.plot_history(trainer.history, folder / "learning_curve.png")
    viz.misclassified(test.images, test.labels, logits, folder / "misclassified.png")
    print(f"pictures: {folder / 'learning_curve.png'} and {folder / 'misclassified.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=128, help="width of the hidden layers")
    parser.add_argument("--lr", type=float, default=3e-3, help="initial learning rate")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="where files go")
    options = parser.parse_args()

    gl.manual_seed(options.seed)
    train, test = Digits("train"), Digits("test")
    model = DigitsMLP(options.hidden, options.lr, options.epochs)
    print(f"{len(train)} digits to learn from, {len(test)} to judge by")
    print(model)

    trainer = Trainer(
        options.epochs,
        device=options.device,
        seed=options.seed,
        checkpoint_dir=options.out / "checkpoints",
    )
    history = trainer.fit(
        model,
        DataLoader(train, options.batch_size, shuffle=True, seed=options.seed),
        DataLoader(test, batch_size=len(test)),
        resume="auto",
    )
    print(f"validation accuracy: {history['val_accuracy'][-1]:.1%}")
    draw(model, trainer, test, options.out)


if __name__ == "__main__":
    main()
