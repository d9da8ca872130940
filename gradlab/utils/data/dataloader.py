"""The names of ``torch.utils.data.dataloader``; each is defined in `gradlab.data`."""

from gradlab.data import DataLoader, default_collate

__all__ = ["DataLoader", "default_collate"]
