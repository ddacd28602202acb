"""One line a step and a validation, on the screen and in log.txt: it reads the same in a pipe."""

import logging
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sce.module import SceModule

_log = logging.getLogger("sce")


class ProgressLines(Callback):
    """Says what is going on, on rank 0."""

    def __init__(self, *, every_n_steps: int = 1) -> None:
        """Set how often.

        Args:
            every_n_steps: optimiser steps between two lines.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be >= 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._last_step = 0
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The step that a run goes on from has had its line."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A line when a step is complete."""
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._last_step or step % self.every_n_steps:
            return
        self._last_step = step
        loss = float(trainer.callback_metrics.get("train/loss", math.nan))
        rate = float(trainer.callback_metrics.get("train/learning_rate", math.nan))
        elapsed = time.perf_counter() - self._started
        _log.info(
            "step %d/%d   loss %.3f   lr %.1e   %4.0f s",
            step,
            trainer.max_steps,
            loss,
            rate,
            elapsed,
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A line before the wait."""
        if trainer.is_global_zero:
            _log.info("validating at step %d ...", trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A line with what was found."""
        assert isinstance(pl_module, SceModule)
        if not trainer.is_global_zero:
            return
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = ("val/f1", "val/answer_nll", "heads/recall", "heads/recall_learned", "heads/cosine")
        parts = [
            f"{name.split('/')[1]} {known[name]:.3f}"
            for name in shown
            if math.isfinite(known.get(name, math.nan))
        ]
        _log.info("step %d   %s", trainer.global_step, "   ".join(parts))
