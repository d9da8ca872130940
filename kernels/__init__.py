"""Device code of gradlab, installed as :mod:`gradlab.kernels`.

The modules below know arrays and pointers, never tensors or gradients, and import nothing of
gradlab but `gradlab._environment`. What they compute is defined by the forward of the op of the
same name in :mod:`gradlab.ops`.
"""

# PyPI has a package named `kernels`, and a checkout of this repository has this folder. Whoever
# writes `import kernels` in such a checkout would get one for the other without a word.
if __name__ == "kernels":
    raise ImportError(
        "this folder holds gradlab's kernels and is imported as `gradlab.kernels`, not `kernels`. "
        "Write `import gradlab.kernels`; if you meant the PyPI package named kernels, "
        "run Python from another folder than gradlab's checkout."
    )

from typing import TYPE_CHECKING, Any

from gradlab.kernels.ladder import policy, use

if TYPE_CHECKING:
    from gradlab.kernels.racing import RaceResult, race

__all__ = ["RaceResult", "policy", "race", "use"]


def __getattr__(name: str) -> Any:
    """`race` is imported when it is first used: `import gradlab` stays short."""
    if name in ("RaceResult", "race"):
        from gradlab.kernels import racing

        return getattr(racing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
