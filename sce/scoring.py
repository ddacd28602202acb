"""Heads of a model that is in memory already, whoever built it.

    import sce
    scores = sce.score_heads(model, tokenizer, "questions.jsonl")
    print(sce.top(scores, 10))

The model is scored as it stands, adapters included, and left as it was found: its attention, the
mode of every part of it, and the random generators.
"""

import hashlib
import json
import logging
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from sce.data.batch import collate, deal_batches
from sce.data.encode import Encoder
from sce.data.example import Example
from sce.data.sources import read_questions
from sce.data_options import MAX_NEW_TOKENS
from sce.decode import DecodeSettings, Outcome, decode
from sce.errors import InputError
from sce.heads import GREEDY, SCORERS, TEACHER_FORCED
from sce.heads.trace import canonical_ids
from sce.model.borrowed import adapter_sha256, borrowed
from sce.model.build import base_of, end_token_ids
from sce.model.rope import rope_theta
from sce.records import MATCHES, HeadScores
from sce.stats import mean_scores, num_kept, top_heads

Examples = str | Path | Example | Mapping[str, Any] | Iterable[Example | Mapping[str, Any]]
_PACKAGES = ("sce", "torch", "transformers", "peft")
_log = logging.getLogger("sce")


@dataclass(frozen=True)
class Scored:
    """Which score is taken, and how.

    Raises:
        InputError: a value that is unknown or out of range.
    """

    scorer: str = "copy"
    mode: str = TEACHER_FORCED
    match: str = "exact"
    batch_size: int = 8
    """Examples a forward pass."""
    max_new_tokens: int | None = None
    """Greedy tokens an answer at most; None: as many as the task's answers take."""

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise InputError(f"scorer={self.scorer}: choose from {', '.join(SCORERS)}")
        if self.match not in MATCHES:
            raise InputError(f"match={self.match}: choose from {', '.join(MATCHES)}")
        for name in ("batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be >= 1, got {value}")

    def require_defined(self, examples: Sequence[Example]) -> None:
        """Raise InputError unless the scorer is defined in this mode for the examples' task."""
        spec = SCORERS[self.scorer].SPEC
        refusal = spec.refusal(self.scorer, self.mode, examples[0].task)
        if refusal is not None:
            raise InputError(refusal)


def score_heads(  # noqa: PLR0913 - what a user chooses in one call
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    *,
    scorer: str = "copy",
    mode: str = TEACHER_FORCED,
    match: str = "exact",
    batch_size: int = 8,
    max_new_tokens: int | None = None,
) -> HeadScores:
    """Score every head of a model on some examples.

    Args:
        model: a causal LM of transformers on one device, with or without a PEFT adapter, under any
            attention that goes through AttentionInterface.
        tokenizer: the model's own, a fast one.
        examples: a path that sce.data.sources reads, Examples, or dicts of Example JSONL, or one
            alone. Each is asked over its own documents; none is added.
        scorer: a module of sce.heads.
        mode: teacher_forced, greedy or prefill, as the scorer is defined.
        match: exact or surface.
        batch_size: examples a forward pass.
        max_new_tokens: of a greedy answer; None: as many as the task's answers take.

    Returns:
        The mean over the examples that the scorer kept; `per_example` holds all, in the order of
        their ids. The provenance knows the adapter by its hash. The weights under it are not
        hashed (`weights_sha256` is None), which for a large model takes longer than scoring it.

    Raises:
        InputError: examples that are wrong, of several tasks, or none; a slow tokenizer, or one of
            another model; a scorer, mode or match that is unknown or not defined for the task; a
            model that is no causal LM of transformers, or whose heads cannot be read.
    """
    how = Scored(scorer, mode, match, batch_size, max_new_tokens)
    return Scoring(tokenizer, read_examples(examples), how).score(model)


def top(scores: HeadScores, k: int) -> list[tuple[int, int, float]]:
    """The `k` best heads as (layer, head, score), the best first, ties by (layer, head).

    Fewer than `k` where fewer score above 0.

    Raises:
        InputError: `k` is below 1 or above the number of heads.
    """
    if not 1 <= k <= scores.scores.size:
        raise InputError(f"k={k}: choose from 1 to {scores.scores.size}, the number of heads")
    chosen = np.argwhere(top_heads(scores.scores, k)).tolist()
    found = [(layer, head, float(scores.scores[layer, head])) for layer, head in chosen]
    return sorted(found, key=lambda row: (-row[2], row[:2]))


def read_examples(examples: Examples) -> list[Example]:
    """The examples of a path or a list.

    Raises:
        InputError: names what is wrong and where: a row, several tasks, an id that stands twice, or
            no example at all.
    """
    if isinstance(examples, (str, Path)):
        found = read_questions(str(examples))
    else:
        rows = [examples] if isinstance(examples, (Example, Mapping)) else examples
        found = [_example(number, row) for number, row in enumerate(rows)]
    if not found:
        raise InputError("examples: there are none; give a path, or a list of one or more")
    tasks = sorted({example.task for example in found})
    if len(tasks) > 1:
        raise InputError(f"examples: of several tasks ({', '.join(tasks)}); score one at a time")
    example_id, count = Counter(example.id for example in found).most_common(1)[0]
    if count > 1:
        raise InputError(f"examples: the id {example_id} stands {count} times; make ids differ")
    return found


def _example(number: int, row: Any) -> Example:
    try:
        if isinstance(row, Example):
            row.check()
            return row
        if isinstance(row, Mapping):
            return Example.from_json(row)
    except InputError as error:
        raise InputError(f"examples[{number}]: {error}") from None
    raise InputError(f"examples[{number}]: a {type(row).__name__}, not an Example or a dict of one")


class Scoring:
    """Examples in token ids, ready for any model of one tokenizer, any number of times.

    Raises:
        InputError: no tokenizer or a slow one, an example that cannot be encoded, or a scorer that
            is not defined for the examples' task.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], how: Scored
    ) -> None:
        self.how, self._tokenizer, self._task = how, tokenizer, examples[0].task
        how.require_defined(examples)
        if not hasattr(tokenizer, "is_fast"):
            raise InputError(
                f"tokenizer: a {type(tokenizer).__name__}, not a tokenizer of transformers; give "
                "the model's own, as AutoTokenizer loads it"
            )
        _warn_of_bare_evidence(examples)
        encoder = Encoder(tokenizer)
        self._encoded = [encoder.encode(example) for example in examples]
        self._lengths = [len(example.prompt_ids) for example in self._encoded]
        self.origin = {
            "data_sha256": data_sha256(examples),
            "prompt_sha256": encoder.prompt_sha256(self._task),
            "context_tokens": max(self._lengths),
        }

    def score(self, model: nn.Module) -> HeadScores:
        """Score a model as it stands; see `score_heads`."""
        how = self.how
        with borrowed(model) as inner:
            outcomes = self._outcomes(inner)
            origin = self._provenance(inner)
        rows = [outcome.scores[how.scorer, how.mode].double().numpy() for outcome in outcomes]
        per_example = np.stack(rows)
        if not num_kept(per_example):
            raise InputError(
                f"scorer={how.scorer}: it kept none of the {len(rows)} examples, since no answer "
                "is near enough to the right one; use scorer=copy mode=teacher_forced"
            )
        return HeadScores(
            scorer=how.scorer,
            mode=how.mode,
            match=how.match,
            scores=mean_scores(per_example),
            num_examples=num_kept(per_example),
            per_example=per_example,
            provenance={**origin, "num_offered": len(rows)},
        )

    def _outcomes(self, model: nn.Module) -> list[Outcome]:
        """What came out for every example, by id."""
        self._require_own_tokenizer(model)
        settings, device = self._settings(model), next(model.parameters()).device
        outcomes: list[Outcome] = []
        for batch in deal_batches(self._lengths, self.how.batch_size, world_size=1):
            # Without a DataLoader, which would draw from torch's global generator.
            examples = collate([self._encoded[index] for index in batch])
            outcomes += decode(model, examples.to(device), settings)
        return sorted(outcomes, key=lambda outcome: outcome.example.id)

    def _settings(self, model: nn.Module) -> DecodeSettings:
        how, tokenizer, canonical = self.how, self._tokenizer, None
        if how.match == "surface":
            ids = range(_num_embeddings(model))
            canonical = canonical_ids(tokenizer.batch_decode([[i] for i in ids]))
        most = how.max_new_tokens or MAX_NEW_TOKENS[self._task]
        return DecodeSettings(
            max_new_tokens=most if how.mode == GREEDY else 0,
            end_ids=frozenset(end_token_ids(model)),
            scorers=(how.scorer,),
            modes=(how.mode,),
            canonical=canonical,
            detokenize=lambda ids: str(tokenizer.decode(list(ids))),
        )

    def _require_own_tokenizer(self, model: nn.Module) -> None:
        largest, known = max(int(e.prompt_ids.max()) for e in self._encoded), _num_embeddings(model)
        if largest >= known:
            raise InputError(
                f"the tokenizer gives token {largest}, but the model knows {known} tokens: give "
                "the model's own tokenizer"
            )
        limit = getattr(base_of(model).config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and max(self._lengths) > limit:
            longest = max(self._lengths)
            _log.warning("prompts of up to %d tokens; the model was made for %d", longest, limit)

    def _provenance(self, model: nn.Module) -> dict[str, Any]:
        base = base_of(model)
        theta = rope_theta(base.config)
        versions = {name: version(name) for name in _PACKAGES}
        return {
            "model": base.name_or_path,
            "dtype": str(base.dtype).removeprefix("torch."),
            "weights_sha256": None,
            "adapter_sha256": adapter_sha256(model),
            **self.origin,
            "seed": None,
            "rope": {"theta": theta, "was": theta},
            "versions": {"python": platform.python_version(), **versions},
        }


def _warn_of_bare_evidence(examples: Sequence[Example]) -> None:
    """A needle without its haystack: whatever looks at a document there looks at evidence."""
    if all(document.id in e.gold_ids for e in examples for document in e.documents):
        _log.warning(
            "examples: every document of every example (such as %s) holds evidence, so heads have "
            "nothing else to look at; no document is added here, so give examples with others too, "
            "such as python -m sce.dataset writes",
            examples[0].id,
        )


def data_sha256(examples: Iterable[Example]) -> str:
    """Identity of composed examples, text and order: that of a built split which holds the same."""
    digests = []
    for example in examples:
        text = json.dumps(example.to_json(), sort_keys=True, ensure_ascii=False)
        digests.append(hashlib.sha256(text.encode()).hexdigest())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _num_embeddings(model: nn.Module) -> int:
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
