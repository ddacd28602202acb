"""From a typed config to what training and scoring share: model source, data, settings."""

import hashlib
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from sce.checkpoint import code_sha256
from sce.commands import RunConfig, TrainConfig
from sce.data.build import build_missing, open_splits
from sce.data.encode import Encoder
from sce.data.plan import Plan, plan_splits
from sce.data.splits import Overlap
from sce.data.table import Split
from sce.data_options import MAX_NEW_TOKENS
from sce.decode import DecodeSettings
from sce.errors import InputError
from sce.heads import SCORERS
from sce.heads.trace import canonical_ids
from sce.model import attention, build, extras, rope
from sce.model.backends import best_device
from sce.model.source import Source, find, load_config, load_tokenizer
from sce.options import LoraOptions
from sce.records import RunFacts
from sce.reference import greedy_sibling


@dataclass(frozen=True)
class Parts:
    """Everything but the weights, which load last."""

    config: RunConfig
    source: Source
    attention: attention.Choice
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    plan: Plan
    own_rope_theta: float | None
    max_positions: int | None
    window: int | None
    """Tokens that a sliding-window model attends to; None: all."""
    shape: tuple[int, int]
    """(layers, query heads a layer)."""

    @cached_property
    def built(self) -> tuple[dict[str, Split], Overlap]:
        """The planned splits, built where they never were, and what was compared between them.

        Raises:
            InputError: prompts, or the answers behind them, that the model has no positions for.
        """
        built = open_splits(build_missing(self.plan, self.encoder))
        self._require_positions(max(self._positions_taken(split) for split in built[0].values()))
        return built

    @property
    def splits(self) -> dict[str, Split]:
        """The planned splits, mapped into memory."""
        return self.built[0]

    def _positions_taken(self, split: Split) -> int:
        """Tokens of the longest prompt and answer together, the gold one or one that is emitted."""
        column = split.table.data.column("target_ids")
        # pyarrow makes its functions when it is imported, where pyright cannot see them.
        targets = pc.list_value_length(column).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
        trained = split.name == "train" and isinstance(self.config, TrainConfig)
        answers = targets if trained else np.maximum(targets, self.max_new_tokens)
        return int((split.column("length") + answers).max())

    def _require_positions(self, longest: int) -> None:
        """Refuse what is longer than the model was made for, unless its RoPE is stretched."""
        options, limit, own = self.config.model, self.max_positions, self.own_rope_theta
        larger = own is not None and options.rope_theta is not None and options.rope_theta > own
        if limit is None or larger:
            return
        if options.scaling is not None:
            limit = rope.positions(limit, options.scaling)
        if longest <= limit:
            return
        advice = "lower data.context_tokens or data.num_documents"
        if own is not None:
            factor = math.ceil(longest / (self.max_positions or limit))
            advice += (
                f", or change RoPE: 'model.rope_scaling={{type: yarn, factor: {factor}}}', or a "
                f"model.rope_theta above its own {own:g}"
            )
        raise InputError(
            f"prompts with their answers take up to {longest} tokens, but {self.source.name} has "
            f"positions for {limit}; {advice}"
        )

    @property
    def max_new_tokens(self) -> int:
        """Greedy tokens an answer at most."""
        return self.config.max_new_tokens or MAX_NEW_TOKENS[self.config.data.task]

    def detokenize(self, ids: Sequence[int]) -> str:
        """An answer's text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def assemble(
    config: RunConfig, names: Iterable[str], *, on_gpu: bool, adapter: Path | None = None
) -> Parts:
    """Check what was asked for, then find the model and plan the named splits.

    Args:
        config: of the run.
        names: the splits to plan.
        on_gpu: whether the model will run on a GPU.
        adapter: folder of an adapter that the model will carry.

    Raises:
        InputError: anything that the user can mend; nothing has been written by then.
    """
    scorer = SCORERS.get(config.scorer.name)
    if scorer is None:
        raise InputError(f"scorer={config.scorer.name}: choose from {', '.join(SCORERS)}")
    refusal = scorer.SPEC.refusal(config.scorer.name, config.mode, config.data.task)
    if refusal is not None:
        raise InputError(refusal)
    extras.require_usable(config.model, getattr(config, "lora", None), on_gpu=on_gpu)
    choice = attention.choose(config.attention, on_gpu=on_gpu, dtype=config.model.dtype)
    source = find(config.model)
    if adapter is not None:
        build.fit_options_to_adapter(config.model, source, adapter)
    own = load_config(source)
    for name in ("rope_theta", "rope_scaling"):
        if (asked := getattr(config.model, name)) is not None:
            rope.require_rope(own, f"model.{name}={asked}")
    tokenizer = load_tokenizer(source)
    encoder = Encoder(tokenizer)
    plan = plan_splits(config.data, encoder, config.seed, names)
    text = own.get_text_config()
    return Parts(
        config=config,
        source=source,
        attention=choice,
        tokenizer=tokenizer,
        encoder=encoder,
        plan=plan,
        own_rope_theta=rope.rope_theta(own),
        max_positions=getattr(text, "max_position_embeddings", None),
        window=build.sliding_window(own),
        shape=(int(text.num_hidden_layers), int(text.num_attention_heads)),
    )


def settings(
    parts: Parts, model: nn.Module, *, scorers: tuple[str, ...], modes: tuple[str, ...]
) -> DecodeSettings:
    """What a pass yields; end tokens and surface texts are the model's and tokenizer's."""
    config = parts.config
    canonical = None
    if config.match == "surface":
        ids = range(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        canonical = canonical_ids(parts.tokenizer.batch_decode([[i] for i in ids]))
    return DecodeSettings(
        max_new_tokens=parts.max_new_tokens,
        end_ids=frozenset(build.end_token_ids(model)),
        scorers=scorers,
        modes=modes,
        canonical=canonical,
        detokenize=lambda ids: str(parts.tokenizer.decode(list(ids))),
    )


def model_builder(parts: Parts, lora: LoraOptions) -> Callable[[], nn.Module]:
    """Builds what is trained: the base model with a new adapter, drawn from the run's seed."""

    def make() -> nn.Module:
        model = build.load_model(parts.source, parts.config.model, parts.attention)
        torch.manual_seed(parts.config.seed)
        return build.tune(model, lora)

    return make


def scored_model(parts: Parts, adapter: Path | None) -> nn.Module:
    """The model to score, in eval mode on the best device.

    Raises:
        InputError: what it has no positions for; found before its weights load.
    """
    _ = parts.splits
    base = build.load_model(parts.source, parts.config.model, parts.attention)
    model = base if adapter is None else build.load_adapter(base, adapter)
    # transformers wraps `to` in a decorator that loses its signature.
    return model.to(best_device()).eval()  # pyright: ignore[reportArgumentType]


def facts(parts: Parts, *, run: str, run_dir: Path, study: str | None = None) -> RunFacts:
    """What identifies a run; splits that were not built leave their field empty."""
    config, splits = parts.config, parts.splits
    concept, context = config.data.training
    scored = splits.get("reference") or next(iter(splits.values()))
    packages = ("sce", "torch", "transformers", "peft", "lightning")
    return RunFacts(
        run=run,
        run_dir=run_dir,
        seed=config.seed,
        task=config.data.task,
        concept=concept,
        context=context,
        train_sha256=_identity(splits, "train"),
        eval_sha256=_identity(splits, "val"),
        reference_sha256=_identity(splits, "reference"),
        prompt_sha256=parts.encoder.prompt_sha256(config.data.task),
        weights_sha256=parts.source.sha256,
        scorer=config.scorer.name,
        mode=config.mode,
        match=config.match,
        tau=config.scorer.tau,
        k=config.scorer.k,
        context_tokens=scored.max_prompt_tokens,
        shape=parts.shape,
        study=study,
        mix=config.data.mix_text,
        limited=config.data.limited,
        num_train=splits["train"].card["num_examples"] if "train" in splits else 0,
        rope=rope.in_use(load_config(parts.source), config.model.rope_theta, config.model.scaling),
        model=config.model.name_or_path,
        revision=_revision(parts.source),
        dtype=config.model.quantization or config.model.dtype,
        attention=parts.attention.backend,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    )


def recipe(config: TrainConfig, parts: Parts, world_size: int) -> dict[str, Any]:
    """What a run that goes on must not change, besides model and data, by the options' names.

    Raises:
        InputError: fewer examples than one optimiser step takes.
    """
    trainer = config.trainer
    a_step = config.batch.train * trainer.accumulate_grad_batches * world_size
    num_train = parts.splits["train"].card["num_examples"] // config.data.questions_per_context
    if num_train < a_step:
        raise InputError(
            f"data.train has {num_train} contexts, fewer than the {a_step} of one optimiser step: "
            f"batch.train={config.batch.train} x {trainer.accumulate_grad_batches} batches x "
            f"{world_size} devices"
        )
    groups = ("lora", "optimizer", "scorer")
    options = {f"{g}.{n}": v for g in groups for n, v in asdict(getattr(config, g)).items()}
    options |= {"trainer.precision": trainer.precision, "batch.eval": config.batch.eval}
    options |= {"trainer.gradient_clip_val": trainer.gradient_clip_val}
    options |= {"max_new_tokens": parts.max_new_tokens, "data.label": config.data.label}
    # Lightning's counters at an epoch's end are those of the interval that they were saved under.
    options |= {"val_every": config.val_every, "version of the training code": code_sha256()[:12]}
    reference = None if config.reference.path is None else _files_sha256(config.reference.path)
    return {**options, "sha256 of reference.path": reference, "examples a step": a_step}


def _files_sha256(reference: str) -> str:
    """Identity of a reference's file, together with the greedy one beside it."""
    files = (Path(reference), greedy_sibling(Path(reference)))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file)).hexdigest()


def _revision(source: Source) -> str | None:
    """The commit that the hub's files are of, else what the user asked for."""
    commit = getattr(load_config(source), "_commit_hash", None)
    return commit or source.revision


def _identity(splits: dict[str, Split], name: str) -> str:
    return splits[name].sha256 if name in splits else ""


def context_warnings(parts: Parts) -> list[str]:
    """What the model cannot see by its make: evidence too far away."""
    warnings = []
    for name, split in parts.splits.items():
        if parts.window is None:
            break
        # By the first evidence token: with several needles the farthest counts.
        lengths = split.column("length")
        far = int(((1 - split.column("depth")) * lengths > parts.window).sum())
        if far:
            warnings.append(
                f"{name}: evidence of {far} of {len(lengths)} examples lies beyond the "
                f"model's window of {parts.window} tokens; there every head scores 0 by structure"
            )
    return warnings
