"""``python claiming.py FOLDER COUNT``: claims numbers and writes; with COUNT 0 it waits while it
writes, after a line of output."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gradlab.training.folder import claimed

folder, count = Path(sys.argv[1]), int(sys.argv[2])
position = {"epoch": 1, "batch": 0, "step": 5}
for _ in range(count):
    with claimed(folder, position) as path:
        with path.with_suffix(".safetensors").open("x") as file:
            file.write(path.name)
        with path.open("x") as file:
            file.write(path.name)
if not count:
    with claimed(folder, position) as path:
        path.with_suffix(".safetensors").write_text("whole")
        path.with_name(f".{path.name}.0123abcd.tmp").write_text("half")
        sys.stdout.write(f"{path.name}\n")
        sys.stdout.flush()
        time.sleep(60)
