"""What python -m sce.intervene runs: sets chosen, models loaded, every set answered."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sce.assemble import Parts, assemble, context_warnings, facts, scored_model, settings
from sce.data.batch import Batch
from sce.data.encode import Encoded
from sce.data.loader import eval_loader
from sce.intervene_options import InterveneConfig
from sce.interventions.answering import (
    SOURCE,
    TARGET,
    WAYS,
    Act,
    Answering,
    Patchings,
)
from sce.interventions.closed_book import SHIPPED, closed_book
from sce.interventions.controls import LAYER_MATCHED, UNIFORM, Condition
from sce.interventions.effects import Answers
from sce.interventions.knockout import head_means, knockout
from sce.interventions.select import NO_HEADS, Heads, all_heads
from sce.interventions.sets import (
    RANDOM,
    empty_warnings,
    knocked_out,
    moved_warnings,
    patched_sets,
    read_scores,
    with_controls,
)
from sce.model.adapters import (
    UNTUNED,
    load_adapters,
    require_rope_of_base,
    require_same_base,
)
from sce.model.backends import best_device
from sce.model.build import fit_options_to_adapter, load_model, read_adapter_note
from sce.model.projections import head_outputs
from sce.model.weights import weights_sha256
from sce.records import HeadScores, provenance

KNOCKOUT = ""
"""In the place of a direction, where there is none."""
_log = logging.getLogger("sce")


@dataclass
class Answered:
    """All that the numbers are made of."""

    conditions: list[Condition]
    answers: dict[str, dict[Heads, Answers]]
    """Direction, or KNOCKOUT -> set -> answers; NO_HEADS is no intervention."""
    givers: dict[str, Answers] = field(default_factory=dict)
    """Direction -> answers of the model whose outputs are patched in."""
    known: dict[Heads, np.ndarray] | None = None
    """Set -> of the closed-book questions that are answered right without ablation, 1 where they
    still are; None: not asked."""
    known_ids: list[str] = field(default_factory=list)
    """Which questions those are."""
    num_asked: int = 0
    """Closed-book questions there are."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Provenance, score files and warnings."""


def answer_knocked_out(config: InterveneConfig) -> Answered:
    """Answer the split with every set ablated.

    Raises:
        InputError: the user's input is wrong; found before the weights load where it can be.
    """
    adapter = _folder(config.adapter)
    names = [config.split, *([config.calibration] if config.ablation == "mean" else [])]
    parts = parts_of(config, names, adapter)
    scores = read_scores(config, parts.shape, parts.source.sha256)
    chosen = knocked_out(config, scores, parts.shape)
    questions = _questions(config, parts)
    model = scored_model(parts, adapter)
    headless, kinds = _headless(parts, model), (LAYER_MATCHED, UNIFORM)
    conditions = with_controls(config, chosen, parts.shape, kinds=kinds, headless=headless)
    sets = [NO_HEADS, *dict.fromkeys(c.heads for c in conditions)]
    answering, act = answering_of(config, parts, model), _ablating(config, parts, model)
    share = config.positions == "answer"
    encoded = parts.splits[config.split].encoded
    outcomes = answering.each(encoded, sets, act, share_context=share)
    found = Answered(conditions, {KNOCKOUT: {h: answering.answers(o) for h, o in outcomes.items()}})
    if questions:
        _ask(found, answering, questions, act, share_context=share)
    found.facts = _facts(config, parts, scores, {"adapter": adapter}, conditions)
    return found


def _ask(
    found: Answered,
    answering: Answering,
    questions: Sequence[Encoded],
    act: Act,
    *,
    share_context: bool,
) -> None:
    """Put the closed-book questions to every ablated model, and keep those that the model knows.

    All are put, in the same batches as without ablation: batches of the known ones alone round
    otherwise, which in bfloat16 turns an answer now and then with nothing ablated.
    """
    ablated = [heads for heads in found.answers[KNOCKOUT] if heads]
    (before,) = answering.each(questions, [NO_HEADS], act, share_context=share_context).values()
    known = answering.right(before) == 1
    found.num_asked = len(questions)
    found.known_ids = [o.example.id for o, yes in zip(before, known, strict=True) if yes]
    sets = ablated if known.any() else []
    outcomes = answering.each(questions, sets, act, share_context=share_context) if sets else {}
    found.known = {heads: np.zeros(0) for heads in ablated}
    found.known |= {heads: answering.right(o)[known] for heads, o in outcomes.items()}
    found.known[NO_HEADS] = np.ones(len(found.known_ids))
    _log.info("closed book: %d of %d questions answered right", known.sum(), len(questions))


def answer_patched(config: InterveneConfig) -> Answered:
    """Answer the split with every set patched, in one direction or both.

    Raises:
        InputError: the user's input is wrong; found before the weights load where it can be.
    """
    folders = {SOURCE: _folder(config.source), TARGET: _folder(config.target)}
    given = {name: folder for name, folder in folders.items() if folder is not None}
    require_same_base(given)
    asked = replace(config.model)  # the adapter's own is filled in where something is left out
    first, *others = given.values()
    parts = parts_of(config, [config.split], first)
    if len(given) < len(folders):
        require_rope_of_base(given, parts.own_rope_theta, asked)
    for folder in others:
        fit_options_to_adapter(config.model, parts.source, folder)
    scores = read_scores(config, parts.shape, parts.source.sha256)
    chosen = patched_sets(config, scores, parts.shape)
    examples = parts.splits[config.split].encoded  # prompts too long for the model are refused here
    model = load_adapters(load_model(parts.source, config.model, parts.attention), given)
    model = model.to(best_device()).eval()
    headless = _headless(parts, model)
    chosen = [replace(c, heads=c.heads - headless) for c in chosen]
    kinds = (LAYER_MATCHED,) if RANDOM in config.sets else ()
    conditions = with_controls(config, chosen, parts.shape, kinds=kinds, headless=headless)
    answering = answering_of(config, parts, model)
    ways = [way for way in WAYS if config.direction in (way, "both")]
    outcomes = answering.patched(
        examples,
        {name: name if name in given else UNTUNED for name in folders},
        list(dict.fromkeys(c.heads for c in conditions)),
        ways,
    )
    found = _measured(conditions, answering, outcomes)
    found.facts = _facts(config, parts, scores, folders, conditions)
    return found


def _measured(conditions: list[Condition], answering: Answering, outcomes: Patchings) -> Answered:
    """Who is patched stands under NO_HEADS, whose outputs are taken apart, in every direction."""
    own = {name: answering.answers(o) for name, o in outcomes.originals.items()}
    found = Answered(conditions, {})
    for way, by_set in outcomes.patched.items():
        giver, taker = WAYS[way]
        found.givers[way] = own[giver]
        after = {heads: answering.answers(o) for heads, o in by_set.items()}
        found.answers[way] = {NO_HEADS: own[taker], **after}
    return found


def answering_of(config: InterveneConfig, parts: Parts, model: nn.Module) -> Answering:
    """How the split's questions are answered, without reading any head."""
    wanted = settings(parts, model, scorers=(), modes=())
    return Answering(model, wanted, parts.detokenize, config.data.task, config.batch.eval)


def _folder(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def parts_of(config: InterveneConfig, names: list[str], adapter: Path | None) -> Parts:
    """Data and model source, with the attention that was taken said."""
    parts = assemble(config, names, on_gpu=best_device().type == "cuda", adapter=adapter)
    for line in parts.attention.lines:
        _log.info(line)
    return parts


def _headless(parts: Parts, model: nn.Module) -> Heads:
    """Cells (layer, head) of layers that have no heads."""
    layers = head_outputs(model, parts.shape[1])
    return frozenset(head for head in all_heads(parts.shape) if head[0] not in layers)


def _questions(config: InterveneConfig, parts: Parts) -> list[Encoded]:
    if config.closed_book is None:
        return []
    shipped = config.closed_book == "sample"
    file = SHIPPED if shipped else Path(config.closed_book)
    return closed_book(parts.tokenizer, file)


def _ablating(config: InterveneConfig, parts: Parts, model: nn.Module) -> Act:
    """The ablation of the config, as something to enter for a batch and a set."""
    means = None
    if config.ablation == "mean":
        device = next(model.parameters()).device
        loader = eval_loader(parts.splits[config.calibration].encoded, config.batch.eval)
        batches = (batch.to(device) for batch in loader)
        means = head_means(model, batches, positions=config.positions)

    def act(batch: Batch, heads: Heads) -> AbstractContextManager[Any]:
        if not heads:
            return nullcontext()
        first = batch.num_prompt - 1 if config.positions == "answer" else None
        return knockout(model, heads, mode=config.ablation, from_column=first, means=means)

    return act


def _facts(
    config: InterveneConfig,
    parts: Parts,
    scores: dict[str, HeadScores],
    adapters: dict[str, Path | None],
    conditions: Sequence[Condition],
) -> dict[str, Any]:
    """Where everything comes from, and what to be wary of."""
    known = facts(parts, run=config.out, run_dir=Path(config.out))
    split = parts.splits[config.split]
    more = {"data_sha256": split.sha256, "context_tokens": split.max_prompt_tokens}
    files = {
        file: {
            "scorer": s.scorer,
            "mode": s.mode,
            "match": s.match,
            "num_examples": s.num_examples,
            "adapter_sha256": s.provenance.get("adapter_sha256"),
            "data_sha256": s.provenance.get("data_sha256"),
        }
        for file, s in scores.items()
    }
    identities = {name: identity_of(folder) for name, folder in adapters.items()}
    return {
        "provenance": {**provenance(known), **more, "adapters": identities},
        "score_files": files,
        "warnings": [
            *context_warnings(parts),
            *_warnings(scores, split.sha256),
            *moved_warnings(config, conditions),
            *empty_warnings(config, conditions),
            *_strangers(config, scores, identities),
        ],
    }


def identity_of(folder: Path | None) -> dict[str, Any] | None:
    """What is known of an adapter; None: the untuned model."""
    if folder is None:
        return None
    note = read_adapter_note(folder)
    kept = ("seed", "step", "concept", "context", "train_sha256")
    return {"sha256": weights_sha256(folder), **{name: note.get(name) for name in kept}}


def _strangers(
    config: InterveneConfig, scores: dict[str, HeadScores], identities: dict[str, Any]
) -> list[str]:
    """Score files that are of another adapter than the one they are used for."""
    owners = {str(config.source_scores): "source", str(config.target_scores): "target"}
    warnings = []
    for file, of_file in scores.items():
        owner = owners.get(file, "adapter")
        if owner in identities:
            own = (identities[owner] or {}).get("sha256")
            if of_file.provenance.get("adapter_sha256") != own:
                warnings.append(f"{file} was not scored with {owner}={getattr(config, owner)}")
    return warnings


def _warnings(scores: dict[str, HeadScores], data_sha256: str) -> list[str]:
    warnings = []
    for file, of_file in scores.items():
        if of_file.provenance.get("data_sha256") == data_sha256:
            warnings.append(f"{file} was scored on the very examples that are answered here")
        if not of_file.provenance.get("weights_sha256"):
            warnings.append(f"{file} does not say which weights it was scored on")
    return warnings
