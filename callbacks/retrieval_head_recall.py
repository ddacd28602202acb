"""Compares the heads of the run, S, with the reference's, R, and the untuned model's, B."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.measures import WITHOUT_RUN, beside, measures
from sce.module import SceModule
from sce.records import HeadScores, provenance
from sce.reference import greedy_sibling, load_reference
from sce.stats import mean_scores, num_kept
from sce.validation import Validation

_log = logging.getLogger("sce")


class RetrievalHeadRecall(Callback):
    """After every validation: recall, its nulls, precision, Jaccard, cosine; the scores on disk.

    B is this run's own step 0, on the same examples. Without a reference the scores are written and
    counted, and nothing is compared. Where the scorer kept no example there is neither figure nor
    file.
    """

    def __init__(
        self,
        *,
        tau: float,
        k: int,
        reference_path: str | None,
        num_resamples: int = 500,
    ) -> None:
        """Set the sets' limits and the references.

        Args:
            tau: a head is in a set if its mean score is above tau.
            k: size of the sets of recall_at_k.
            reference_path: HeadScores JSON of the run's scorer, mode and match.
            num_resamples: bootstrap resamples of the reference examples, for the intervals.
        """
        self.tau, self.k, self.num_resamples = tau, k, num_resamples
        self.reference_path = reference_path
        self._reference: HeadScores | None = None
        self._greedy: HeadScores | None = None
        self._base: np.ndarray | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the references and see that they fit."""
        assert isinstance(pl_module, SceModule)
        if not self.reference_path or self._reference is not None:
            return
        file, facts = Path(self.reference_path), pl_module.facts
        self._reference, _ = load_reference(file, facts)
        if (greedy := greedy_sibling(file)) and "greedy" in pl_module.settings.modes:
            self._greedy, _ = load_reference(greedy, replace(facts, mode="greedy"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, log and write."""
        assert isinstance(pl_module, SceModule)
        validation, facts = pl_module.last_validation, pl_module.facts
        if validation is None:
            return
        per_example = validation.scores[facts.scorer, facts.mode]
        if validation.step == 0 and num_kept(per_example):
            self._base = per_example
        data = facts.reference_sha256
        found = self._measured(per_example, self._reference, self._base, data)
        metrics: dict[str, float | None] = {f"heads/{name}": v for name, v in found.items()}
        pl_module.hand_on({**metrics, **self._greedy_metrics(validation, pl_module)})
        if trainer.is_global_zero:
            self._write(pl_module, validation, per_example)

    def _measured(
        self,
        per_example: np.ndarray,
        reference: HeadScores | None,
        base: np.ndarray | None,
        data_sha256: str,
    ) -> dict[str, float | int | None]:
        """Every measure with its bounds; no example kept: none but those of R and B alone."""
        found = measures(
            per_example,
            None if reference is None else beside(reference, data_sha256, len(per_example)),
            base,
            tau=self.tau,
            k=self.k,
            num_resamples=self.num_resamples,
        )
        if not found["num_examples"]:
            found |= {n: None for n in found if n not in (*WITHOUT_RUN, "num_examples")}
        return found

    def _greedy_metrics(
        self, validation: Validation, pl_module: SceModule
    ) -> dict[str, float | None]:
        """Beside the teacher-forced figures, never in place of them: they follow accuracy."""
        per_example = validation.scores.get((pl_module.facts.scorer, "greedy"))
        if self._greedy is None or per_example is None:
            return {}
        data = pl_module.facts.reference_sha256
        found = self._measured(per_example, self._greedy, None, data)
        names = [f"{name}{end}" for name in ("recall", "cosine") for end in ("", "_low", "_high")]
        return {f"heads/greedy_{name}": found[name] for name in names}

    def _write(self, pl_module: SceModule, validation: Validation, per_example: np.ndarray) -> None:
        facts = pl_module.facts
        file = facts.run_dir / "heads" / f"step-{validation.step:06d}.json"
        if not num_kept(per_example):
            _log.info(
                "no heads/%s: scorer=%s kept none of the %d reference examples",
                file.name,
                facts.scorer,
                len(per_example),
            )
            return
        names = ("seed", "concept", "context", "train_sha256")
        tuning = {name: getattr(facts, name) for name in names}
        # By which a reference knows its members, and that this is no longer the untuned model.
        tuned = {"adapter": tuning | {"step": validation.step}} if validation.step else {}
        HeadScores(
            scorer=facts.scorer,
            mode=facts.mode,
            match=facts.match,
            scores=mean_scores(per_example),
            num_examples=num_kept(per_example),
            per_example=per_example,
            provenance=provenance(facts, run=facts.run, step=validation.step, **tuned),
        ).save(file)

    def state_dict(self) -> dict[str, Any]:
        """The untuned model's scores by example, which a resumed run does not measure again."""
        return {"base": None if self._base is None else torch.from_numpy(self._base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the untuned model's scores back."""
        base = state_dict["base"]
        self._base = None if base is None else base.numpy()
