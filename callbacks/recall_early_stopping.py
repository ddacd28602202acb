"""Ends a run when its heads get no nearer to the reference's."""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from sce.errors import InputError
from sce.model.weights import recover_folder, replace_folder
from sce.module import SceModule

RISING = (
    *("heads/recall", "heads/recall_learned", "heads/recall_at_k", "heads/greedy_recall"),
    *("heads/precision", "heads/jaccard", "heads/spearman"),
    *("heads/cosine", "heads/cosine_learned", "heads/greedy_cosine"),
    *("val/f1", "val/exact_match"),
)
"""Figures that are larger in a better run. Of the others answer_nll falls, counts of heads and what
chance recalls go either way, and what the untuned model recalls stays."""
_log = logging.getLogger("sce")


class RecallEarlyStopping(Callback):
    """Stops when a figure has not risen for `patience` validations.

    A rise is a value above the best so far by more than `min_delta`. A validation in which the
    figure does not exist (recall learned, where there is nothing to learn) is neither a rise nor
    one of the `patience`. Stands after the callback whose figure it reads, and before the one that
    writes checkpoints.
    """

    def __init__(
        self,
        *,
        metric: str = "heads/recall_learned",
        patience: int = 3,
        min_delta: float = 0.0,
        start_step: int = 0,
        restore: bool = False,
    ) -> None:
        """Set the figure and when enough is enough.

        Args:
            metric: a figure of the validations that rises as the run gets better: one of RISING.
            patience: validations without a rise after which the run ends.
            min_delta: a rise is larger than this, in the figure's own units.
            start_step: validations before this optimiser step are not looked at.
            restore: keep the adapter of the best validation in adapter-best/, and have adapter/ be
                that one when the run ends. Checkpoints stay the last step's.

        Raises:
            InputError: a value out of range, or a figure that does not rise with quality.
        """
        if metric not in RISING:
            raise InputError(
                f"callbacks.early_stopping.metric={metric}: a run stops when its figure no longer "
                f"rises, and this one need not rise as it gets better; choose from "
                f"{', '.join(RISING)}"
            )
        if patience < 1:
            raise InputError(f"callbacks.early_stopping.patience must be >= 1, got {patience}")
        if min_delta < 0 or start_step < 0:
            name, value = ("min_delta", min_delta) if min_delta < 0 else ("start_step", start_step)
            raise InputError(f"callbacks.early_stopping.{name} must be >= 0, got {value}")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self.start_step, self.restore = start_step, restore
        self._best, self._best_step, self._waited, self._seen = -math.inf, 0, 0, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped, and is resumed with no more patience, stays stopped."""
        self._stop_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the figure, and stop training if it has not risen for too long."""
        assert isinstance(pl_module, SceModule)
        step, value = trainer.global_step, self._value(trainer)
        if step <= self._seen or step < self.start_step:
            return
        self._seen = step
        if not math.isfinite(value):
            if trainer.is_global_zero:
                _log.info("%s does not exist at step %d, which does not count", self.metric, step)
        elif round(value - self._best, 6) > self.min_delta:  # figures come in float32
            self._best, self._best_step, self._waited = value, step, 0
            self._keep(trainer, pl_module)
        else:
            self._waited += 1
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop_if_due(trainer)
        elif step > 0:  # the last step's own validation, after training
            self._put_back(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the best adapter, if that is asked for."""
        assert isinstance(pl_module, SceModule)
        self._put_back(trainer, pl_module)

    def _value(self, trainer: Trainer) -> float:
        found = trainer.callback_metrics
        if self.metric not in found and trainer.global_step > 0:
            names = [name for name in RISING if name in found]
            raise InputError(
                f"callbacks.early_stopping.metric={self.metric}: this run has no such figure "
                f"(recall and its like need a reference); choose from {', '.join(names)}"
            )
        return float(found[self.metric]) if self.metric in found else math.nan

    def _stop_if_due(self, trainer: Trainer) -> None:
        # All ranks have the same figures; that they stop together does not rest on it.
        due = trainer.strategy.reduce_boolean_decision(self._waited >= self.patience, all=False)
        if not due or trainer.should_stop:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            _log.info(
                "stopping at step %d: %s has not risen by more than %g above the %.3f of step %d "
                "for %d validations",
                trainer.global_step,
                self.metric,
                self.min_delta,
                self._best,
                self._best_step,
                self._waited,
            )

    def _keep(self, trainer: Trainer, pl_module: SceModule) -> None:
        """Copy the adapter of this validation, which is the best so far."""
        folder = pl_module.facts.run_dir
        if not self.restore or self._best_step == 0 or not trainer.is_global_zero:
            return
        _replace(folder / "adapter", folder / "adapter-best")

    def _put_back(self, trainer: Trainer, pl_module: SceModule) -> None:
        folder, step = pl_module.facts.run_dir, trainer.global_step
        if not self.restore or not trainer.is_global_zero or self._best_step == step:
            return
        recover_folder(folder / "adapter-best")
        if not (folder / "adapter-best").is_dir():
            _log.info("no trained step was the best; adapter/ is that of step %d, the last", step)
            return
        _replace(folder / "adapter-best", folder / "adapter")
        _log.info("adapter/ is that of step %d, the best", self._best_step)

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long ago it was."""
        names = ("best", "best_step", "waited", "seen")
        return {name: getattr(self, f"_{name}") for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on waiting."""
        for name in ("best", "best_step", "waited", "seen"):
            setattr(self, f"_{name}", state_dict[name])


def _replace(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, as a whole."""
    new = target.with_name(f".{target.name}-new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    replace_folder(new, target)
