"""One training step: zero_grad, forward, backward, update.

gradlab and PyTorch run the same lines. The NumPy versions are written by hand, gradients
included, as one would without a library.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.case import Case, Step, Target


class TrainingStep(Case):
    """A model, a loss and one batch, ``inputs`` and ``targets``; subclasses build them."""

    slows_pytorch = True
    rate = 0.1
    inputs: np.ndarray
    targets: np.ndarray
    parameters: dict[str, np.ndarray]

    def model(self, nn: Any) -> Any:
        raise NotImplementedError

    def loss(self, nn: Any) -> Any:
        raise NotImplementedError

    def parts(self, name: str) -> tuple[Any, ...]:
        """Model, loss, optimizer and batch, in the library of this name."""
        library, nn, optim = (import_module(f"{name}{part}") for part in ("", ".nn", ".optim"))
        model = self.model(nn)
        model.load_state_dict({key: library.tensor(p) for key, p in self.parameters.items()})
        optimizer = optim.SGD(model.parameters(), lr=self.rate)
        batch = library.tensor(self.inputs), library.tensor(self.targets)
        return model, self.loss(nn), optimizer, *batch

    def gradlab(self) -> Step:
        return _step(*self.parts("gradlab"))

    def pytorch(self) -> Step:
        return _step(*self.parts("torch"))


def _step(model: Any, loss_of: Any, optimizer: Any, x: Any, y: Any) -> Step:
    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


class LinearRegression(TrainingStep):
    name = "linear_regression"
    title = "training step, linear regression, 2 features, batch 32"
    target = Target(0.6)

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.inputs = random.standard_normal((32, 2), dtype=np.float32)
        noise = 0.01 * random.standard_normal((32, 1), dtype=np.float32)
        self.targets = self.inputs @ np.array([[2], [-3.4]], np.float32) + np.float32(4.2) + noise
        self.parameters = {
            "weight": np.array([[0.3, -0.2]], np.float32),
            "bias": np.array([0.1], np.float32),
        }

    def model(self, nn: Any) -> Any:
        return nn.Linear(2, 1)

    def loss(self, nn: Any) -> Any:
        return nn.MSELoss()

    def numpy(self) -> Step:
        x, y, rate = self.inputs, self.targets, self.rate
        weight, bias = (p.copy() for p in self.parameters.values())

        def step() -> Any:
            difference = x @ weight.T + bias - y
            loss = np.square(difference).mean()
            g = difference * (2 / difference.size)
            np.subtract(weight, rate * (g.T @ x), out=weight)
            np.subtract(bias, rate * g.sum(axis=0), out=bias)
            return loss

        return step

    def jax(self) -> Step:
        import jax.numpy as jnp

        def loss_of(parameters: Any, x: Any, y: Any) -> Any:
            return jnp.square(x @ parameters["weight"].T + parameters["bias"] - y).mean()

        return _jax_step(loss_of, self.parameters, (self.inputs, self.targets), self.rate)


class Perceptron(TrainingStep):
    name = "mlp"
    title = "training step, MLP 784-256-10, batch 256"
    target = Target(0.9)
    rest = 0.03
    turn = 0.01  # after a rest the threads must be woken first

    sizes = (784, 256, 10)

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        inputs, hidden, classes = self.sizes
        self.inputs = random.random((256, inputs), dtype=np.float32)
        self.targets = random.integers(0, classes, 256)

        def uniform(width: int, *shape: int) -> np.ndarray:
            return random.uniform(-1, 1, shape).astype(np.float32) / np.float32(width**0.5)

        self.parameters = {
            "0.weight": uniform(inputs, hidden, inputs),
            "0.bias": uniform(inputs, hidden),
            "2.weight": uniform(hidden, classes, hidden),
            "2.bias": uniform(hidden, classes),
        }

    def model(self, nn: Any) -> Any:
        inputs, hidden, classes = self.sizes
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def loss(self, nn: Any) -> Any:
        return nn.CrossEntropyLoss()

    def numpy(self) -> Step:
        x, labels, rate = self.inputs, self.targets, self.rate
        w1, b1, w2, b2 = (p.copy() for p in self.parameters.values())
        rows = np.arange(len(x))

        def step() -> Any:
            h = x @ w1.T + b1
            np.maximum(h, 0, out=h)
            scores = h @ w2.T + b2
            scores -= scores.max(axis=1, keepdims=True)
            g = np.exp(scores)
            total = g.sum(axis=1, keepdims=True)
            loss = (np.log(total[:, 0]) - scores[rows, labels]).mean()
            g /= total
            g[rows, labels] -= 1
            g /= len(x)
            gh = (g @ w2) * (h > 0)
            np.subtract(w2, rate * (g.T @ h), out=w2)
            np.subtract(b2, rate * g.sum(axis=0), out=b2)
            np.subtract(w1, rate * (gh.T @ x), out=w1)
            np.subtract(b1, rate * gh.sum(axis=0), out=b1)
            return loss

        return step

    def jax(self) -> Step:
        import jax
        import jax.numpy as jnp

        def loss_of(p: Any, x: Any, labels: Any) -> Any:
            h = jax.nn.relu(x @ p["0.weight"].T + p["0.bias"])
            scores = h @ p["2.weight"].T + p["2.bias"]
            chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
            return -chosen.mean()

        batch = (self.inputs, self.targets.astype(np.int32))
        return _jax_step(loss_of, self.parameters, batch, self.rate)


def _jax_step(loss_of: Any, parameters: Any, batch: Any, rate: float) -> Step:
    """A step compiled whole, as JAX's users write it; it ends when the update is computed."""
    import jax

    @jax.jit
    def train(parameters: Any, *batch: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, *batch)
        return loss, jax.tree.map(lambda p, g: p - rate * g, parameters, gradients)

    state = jax.device_put(parameters)
    batch = jax.device_put(batch)

    def step() -> Any:
        nonlocal state
        loss, state = jax.block_until_ready(train(state, *batch))
        return loss

    return step


CASES: list[TrainingStep] = [LinearRegression(), Perceptron()]
