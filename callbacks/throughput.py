"""How fast it trains, and what validation costs."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.data.batch import Batch
from sce.data.datamodule import REFERENCE
from sce.module import SceModule


class Throughput(Callback):
    """Real tokens a second on each device (padding not counted), peak memory, the price of scoring.

    The clock runs while training batches run; validation, its callbacks and checkpoints stop it.
    """

    def __init__(self) -> None:
        self._tokens, self._seconds, self._started = 0, 0.0, 0.0
        self._validation, self._scoring, self._batch_started = 0.0, 0.0, 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count real tokens."""
        self._tokens += batch.num_tokens
        self._seconds += time.perf_counter() - self._started

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the validation's clock."""
        self._validation = -time.perf_counter()
        self._scoring = 0.0

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock of one batch."""
        self._batch_started = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the reference split's passes up: they are there for scoring alone."""
        if dataloader_idx == REFERENCE:
            self._scoring += time.perf_counter() - self._batch_started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and count afresh."""
        assert isinstance(pl_module, SceModule)
        self._validation += time.perf_counter()
        metrics: dict[str, float | None] = {
            "perf/scoring_share_of_validation": self._scoring / max(1e-9, self._validation),
            "perf/validation_s": self._validation,
        }
        if self._tokens:
            metrics["perf/tokens_per_s_per_device"] = self._tokens / self._seconds
        metrics["perf/peak_memory_gib"] = _peak_memory_gib()
        pl_module.hand_on(metrics)
        self._tokens, self._seconds = 0, 0.0


def _peak_memory_gib() -> float:
    """Most that has been allocated on this GPU; without one, the process's largest resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
