"""The root configuration of every entry point, checks across parts, and errors in one line.

Only this file and the entry points know Hydra. Imports neither torch nor Lightning, so that
`--help` and a typo answer at once.
"""

import dataclasses
import difflib
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sce.errors import InputError
from sce.options import (
    BatchOptions,
    DataOptions,
    LoggerOptions,
    LoraOptions,
    ModelOptions,
    OptimizerOptions,
    ReferenceOptions,
    ScorerOptions,
    require,
    require_in,
)

CONF = Path(__file__).resolve().parents[1] / "conf"
MODES = ("teacher_forced", "greedy")
MATCHES = ("exact", "surface")


@dataclass
class TrainerOptions:
    """Lightning's Trainer, by Lightning's names."""

    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    """32-true keeps the adapter in float32; the base has model.dtype whatever stands here."""
    max_steps: int = 12
    """Optimiser steps."""
    accumulate_grad_batches: int = 2
    gradient_clip_val: float | None = 1.0
    deterministic: Any = None
    detect_anomaly: bool = False
    profiler: str | None = None

    def __post_init__(self) -> None:
        require(self.max_steps >= 1, f"trainer.max_steps must be >= 1, got {self.max_steps}")
        count = self.accumulate_grad_batches
        require(count >= 1, f"trainer.accumulate_grad_batches must be >= 1, got {count}")
        require(
            "bf16-true" not in self.precision and "16-true" not in self.precision,
            f"trainer.precision={self.precision} would cast the adapter and its optimiser; the "
            "base model's type is model.dtype, leave trainer.precision=32-true",
        )


@dataclass
class RunConfig:
    """What training and scoring have in common."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    scorer: ScorerOptions = field(default_factory=ScorerOptions)
    mode: str = "teacher_forced"
    """Where answers come from while heads are scored: teacher_forced (gold answers) or greedy."""
    match: str = "exact"
    """When a token in the context counts as the token emitted: exact ids, or surface text."""
    max_new_tokens: int = 16
    """Greedy tokens an answer at most."""
    attention: str = "auto"
    """auto, sdpa, flash_attention_2, flash_attention_3 or eager."""
    seed: int = 0
    debug: bool = False
    """Show tracebacks of user errors too."""

    def __post_init__(self) -> None:
        require_in("mode", self.mode, MODES)
        require_in("match", self.match, MATCHES)
        require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")
        require(self.max_new_tokens >= 1, f"max_new_tokens must be >= 1, got {self.max_new_tokens}")


@dataclass
class TrainConfig(RunConfig):
    """python -m sce.train."""

    lora: LoraOptions = field(default_factory=LoraOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Name -> `_target_` and arguments, in the order they act."""
    logger: LoggerOptions = field(default_factory=LoggerOptions)
    val_every: int = 4
    """Optimiser steps between validations; step 0 and the last step are always validated."""
    save_every: int | None = None
    """Optimiser steps between checkpoints besides those after validations; None: only those."""
    name: str | None = None
    """Run name; None: <task>-<concept>-<context>."""
    study: str | None = None
    """Name that groups runs."""
    run_dir: str | None = None
    """Folder of the run; None: runs/<name>-seed<seed>, numbered on where taken."""
    resume: bool = False
    """Go on from the last checkpoint in run_dir."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.val_every >= 1, f"val_every must be >= 1, got {self.val_every}")
        require(
            self.save_every is None or self.save_every >= 1,
            f"save_every must be >= 1, got {self.save_every}",
        )
        require(
            not self.resume or self.run_dir is not None,
            "resume=true needs run_dir=FOLDER, the run to go on with",
        )


@dataclass
class ScoreConfig(RunConfig):
    """python -m sce.score."""

    adapter: str | None = None
    """Folder of an adapter; None scores the untuned model."""
    split: str = "reference"
    """Which split's examples are scored: train, val or reference."""
    out: str = "heads.json"
    """HeadScores JSON of scorer and mode; a folder (ending in /) gets a file for each of all."""
    audit: str | None = None
    """JSON Lines with what is needed to check every score by hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in("split", self.split, ("train", "val", "reference"))


@dataclass
class HeadsetConfig:
    """python -m sce.headset."""

    action: str = "show"
    """show or average."""
    files: list[str] = field(default_factory=list)
    base: str | None = None
    """HeadScores of the untuned model, stored with an average."""
    out: str | None = None
    tau: float = 0.1
    k: int = 20
    debug: bool = False

    def __post_init__(self) -> None:
        require_in("action", self.action, ("show", "average"))
        require(bool(self.files), "files=[A.json,B.json]: name at least one HeadScores file")
        require(
            self.action != "average" or self.out is not None, "action=average needs out=FILE.json"
        )


Schema = TypeVar("Schema")


def register() -> None:
    """Make the schemas and the resolver `sce_conf` (a path inside conf/) known to Hydra."""
    store = ConfigStore.instance()
    for name, node in {
        "train_schema": TrainConfig,
        "score_schema": ScoreConfig,
        "headset_schema": HeadsetConfig,
    }.items():
        store.store(name=name, node=node)
    OmegaConf.register_new_resolver("sce_conf", lambda path: str(CONF / path), replace=True)


def typed(config: DictConfig, schema: type[Schema]) -> Schema:
    """The typed object of a composed config.

    Raises:
        InputError: an unknown key (by `+key=` too), a wrong type, a value out of range.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    merged = OmegaConf.merge(OmegaConf.structured(schema), plain)
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def check_callbacks_package() -> None:
    """Refuse a package `callbacks` that is not ours: a folder so named in the working directory.

    Raises:
        InputError: names both.
    """
    spec = importlib.util.find_spec("callbacks")
    expected = CONF.parent / "callbacks"
    found = Path(spec.origin).parent if spec and spec.origin else None
    if found is None or found.resolve() != expected.resolve():
        raise InputError(
            f"the package `callbacks` is found at {found}, not at {expected}; run from another "
            "folder, or use the command sce-train"
        )


def run(main: Callable[[], Any]) -> None:
    """Run an entry point under `one_line_errors`: for what goes wrong before its body runs."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    one_line_errors(main)()


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's errors in one line with exit code 2; bugs keep their traceback and give 1.

    Stands under `hydra.main` too, since Hydra adds a line of its own to whatever leaves a job.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            # The reader of our output (| head) has gone.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            message = _user_message(error)
            if message is None or any(a.lower() == "debug=true" for a in sys.argv[1:]):
                raise
            sys.stderr.write(f"sce: {message}\n")
            sys.exit(2)

    return wrapped


def _user_message(error: BaseException) -> str | None:
    """One line for an error that is the user's; None for a bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return " ".join(str(cause).split())
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error)
    return None


def _one_line(error: HydraException | OmegaConfBaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        if re.search(r"Key '.*' (not in|is not in)|not in struct", str(cause)):
            return _unknown_key(cause)
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    option = re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':\n((?:\t.*\n)+)",
        str(error),
    )
    if option:
        options = option[3].split()
        near = _nearest(option[2], options)
        hint = f"did you mean '{near}'? " if near else ""
        return f"{option[1]}={option[2]}: no such option; {hint}choose from: {', '.join(options)}"
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(
        li for li in lines if li and not li.startswith(("See https", "full_key", "Set the"))
    )


def _unknown_key(cause: OmegaConfBaseException) -> str:
    kind, parent = cause.object_type, cause.parent_node
    if dataclasses.is_dataclass(kind):
        keys = [f.name for f in dataclasses.fields(kind)]
    else:
        keys = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
    head, _, leaf = str(cause.full_key).rpartition(".")
    near = _nearest(leaf, keys)
    if near:
        return f"unknown key '{cause.full_key}'; did you mean '{f'{head}.' if head else ''}{near}'?"
    return f"unknown key '{cause.full_key}'; keys here: {', '.join(sorted(keys))}"


def _nearest(word: str, words: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, words, 1, 0.5)), None)
