"""What holds for the tests of the Trainer."""

from __future__ import annotations

import sys
from pathlib import Path

# The tests share `support.py`, which is no package of its own.
sys.path.insert(0, str(Path(__file__).parent))
