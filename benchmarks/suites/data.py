"""Batches of data that lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Case, Step

ROWS, FEATURES, BATCH = 8192, 64, 64


class Epoch(Case):
    name = "data_loader"
    title = f"DataLoader, an epoch of {ROWS:,} rows of {FEATURES}, batch {BATCH}, shuffled"

    def __init__(self) -> None:
        self.x = np.random.default_rng(0).random((ROWS, FEATURES), dtype=np.float32)
        self.y = np.arange(ROWS)

    def gradlab(self) -> Step:
        import gradlab as gl
        from gradlab.data import DataLoader, TensorDataset

        return self.step_of(gl, DataLoader, TensorDataset)

    def pytorch(self) -> Step:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        return self.step_of(torch, DataLoader, TensorDataset)

    def step_of(self, library: Any, loader: Any, dataset: Any) -> Step:
        rows = dataset(library.tensor(self.x), library.tensor(self.y))
        batches = loader(rows, batch_size=BATCH, shuffle=True)

        def step() -> int:
            return sum(len(x) for x, _ in batches)

        return step


CASES = [Epoch()]
