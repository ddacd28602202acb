"""Every command of a study composed and its data planned, before the first one runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sce.commands import HeadsetConfig, RunConfig, ScoreConfig, TrainConfig
from sce.errors import InputError
from sce.intervene_options import InterveneConfig
from sce.studies.estimate import examples_met, tokens_read
from sce.studies.plan import DIR, Command, Job
from sce.study_options import EstimateOptions

_OF_MODEL = ("name_or_path", "revision", "dtype", "quantization", "rope_theta", "rope_scaling")
# What of the data training alone sees; all else is the validation's and the reference's too.
_OF_TRAINING = (
    *("concept", "context", "limited", "entity_base", "mix", "label", "writer", "written", "built"),
    *("train", "num_train", "questions_per_context", "num_workers"),
)
_SCHEMAS = {
    "train": TrainConfig,
    "intervene": InterveneConfig,
    "headset": HeadsetConfig,
    "score": ScoreConfig,
}


@dataclass(frozen=True)
class Checked:
    """What is known of a study's jobs before they run."""

    tokens: Mapping[str, float]
    """Job -> the tokens that it reads, about."""
    runs: Mapping[str, TrainConfig]
    """Job -> its training run, where it has one."""


def checked(
    jobs: Sequence[Job],
    folder: Path,
    options: EstimateOptions,
    compose: Callable[[str, Sequence[str], type], Any],
) -> Checked:
    """Compose every command of every job.

    Args:
        jobs: of a study.
        folder: of the study.
        options: what a run takes.
        compose: sce.config.composed.

    Raises:
        InputError: names the job and what is wrong with its options.
    """
    tokens = dict.fromkeys((job.name for job in jobs), 0.0)
    runs: dict[str, TrainConfig] = {}
    measured: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for command in job.commands:
            try:
                program, filled = command.program, _filled(command, folder)
                config = compose(program, filled, _SCHEMAS[program])
            except InputError as error:
                raise InputError(f"{job.name}: {error}") from None
            if isinstance(config, RunConfig) and config.data.task != job.task:
                raise InputError(
                    f"{job.name}: data={config.data.task}; a study's task is named for its data: "
                    f"study.tasks.{config.data.task}"
                )
            if isinstance(config, TrainConfig):
                _require_one_device(job, config)
                _require_adapter(job, config)
                _require_alike(job, config, measured.setdefault(job.task, _measured_by(config)))
                runs[job.name] = config
            tokens[job.name] += tokens_read(config, options)
    return Checked(tokens, runs)


def _require_adapter(job: Job, config: TrainConfig) -> None:
    patched = any("method=patch" in command.overrides for command in job.commands)
    if patched and config.lora.name == "none":
        raise InputError(
            f"{job.name}: patching is between PEFT adapters, and lora=none leaves none; add "
            "study.interventions.patch=null"
        )


def check_data(runs: Mapping[str, TrainConfig]) -> list[str]:
    """Read and deal the questions of every setting, and make the first example of each split.

    One seed of each: which questions there are depends on no seed.

    Args:
        runs: by `checked`.

    Returns:
        Warnings.

    Raises:
        InputError: names the job and what its data lacks.
    """
    from sce.data.encode import Encoder
    from sce.data.plan import plan_splits
    from sce.model.source import find, load_tokenizer

    encoders: dict[str, Encoder] = {}
    seen: set[str] = set()
    warnings: dict[str, str] = {}
    for name, config in runs.items():
        model, data = repr(config.model), f"{config.model} {config.data}"
        if data in seen or config.data.built is not None:
            continue
        seen.add(data)
        try:
            if model not in encoders:
                encoders[model] = Encoder(load_tokenizer(find(config.model)))
            plan = plan_splits(config.data, encoders[model], config.seed)
            for recipe in plan.recipes.values():
                encoders[model].encode(recipe.example(0))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        for split in ("val", "reference"):
            asked, found = getattr(config.data, f"num_{split}"), len(plan.recipes[split])
            if asked is not None and found < asked:
                warnings[f"{config.data.task} {split}"] = (
                    f"data={config.data.task}: {found} {split} examples, not data.num_{split}="
                    f"{asked}: there are no more questions in its share; see data.shares"
                )
        met = min(len(plan.recipes["train"]), examples_met(config))
        at_hand = len(plan.questions["train"])
        if config.data.training == ("real", "real") and 2 * met > at_hand:
            warnings[config.data.task] = (
                f"data={config.data.task}: real runs tune on {met} of {at_hand} questions, "
                "so seeds meet mostly the same ones, and the ceiling is hardly that of other real "
                "data; lower data.num_train, or bring more questions"
            )
    return list(warnings.values())


def _measured_by(config: TrainConfig) -> dict[str, Any]:
    """What F1 and head scores of a run depend on beside its training, by the option's name."""
    data = {k: v for k, v in asdict(config.data).items() if k not in _OF_TRAINING}
    if config.data.val.path is None or config.data.reference.path is None:  # dealt of the same file
        data["train.path"] = None if config.data.label else config.data.train.path
    return {
        **{f"data.{name}": value for name, value in data.items()},
        **{f"model.{name}": getattr(config.model, name) for name in _OF_MODEL},
        "attention": config.attention,
        "max_new_tokens": config.max_new_tokens,
        "batch.eval": config.batch.eval,
        "scorer": config.scorer.name,
        "mode": config.mode,
        "match": config.match,
    }


def _require_alike(job: Job, config: TrainConfig, usual: Mapping[str, Any]) -> None:
    """Refuse a setting that is validated unlike the others of its task."""
    for name, value in _measured_by(config).items():
        if value != usual.get(name):
            raise InputError(
                f"{job.name}: {name} is {value}, and {usual.get(name)} for other runs of its task; "
                "all are validated alike, since they share one step 0 and one reference: put it "
                f"into study.every or study.tasks.{job.task}.every"
            )


def _filled(command: Command, folder: Path) -> list[str]:
    return [override.replace(DIR, str(folder)) for override in command.overrides]


def _require_one_device(job: Job, config: TrainConfig) -> None:
    trainer = config.trainer
    if trainer.devices not in (1, "1") or trainer.num_nodes != 1:
        raise InputError(
            f"{job.name}: trainer.devices={trainer.devices}, trainer.num_nodes="
            f"{trainer.num_nodes}: a study takes one device a run; several run side by side with "
            "launcher=joblib or submitit_slurm"
        )
