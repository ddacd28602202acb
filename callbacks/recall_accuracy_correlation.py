"""Does recall go with accuracy over the checkpoints of this run?"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.module import SceModule
from sce.records import HeadScores
from sce.stats import (
    first_differences,
    head_set,
    mean_scores,
    num_kept,
    pearson,
    recall,
    spearman,
)
from sce.stats.resampling import interval_of

# Below this many checkpoints an interval would say nothing.
MIN_POINTS_FOR_INTERVAL = 8


class RecallAccuracyCorrelation(Callback):
    """After every validation: how recall goes with F1, by Spearman and by Pearson.

    Taken of levels and of first differences: both rise with training, so levels correlate by
    themselves; differences ask whether they rise together. Nothing below 3 checkpoints, no interval
    below 8; a checkpoint of which the scorer kept no example is left out. The intervals resample
    examples (those of validation and of the reference split, each kept over all checkpoints), never
    checkpoints, which are not independent; all are of the same resamples.
    """

    def __init__(
        self, *, tau: float, reference_path: str | None, num_resamples: int = 200, seed: int = 0
    ) -> None:
        """Set the reference and the resampling.

        Args:
            tau: a head is in a set if its mean score is above tau.
            reference_path: HeadScores JSON; None switches the callback off.
            num_resamples: bootstrap resamples behind the intervals.
            seed: of the resampling.
        """
        self.tau, self.reference_path = tau, reference_path
        self.num_resamples, self.seed = num_resamples, seed
        self._points: list[dict[str, Any]] = []
        self._in_r: np.ndarray | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the reference's set (RetrievalHeadRecall sees that it fits)."""
        if self.reference_path and self._in_r is None:
            reference = HeadScores.load(Path(self.reference_path))
            self._in_r = head_set(reference.scores, self.tau)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add this checkpoint and log the correlation so far."""
        assert isinstance(pl_module, SceModule)
        validation, facts = pl_module.last_validation, pl_module.facts
        if validation is None or self._in_r is None:
            return
        scores = validation.scores[facts.scorer, facts.mode]
        self._points = [point for point in self._points if point["step"] != validation.step]
        if num_kept(scores):
            self._points.append({"step": validation.step, **self._point(scores, validation.f1)})
        pl_module.hand_on(self.correlations())

    def correlations(self) -> dict[str, float | None]:
        """The metrics at this point; only `correlation/n` below three checkpoints."""
        metrics: dict[str, float | None] = {"correlation/n": float(len(self._points))}
        if len(self._points) < 3:
            return metrics
        recalls, f1 = (self._series(name) for name in ("recall", "f1"))
        if np.isnan(recalls).any():
            return metrics
        found = _levels_and_differences(recalls, f1)
        if len(self._points) >= MIN_POINTS_FOR_INTERVAL:
            drawn = zip(self._series("recall_draws").T, self._series("f1_draws").T, strict=True)
            draws = [_levels_and_differences(*each) for each in drawn]
            for name in tuple(found):
                low, high = interval_of([draw[name] for draw in draws]) or (None, None)
                found |= {f"{name}_low": low, f"{name}_high": high}
        return metrics | {f"correlation/recall_f1_{name}": value for name, value in found.items()}

    def _point(self, scores: np.ndarray, f1: np.ndarray) -> dict[str, Any]:
        """Recall and F1 of a checkpoint, and of every resample of its examples.

        The examples of a resample follow from the seed and their number alone, so they are the same
        at every checkpoint and no scores need be kept.

        Args:
            scores: [examples, layers, heads].
            f1: [examples].
        """
        rng = np.random.default_rng(self.seed)
        draws = []
        for _ in range(self.num_resamples):
            own = rng.integers(len(f1), size=len(f1))
            other = rng.integers(len(scores), size=len(scores))
            draws.append((self._recall(mean_scores(scores[other])), f1[own].mean()))
        recall_draws, f1_draws = np.array(draws, dtype=float).reshape(-1, 2).T
        return {
            "recall": torch.tensor(self._recall(mean_scores(scores)), dtype=torch.float64),
            "f1": torch.tensor(f1.mean(), dtype=torch.float64),
            "recall_draws": torch.from_numpy(recall_draws.copy()),
            "f1_draws": torch.from_numpy(f1_draws.copy()),
        }

    def _series(self, name: str) -> np.ndarray:
        """What the checkpoints have by a name, [checkpoints, ...]."""
        return np.stack([point[name].numpy() for point in self._points])

    def _recall(self, mean_scores: np.ndarray) -> float:
        assert self._in_r is not None
        found = None  # of a resample without a kept example
        if not np.isnan(mean_scores).all():
            found = recall(head_set(mean_scores, self.tau), self._in_r)
        return float("nan") if found is None else found

    def state_dict(self) -> dict[str, Any]:
        """Every checkpoint's point and resamples, so that a resumed run goes on with them."""
        return {"points": self._points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoints back."""
        self._points = state_dict["points"]


def _levels_and_differences(recalls: np.ndarray, f1: np.ndarray) -> dict[str, float | None]:
    """Name -> correlation over checkpoints; None where a recall is NaN or a series is constant."""
    return {
        "spearman": spearman(recalls, f1),
        "pearson": pearson(recalls, f1),
        "differences": pearson(first_differences(recalls), first_differences(f1)),
    }
