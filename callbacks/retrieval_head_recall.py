"""Compares the heads of the run, S, with the reference's, R, and the untuned model's, B."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.module import SceModule, Validation
from sce.records import HeadScores, provenance
from sce.reference import greedy_sibling, load_reference
from sce.stats import bootstrap_statistic, compare, cosine, head_set, recall, recall_learned

# What is logged to the charts; the records hold every field of stats.Comparison.
_CHARTS = (
    "recall",
    "recall_null",
    "recall_null_layer",
    "recall_base",
    "recall_learned",
    "precision",
    "jaccard",
    "recall_at_k",
    "cosine",
    "cosine_base",
    "cosine_learned",
    "spearman",
    "num_heads",
    "num_reference_heads",
)


class RetrievalHeadRecall(Callback):
    """After every validation: recall, its nulls, precision, Jaccard, cosine; the scores on disk.

    B is this run's own step 0, on the same examples. Without a reference the scores are written and
    counted, and nothing is compared.
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
        scores = per_example.mean(axis=0)
        if validation.step == 0:
            self._base = scores
        metrics: dict[str, float | None] = {"heads/num_heads": head_set(scores, self.tau).sum()}
        if self._reference is not None:
            metrics |= self._compared(scores, per_example, self._reference)
            metrics |= self._greedy_metrics(validation, facts.scorer)
        pl_module.hand_on(metrics)
        if trainer.is_global_zero:
            self._write(pl_module, validation, per_example)

    def _compared(
        self, scores: np.ndarray, per_example: np.ndarray, reference: HeadScores
    ) -> dict[str, float | None]:
        compared = asdict(compare(scores, reference.scores, self._base, tau=self.tau, k=self.k))
        metrics = {f"heads/{name}": compared[name] for name in _CHARTS}
        in_r = head_set(reference.scores, self.tau)
        statistics: dict[str, Callable[[np.ndarray], float | None]] = {
            "recall": lambda mean: recall(head_set(mean, self.tau), in_r),
            "cosine": lambda mean: cosine(mean, reference.scores),
        }
        if self._base is not None:
            in_b = head_set(self._base, self.tau)
            statistics["recall_learned"] = lambda mean: recall_learned(
                head_set(mean, self.tau), in_r, in_b
            )
        for name, statistic in statistics.items():
            interval = bootstrap_statistic(
                per_example, statistic, seed=0, num_resamples=self.num_resamples
            )
            low, high = interval if interval is not None else (None, None)
            metrics |= {f"heads/{name}_low": low, f"heads/{name}_high": high}
        return metrics

    def _greedy_metrics(self, validation: Validation, scorer: str) -> dict[str, float | None]:
        """Beside the teacher-forced figures, never in place of them: they follow accuracy."""
        if self._greedy is None or (scorer, "greedy") not in validation.scores:
            return {}
        scores = validation.scores[scorer, "greedy"].mean(axis=0)
        compared = compare(scores, self._greedy.scores, None, tau=self.tau, k=self.k)
        return {"heads/greedy_recall": compared.recall, "heads/greedy_cosine": compared.cosine}

    def _write(self, pl_module: SceModule, validation: Validation, per_example: np.ndarray) -> None:
        facts = pl_module.facts
        HeadScores(
            scorer=facts.scorer,
            mode=facts.mode,
            match=facts.match,
            scores=per_example.mean(axis=0),
            num_examples=len(per_example),
            provenance=provenance(facts, run=facts.run, step=validation.step),
        ).save(facts.run_dir / "heads" / f"step-{validation.step:06d}.json")

    def state_dict(self) -> dict[str, Any]:
        """The untuned model's scores, which a resumed run does not measure again."""
        return {"base": None if self._base is None else torch.from_numpy(self._base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the untuned model's scores back."""
        base = state_dict["base"]
        self._base = None if base is None else base.numpy()
