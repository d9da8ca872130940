"""Whether this is a notebook."""

from __future__ import annotations

import sys
from typing import Any


def notebook() -> Any:
    """IPython's shell if this is a notebook, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # By name, since ipykernel need not be installed; Colab's shell is derived from this one.
    kinds = {kind.__name__ for kind in type(shell).__mro__}
    return shell if "ZMQInteractiveShell" in kinds else None
