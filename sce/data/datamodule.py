"""The splits as a LightningDataModule: one training loader, and validation beside reference."""

import lightning as L
from torch.utils.data import DataLoader

from sce.data.build import build_missing, open_splits
from sce.data.encode import Encoder
from sce.data.loader import Contexts, ResumableLoader, eval_loader, train_loader
from sce.data.plan import Plan
from sce.data.table import Split
from sce.errors import InputError
from sce.options import BatchOptions

# Position of each evaluation split among the validation loaders.
VAL, REFERENCE = 0, 1


class SplitsDataModule(L.LightningDataModule):
    """Builds what is missing, and serves it; every rank maps all and takes its share."""

    def __init__(self, plan: Plan, encoder: Encoder, batch: BatchOptions, seed: int) -> None:
        super().__init__()
        self.plan, self.encoder = plan, encoder
        self.batch, self.seed = batch, seed
        self.splits: dict[str, Split] = {}

    def prepare_data(self) -> None:
        """Build the splits that no earlier run has built, with a progress bar."""
        build_missing(self.plan, self.encoder)

    def setup(self, stage: str) -> None:
        """Map the built splits into memory; token ids are read from there, never made again."""
        del stage
        if not self.splits:
            self.splits, _ = open_splits(build_missing(self.plan, self.encoder))

    def train_dataloader(self) -> ResumableLoader:
        """Micro-batches of this rank, in whole optimiser steps.

        Raises:
            InputError: fewer examples than one optimiser step takes.
        """
        world_size, rank = self._ranks()
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        encoded, together = self.splits["train"].encoded, self.plan.recipes["train"].together
        items = encoded if together == 1 else Contexts(encoded, together)
        kind = "examples" if together == 1 else "contexts"
        if len(items) < self.batch.train * accumulate * world_size:
            raise InputError(
                f"data.train has {len(items)} {kind}, fewer than one optimiser step takes: "
                f"batch.train={self.batch.train} x {accumulate} batches x {world_size} devices"
            )
        return train_loader(
            items,
            batch_size=self.batch.train,
            seed=self.seed,
            accumulate=accumulate,
            rank=rank,
            world_size=world_size,
            workers=self.batch.workers,
        )

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
