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

from sce.data.batch import Batch
from sce.data.datamodule import REFERENCE
from sce.model.build import base_of, head_shape
from sce.module import SceModule


class Throughput(Callback):
    """Real tokens a second on each device (no padding), MFU on a GPU, peak memory, scoring's price.

    The clock runs while training batches run; validation, its callbacks and checkpoints stop it.
    """

    def __init__(self) -> None:
        self._tokens, self._seconds, self._started = 0, 0.0, 0.0
        self._flops = 0.0
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
        assert isinstance(pl_module, SceModule)
        self._tokens += batch.num_tokens
        if _peak_flops(pl_module) is not None:
            lengths = [example.num_tokens for example in batch.examples]
            self._flops += training_flops(pl_module.model, lengths)
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
            peak = _peak_flops(pl_module)
            if peak is not None:
                metrics["perf/mfu"] = self._flops / self._seconds / peak
        metrics["perf/peak_memory_gib"] = _peak_memory_gib()
        pl_module.hand_on(metrics)
        self._tokens, self._seconds, self._flops = 0, 0.0, 0.0


def training_flops(model: nn.Module, lengths: Sequence[int]) -> float:
    """Floating-point operations of one training pass over examples of these lengths.

    2 a weight and token forward; backward 2 for the activations' gradients and, for trained weights
    only, 2 for their own. Causal attention adds 2 products of S x S / 2 a head forward and twice
    that backward. Embeddings, and lm_head on its few rows, are left out, recomputation too.
    """
    base = base_of(model)
    embeddings = {id(p) for p in base.get_input_embeddings().parameters()}
    output = base.get_output_embeddings()
    embeddings |= {id(p) for p in output.parameters()} if output is not None else set()
    weights = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    per_token = sum(p.numel() * (6 if p.requires_grad else 4) for p in weights)
    config = base.config.get_text_config()
    layers, heads = head_shape(model)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    squares = sum(length**2 for length in lengths)
    return float(per_token * sum(lengths) + 6 * layers * heads * head_dim * squares)


def _peak_flops(pl_module: LightningModule) -> float | None:
    """What this GPU can do a second in bfloat16, by Lightning's table; None if unknown."""
    if pl_module.device.type != "cuda":
        return None
    return get_available_flops(pl_module.device, torch.bfloat16)


def _peak_memory_gib() -> float:
    """Most that has been allocated on this GPU; without one, the process's largest resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
