"""Checkpoints that a run can go on from: trainable parts, optimiser, schedule, data position."""

import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from sce.module import SceModule


class RunCheckpoint(Callback):
    """Writes checkpoints/last.ckpt around validations, every `save_every` steps and at the last.

    Stands last, so that what it saves includes what the other callbacks made of a validation: a
    resumed run neither repeats nor loses one. The file is replaced as a whole.
    """

    def __init__(self, *, save_every: int | None = None) -> None:
        """Set how often.

        Args:
            save_every: optimiser steps between two checkpoints; None: only around validations, and
                at the last step.
        """
        if save_every is not None and save_every < 1:
            raise ValueError(f"save_every must be >= 1, got {save_every}")
        self.save_every = save_every
        self._saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run goes on from is saved already."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due, where a validation is to come, and where the run ends.

        It ends at its last step, which need not be one of `val_every`, or by a signal. Never
        between the micro-batches of a step, whose gradients are not saved.
        """
        assert isinstance(pl_module, SceModule)
        step = trainer.global_step
        if step == self._saved or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        every = trainer.val_check_batch
        due = isinstance(every, int) and step * trainer.accumulate_grad_batches % every == 0
        ends = pl_module.stop_signal or step == trainer.max_steps
        if due or ends or (self.save_every and step % self.save_every == 0):
            pl_module.validation_due = due
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within training."""
        assert isinstance(pl_module, SceModule)
        pl_module.validation_due = False
        if trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0:
            self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, pl_module: SceModule) -> None:
        file = pl_module.facts.run_dir / "checkpoints" / "last.ckpt"
        new = file.with_name(".last-new.ckpt")
        trainer.save_checkpoint(new)  # every rank takes part
        if trainer.is_global_zero:
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
            new.replace(file)
        self._saved = trainer.global_step
