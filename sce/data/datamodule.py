"""The splits as a LightningDataModule: one training loader, and validation beside reference."""

from collections.abc import Mapping

import lightning as L
from torch.utils.data import DataLoader

from sce.data.build import Split
from sce.data.loader import ResumableLoader, eval_loader, train_loader
from sce.errors import InputError
from sce.options import BatchOptions

# Position of each evaluation split among the validation loaders.
VAL, REFERENCE = 0, 1


class SplitsDataModule(L.LightningDataModule):
    """Serves splits that have been built; every rank holds all and takes its share."""

    def __init__(self, splits: Mapping[str, Split], batch: BatchOptions, seed: int) -> None:
        super().__init__()
        self.splits, self.batch, self.seed = splits, batch, seed

    def train_dataloader(self) -> ResumableLoader:
        """Micro-batches of this rank.

        Raises:
            InputError: fewer examples than one micro-batch on every device.
        """
        world_size, rank = self._ranks()
        encoded = self.splits["train"].encoded
        if len(encoded) < self.batch.train * world_size:
            raise InputError(
                f"data.train has {len(encoded)} examples, fewer than one micro-batch on every "
                f"device (batch.train={self.batch.train} x {world_size})"
            )
        return train_loader(encoded, self.batch.train, self.seed, rank, world_size)

    def val_dataloader(self) -> list[DataLoader]:
        """Validation (accuracy) and reference (head scores), in this order."""
        world_size, rank = self._ranks()
        return [
            eval_loader(self.splits[name].encoded, self.batch.eval, rank, world_size)
            for name in ("val", "reference")
        ]

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank
