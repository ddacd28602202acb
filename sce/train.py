"""python -m sce.train: compose, build, run. The only place where training's parts meet.

config -> model source, splits -> run folder -> module + callbacks + logger -> step 0, fit -> table
"""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from sce.config import (
    CONF,
    TrainConfig,
    check_callbacks_package,
    one_line_errors,
    register,
    run,
    typed,
)
from sce.errors import InputError
from sce.logger import is_rank_zero
from sce.run_dir import CHECKPOINT, choose_run_dir, opened

if TYPE_CHECKING:
    import lightning as L

    from sce.assemble import Parts
    from sce.logger import RunLogger
    from sce.records import RunFacts

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Train one run."""
    config = typed(composed, TrainConfig)
    check_callbacks_package()
    from hydra.core.hydra_config import HydraConfig

    train(config, list(HydraConfig.get().overrides.task))


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Run training as configured; returns the run's folder.

    Raises:
        InputError: the user's input is wrong. Nothing has been written then, but for an empty run
            folder at most.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO if is_rank_zero() else logging.WARNING)
    import lightning as L

    _quiet_libraries()

    from sce.assemble import assemble, context_warning, facts
    from sce.data.build import SPLITS

    _log.info("loading model and data ...")
    L.seed_everything(config.seed, workers=True, verbose=False)
    parts = assemble(config, SPLITS)
    name = config.name or "-".join((config.data.task, *config.data.cell("train")))
    run_dir = choose_run_dir(config.run_dir, name=name, seed=config.seed, resume=config.resume)
    known = facts(parts, run=run_dir.name, run_dir=run_dir, study=config.study)
    known = _with_reference(config, known, overrides)
    with opened(run_dir, OmegaConf.to_yaml(OmegaConf.create(_plain(config)))):
        for line in (*_what_runs(config, parts), context_warning(parts), *known.warnings):
            if line:
                _log.info(line)
        _fit(config, parts, known)
    return run_dir


def _fit(config: TrainConfig, parts: "Parts", known: "RunFacts") -> None:
    from sce.assemble import model_builder, settings
    from sce.data.datamodule import SplitsDataModule
    from sce.logger import make_logger
    from sce.module import SceModule
    from sce.report import final_table

    concept, context = config.data.cell("train")
    run_logger = make_logger(
        config.logger,
        run_dir=known.run_dir,
        run_name=known.run,
        config=_plain(config),
        tags=[config.data.task, config.model.name_or_path],
        job_type=f"{concept}-{context}",
    )
    _log.info(run_logger.message)
    exit_code = 1
    try:
        build = model_builder(parts, config.lora)
        model = build()
        module = SceModule(
            lambda: model,
            parts.detokenize,
            optimizer=config.optimizer,
            settings=settings(parts, model),
            facts=known,
        )
        data = SplitsDataModule(parts.splits, config.batch, config.seed)
        trainer = _trainer(config, known.run_dir, run_logger)
        checkpoint = _checkpoint_to_resume(config, known.run_dir)
        if checkpoint is None:
            trainer.validate(module, data, verbose=False)
        trainer.fit(module, data, ckpt_path=checkpoint)
        if module.last_validation is None or module.last_validation.step != trainer.global_step:
            trainer.validate(module, data, verbose=False)
        if trainer.is_global_zero:
            _log.info(final_table(known.run_dir, run_logger.url))
        exit_code = 0
    finally:
        run_logger.finish(exit_code)


def _trainer(config: TrainConfig, run_dir: Path, run_logger: "RunLogger") -> "L.Trainer":
    import lightning as L
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import ModelCheckpoint

    options = _plain(config)["trainer"]
    checkpoints = ModelCheckpoint(
        dirpath=run_dir / "checkpoints",
        filename="last",
        every_n_train_steps=config.save_every or config.val_every,
        enable_version_counter=False,
    )
    callbacks = [instantiate(c) for c in config.callbacks.values() if c is not None]
    try:
        return L.Trainer(
            **options,
            callbacks=[*callbacks, checkpoints],
            logger=run_logger.logger or False,
            default_root_dir=run_dir,
            max_epochs=-1,
            val_check_interval=config.val_every * config.trainer.accumulate_grad_batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"trainer: Lightning refuses these options: {line}") from error


def _checkpoint_to_resume(config: TrainConfig, run_dir: Path) -> str | None:
    if not config.resume:
        return None
    import torch

    from sce.records import drop_rows_after

    file = run_dir / CHECKPOINT
    step = int(torch.load(file, map_location="cpu", weights_only=True)["global_step"])
    drop_rows_after(run_dir / "records.jsonl", step)
    _log.info("going on from step %d", step)
    return str(file)


def _with_reference(config: TrainConfig, known: "RunFacts", overrides: list[str]) -> "RunFacts":
    """Check the reference before anything is written, and note what differs."""
    if config.reference.path is None:
        return known
    from dataclasses import replace

    from sce.records import load_reference

    kept = [
        o
        for o in overrides
        if o.split("=")[0].split(".")[0] in ("model", "data", "lora", "trainer")
    ]
    _, warnings = load_reference(Path(config.reference.path), known, " ".join(kept))
    return replace(known, warnings=tuple(warnings))


def _what_runs(config: TrainConfig, parts: "Parts") -> list[str]:
    """A few lines that say what is about to happen."""
    lines = [
        f"model      {config.model.name_or_path} in {config.model.dtype}"
        + (
            f", rope_theta {parts.own_rope_theta:g} -> {config.model.rope_theta:g}"
            if config.model.rope_theta
            else ""
        )
    ]
    if config.model.note:
        lines.append(f"           {config.model.note}")
    lines.append(f"attention  {parts.attention.backend} ({parts.attention.reason})")
    for name, split in parts.splits.items():
        cell = ", ".join(split.cell)
        origin = getattr(config.data, name).path or (
            "sample" if split.cell == ("real", "real") else "generated"
        )
        lines.append(
            f"{name:<10} {len(split.encoded)} examples ({cell}) from {origin}, prompts of up to "
            f"{split.max_prompt_tokens} tokens"
        )
    lines.append("shared     no question, document or title between the splits (checked)")
    return lines


def _plain(config: TrainConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _quiet_libraries() -> None:
    """Silence what says nothing about the run: double lines, adverts, others' deprecations."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "`is_gradient_checkpointing` is deprecated",  # PEFT's call into transformers
        "`isinstance(treespec, LeafSpec)` is deprecated",  # Lightning's call into torch
        "The '.*_dataloader' does not have many workers",  # examples are encoded beforehand
        "Checkpoint directory .* exists and is not empty",  # a resumed run's own
        "You are using a CUDA device .* that has Tensor Cores",
    ):
        warnings.filterwarnings("ignore", message=message)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
