"""The whole curves behind recall, and where in a prompt answers and heads do well."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.measures import beside
from sce.module import SceModule
from sce.records import HeadScores, write_json
from sce.stats import (
    by_bins,
    head_set,
    mean_of,
    mean_scores,
    num_kept,
    recall_curves,
    split_half,
    with_bands,
)
from sce.validation import Validation

SCHEMA = "sce.curves/1"
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NUM_LENGTHS = 4


class ScoreCurves(Callback):
    """Writes curves/step-<step>.json after every validation, on rank 0.

    curves: recall and what stands beside it at every tau and k, with 95% bounds over the examples
        (drawn with the reference's where these are the same) and n; null without a reference.
    f1_by_depth, f1_by_length: F1 by how much of the prompt stands before the evidence (quarters),
        and by its tokens (bins of about as many examples each), each bin with n and interval.
    heads_by_depth, heads_by_length: the same of the mean score of the reference's heads, or of the
        run's own without a reference; null where there is no such head.
    split_half: how far two halves of the examples agree on the scores; null for fewer than 4.
    """

    def __init__(self, *, tau: float, k: int, reference_path: str | None, seed: int = 0) -> None:
        """Set what is compared.

        Args:
            tau: a head is in a set if its mean score is above tau.
            k: size of the sets of recall_at_k.
            reference_path: HeadScores JSON; None: no curves.
            seed: of the halves, and of the curves' and bins' intervals.
        """
        self.tau, self.k, self.reference_path, self.seed = tau, k, reference_path, seed
        self._reference: HeadScores | None = None
        self._base: np.ndarray | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the reference (RetrievalHeadRecall sees that it fits)."""
        if self.reference_path and self._reference is None:
            self._reference = HeadScores.load(Path(self.reference_path))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this validation's file."""
        assert isinstance(pl_module, SceModule)
        validation, facts = pl_module.last_validation, pl_module.facts
        if validation is None:
            return
        per_example = validation.scores[facts.scorer, facts.mode]
        if validation.step == 0:
            self._base = per_example if num_kept(per_example) else None
        if not trainer.is_global_zero:
            return
        content = {
            "schema": SCHEMA,
            **{name: getattr(facts, name) for name in ("run", "scorer", "mode", "match")},
            **{"step": validation.step, "tau": self.tau, "k": self.k},
            "num_examples": len(validation.predictions),
            "num_reference_examples": len(per_example),
            "num_kept_examples": num_kept(per_example),
            **self._of_scores(per_example, facts.reference_sha256),
            **self._by_place(validation, per_example),
        }
        file = facts.run_dir / "curves" / f"step-{validation.step:06d}.json"
        file.parent.mkdir(exist_ok=True)
        write_json(file, content)

    def _of_scores(self, per_example: np.ndarray, data_sha256: str) -> dict[str, Any]:
        scores, curves = mean_scores(per_example), None
        if self._reference is not None:
            base = None if self._base is None else mean_scores(self._base)
            r = beside(self._reference, data_sha256, len(per_example))
            points = recall_curves(scores, mean_of(r), base)
            curves = with_bands(points, per_example, r, self._base, seed=self.seed).to_json()
        halves = split_half(per_example, self._base, tau=self.tau, k=self.k, seed=self.seed)
        return {"curves": curves, "split_half": halves}

    def _by_place(self, validation: Validation, per_example: np.ndarray) -> dict[str, Any]:
        depths, lengths = validation.reference_depths, validation.reference_lengths
        own = mean_scores(per_example) if self._reference is None else self._reference.scores
        heads = head_set(own, self.tau)
        # One number an example; NaN for one that the scorer did not keep, which no bin counts.
        values = per_example[:, heads].mean(axis=1) if heads.any() else None
        return {
            "f1_by_depth": self._bins(validation.f1, validation.val_depths, edges=_DEPTHS),
            "f1_by_length": self._bins(validation.f1, validation.val_lengths),
            "heads_of": "run" if self._reference is None else "reference",
            "num_heads": int(heads.sum()),
            "heads_by_depth": self._bins(values, depths, edges=_DEPTHS),
            "heads_by_length": self._bins(values, lengths),
        }

    def _bins(
        self,
        values: np.ndarray | None,
        places: np.ndarray,
        edges: Sequence[float] | None = None,
    ) -> list[dict[str, Any]] | None:
        if values is None:
            return None
        number = _NUM_LENGTHS if edges is None else None
        bins = by_bins(values, places, seed=self.seed, edges=edges, num_bins=number)
        return [asdict(one) for one in bins]

    def state_dict(self) -> dict[str, Any]:
        """The untuned model's scores by example, which a resumed run does not measure again."""
        return {"base": None if self._base is None else torch.from_numpy(self._base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the untuned model's scores back."""
        base = state_dict["base"]
        self._base = None if base is None else base.numpy()
