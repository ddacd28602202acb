"""What was trained, after every validation: an adapter in PEFT's own format, or tuned weights."""

import shutil
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sce.model.build import save_adapter
from sce.model.weights import recover_folder, replace_folder, weights_sha256
from sce.module import SceModule
from sce.parallel import trained_state
from sce.records import write_json


class AdapterExport(Callback):
    """Writes adapter/: weights and config for `PeftModel.from_pretrained`, sce.json beside them.

    With lora=none it is tuned_weights.safetensors and sce.json, which `adapter=` takes likewise.
    sce.json holds what PEFT does not: the RoPE change, the base model's identity, data, step and
    the figures of that validation. The folder is replaced as a whole: a run that was killed in
    between finds the one before again when it goes on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear away what a killed run left."""
        assert isinstance(pl_module, SceModule)
        if trainer.is_global_zero:
            recover_folder(pl_module.facts.run_dir / "adapter")
            shutil.rmtree(pl_module.facts.run_dir / ".adapter-new", ignore_errors=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export; every rank takes part in gathering, rank 0 writes."""
        assert isinstance(pl_module, SceModule)
        model, facts = pl_module.model, pl_module.facts
        if pl_module.global_step == 0:
            return
        state: dict[str, Any] | None = None
        if torch.distributed.is_initialized():
            state = trained_state(model)
        if not trainer.is_global_zero:
            return
        new, target = facts.run_dir / ".adapter-new", facts.run_dir / "adapter"
        shutil.rmtree(new, ignore_errors=True)
        save_adapter(model, new, state)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        validation = pl_module.last_validation
        assert validation is not None
        mean = validation.mean_scores(facts.scorer, facts.mode).round(9)
        note = {
            "schema": "sce.adapter/1",
            "model": facts.model,
            "weights_sha256": facts.weights_sha256,
            "adapter_sha256": weights_sha256(new),
            "rope": dict(facts.rope),
            "task": facts.task,
            "concept": facts.concept,
            "context": facts.context,
            "train_sha256": facts.train_sha256,
            "data_sha256": facts.reference_sha256,
            "prompt_sha256": facts.prompt_sha256,
            "seed": facts.seed,
            "step": pl_module.global_step,
            "versions": dict(facts.versions),
            "metrics": metrics,
            "scorer": [facts.scorer, facts.mode, facts.match],
            "scores": mean.tolist(),
        }
        write_json(new / "sce.json", note)
        replace_folder(new, target)
