"""One training step: zero_grad, forward, backward, update.

The NumPy versions are written by hand, gradients included, as one would without a library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Case, Step, Target


class LinearRegression(Case):
    name = "linear_regression"
    title = "training step, linear regression, 2 features, batch 32"
    target = Target(0.6)

    rate = 0.03

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.x = random.standard_normal((32, 2), dtype=np.float32)
        noise = 0.01 * random.standard_normal(32, dtype=np.float32)
        self.y = (self.x @ np.float32([2, -3.4]) + 4.2 + noise).reshape(32, 1).astype(np.float32)
        self.weight = np.float32([[0.3, -0.2]])
        self.bias = np.float32([0.1])

    def gradlab(self) -> Step:
        import gradlab as gl
        from gradlab import nn, optim

        model = nn.Linear(2, 1)
        model.load_state_dict({"weight": self.weight, "bias": self.bias})
        loss_function = nn.MSELoss()
        optimizer = optim.SGD(model.parameters(), lr=self.rate)
        x, y = gl.tensor(self.x), gl.tensor(self.y)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def pytorch(self) -> Step:
        import torch
        from torch import nn, optim

        model = nn.Linear(2, 1)
        model.load_state_dict(
            {"weight": torch.tensor(self.weight), "bias": torch.tensor(self.bias)}
        )
        loss_function = nn.MSELoss()
        optimizer = optim.SGD(model.parameters(), lr=self.rate)
        x, y = torch.tensor(self.x), torch.tensor(self.y)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def numpy(self) -> Step:
        x, y, rate = self.x, self.y, self.rate
        weight, bias = self.weight.copy(), self.bias.copy()

        def step() -> Any:
            difference = x @ weight.T + bias - y
            loss = np.square(difference).mean()
            g = difference * (2 / difference.size)
            np.subtract(weight, rate * (g.T @ x), out=weight)
            np.subtract(bias, rate * g.sum(axis=0), out=bias)
            return loss

        return step

    def jax(self) -> Step:
        import jax
        import jax.numpy as jnp

        def loss_of(parameters: Any, x: Any, y: Any) -> Any:
            weight, bias = parameters
            return jnp.square(x @ weight.T + bias - y).mean()

        return _jax_step(loss_of, (self.weight, self.bias), (self.x, self.y), self.rate, jax)


class Perceptron(Case):
    name = "mlp"
    title = "training step, MLP 784-256-10, batch 256"
    target = Target(0.9)
    rest = 0.03

    rate = 0.1
    sizes = (784, 256, 10)
    batch = 256

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        inputs, hidden, classes = self.sizes
        self.x = random.random((self.batch, inputs), dtype=np.float32)
        self.labels = random.integers(0, classes, self.batch)

        def uniform(width: int, *shape: int) -> np.ndarray:
            return random.uniform(-1, 1, shape).astype(np.float32) / np.float32(width**0.5)

        self.parameters = {
            "0.weight": uniform(inputs, hidden, inputs),
            "0.bias": uniform(inputs, hidden),
            "2.weight": uniform(hidden, classes, hidden),
            "2.bias": uniform(hidden, classes),
        }

    def gradlab(self) -> Step:
        import gradlab as gl
        from gradlab import nn, optim

        inputs, hidden, classes = self.sizes
        model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        model.load_state_dict(self.parameters)
        loss_function = nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=self.rate)
        x, labels = gl.tensor(self.x), gl.tensor(self.labels)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_function(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def pytorch(self) -> Step:
        import torch
        from torch import nn, optim

        inputs, hidden, classes = self.sizes
        model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        model.load_state_dict({name: torch.tensor(p) for name, p in self.parameters.items()})
        loss_function = nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=self.rate)
        x, labels = torch.tensor(self.x), torch.tensor(self.labels)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_function(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def numpy(self) -> Step:
        x, labels, rate = self.x, self.labels, self.rate
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
            w2.__isub__(rate * (g.T @ h))
            b2.__isub__(rate * g.sum(axis=0))
            w1.__isub__(rate * (gh.T @ x))
            b1.__isub__(rate * gh.sum(axis=0))
            return loss

        return step

    def jax(self) -> Step:
        import jax
        import jax.numpy as jnp

        def loss_of(parameters: Any, x: Any, labels: Any) -> Any:
            w1, b1, w2, b2 = parameters
            scores = jax.nn.relu(x @ w1.T + b1) @ w2.T + b2
            chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
            return -chosen.mean()

        given = (self.x, self.labels.astype(np.int32))
        return _jax_step(loss_of, tuple(self.parameters.values()), given, self.rate, jax)


def _jax_step(loss_of: Any, parameters: Any, batch: Any, rate: float, jax: Any) -> Step:
    """A step compiled whole, as JAX's users write it; it ends when the update is computed."""

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


CASES = [LinearRegression(), Perceptron()]
