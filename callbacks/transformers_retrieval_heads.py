"""Retrieval heads in a run of transformers' Trainer, and of what is built on it (TRL, axolotl)."""

import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from sce.errors import InputError
from sce.heads import SCORERS
from sce.measures import beside, differences, measures, require_same_examples, require_same_score
from sce.records import HeadScores, append_jsonl, drop_rows_after
from sce.scoring import Examples, Scored, Scoring, read_examples

if TYPE_CHECKING:
    from transformers import Trainer

_log = logging.getLogger("sce")


class RetrievalHeadsCallback(TrainerCallback):
    """Scores all heads before training, every so often and at its end; compares them, and records.

    S are the run's heads now, R the reference's, B those of step 0. Under `out`: heads/ with the
    scores, records.jsonl with every measure and its interval, logged as `heads/recall` and so on.
    """

    def __init__(  # noqa: PLR0913 - what a user chooses
        self,
        examples: Examples,
        reference: str | Path | HeadScores | None = None,
        *,
        tau: float | None = None,
        k: int = 20,
        every: int | str = 100,
        out: str | Path | None = None,
        trainer: "Trainer | None" = None,
        **scored: Any,
    ) -> None:
        """Read the examples and the reference.

        Args:
            examples: as for sce.score_heads; none that is trained on.
            reference: HeadScores or their JSON, of the same scorer, mode and match; None: heads are
                scored and counted, and nothing is compared.
            tau: a head is in a set if its mean score is above tau; None: the scorer's own.
            k: size of the sets of recall_at_k.
            every: optimiser steps between two scorings, or "evaluate": after every evaluation.
            out: folder to write to; None: the Trainer's output_dir/sce.
            trainer: whose integrations (W&B, TensorBoard and so on) are to show the figures.
                Without it they are in its log_history, and in W&B where it reports to that.
            **scored: scorer, mode, match, batch_size, max_new_tokens of sce.score_heads.

        Raises:
            InputError: a value that is unknown or out of range, examples or a reference that cannot
                be read, or a reference of another scorer, mode or match.
        """
        if every != "evaluate" and (not isinstance(every, int) or every < 1):
            raise InputError(f'every={every}: give a number of steps, or "evaluate"')
        if k < 1:
            raise InputError(f"k must be >= 1, got {k}")
        self.scored = Scored(**scored)
        self.tau = SCORERS[self.scored.scorer].SPEC.tau if tau is None else tau
        if not 0 <= self.tau < math.inf:
            raise InputError(f"tau must be a number >= 0, got {tau}")
        self.k, self.every, self.trainer = k, every, trainer
        self.out = None if out is None else Path(out).expanduser()
        self._own = (self.scored.scorer, self.scored.mode, self.scored.match)
        self._examples = read_examples(examples)
        self.scored.require_defined(self._examples)
        if isinstance(reference, (str, Path)):
            reference = HeadScores.load(Path(reference).expanduser())
        if reference is not None:
            require_same_score(reference, "reference", self._own)
        self.reference = reference
        self._scoring: Scoring | None = None
        self._base: np.ndarray | None = None
        self._last, self._training = -1, False

    # -- when -------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Encode the examples; score the untuned model, or go on with a resumed run's records."""
        given = kwargs.get("processing_class")
        tokenizer = getattr(given, "tokenizer", given)  # a processor has one inside
        if tokenizer is None:
            raise InputError("the Trainer has no tokenizer; give it processing_class=tokenizer")
        self._scoring = Scoring(tokenizer, self._examples, self.scored)
        self._last, self._base, self._training = -1, None, True
        records, step = self._folder(args) / "records.jsonl", state.global_step
        if not records.is_file():
            self._measure(args, state, control, kwargs["model"])
        elif step > 0:
            self._last = step
            self._take_base_up(args, self._scoring.origin)
            if state.is_world_process_zero:
                drop_rows_after(records, step)
        elif state.is_world_process_zero:
            raise InputError(f"{records} is another run's; delete it, or give out=another folder")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score where it is due, and where training stops."""
        due = isinstance(self.every, int) and state.global_step % self.every == 0
        if due or control.should_training_stop:
            self._measure(args, state, control, kwargs["model"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score after an evaluation within training, if that is asked for."""
        if self._training and self.every == "evaluate":
            self._measure(args, state, control, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the last step, unless it was, or the weights are those of another step by now."""
        self._training = False
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            self._measure(args, state, control, kwargs["model"])

    # -- what -------------------------------------------------------------------------------------

    def _folder(self, args: TrainingArguments) -> Path:
        return self.out or Path(str(args.output_dir)) / "sce"

    def _take_base_up(self, args: TrainingArguments, origin: dict[str, Any]) -> None:
        file = self._folder(args) / "heads" / "step-000000.json"
        if not file.is_file():
            _log.warning("%s is not there, so nothing is known of the untuned model", file)
            return
        first = HeadScores.load(file)
        require_same_score(first, str(file), self._own)
        require_same_examples(first, str(file), origin)
        # By example: the file's own mean is rounded, and would make a little of nothing learned.
        self._base = first.scores if first.per_example is None else first.per_example

    def _measure(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any
    ) -> None:
        """Score, compare, write and log, once a step."""
        step, started = state.global_step, time.perf_counter()
        if step == self._last:
            return
        self._last = step
        assert self._scoring is not None
        scores = self._scoring.score(model)
        scores.provenance["step"] = step
        if step == 0:
            self._base = scores.per_example
        found, warnings = self._compared(scores)
        if state.is_world_process_zero:
            scores.save(self._folder(args) / "heads" / f"step-{step:06d}.json")
            row = {
                **{"step": step, "epoch": state.epoch, "tau": self.tau, "k": self.k},
                **dict(zip(("scorer", "mode", "match"), self._own, strict=True)),
                **found,
                **{name: scores.provenance[name] for name in ("data_sha256", "context_tokens")},
                "warnings": warnings,
                "seconds": round(time.perf_counter() - started, 3),
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            append_jsonl(self._folder(args) / "records.jsonl", row)
        self._log(args, state, control, found)

    def _compared(self, scores: HeadScores) -> tuple[dict[str, Any], list[str]]:
        rows = scores.per_example
        assert rows is not None
        warnings = [] if self.reference is None else differences(self.reference, scores)
        data, theirs = scores.provenance.get("data_sha256"), self.reference
        reference = None if theirs is None else beside(theirs, data, len(rows))
        return measures(rows, reference, self._base, tau=self.tau, k=self.k), warnings

    def _log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, found: dict
    ) -> None:
        """Hand the figures that exist to the Trainer's log."""
        logs = {f"heads/{name}": float(v) for name, v in found.items() if v is not None}
        if self.trainer is not None:
            from transformers import Trainer

            # The plain one: TRL's empties its running means. It takes the loss's flag back.
            should_log = control.should_log
            Trainer.log(self.trainer, logs)
            control.should_log = should_log
            return
        state.log_history.append({**logs, "epoch": state.epoch, "step": state.global_step})
        wandb = sys.modules.get("wandb")  # there if the Trainer reports to it
        if state.is_world_process_zero and "wandb" in (args.report_to or []) and wandb is not None:
            logs = {f"train/{name}": value for name, value in logs.items()}
            wandb.log({**logs, "train/global_step": state.global_step})
