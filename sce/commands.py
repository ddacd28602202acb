"""The root configuration of every command, typed: what its YAML file and overrides may say.

Knows neither Hydra nor torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from sce.data_options import SPLITS, DataOptions
from sce.options import (
    BatchOptions,
    LoggerOptions,
    LoraOptions,
    ModelOptions,
    OptimizerOptions,
    ReferenceOptions,
    ScorerOptions,
    require,
    require_in,
    require_seed,
    require_used,
)

MODES = ("teacher_forced", "greedy", "prefill")
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
    """Batches of `batch.train` on each device to a step."""
    gradient_clip_val: float | None = 1.0
    """Norm of all gradients together; null: they are not clipped."""
    deterministic: Any = None
    """true: an operation of torch that is not deterministic is an error; "warn": a warning."""
    detect_anomaly: bool = False
    """A NaN in the backward pass names where it came from; slow."""
    profiler: str | None = None
    """simple, advanced or pytorch: where the time goes."""

    def __post_init__(self) -> None:
        require_in("trainer.strategy", self.strategy, ("auto", "ddp", "fsdp"))
        require(self.max_steps >= 1, f"trainer.max_steps must be >= 1, got {self.max_steps}")
        count = self.accumulate_grad_batches
        require(count >= 1, f"trainer.accumulate_grad_batches must be >= 1, got {count}")
        require(
            "16-true" not in self.precision,
            f"trainer.precision={self.precision} would cast the adapter and its optimiser; the "
            "base model's type is model.dtype, leave trainer.precision=32-true",
        )
        # Its scaled gradients overflow, and steps are left out until they do not; a loss that is
        # summed over a batch's tokens overflows far more, and a step left out is none that resumes.
        require(
            not self.precision.startswith("16"),
            f"trainer.precision={self.precision}: float16 is too narrow for a loss summed over a "
            "batch; leave trainer.precision=32-true, or take bf16-mixed",
        )


@dataclass
class RunConfig:
    """What training and scoring have in common."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    scorer: ScorerOptions = field(default_factory=ScorerOptions)
    mode: str = "teacher_forced"
    """Where answers come from while heads are scored: teacher_forced (gold answers), greedy, or
    prefill (none: the prompt alone is read)."""
    match: str = "exact"
    """When a token in the context counts as the token emitted: exact ids, or surface text."""
    max_new_tokens: int | None = None
    """Greedy tokens an answer at most; None: as many as the task's answers take."""
    attention: str = "auto"
    """auto, sdpa, flash_attention_2, flash_attention_3, flash_attention_4 or eager."""
    seed: int = 0
    debug: bool = False
    """Show tracebacks of user errors too."""

    def __post_init__(self) -> None:
        require_in("mode", self.mode, MODES)
        require_in("match", self.match, MATCHES)
        require_seed(self.seed)
        most = self.max_new_tokens
        require(most is None or most >= 1, f"max_new_tokens must be >= 1, got {most}")


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
    untuned: str | None = None
    """File (.npz) that the untuned model's validation is read from in place of step 0, or written
    to where it does not exist: for many runs on the same validation examples."""
    run_dir: str | None = None
    """Folder of the run; None: runs/<name>-seed<seed>, numbered on where taken."""
    resume: bool = False
    """Go on from the last checkpoint in run_dir."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("quantization", "compile", "liger"):
            require(
                self.trainer.strategy != "fsdp" or not getattr(self.model, name),
                f"model.{name} does not go with trainer=fsdp; use trainer=ddp, or leave it out",
            )
        require(
            self.untuned is None or self.untuned.endswith(".npz"),
            f"untuned={self.untuned}: end the name in .npz",
        )
        self._check_callbacks()
        require(self.val_every >= 1, f"val_every must be >= 1, got {self.val_every}")
        require(
            self.save_every is None or self.save_every >= 1,
            f"save_every must be >= 1, got {self.save_every}",
        )
        require(
            not self.resume or self.run_dir is not None,
            "resume=true needs run_dir=FOLDER, the run to go on with",
        )

    def _check_callbacks(self) -> None:
        """Refuse to stop by a figure that the run will not have, or to keep what it exports not."""
        for name, callback in self.callbacks.items():
            require(
                callback is None or (isinstance(callback, dict) and "_target_" in callback),
                f"callbacks.{name}={callback}: give null to leave it out, or a _target_ with its "
                "arguments",
            )
        there = {name: each for name, each in self.callbacks.items() if each is not None}
        targets = {name: str(each["_target_"]).rpartition(".")[2] for name, each in there.items()}
        for name in (n for n, target in targets.items() if target == "RecallEarlyStopping"):
            callback = there[name]
            metric = str(callback.get("metric", "heads/recall_learned"))
            require(
                not metric.startswith("heads/") or self.reference.path is not None,
                f"callbacks.{name}.metric={metric} needs a reference; name one by reference=, or "
                "take val/f1",
            )
            require(
                "AdapterExport" in targets.values() or not callback.get("restore"),
                f"callbacks.{name}.restore=true needs the exported adapter: leave "
                "callbacks.adapter in, or set restore=false",
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
    looks: str | None = None
    """JSON Lines with where every head looks as each answer token is emitted, for the report."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in("split", self.split, ("train", "val", "reference"))


HEADSET_OPTIONS = {
    "base": ("average", "compare"),
    "to": ("convert",),
    "out": ("average", "compare", "convert"),
    "tau": ("show", "average", "compare"),
    "k": ("show", "average", "compare"),
}
"""Options of python -m sce.headset that some actions have no use for, and which do have one."""


@dataclass
class HeadsetConfig:
    """python -m sce.headset."""

    action: str = "show"
    """show, average, compare or convert."""
    files: list[str] = field(default_factory=list)
    """HeadScores JSON, or a file of Wu et al.'s, QRHead's or DuoAttention's code, plain or .gz."""
    base: str | None = None
    """Scores of the untuned model: stored with an average; what `compare` takes as not learned."""
    to: str | None = None
    """What `convert` writes: sce, wu2024, qrhead or duo."""
    out: str | None = None
    """New file of `average` and `convert`; new folder of `compare`, None: it only prints."""
    shape: list[int] | None = None
    """[layers, heads] of the model, for files that name only some heads; the others score 0."""
    tau: float | None = None
    """A head is in a set if its score is above it; None: the scorer's own."""
    k: int = 20
    """Size of the sets of recall at k; at most the number of heads."""
    debug: bool = False

    def __post_init__(self) -> None:
        require_in("action", self.action, ("show", "average", "compare", "convert"))
        require(bool(self.files), "files=[A.json,B.json]: name at least one HeadScores file")
        twice = [name for name in self.files if self.files.count(name) > 1]
        require(not twice, f"files: {', '.join(dict.fromkeys(twice))} is named twice")
        finite = self.tau is None or math.isfinite(self.tau)
        require(finite, f"tau must be a number, got {self.tau}")
        require(self.k >= 1, f"k must be >= 1, got {self.k}")
        shape = self.shape
        require(
            shape is None or (len(shape) == 2 and min(shape) >= 1),
            f"shape must be [layers,heads], two whole numbers >= 1, got {shape}",
        )
        if self.action in ("average", "convert"):
            require(self.out is not None, f"action={self.action} needs out=FILE, a new one")
        if self.action == "compare":
            require(len(self.files) > 1, "action=compare needs files=[A,B,...], at least two")
        if self.action == "convert":
            require(len(self.files) == 1, "action=convert takes one file: files=[A]")
            require_in("to", str(self.to), ("sce", "wu2024", "qrhead", "duo"))
        require_used(self, "action", HEADSET_OPTIONS)


DATASET_OPTIONS = {
    "split": ("show", "build"),
    "index": ("show", "grid"),
    "whole": ("show",),
    "html": ("show", "grid"),
    "out": ("build",),
}
"""Options of python -m sce.dataset that some actions have no use for, and which do have one."""


@dataclass
class DatasetConfig:
    """python -m sce.dataset."""

    model: ModelOptions = field(default_factory=ModelOptions)
    """Whose tokenizer counts."""
    data: DataOptions = field(default_factory=DataOptions)
    action: str = "show"
    """build, show, grid (one example a cell) or check."""
    split: str = "train"
    """What is shown, or written as Example JSONL."""
    index: int = 0
    """Which example is shown."""
    whole: bool = False
    """Show documents without evidence in full too."""
    html: str | None = None
    """Show the example, or the grid, in this .html or .svg file as well."""
    out: str | None = None
    """Folder for all splits as Arrow, or FILE.jsonl[.gz] for one split as Example JSONL."""
    seed: int = 0
    debug: bool = False

    def __post_init__(self) -> None:
        require_in("action", self.action, ("build", "show", "grid", "check"))
        require_in("split", self.split, SPLITS)
        require_used(self, "action", DATASET_OPTIONS)
        require_seed(self.seed)
        require(self.action != "build" or self.out is not None, "action=build needs out=FOLDER")
        name = (self.out or "").removesuffix(".gz")
        require(
            self.split == "train" or self.action == "show" or name.endswith(".jsonl"),
            f"split={self.split}: a folder gets every split; drop it, or name out=FILE.jsonl",
        )
        require(
            not name.endswith((".json", ".csv", ".parquet", ".arrow")) and "=" not in name,
            f"out={self.out}: name a folder (Arrow) or FILE.jsonl[.gz] (Example JSONL)",
        )
