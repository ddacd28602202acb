"""How fast it trains, and what validation costs."""

import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.distributed import ReduceOp

from sce.data.batch import Batch
from sce.data.datamodule import REFERENCE
from sce.errors import InputError
from sce.model.flops import FlopCounter, peak_flops, spans
from sce.module import SceModule


class Throughput(Callback):
    """Real tokens a second on each device (no padding), MFU on a GPU, peak memory, scoring's price.

    The clock runs while training batches run; validation, its callbacks and checkpoints stop it.
    Over several ranks tokens and operations are means, memory and seconds those of the worst.
    MFU counts what training needs; what is recomputed to save memory counts in HFU alone.
    """

    def __init__(self) -> None:
        self._tokens, self._seconds, self._started = 0, 0.0, 0.0
        self._counter: FlopCounter | None = None
        self._countable = True
        self._needed, self._recomputed = 0.0, 0.0
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
        """Count real tokens, and what they took."""
        assert isinstance(pl_module, SceModule)
        self._tokens += batch.num_tokens
        self._count(pl_module, batch)
        if pl_module.device.type == "cuda":  # the next batch would wait for it, outside the clock
            torch.cuda.synchronize(pl_module.device)
        self._seconds += time.perf_counter() - self._started

    def _count(self, pl_module: SceModule, batch: Batch) -> None:
        """Add a batch's operations up, where the architecture's can be told."""
        if self._counter is None and self._countable:
            try:
                self._counter = FlopCounter(pl_module.model)
            except InputError:  # no output projection by a known name
                self._countable = False
        if self._counter is not None:
            flops = self._counter.of(spans(batch))
            self._needed += flops.needed
            self._recomputed += flops.recomputed

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
        means = _over_ranks(pl_module, [self._tokens, self._needed, self._recomputed], ReduceOp.SUM)
        tokens, self._needed, self._recomputed = (n / trainer.world_size for n in means)
        most = [self._seconds, _peak_memory_gib(pl_module.device)]
        self._seconds, peak_memory = _over_ranks(pl_module, most, ReduceOp.MAX)
        if tokens:
            metrics["perf/tokens_per_s_per_device"] = tokens / self._seconds
            metrics |= self._utilisation(_peak_flops(pl_module))
        metrics["perf/peak_memory_gib"] = peak_memory
        pl_module.hand_on(metrics)
        self._tokens, self._seconds = 0, 0.0
        self._needed, self._recomputed = 0.0, 0.0

    def _utilisation(self, peak: float | None) -> dict[str, float | None]:
        done = self._needed + self._recomputed
        if not done:
            return {}
        found: dict[str, float | None] = {"perf/recomputed_share": self._recomputed / done}
        if peak is not None:
            found["perf/mfu"] = self._needed / self._seconds / peak
            found["perf/hfu"] = done / self._seconds / peak
        return found


def training_flops(model: nn.Module, lengths: Sequence[int]) -> float:
    """Operations that one training pass over examples of these lengths needs (sce.model.flops)."""
    return FlopCounter(model).of([(length, 0) for length in lengths]).needed


def _over_ranks(
    pl_module: LightningModule, values: Sequence[float], how: ReduceOp.RedOpType
) -> list[float]:
    """The values of all ranks together; a collective where there are several."""
    found = torch.tensor(values, dtype=torch.float64, device=pl_module.device)
    if pl_module.trainer.world_size > 1:
        torch.distributed.all_reduce(found, op=how)
    return found.tolist()


def _peak_flops(pl_module: LightningModule) -> float | None:
    """What this GPU can do a second in bfloat16, by our table or Lightning's; None: unknown."""
    device = pl_module.device
    if device.type != "cuda":
        return None
    # Lightning knows no plain H200, takes an L40S for an L4 and counts some as if with sparsity.
    known = peak_flops(torch.cuda.get_device_name(device))
    return get_available_flops(device, torch.bfloat16) if known is None else known


def _peak_memory_gib(device: torch.device) -> float:
    """Most that was allocated on the run's GPU; on a CPU the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
