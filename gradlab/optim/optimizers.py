"""SGD, Adam, AdamW, RMSprop and Adagrad, with PyTorch's arguments and arithmetic."""

from __future__ import annotations

from typing import Any

from gradlab.errors import OptionError, message
from gradlab.ops.core import update
from gradlab.ops.update import ADAGRAD, ADAM, RMSPROP, SGD as SGD_STEP
from gradlab.optim.optimizer import Optimizer, Params
from gradlab.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's variant [1]_.

    ``b ← momentum·b + (1 - dampening)·g``, ``p ← p - lr·b`` (Nesterov: ``p - lr·(g + momentum·b)``)
    where ``g`` is the gradient plus ``weight_decay·p``. The first ``b`` is ``g``.

    >>> import gradlab as gl
    >>> w = gl.ones(2, requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([0., 0.])

    .. [1] Sutskever et al., "On the importance of initialization and momentum in deep learning",
       ICML 2013
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening,
                "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
            },
        )  # fmt: skip

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise OptionError(
                message(
                    "SGD",
                    expected="momentum above 0 and dampening 0 with nesterov",
                    got=f"momentum {group['momentum']} and dampening {group['dampening']}",
                )
            )

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Any]) -> None:
        first: list[bool] = []
        buffers: list[Tensor] = []
        if group["momentum"]:
            first = ["momentum_buffer" not in self.state.get(p, ()) for p in params]
            buffers = self._states(params, "momentum_buffer")
        options = {key: value for key, value in group.items() if key in self.defaults}
        update(SGD_STEP, (params, grads, buffers), {**options, "first": first})


class Adam(Optimizer):
    """Adam [1]_: steps scaled by running means of the gradient and of its square.

    ``weight_decay`` is added to the gradient, as L2 regularisation; `AdamW` decays the weights
    themselves. ``amsgrad`` divides by the largest mean square so far [2]_.

    .. [1] Kingma and Ba, https://arxiv.org/abs/1412.6980
    .. [2] Reddi et al., https://arxiv.org/abs/1904.09237
    """

    _decoupled = False

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize,
            },
        )  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Any]) -> None:
        states = [self._states(params, "exp_avg"), self._states(params, "exp_avg_sq")]
        states.append(self._states(params, "max_exp_avg_sq") if group["amsgrad"] else [])
        options = {key: value for key, value in group.items() if key in self.defaults}
        options |= {"steps": self._count_steps(params), "decoupled": self._decoupled}
        update(ADAM, (params, grads, *states), options)


class AdamW(Adam):
    """Adam with decoupled weight decay [1]_: ``p ← p·(1 - lr·weight_decay)`` before each step.

    .. [1] Loshchilov and Hutter, https://arxiv.org/abs/1711.05101
    """

    _decoupled = True

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop [1]_: steps divided by the root of the running mean square of the gradient.

    ``centered`` subtracts the square of the running mean first.

    .. [1] Tieleman and Hinton, "Lecture 6.5", Coursera: Neural Networks for Machine Learning, 2012
    """

    def __init__(
        self, params: Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
                "momentum": momentum, "centered": centered, "maximize": maximize,
            },
        )  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Any]) -> None:
        self._count_steps(params)
        squares = self._states(params, "square_avg")
        buffers = self._states(params, "momentum_buffer") if group["momentum"] else []
        means = self._states(params, "grad_avg") if group["centered"] else []
        options = {key: value for key, value in group.items() if key in self.defaults}
        update(RMSPROP, (params, grads, squares, buffers, means), options)


class Adagrad(Optimizer):
    """Adagrad [1]_: steps divided by the root of the sum of all squared gradients.

    .. [1] Duchi, Hazan and Singer, JMLR 12, 2011
    """

    def __init__(
        self, params: Params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
            },
        )  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Any]) -> None:
        fresh = [p for p in params if "sum" not in self.state.get(p, ())]
        sums = self._states(params, "sum")
        for p in fresh:
            self.state[p]["sum"].fill_(group["initial_accumulator_value"])
        options = {key: value for key, value in group.items() if key in self.defaults}
        del options["initial_accumulator_value"]
        update(ADAGRAD, (params, grads, sums), {**options, "steps": self._count_steps(params)})
