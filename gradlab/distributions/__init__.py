"""Probability distributions: drawing, densities, moments, divergences.

Names and signatures are those of ``torch.distributions``. A distribution's parameters may be
batches: ``batch_shape`` is their common shape, ``event_shape`` that of one draw, and a sample has
the shape ``sample_shape + batch_shape + event_shape``. Draws come from gradlab's generator: one
seed gives the same numbers on every device.

>>> import gradlab as gl
>>> from gradlab.distributions import Normal
>>> Normal(0.0, gl.tensor([1.0, 2.0])).sample((3,)).shape
(3, 2)

Parameters and values that no distribution has (a negative scale, a probability of 1.5, NaN) are
refused with an `OptionError` where they lie on the CPU. On a GPU the host would have to wait for
them: there they are looked at with ``validate_args=True`` alone. ``validate_args=False`` looks at
nothing.
"""

from gradlab.arguments import guard_namespace
from gradlab.distributions import constraints
from gradlab.distributions.bernoulli import Bernoulli
from gradlab.distributions.categorical import Categorical
from gradlab.distributions.distribution import Distribution
from gradlab.distributions.kl import kl_divergence, register_kl
from gradlab.distributions.multinomial import Multinomial
from gradlab.distributions.normal import Normal
from gradlab.distributions.uniform import Uniform

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Multinomial",
    "Normal",
    "Uniform",
    "constraints",
    "kl_divergence",
    "register_kl",
]


def __dir__() -> list[str]:
    return sorted(__all__)


guard_namespace(globals())
