"""A picture of all heads, with the reference's and the untuned model's beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.figures import head_maps, save_png
from sce.module import SceModule
from sce.records import HeadScores
from sce.stats import mean_scores, num_kept


class HeadHeatmap(Callback):
    """Draws figures/heads-<step>.png every `every_n_validations`, and logs it as `heads/map`."""

    def __init__(
        self, *, tau: float, reference_path: str | None, every_n_validations: int = 1
    ) -> None:
        """Set what is drawn.

        Args:
            tau: heads above it are outlined.
            reference_path: HeadScores JSON drawn in the middle; None leaves it out.
            every_n_validations: 1 draws after each.
        """
        if every_n_validations < 1:
            raise ValueError(f"every_n_validations must be >= 1, got {every_n_validations}")
        self.tau, self.reference_path = tau, reference_path
        self.every_n_validations = every_n_validations
        self._count = 0
        self._base: np.ndarray | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw this validation's map."""
        assert isinstance(pl_module, SceModule)
        validation, facts = pl_module.last_validation, pl_module.facts
        if validation is None:
            return
        per_example = validation.scores[facts.scorer, facts.mode]
        scores, n = mean_scores(per_example), num_kept(per_example)
        if validation.step == 0 and n:
            self._base = scores
        self._count += 1
        # Where the scorer kept no example there is nothing to draw.
        due = (self._count - 1) % self.every_n_validations == 0 and n > 0
        if not due or not trainer.is_global_zero:
            return
        maps = {f"this run, step {validation.step}": scores}
        if self.reference_path:
            maps["reference"] = HeadScores.load(Path(self.reference_path)).scores
        if self._base is not None:
            maps["untuned model"] = self._base
        title = f"{facts.run}: {facts.scorer} score, {facts.mode}, n = {n} examples"
        figure = head_maps(maps, title=title, tau=self.tau)
        file = facts.run_dir / "figures" / f"heads-{validation.step:06d}.png"
        save_png(figure, file)
        pl_module.record_image("heads/map", file)

    def state_dict(self) -> dict[str, Any]:
        """Validations so far and the untuned model's scores."""
        base = None if self._base is None else torch.from_numpy(self._base)
        return {"count": self._count, "base": base}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._count = int(state_dict["count"])
        self._base = None if state_dict["base"] is None else state_dict["base"].numpy()
