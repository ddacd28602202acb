"""A signal ends a run between two optimiser steps, with a checkpoint, on all ranks alike."""

import logging
import math
import signal
import threading
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.errors import STOPPING, StoppedBySignal
from sce.module import SceModule

_log = logging.getLogger("sce")
AGAIN_S = 1.0
"""Within which a signal that comes again is the same one: launchers and service managers send it to
the process group and to each process besides."""


class GracefulStop(Callback):
    """Stops on SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (what SLURM sends before the time is up).

    One rank may get the signal alone: ranks ask each other after every optimiser step and every
    validation batch. RunCheckpoint, which stands later, then saves; a validation that was cut short
    is made anew when the run goes on. Another signal, or the same a second later, ends the process
    as it would have without us.

    Lightning's own handler for SIGTERM talks to the other ranks from within the handler, where it
    can wait for ever; it is replaced as soon as there is something to save.
    """

    def __init__(self) -> None:
        self._received, self._at = 0, 0.0
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals over before Lightning does, so that what is given back is not its."""
        self._take_over()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning."""
        self._take_over()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the validation of step 0."""
        self._take_over()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree on stopping, where no gradients are pending."""
        assert isinstance(pl_module, SceModule)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            pl_module.stop_signal = self._agreed(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave a validation at once: what it had to save was saved before it began."""
        assert isinstance(pl_module, SceModule)
        if received := self._agreed(pl_module):
            run_dir, rank = pl_module.facts.run_dir, trainer.global_rank
            raise StoppedBySignal(received, trainer.global_step, run_dir, rank)

    def _agreed(self, pl_module: LightningModule) -> int:
        """The signal that any rank has got, 0 for none; a collective."""
        if pl_module.trainer.world_size == 1:
            return self._received
        flag = torch.tensor(self._received, device=pl_module.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return int(flag)

    def _take_over(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOPPING:
            current = signal.getsignal(number)
            if current != self._note:
                self._before.setdefault(number, current)
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self._received == number and time.monotonic() - self._at < AGAIN_S:
            return
        if self._received:
            self._give_back()
            signal.raise_signal(number)
            return
        self._received, self._at = number, time.monotonic()
        name = signal.Signals(number).name
        _log.info("%s: stopping after this step (once more to stop at once) ...", name)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A signal after the stop is a new one, however soon."""
        self._at = -math.inf

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()
