"""python -m sce.train: compose, build, run. The only place where training's parts meet.

config -> model source, splits -> run folder -> module + callbacks + logger -> step 0, fit -> table
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from sce.commands import TrainConfig
from sce.config import CONF, check_callbacks_package, register, typed
from sce.errors import InputError
from sce.importing import importing
from sce.logger import is_rank_zero
from sce.one_line import one_line_errors, run
from sce.options import rope_in_use
from sce.quiet import quiet_libraries
from sce.run_dir import CHECKPOINT, choose_run_dir, opened, rewind

if TYPE_CHECKING:
    import lightning as L

    from sce.assemble import Parts
    from sce.data.datamodule import SplitsDataModule
    from sce.module import SceModule
    from sce.records import RunFacts
    from sce.untuned import Untuned

register()
_REFUSALS = (ValueError, TypeError, RuntimeError, AssertionError)
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Train one run."""
    config = typed(composed, TrainConfig)
    check_callbacks_package()
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        _require_one_device(config)
    own = [o for o in hydra_config.overrides.hydra if o.startswith("hydra.searchpath=")]
    train(config, [*own, *hydra_config.overrides.task])


def _require_one_device(config: TrainConfig) -> None:
    """Refuse a sweep whose jobs would start processes of their own, each with the whole sweep."""
    devices, num_nodes = config.trainer.devices, config.trainer.num_nodes
    if devices not in (1, "1") or num_nodes != 1:
        raise InputError(
            f"--multirun with trainer.devices={devices}, trainer.num_nodes={num_nodes}: a sweep "
            "takes one device a job; add trainer.devices=1, or start each run by itself"
        )


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Run training as configured; returns the run's folder.

    Raises:
        InputError: the user's input is wrong. Nothing has been written then; a folder that was
            made for the run is taken away again as long as it holds no record.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO if is_rank_zero() else logging.WARNING)
    with importing():
        import lightning as L

        import sce.module  # noqa: F401 - needed later, and faster here
        from sce.assemble import assemble, facts, recipe
        from sce.data.datamodule import SplitsDataModule
        from sce.data_options import SPLITS
        from sce.report import final_table

    quiet_libraries()
    _log.info("loading model and data ...")
    L.seed_everything(config.seed, workers=True, verbose=False)
    parts = assemble(config, SPLITS, on_gpu=_on_gpu(config))
    data = SplitsDataModule(parts.plan, parts.encoder, config.batch, config.seed)
    data.prepare_data()
    name = config.name or "-".join((config.data.task, *config.data.training))
    run_dir = choose_run_dir(config.run_dir, name=name, seed=config.seed, resume=config.resume)
    known = facts(parts, run=run_dir.name, run_dir=run_dir, study=config.study)
    known = _with_reference(config, known, overrides)
    trainer = _trainer(config, run_dir)
    known = replace(known, recipe=recipe(config, parts, trainer.world_size))
    resumed = _checkpoint_to_resume(config, known)
    module = _module(config, parts, known)
    config_yaml = OmegaConf.to_yaml(OmegaConf.create(_plain(config)))
    with opened(run_dir, config_yaml, resume=config.resume):
        for line in _what_runs(config, parts, known):
            _log.info(line)
        url = _fit(config, data, module, trainer, resumed)
        _log.info(final_table(known.run_dir, url, overrides))
    return run_dir


def _on_gpu(config: TrainConfig) -> bool:
    import torch

    return torch.cuda.is_available() and config.trainer.accelerator in ("auto", "gpu", "cuda")


def _module(config: TrainConfig, parts: "Parts", known: "RunFacts") -> "SceModule":
    from sce.assemble import model_builder, settings
    from sce.module import SceModule
    from sce.reference import greedy_sibling

    # Greedy scores of the reference split cost a decoding; they are made where they are compared.
    path = config.reference.path
    beside = path is not None and config.mode != "greedy" and greedy_sibling(Path(path))
    modes = (config.mode, "greedy") if beside else (config.mode,)
    untuned = _untuned(config, known, modes)
    model = model_builder(parts, config.lora)()
    return SceModule(
        lambda: model,
        parts.detokenize,
        optimizer=config.optimizer,
        settings=settings(parts, model, scorers=(config.scorer.name,), modes=modes),
        facts=known,
        untuned=untuned,
    )


def _untuned(config: TrainConfig, known: "RunFacts", modes: tuple[str, ...]) -> "Untuned | None":
    from sce.untuned import Untuned

    if config.untuned is None:
        return None
    own = {"max_new_tokens": config.max_new_tokens, "batch.eval": config.batch.eval, "modes": modes}
    return Untuned.of(Path(config.untuned), known, scorer=config.scorer.name, **own)


def _fit(
    config: TrainConfig,
    data: "SplitsDataModule",
    module: "SceModule",
    trainer: "L.Trainer",
    resumed: dict[str, Any] | None,
) -> str | None:
    """Step 0, training and the last step; returns where the curves are."""
    from sce.logger import make_logger, run_path

    known = module.facts
    run_logger = make_logger(
        config.logger,
        run_dir=known.run_dir,
        run_name=known.run,
        config=_plain(config),
        tags=[config.data.task, config.model.name_or_path],
        job_type=f"{known.concept}-{known.context}",
        run_path=None if resumed is None else resumed["logger_id"],
    )
    _log.info(run_logger.message)
    trainer.logger = run_logger.logger
    module.logger_id = run_path(run_logger)
    exit_code = 1
    try:
        if config.resume and is_rank_zero():
            rewind(known.run_dir, -1 if resumed is None else resumed["validated"])
        if resumed is None:
            trainer.validate(module, data, verbose=False)
            trainer.fit(module, data)
        else:
            _log.info("going on from step %d", resumed["step"])
            trainer.fit(module, data, ckpt_path=str(known.run_dir / CHECKPOINT))
        if module.validated != trainer.global_step:
            trainer.validate(module, data, verbose=False)
        exit_code = 0
    finally:
        run_logger.finish(exit_code)
    return run_logger.url


def _trainer(config: TrainConfig, run_dir: Path) -> "L.Trainer":
    import lightning as L
    from hydra.utils import instantiate
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from sce.parallel import ShardedStrategy, require_launched

    callbacks = [instantiate(c) for c in config.callbacks.values() if c is not None]
    options = _plain(config)["trainer"]
    if options["strategy"] == "fsdp":
        options["strategy"] = ShardedStrategy()
    try:
        trainer = L.Trainer(
            **options,
            callbacks=callbacks,
            logger=False,
            default_root_dir=run_dir,
            max_epochs=-1,
            val_check_interval=config.val_every * config.trainer.accumulate_grad_batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            inference_mode=False,  # in it FSDP would gather weights that no training can use
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_checkpointing=False,  # callbacks.RunCheckpoint
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, *_REFUSALS) as error:
        line = " ".join(str(error).split())
        raise InputError(f"trainer: Lightning refuses these options: {line}") from error
    require_launched(trainer.num_devices, trainer.num_nodes)
    return trainer


def _checkpoint_to_resume(config: TrainConfig, known: "RunFacts") -> dict[str, Any] | None:
    """Step, last validated step and logger id of the checkpoint to go on from; None: a new run.

    Raises:
        InputError: it cannot be read, or belongs to another run than this command describes.
    """
    if not config.resume or not (known.run_dir / CHECKPOINT).is_file():
        return None
    from sce.checkpoint import read

    saved = read(known.run_dir / CHECKPOINT, known)
    if config.trainer.max_steps < saved["global_step"]:
        raise InputError(
            f"trainer.max_steps={config.trainer.max_steps}: the run has taken "
            f"{saved['global_step']} steps already; give as many at least"
        )
    names = ("logger_id", "validated")
    return {"step": int(saved["global_step"]), **{name: saved["sce"][name] for name in names}}


def _with_reference(config: TrainConfig, known: "RunFacts", overrides: list[str]) -> "RunFacts":
    """Check the reference before anything is written, and note what differs."""
    if config.reference.path is None:
        return known
    from sce.reference import load_reference

    _, warnings = load_reference(Path(config.reference.path), known, overrides)
    return replace(known, warnings=tuple(warnings))


def _what_runs(config: TrainConfig, parts: "Parts", known: "RunFacts") -> list[str]:
    """A few lines that say what is about to happen, and what to be wary of."""
    from sce.assemble import context_warnings

    rope = rope_in_use(known.rope)
    changed = {"rope_theta": config.model.rope_theta, "rope_scaling": rope["rope_scaling"]}
    changes = "".join(f", {name} {value}" for name, value in changed.items() if value)
    lines = [f"model      {config.model.name_or_path} in {config.model.dtype}{changes}"]
    if config.model.note:
        lines.append(f"           {config.model.note}")
    lines += parts.attention.lines
    for name, split in parts.splits.items():
        cell = config.data.training if name == "train" else None
        lines.append(f"{name:<10} {split.described(cell)}")
    lines.append(f"shared     {parts.built[1]}{parts.plan.overlap.taken_out}")
    for path, source in parts.plan.sources.items():
        if source.skipped:
            lines.append(
                f"skipped    {len(source.skipped)} rows of {path}, first: {source.skipped[0]}"
            )
    return [*lines, *context_warnings(parts), *known.warnings]


def _plain(config: TrainConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
