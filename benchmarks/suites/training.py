"""`training.Trainer` against the same loop written by hand, data loader and epoch loss included."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Case, Step, Target


class TrainerOverhead(Case):
    """Some epochs of a small model, where each microsecond beside the step shows."""

    against = "by_hand"
    tolerance = 0.0  # bit for bit
    rounds = 30
    turn = 0.02
    epochs = 20  # the set-up of a run counts, once; `make demo` has 30
    batch_size = 32

    def __init__(
        self,
        name: str,
        title: str,
        rows: int,
        sizes: tuple[int, ...],
        target: Target | None = None,
    ) -> None:
        self.target = target
        self.name = f"trainer_{name}"
        self.title = f"Trainer, {self.epochs} epochs of {title}, batch {self.batch_size}"
        random = np.random.default_rng(0)
        self.sizes = sizes
        self.x = random.standard_normal((rows, sizes[0]), dtype=np.float32)
        self.y = random.standard_normal((rows, sizes[-1]), dtype=np.float32)

    def model(self) -> Any:
        import gradlab as gl
        from gradlab import nn

        gl.manual_seed(0)
        layers = []
        for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def batches(self) -> Any:
        import gradlab as gl
        from gradlab.data import DataLoader, TensorDataset

        rows = TensorDataset(gl.tensor(self.x), gl.tensor(self.y))
        return DataLoader(rows, batch_size=self.batch_size, shuffle=True)

    def gradlab(self) -> Step:
        from gradlab import nn, optim, training

        class Regression(training.Module):
            def __init__(self, net: Any) -> None:
                super().__init__()
                self.net = net

            def loss(self, y_hat: Any, y: Any) -> Any:
                return nn.functional.mse_loss(y_hat, y)

            def configure_optimizers(self) -> Any:
                return optim.SGD(self.parameters(), lr=0.01)

        def step() -> Any:
            model = Regression(self.model())
            trainer = training.Trainer(max_epochs=self.epochs, enable_progress_bar=False)
            trainer.fit(model, self.batches())
            return model.net[0].weight

        return step

    def by_hand(self) -> Step:
        from gradlab import nn, optim

        def step() -> Any:
            model, batches = self.model(), self.batches()
            optimizer = optim.SGD(model.parameters(), lr=0.01)
            model.train()
            for _ in range(self.epochs):
                total = 0.0
                for x, y in batches:
                    optimizer.zero_grad()
                    loss = nn.functional.mse_loss(model(x), y)
                    loss.backward()
                    optimizer.step()
                    total += loss.item() * len(x)
            return model[0].weight

        return step


CASES = [
    TrainerOverhead(
        "mlp", "1,437 rows, MLP 64-128-10", 1437, (64, 128, 10), Target(1.05, against="by_hand")
    ),
    TrainerOverhead("line", "2,048 rows, linear regression", 2048, (2, 1)),  # the worst case
]
