"""One training step, and one validation: accuracy and head scores in the same passes.

The loss is taken over answer tokens alone, and lm_head runs on the answer's columns alone.
Micro-batches backpropagate the *sum* of their token losses; before clipping the gradient is divided
by the number of target tokens of the whole optimiser step over all ranks, so neither accumulation
nor unequal answers nor the number of devices changes what is optimised.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from sce.checkpoint import pack, unpack
from sce.data.batch import IGNORE, Batch
from sce.data.datamodule import REFERENCE, VAL
from sce.decode import DecodeSettings, Outcome, decode
from sce.errors import StoppedBySignal
from sce.logged import LogOnce
from sce.metrics import metrics_for
from sce.optimizer import adamw, require_finite, take_up
from sce.options import OptimizerOptions
from sce.parallel import gathered, shard, shared_run_dir, total_norm
from sce.records import RunFacts
from sce.stats import bootstrap_interval
from sce.untuned import Scored, Untuned
from sce.validation import Answer, Validation, answer_nll, measured, place


class SceModule(L.LightningModule):
    """A causal LM with an adapter, trained on answers and validated through `sce.decode`."""

    last_validation: Validation | None = None

    def __init__(
        self,
        build: Callable[[], nn.Module],
        detokenize: Callable[[Sequence[int]], str],
        *,
        optimizer: OptimizerOptions,
        settings: DecodeSettings,
        facts: RunFacts,
        untuned: Untuned | None = None,
    ) -> None:
        """Take the parts.

        Args:
            build: makes the model, once, when Lightning asks for it.
            detokenize: token ids to text, for F1.
            optimizer: AdamW and its schedule.
            settings: scorers, modes and greedy steps of a validation.
            facts: what identifies the run.
            untuned: what step 0 is read from, or written to where there is nothing.
        """
        super().__init__()
        self.strict_loading = False  # checkpoints hold the trainable parts alone
        self._build, self._detokenize = build, detokenize
        self.optimizer_options, self.settings, self.facts = optimizer, settings, facts
        self._untuned = untuned
        self._known: tuple[list[Answer], list[Scored]] | None = None
        self.net: nn.Module | None = None
        # Fed with what has been gathered from all ranks, so there is nothing left to synchronise.
        self.metrics = metrics_for(facts.task, sync=False)
        self._outcomes: tuple[list[Outcome], list[Outcome]] = ([], [])
        self._labels, self._loss = 0, torch.zeros(())
        self._whole = ExitStack()
        self._log = LogOnce()
        self.logger_id: str | None = None
        """The logger's own name for this run, which a resumed run keeps."""
        self.validation_due = False
        """A validation of this step is to come, or not yet through."""
        self.validated = -1
        """Step of the last validation that went through."""
        self.stop_signal = 0
        """Number of the signal that ends the run after this step; 0: none."""
        self.target_tokens = 0
        """Answer tokens trained on so far, over all ranks."""

    def setup(self, stage: str) -> None:
        """Take rank 0's folder for the run's, in which all see the same checkpoint."""
        del stage
        run_dir = shared_run_dir(self.trainer, self.facts.run_dir, begins=self.net is None)
        self.facts = replace(self.facts, run_dir=run_dir)
        self._log.open(run_dir)

    def configure_model(self) -> None:
        """Build the model, sharded where there is a mesh; Lightning may ask more than once."""
        if self.net is None:
            self.net = self._build()
            if self.device_mesh is not None:
                shard(self.net, self.device_mesh["data_parallel"])

    @property
    def model(self) -> nn.Module:
        """The built model."""
        if self.net is None:
            raise RuntimeError("the model is built by configure_model, which has not run")
        return self.net

    # -- training ---------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed by position, so that resuming and scoring in between change no dropout mask."""
        del batch, batch_idx
        position = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed((self.facts.seed * 1_000_003 + position) * 1009 + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Summed token loss of a micro-batch, in nats."""
        del batch_idx
        logits = self.model(**batch.inputs, use_cache=False).logits
        batch.check_pass(self.model)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            batch.labels.flatten(),
            ignore_index=IGNORE,
            reduction="sum",
        )
        self._labels += batch.num_labels
        self._loss = self._loss.to(loss.device) + loss.detach()
        # Lightning divides by the number of micro-batches; the sum is what counts here.
        return loss * self.trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Normalise gradients by the step's target tokens over all micro-batches and ranks."""
        totals = torch.stack([self._loss.double(), self._loss.new_tensor(self._labels).double()])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(totals)
        loss, labels = totals.tolist()
        # DDP and FSDP average over ranks, hence the factor world_size.
        scale = self.trainer.world_size / labels
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(scale)
        self.target_tokens += int(labels)
        self._labels, self._loss = 0, torch.zeros((), device=self.device)
        self._step_metrics = {
            "train/loss": loss / labels,
            "train/grad_norm": total_norm(gradients),
            "train/learning_rate": optimizer.param_groups[0]["lr"],
        }
        norm = self._step_metrics["train/grad_norm"]
        require_finite(loss / labels, norm, self.global_step + 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then log it; Lightning counts it only after this hook."""
        super().optimizer_step(*args, **kwargs)
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in self._step_metrics.items()}
        )
        self.record(self._step_metrics, step=self.global_step + 1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW on the trained parameters; linear warm-up, then cosine to zero."""
        trained = [p for p in self.parameters() if p.requires_grad]
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = adamw(trained, self.optimizer_options, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Leave where a signal said so; the callbacks have saved by now."""
        del outputs, batch, batch_idx
        if self.stop_signal:
            run_dir, rank = self.facts.run_dir, self.trainer.global_rank
            raise StoppedBySignal(self.stop_signal, self.global_step, run_dir, rank)

    # -- validation -------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start afresh, with every weight whole; step 0 may be known from another run."""
        self._outcomes, self._known = ([], []), None
        if self._untuned is not None and self.global_step == 0:
            reads = self.trainer.is_global_zero and self._untuned.is_known
            self._known = self.trainer.strategy.broadcast(self._untuned.read() if reads else None)
        self._whole.enter_context(gathered(self.model))

    # Lightning hands any output on to callbacks, though it names only some types.
    def validation_step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[Outcome]:
        """Decode a batch; heads are read on the reference split alone."""
        del batch_idx
        if self._known is not None:
            return []
        settings = self.settings
        if dataloader_idx == VAL:
            settings = replace(settings, scorers=())
        elif "greedy" not in settings.modes:
            settings = replace(settings, max_new_tokens=0)
        outcomes = [o for o in decode(self.model, batch, settings) if o.weight]
        self._outcomes[dataloader_idx].extend(outcomes)
        return outcomes

    def on_validation_epoch_end(self) -> None:
        """Gather what all ranks found, and log accuracy."""
        self._whole.close()
        val, reference = self._known or self._found()
        keys = list(reference[0][1]) if reference else []
        likelihood = answer_nll(val)
        validation = Validation(
            step=self.global_step,
            predictions=measured(self.metrics, val),
            answer_nll=float(likelihood["answer_nll"] or 0),
            reference=tuple(row[0] for row in reference),
            scores={key: np.stack([row[1][key].numpy() for row in reference]) for key in keys},
        )
        self.last_validation, self.validated = validation, validation.step
        self.hand_on({**self._accuracy(), **{f"val/{n}": v for n, v in likelihood.items()}})

    def _found(self) -> tuple[list[Answer], list[Scored]]:
        """What all ranks decoded; of step 0 it is kept for other runs where that is asked for."""
        val = self._gather(VAL, self._answer)
        scored = self._gather(REFERENCE, lambda o: (place(o.example), dict(o.scores)))
        if self._untuned is not None and self.global_step == 0 and self.trainer.is_global_zero:
            self._untuned.write(val, scored)
        return val, scored

    def _accuracy(self) -> dict[str, float | None]:
        """The mean of every metric over the validation examples, 95% bounds, and how many."""
        found: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            values = metric.compute().flatten()
            low, high = bootstrap_interval(values.tolist(), seed=0) or (None, None)
            found |= {f"val/{name}": float(values.mean()), "val/num_examples": float(len(values))}
            found |= {f"val/{name}_low": low, f"val/{name}_high": high}
        return found

    def _answer(self, outcome: Outcome) -> Answer:
        text, example = self._detokenize(outcome.answer_ids), outcome.example
        return Answer(place(example), text, example.answers, outcome.nll, outcome.num_labels)

    def _gather(self, split: int, row: Callable[[Outcome], Any]) -> list[Any]:
        """Rows of all ranks, in the order of the example ids."""
        rows = [(outcome.example.id, row(outcome)) for outcome in self._outcomes[split]]
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, rows)
            rows = [item for part in parts for item in part]
        return [item for _, item in sorted(rows, key=lambda pair: pair[0])]

    # -- logging ----------------------------------------------------------------------------------

    def hand_on(self, metrics: Mapping[str, float | None]) -> None:
        """Log metrics at this step; leave them, None as NaN, in the trainer's callback_metrics."""
        values = {k: math.nan if v is None else float(v) for k, v in metrics.items()}
        self.trainer.callback_metrics.update({k: torch.tensor(v) for k, v in values.items()})
        self.record({k: v for k, v in values.items() if math.isfinite(v)})

    def record(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log to the run's logger, once over all ranks; `step` counts optimiser steps taken."""
        if self.trainer.is_global_zero and self.logger is not None:
            step = self.global_step if step is None else step
            self._log.metrics(self.logger, metrics, step)

    def record_image(self, name: str, file: Path) -> None:
        """Log a picture of this step, once over all ranks."""
        if self.trainer.is_global_zero and self.logger is not None:
            self._log.image(self.logger, name, file, self.global_step)

    # -- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained parts alone: the frozen base is the model's own files."""
        own = {
            "identity": self.facts.identity,
            "logger_id": self.logger_id,
            "target_tokens": self.target_tokens,
            "validation_due": self.validation_due,
            "validated": self.validated,
            "accumulate": self.trainer.accumulate_grad_batches,
        }
        pack(checkpoint, self, own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the token count, and whether a validation was to come."""
        own = unpack(checkpoint, self.trainer.accumulate_grad_batches)
        self.target_tokens = int(own["target_tokens"])
        self.validation_due, self.validated = bool(own["validation_due"]), int(own["validated"])

    def on_train_start(self) -> None:
        """Take this run's schedule up; make up for a validation that was interrupted."""
        for each in self.trainer.lr_scheduler_configs:
            take_up(each.scheduler)  # type: ignore[arg-type]
        if self.validation_due:
            loop = self.trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # from its first batch, whatever the last one had got to
            self.trainer.validating = True
            loop.run()
            self.trainer.training = True
