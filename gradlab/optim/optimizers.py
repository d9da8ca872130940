"""SGD, Adam and its kin, RMSprop, Adagrad and Adadelta, with PyTorch's arguments and arithmetic.

Common to all: ``params`` is what `Optimizer` takes; ``lr`` is the learning rate, which may be
changed in ``param_groups`` between steps; ``weight_decay`` λ adds ``λ·p`` to the gradient ``g`` of
a parameter ``p``; ``maximize`` goes up the gradient instead of down. All raise `OptionError` for an
option outside its range. In the formulas everything is taken element by element.
"""

from __future__ import annotations

from typing import Any

from gradlab.errors import OptionError, message
from gradlab.ops.core import update
from gradlab.ops.update import ADADELTA, ADAGRAD, ADAM, ADAMAX, RMSPROP, SGD as SGD_STEP
from gradlab.optim.optimizer import Optimizer, Params
from gradlab.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's variant [1]_.

    ``b ← momentum·b + (1 - dampening)·g``, ``p ← p - lr·b``; with ``nesterov``
    ``p ← p - lr·(g + momentum·b)``. The first ``b`` is ``g``. Without momentum ``p ← p - lr·g``.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    momentum: 0 or more, commonly 0.9.
    dampening: 0 for ``nesterov``.
    nesterov: look ahead along the momentum; needs one.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([ 2., -1.])

    .. [1] Sutskever et al., "On the importance of initialization and momentum in deep learning",
       ICML 2013
    """

    _entries = frozenset({"momentum_buffer"})

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

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        first: list[bool] = []
        buffers: list[Tensor] = []
        if group["momentum"]:
            first = ["momentum_buffer" not in self.state[p] for p in params]
            buffers = self._states(params, "momentum_buffer")
        options = self._options(group)
        options["first"] = first
        update(SGD_STEP, (params, grads, buffers), options)


class Adam(Optimizer):
    """Adam [1]_: steps scaled by running means of the gradient and of its square.

    ``m ← β₁·m + (1 - β₁)·g``, ``v ← β₂·v + (1 - β₂)·g²``, and in step ``t``
    ``p ← p - lr·m̂/(√v̂ + eps)`` with ``m̂ = m/(1 - β₁ᵗ)``, ``v̂ = v/(1 - β₂ᵗ)``. Here
    ``weight_decay`` is L2 regularisation: it passes through ``m`` and ``v``. `AdamW` decays the
    weights themselves.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    betas: (β₁, β₂), each in [0, 1).
    eps: added to the denominator.
    amsgrad: divide by the largest ``v`` so far [2]_.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()  # the first step is lr in every direction
    >>> w.detach()
    tensor([ 3.5000, -1.5000])

    .. [1] Kingma and Ba, https://arxiv.org/abs/1412.6980
    .. [2] Reddi et al., https://arxiv.org/abs/1904.09237
    """

    _entries = frozenset({"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"})
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

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self._states(params, "exp_avg"), self._states(params, "exp_avg_sq")]
        states.append(self._states(params, "max_exp_avg_sq") if group["amsgrad"] else [])
        options = self._options(group)
        options["steps"] = self._count_steps(params)
        options["decoupled"] = self._decoupled
        update(ADAM, (params, grads, *states), options)


class AdamW(Adam):
    """Adam with decoupled weight decay [1]_: ``p ← p·(1 - lr·weight_decay)`` before each step.

    Its other arguments are `Adam`'s.

    >>> import gradlab as gl
    >>> w = gl.tensor([1.0], requires_grad=True)
    >>> w.grad = gl.zeros(1)
    >>> gl.optim.AdamW([w], lr=0.1, weight_decay=0.5).step()
    >>> w.detach()
    tensor([0.9500])

    .. [1] Loshchilov and Hutter, https://arxiv.org/abs/1711.05101
    """

    _decoupled = True

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class Adamax(Optimizer):
    """Adam by the largest gradient in place of the mean square [1]_.

    ``m ← β₁·m + (1 - β₁)·g``, ``u ← max(β₂·u, |g| + eps)``, and in step ``t``
    ``p ← p - lr/(1 - β₁ᵗ)·m/u``.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    betas: (β₁, β₂), each in [0, 1).
    eps: added to the absolute gradient.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.Adamax([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()  # the first step is lr in every direction
    >>> w.detach()
    tensor([ 3.5000, -1.5000])

    .. [1] Kingma and Ba, https://arxiv.org/abs/1412.6980, section 7.1
    """

    _entries = frozenset({"step", "exp_avg", "exp_inf"})

    def __init__(
        self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        means, largest = self._states(params, "exp_avg"), self._states(params, "exp_inf")
        options = self._options(group)
        options["steps"] = self._count_steps(params)
        update(ADAMAX, (params, grads, means, largest), options)


class RMSprop(Optimizer):
    """RMSprop [1]_: steps divided by the root of the running mean square of the gradient.

    ``v ← alpha·v + (1 - alpha)·g²``, ``p ← p - lr·g/(√v + eps)``. ``centered`` takes the variance,
    ``v - m²`` with ``m ← alpha·m + (1 - alpha)·g``, in place of ``v`` [2]_. With momentum
    ``b ← momentum·b + g/(√v + eps)``, ``p ← p - lr·b``.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    alpha: the share of the mean that is kept in a step.
    eps: added to the denominator.
    momentum: 0 or more.
    centered: divide by the standard deviation of the gradient.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.RMSprop([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()  # the first step is lr/√(1 - alpha)
    >>> w.detach()
    tensor([ 3., -1.])

    .. [1] Tieleman and Hinton, "Lecture 6.5", Coursera: Neural Networks for Machine Learning, 2012
    .. [2] Graves, https://arxiv.org/abs/1308.0850
    """

    _entries = frozenset({"step", "square_avg", "momentum_buffer", "grad_avg"})

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

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        self._count_steps(params)
        squares = self._states(params, "square_avg")
        buffers = self._states(params, "momentum_buffer") if group["momentum"] else []
        means = self._states(params, "grad_avg") if group["centered"] else []
        update(RMSPROP, (params, grads, squares, buffers, means), self._options(group))


class Adagrad(Optimizer):
    """Adagrad [1]_: steps divided by the root of the sum of all squared gradients.

    ``s ← s + g²``, and in step ``t`` ``p ← p - lr/(1 + (t - 1)·lr_decay)·g/(√s + eps)``.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    lr_decay: how fast the rate falls, 0 or more.
    initial_accumulator_value: the first ``s``.
    eps: added to the denominator.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.Adagrad([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([ 3.5000, -1.5000])

    .. [1] Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and
       stochastic optimization", JMLR 12, 2011
    """

    _entries = frozenset({"step", "sum"})

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

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        options = self._options(group)
        sums = self._states(params, "sum", options.pop("initial_accumulator_value"))
        options["steps"] = self._count_steps(params)
        update(ADAGRAD, (params, grads, sums), options)


class Adadelta(Optimizer):
    """Adadelta [1]_: steps as large as the last ones, by the size of the gradient.

    ``v ← rho·v + (1 - rho)·g²``, ``Δ ← √(d + eps)/√(v + eps)·g``, ``d ← rho·d + (1 - rho)·Δ²``,
    ``p ← p - lr·Δ``.

    Parameters
    ----------
    params, lr, weight_decay, maximize: as for every optimizer.
    rho: the share of the means that is kept in a step, in [0, 1].
    eps: added under the roots; the first steps are of its size.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = gl.optim.Adadelta([w], eps=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([ 3.0077, -1.0299])

    .. [1] Zeiler, https://arxiv.org/abs/1212.5701
    """

    _entries = frozenset({"step", "square_avg", "acc_delta"})

    def __init__(
        self, params: Params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )  # fmt: skip

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        rho = group["rho"]
        if not (isinstance(rho, int | float) and 0 <= rho <= 1):
            raise OptionError(message("Adadelta", expected="rho in [0, 1]", got=repr(rho)))

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        self._count_steps(params)
        squares, deltas = self._states(params, "square_avg"), self._states(params, "acc_delta")
        update(ADADELTA, (params, grads, squares, deltas), self._options(group))
