"""Device code of gradlab, installed as :mod:`gradlab.kernels`.

The modules below know arrays and pointers, never tensors or gradients, and import nothing of
gradlab. What they compute is defined by the forward of the op of the same name in
:mod:`gradlab.ops`.
"""

# PyPI has a package named `kernels`, and a checkout of this repository has this folder. Whoever
# writes `import kernels` in such a checkout would get one for the other without a word.
if __name__ == "kernels":
    raise ImportError(
        "this folder holds gradlab's kernels and is imported as `gradlab.kernels`, not `kernels`. "
        "Write `import gradlab.kernels`; if you meant the PyPI package named kernels, "
        "run Python from another folder than gradlab's checkout."
    )

from gradlab.kernels.ladder import policy, use
from gradlab.kernels.race import RaceResult, race

__all__ = ["RaceResult", "policy", "race", "use"]
