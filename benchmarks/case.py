"""A case: one piece of work, done by gradlab and by each peer, and what is asked of gradlab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import Round, batches

Step = Callable[[], Any]

# The methods of a case, the column each fills, and the library it needs.
TITLES = {
    "gradlab": "gradlab",
    "numpy": "NumPy",
    "pytorch": "PyTorch",
    "jax": "JAX",
    "by_hand": "by hand",
}
LIBRARIES = {"numpy": "numpy", "pytorch": "torch", "jax": "jax"}


@dataclass(frozen=True)
class Target:
    """What gradlab's time is to stay below, in one of three units.

    ``"ratio"``: of the time of the peer ``against``; ``"over"``: seconds above the peer's time;
    ``"seconds"``: seconds.
    """

    limit: float
    unit: str = "ratio"
    against: str = "pytorch"


class Case:
    """One piece of work. A subclass has a method per peer, named as in `TITLES`.

    Such a method prepares everything and returns the step to be timed, a function without
    arguments. Steps return what they computed, and `agree` holds that all computed the same: a
    race in which one side does less work says nothing.
    """

    name = ""
    title = ""
    target: Target | None = None
    against = "pytorch"  # whom the printed ratio compares with, where there is no target
    rounds = 1000  # at most
    turn = 0.0  # seconds of a turn, at least
    tolerance = 1e-4  # relative, of the results of the steps
    # Seconds to rest before another peer's turn. The threads of OpenBLAS go on spinning for some
    # 25 ms after a product, and would take a core from whoever comes next.
    rest = 0.0
    # Whether gradlab's turns leave those threads spinning while PyTorch, which has threads of its
    # own, takes its turns. Its times are then too long, and the README shows none of them.
    slows_pytorch = False

    def peers(self) -> Iterator[str]:
        """The names of the peers that are installed, gradlab first."""
        for name in TITLES:
            if hasattr(self, name) and (name not in LIBRARIES or find_spec(LIBRARIES[name])):
                yield name

    def step(self, peer: str) -> Step:
        return getattr(self, peer)()

    def round(self, peer: str, seconds: float) -> Round:
        """What measures one round: here, the time of as many steps as fill ``seconds``."""
        return batches(self.step(peer), max(seconds, self.turn))

    def agree(self, peers: list[str], steps: int = 3) -> None:
        """Run a few steps of each peer afresh and compare what the last ones returned."""
        import numpy as np

        found = {}
        for peer in peers:
            step = self.step(peer)
            result = [step() for _ in range(steps)][-1]
            found[peer] = np.asarray(_detached(result), dtype=np.float64)
        for peer in peers[1:]:
            np.testing.assert_allclose(
                found[peer],
                found[peers[0]],
                rtol=self.tolerance,
                err_msg=f"{self.name}: {TITLES[peer]} computes something else than {peers[0]}",
            )


def _detached(result: Any) -> Any:
    return result.detach() if hasattr(result, "detach") else result
